"""From images a second and memory to the tables of hours, for a card that is not here."""

from __future__ import annotations

import pytest

import recipe
from benchmarks import costs, gpu_check
from benchmarks.gpu_check import Part

MEASURED = {"bf16": 3000.0, "tf32": 1500.0, "float32": 300.0}


@pytest.fixture
def rows():
    return [row for name, images in MEASURED.items() for row in costs.told(
        recipe.PAPER, name, [[120, images, 7079.4], [60, None, 4100.0], [30, None, 2900.0], [15, None, 2300.0]], "NVIDIA X1")]  # fmt: skip


def cells(page: str, what: str) -> list:
    line, = (line for line in page.splitlines() if line.startswith(f"| {what} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_hours_of_the_papers_run(rows):
    page = costs.tables(rows)
    assert "Hours on one NVIDIA X1" in page and "| what | million images | float32 | tf32 | bf16 |" in page
    step = 110_000 * 120  # section 3.4
    assert cells(page, "step 2, one net") == ["13.2", f"{step / 300 / 3600:.3g}", f"{step / 1500 / 3600:.3g}", "1.22"]
    assert cells(page, "all 9 trainings of the three nets")[-1] == f"{9 * step / 3000 / 3600:.3g}"


def test_each_training_of_the_tables_counts_once():
    """Counted by hand. Table 2: five times step 4, step 3 from step 1 and from step 2, one step 2. Table 3: seven nets and
    five crops. Both: GNet's three steps with all before them are in either."""
    step = 110_000 * 120
    images = costs.images_of(recipe.PAPER)
    assert images["Table 2"] == (5 + 2 + 1) * step and images["Table 3"] == (7 + 7 + 5) * step
    assert images["both tables, what they share counted once"] == (8 + 19 - 3) * step
    assert images["all 9 trainings of the three nets"] == 9 * step


def test_memory_of_the_passes_of_a_batch(rows):
    page = costs.tables(rows)
    assert "| `ITER_SIZE` | images a pass | float32 | tf32 | bf16 |" in page
    assert "| 1 | 120 | 7,079 | 7,079 | 7,079 |" in page and "| 8 | 15 | 2,300 | 2,300 | 2,300 |" in page


def test_a_precision_that_was_not_measured_has_no_column(rows):
    page = costs.tables([row for row in rows if "float32" not in row.what])
    assert "| what | million images | tf32 | bf16 |" in page and costs.tables([]) == ""


def test_the_page_of_a_check_holds_the_tables(rows):
    page = gpu_check.page([Part("costs", [], 1.0, result="done", rows=rows), Part("chain", [], 1.0)], "a machine")
    assert "## Costs of the paper profile's run" in page and "| both tables, what they share counted once |" in page
    assert "| paper, batch 120, bf16: training; NVIDIA X1 | 3000 images/s |" in page
