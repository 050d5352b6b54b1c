"""The pages of make suspects and make report in Chromium: keys, the exported corrections, nothing fetched, no complaint."""

from __future__ import annotations

import re

import numpy as np
import pytest

import recipe
from lmdb_builders import corrections
from test_report import add_evaluation, add_faces, add_table, add_training
from test_web_page import browser  # noqa: F401, a fixture
from gender_smile.evaluation import suspects
from gender_smile.pages import html, suspects_page
from tools import report

pytestmark = pytest.mark.slow


def opened(browser, path):
    """(page, what it complained of, addresses it asked for) of a file."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(path.as_uri())
    return page, complaints, asked


def test_decisions_become_corrections(browser, tmp_path, monkeypatch):
    """Correct the first, keep the second, call the third undetermined, correct the fourth and undo it, skip to the last."""
    picture = html.data_url(np.full((20, 20, 3), 90, np.uint8))
    monkeypatch.setattr(suspects_page, "_photos", lambda profile, images: dict.fromkeys(images, picture))
    found = [suspects.Suspect(f'{name}.jpg', task, label, 0.1) for name, task, label in (
        ("=a", "gender", 0), ("b", "smile", 1), ("c", "smile", 1), ("d", "gender", 1), ('e,"e', "smile", 0))]
    path = tmp_path / "suspects.html"
    suspects_page.write(str(path), recipe.DEMO, found, 100)
    page, complaints, asked = opened(browser, path)
    assert page.locator("li").count() == 5 and page.locator("#save").is_disabled()
    for key in ("c", "k", "u", "c", "ArrowLeft", "x", "ArrowRight", "c"):
        page.keyboard.press(key)
    assert page.locator("#count").inner_text() == "4 of 5 decided, 3 corrected"
    assert [text.strip() for text in page.locator(".decision").all_inner_texts()] == [
        "\u2192 female", "kept", "\u2192 undetermined", "", "\u2192 smiling"]
    page.reload()  # decisions stay in the browser
    assert page.locator("#count").inner_text() == "4 of 5 decided, 3 corrected"
    with page.expect_download() as download:
        page.locator("#save").click()
    saved = tmp_path / "corrections.csv"
    download.value.save_as(saved)
    assert download.value.suggested_filename == "corrections.csv"
    assert {key: values[:2] for key, values in corrections.read(str(saved)).items()} == {
        ("=a.jpg", "Gender"): (0, 1), ("c.jpg", "Smile"): (1, 2), ('e,"e.jpg', "Smile"): (0, 1)}
    assert "\n'=a.jpg,Gender" in saved.read_text()  # which no spreadsheet runs
    assert complaints == [] and set(asked) == {path.as_uri()}
    page.close()


def test_report_opens_alone_and_fits(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    for stem in ("step1", "step2_scheme3", "step4_gnet"):
        add_training(tmp_path, stem)
    add_faces(tmp_path)
    add_evaluation(tmp_path)
    add_table(tmp_path)
    assert report.main(["--profile", "demo"]) == 0
    path = tmp_path / "runs" / "demo" / "report.html"
    page, complaints, asked = opened(browser, path)
    assert complaints == [] and asked == [path.as_uri()]
    pictures = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth > 0)")
    assert len(pictures) >= 12 and all(pictures)
    for width in (1100, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf())) >= 2
    page.close()


@pytest.mark.parametrize("target", ["#part4", "#part9"])
def test_links_of_the_report_lead_somewhere(browser, tmp_path, monkeypatch, target):
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    add_training(tmp_path, "step4_gnet")
    assert report.main(["--profile", "demo"]) == 0
    page, _, _ = opened(browser, tmp_path / "runs" / "demo" / "report.html")
    page.locator(f'a[href="{target}"]').click()
    assert page.locator(f"{target} h2").bounding_box()["y"] < 800
    page.close()
