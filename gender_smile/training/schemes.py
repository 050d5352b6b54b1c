"""Which trainings Tables 2 and 3 need, as rows of the chain, and which rows of a table each one answers.

    from gender_smile.training import schemes
    for row in schemes.trainings(schemes.table_rows(recipe.DEMO, [2, 3], seed=2016)):
        print(row.title, row.weights_in, "->", row.weights_out)

A step that rows of the tables share comes once: step 2 depends on the crop and the seed only, Table 2's last row is Table
3's scheme 3, and with the recipe's own numbers both are the chain that `make step4` trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import recipe
from gender_smile.training import chain


@dataclass(frozen=True)
class TableRow:
    """One cell of a table: the nets whose probabilities are averaged, each as the rows of the chain that lead to it."""

    table: int
    name: str  # the table's first column
    task: str
    paper: Optional[float]  # percent; None for a row of ours
    chains: Tuple[Tuple[chain.Row, ...], ...]  # of each net, step 1 first and step 4 last

    @property
    def key(self) -> Tuple[int, str, str]:
        return self.table, self.task, self.name

    @property
    def finals(self) -> Tuple[chain.Row, ...]:
        """Step 4 of each net."""
        return tuple(rows[-1] for rows in self.chains)


def table_rows(profile: recipe.Profile, tables: Sequence[int], seed: int, share: float = 1.0,
               precision: str = "float32", root: str = recipe.ROOT) -> List[TableRow]:
    """The cells of `tables` (2, 3), trained from `seed` for `share` of the recipe's iterations."""
    options: Dict[str, Any] = {"seed": seed, "share": share, "precision": precision, "root": root}
    cells = []
    if 2 in tables:
        net = recipe.NETS[recipe.TABLE2_NET]
        for name, before, accuracy in recipe.TABLE2:
            cells.append(TableRow(2, name, net.task, accuracy, (training_scheme(profile, net.key, before, **options),)))
    if 3 in tables:
        for name, gender_nets, gender, smile_nets, smile in recipe.TABLE3:
            for task, nets, paper in (("gender", gender_nets, gender), ("smile", smile_nets, smile)):
                if nets:
                    schemes = tuple(training_scheme(profile, net, (1, 2, 3), **options) for net in nets)
                    cells.append(TableRow(3, name, task, paper, schemes))
    return cells


def training_scheme(profile: recipe.Profile, net: str, before: Sequence[int], seed: int, share: float = 1.0,
                    precision: str = "float32", root: str = recipe.ROOT) -> Tuple[chain.Row, ...]:
    """Rows from step 1 to step 4 of `net`, of the steps `before` step 4 only those given (Table 2's training schemes)."""
    name = chain.variant_of(profile, seed=seed, share=share, precision=precision)
    rows: List[chain.Row] = []
    for step in (*before, 4):
        if step == 1:
            rows.append(chain.Row(profile, net, 1, root=root))
            continue
        skipped = [number for number in range(1, step) if number not in before]
        variant = "-".join(filter(None, (name, "without" + "".join(map(str, skipped)) if skipped else "")))
        start = (rows[-1].weights_out if rows else "") if variant else None
        rows.append(chain.Row(
            profile, net, step, root=root, start=start, variant=variant, precision=precision,
            max_iter=iterations(profile, step, share) if share != 1.0 else None,
            seed=seed if seed != profile.random_seed else None))
    return tuple(rows)


def iterations(profile: recipe.Profile, step: int, share: float) -> int:
    """`share` of the recipe's iterations of a step, at least one."""
    return max(1, round(share * profile.max_iter[step]))


def trainings(cells: Iterable[TableRow]) -> List[chain.Row]:
    """Every row that the cells need, once, in an order in which they can run: by steps, so that much is shared early."""
    by_weights: Dict[str, chain.Row] = {}
    for cell in cells:
        for rows in cell.chains:
            for row in rows:
                by_weights.setdefault(row.weights_out, row)
    return sorted(by_weights.values(), key=lambda row: row.step)


def arguments(row: chain.Row, keep: Sequence[str] = ()) -> List[str]:
    """What follows `python` to train `row`; `keep`: further options, the engine's for instance."""
    words = ["tools/train.py", "--step", str(row.step), "--net", row.net, "--profile", row.profile.name]
    for option, value in (("--seed", row.seed), ("--max-iter", row.max_iter)):
        words += [option, str(value)] if value is not None else []
    words += ["--precision", row.precision] if row.precision != "float32" else []
    if row.variant:
        words += ["--weights", row.weights_in or "none", "--variant", row.variant]
    elif row.own_variant:
        words += ["--variant", chain.NO_VARIANT]
    return [*words, *keep]
