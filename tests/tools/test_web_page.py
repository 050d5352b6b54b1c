"""The page in a browser: Chromium, without a window. Skipped where there is none (apt-get install chromium)."""

from __future__ import annotations

import base64
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import recipe
from detector.mtcnn import NETS, weights_path
from random_nets import write_random_nets
from page_client import running
from gender_smile.inference.pipeline import Pipeline

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: make lint or make cov installs it")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("needs Chromium: sudo apt-get install chromium")
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=path, args=[*camera, *sandbox])
        yield made
        made.close()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The demo's real nets with random weights and the real detector."""
    if not all(os.path.exists(weights_path(name)) for name in NETS):
        pytest.skip("needs weights/mtcnn: make setup")
    project = tmp_path_factory.mktemp("project")
    patch = pytest.MonkeyPatch()
    patch.setenv("GLOG_minloglevel", "2")
    patch.setattr(recipe, "ROOT", str(project))
    write_random_nets()
    yield Pipeline.load("demo", "torch", threshold=0)  # random nets are not sure of anything
    patch.undo()


@pytest.fixture
def page(browser, pipeline):
    """The page, opened at a desk; what it complains of in the console fails the test."""
    with running(pipeline, at_once=100) as (host, port):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        yield opened(context, f"http://{host}:{port}/")
        context.close()


def opened(context, address: str):
    found, wrong = context.new_page(), []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    found.wrong = wrong
    found.set_default_timeout(20_000)
    found.goto(address)
    return found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """name -> path: one face, two faces side by side, a landscape without any, and no photo."""
    import cv2
    from skimage import data

    folder = tmp_path_factory.mktemp("photos")
    one = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    cv2.imwrite(str(folder / "one.png"), one)
    cv2.imwrite(str(folder / "two.jpg"), np.hstack([one, one[:, ::-1]]))
    cv2.imwrite(str(folder / "none.png"), np.full((300, 300, 3), 130, np.uint8))
    (folder / "letter.pdf").write_bytes(b"%PDF-1.7 a letter")
    return {path.stem: str(path) for path in folder.iterdir()}


def upload(page, *paths: str) -> None:
    page.set_input_files("#file", list(paths))


def counted(page, selector: str, count: int) -> None:
    """Wait until the page has so many of these."""
    playwright.expect(page.locator(selector)).to_have_count(count)


def test_upload_and_result(page, photos, pipeline):
    upload(page, photos["one"])
    page.wait_for_selector("#result:not([hidden])")
    prediction = pipeline.predict(photos["one"])
    assert page.locator("#faces li").count() == 1
    assert page.inner_text(".gender strong") == prediction.gender.label
    assert page.inner_text(".smile strong") == prediction.smile.label
    assert page.inner_text(".gender output") == f"{min(100 * prediction.gender.probability, 99.9):.1f} %"
    box, photo = page.locator(".box").bounding_box(), page.locator("#preview").bounding_box()
    x, y, width, height = prediction.face.box
    for found, expected in ((box["x"] - photo["x"], x), (box["y"] - photo["y"], y), (box["width"], width), (box["height"], height)):
        assert found == pytest.approx(expected / 512 * photo["width"], abs=1.5)
    assert photo["width"] == pytest.approx(photo["height"], abs=1)  # a square photo is a square
    landmarks = page.eval_on_selector_all("#points circle", "all => all.map(one => { const at = one.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; })")
    expected = np.array([photo["x"], photo["y"]]) + prediction.face.landmarks / 512 * photo["width"]
    assert np.allclose(landmarks, expected, atol=1.5)
    sizes = page.eval_on_selector_all(".crops img", "all => all.map(image => image.naturalWidth)")
    assert sizes == [224, 224, 224]
    assert page.is_hidden("#error") and page.wrong == []


def test_uncertain_answers_are_told(page, photos, pipeline, monkeypatch):
    monkeypatch.setattr(pipeline, "threshold", 1.0)
    upload(page, photos["one"])
    page.wait_for_selector("#result:not([hidden])")
    prediction = pipeline.predict(photos["one"])
    assert page.inner_text(".gender strong") == f"{prediction.gender.label}, uncertain"
    assert page.inner_text(".box span") == f"{prediction.gender.label} (uncertain), {prediction.smile.label} (uncertain)"
    assert page.inner_text("#model").startswith("Nets: demo, ")


def test_where_the_nets_look(page, photos):
    upload(page, photos["one"])
    page.wait_for_selector("#result:not([hidden])")
    before = page.get_attribute(".crops img", "src")
    page.get_by_label("Show where the nets look").check(force=True)
    page.wait_for_selector("img[alt^='Where GNet looks']")
    assert page.get_attribute(".crops img", "src") != before
    upload(page, photos["two"])  # it stays so for the next photo
    page.wait_for_selector("#faces li:nth-child(2)")
    assert page.locator("img[alt^='Where']").count() == 6
    page.get_by_label("Show where the nets look").uncheck(force=True)
    page.wait_for_selector("img[alt='What GNet sees']")
    assert page.wrong == []


def test_several_faces(page, photos):
    upload(page, photos["two"])
    page.wait_for_selector("#faces li:nth-child(2)")
    assert page.inner_text("#status") == "2 faces."
    page.get_by_role("button", name="Face 2:").click()
    assert page.locator("#faces li").nth(1).get_attribute("class") == "chosen"


def test_several_photos(page, photos):
    """Each is answered and can be looked at; what is wrong with one is said with that one."""
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    upload(page, photos["two"], photos["letter"], photos["one"])
    strip = page.locator("#strip button")
    counted(page, "#strip img", 2)
    assert [button.get_attribute("aria-label") for button in strip.all()] == [
        "Photo 1 of 3, two.jpg: 2 faces", "Photo 2 of 3, letter.pdf: cannot be answered", "Photo 3 of 3, one.png: one face"]
    assert page.locator("#faces li").count() == 2 and page.locator("#strip [aria-current='true']").count() == 1
    strip.nth(2).focus()
    page.keyboard.press("Enter")
    counted(page, "#faces li", 1)
    assert strip.nth(2).get_attribute("aria-current") == "true" and page.evaluate("document.activeElement.ariaLabel").startswith("Photo 3")
    strip.nth(1).click()
    page.wait_for_selector("#error:not([hidden])")
    assert "not an image of a known format" in page.inner_text("#error") and page.is_hidden("#result")
    strip.nth(0).click()
    counted(page, "#faces li", 2)
    assert page.is_hidden("#error") and len(asked) == 3  # what was answered is not asked again
    page.get_by_label("Show where the nets look").check(force=True)
    page.wait_for_selector("img[alt^='Where GNet looks']")
    strip.nth(2).click()
    counted(page, "#faces li", 1)
    assert page.locator("img[alt^='Where']").count() == 3 and len(asked) == 5
    upload(page, photos["one"])
    page.wait_for_selector("#strip", state="hidden")
    assert page.wrong == []


def test_more_photos_than_may_come_at_once_wait_for_their_turn(browser, pipeline, photos):
    with running(pipeline, at_once=2) as (host, port):
        context = browser.new_context()
        page = opened(context, f"http://{host}:{port}/")
        refused = []
        page.on("response", lambda response: refused.append(response.status) if response.status == 429 else None)
        upload(page, *[photos["none"]] * 4)
        counted(page, "#strip img", 4)
        assert refused
        context.close()


def test_new_photos_replace_those_that_wait(page, photos):
    upload(page, photos["two"], photos["none"], photos["none"])
    upload(page, photos["one"])
    page.wait_for_selector("#faces li")
    counted(page, "body.busy", 0)
    page.wait_for_timeout(500)
    assert page.locator("#faces li").count() == 1 and page.is_hidden("#strip")


@pytest.mark.parametrize("name, size", [("one", 640), ("two", 1024)])
def test_the_picture_is_saved(page, photos, pipeline, name, size, tmp_path):
    """The photo at its size (640 pixels wide at least), its boxes in yellow, the answers and the nets written below."""
    upload(page, photos[name])
    page.wait_for_selector("#faces li")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save picture").click()
    assert download.value.suggested_filename == f"{name}-faces.jpg"
    download.value.save_as(tmp_path / "saved.jpg")
    saved = np.asarray(Image.open(tmp_path / "saved.jpg")).astype(int)
    height = size if name == "one" else 512
    assert saved.shape[1] == size and height + 40 < saved.shape[0] < height + 200
    for prediction in pipeline.predict_faces(photos[name], most=12):
        x, y, width, height_ = (value * size / (512 if name == "one" else 1024) for value in prediction.face.box)
        edge = saved[round(y + 0.3 * height_) : round(y + 0.7 * height_), round(x) - 2 : round(x) + 3]
        assert (np.abs(edge - (255, 211, 77)).max(axis=2).min(axis=1) < 60).mean() > 0.8
    below = saved[height:]
    assert (below.min(axis=2) > 240).mean() > 0.6 and (below.max(axis=2) < 90).sum() > 300  # dark words on white


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_screen_readers_and_keyboards(browser, pipeline, photos, scheme):
    """axe-core's rules on the page as it begins, with answers, with errors, with its camera open, at a desk and on a phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python: make lint").Axe()

    def check(what):
        found = [f"{what}: {one['id']} ({one['impact']}): {one['help']}: {one['nodes'][0]['html'][:200]}"
                 for one in axe.run(page).response["violations"] if one["impact"] in ("serious", "critical")]
        assert not found, "\n".join(found)

    with running(pipeline, at_once=100) as (host, port):
        for width in (1280, 390):
            context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500)
            page = opened(context, f"http://{host}:{port}/")
            check("start")
            upload(page, photos["one"])
            page.wait_for_selector("#faces li")
            check("one face")
            upload(page, photos["two"], photos["letter"])
            counted(page, "#strip img", 1)
            page.get_by_role("button", name="Face 2:").click()
            check("several photos, several faces")
            page.locator("#strip button").nth(1).click()
            page.wait_for_selector("#error:not([hidden])")
            check("error")
            page.click("#open-camera")
            page.wait_for_selector("#camera[open]")
            check("camera")
            context.close()


def test_without_javascript(browser, pipeline):
    with running(pipeline) as (host, port):
        context = browser.new_context(java_script_enabled=False)
        page = opened(context, f"http://{host}:{port}/")
        assert "needs JavaScript" in page.inner_text("noscript") and page.is_hidden("#open-camera")
        context.close()


@pytest.mark.parametrize("touch", [True, False])
def test_where_the_page_may_not_use_the_camera(browser, pipeline, photos, touch):
    """Over HTTP from another device there is no getUserMedia: a phone's camera app takes the photo."""
    with running(pipeline) as (host, port):
        context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=touch, is_mobile=touch)
        context.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
        page = opened(context, f"http://{host}:{port}/")
        assert page.is_hidden("#open-camera") and page.is_visible("#take") == touch
        if touch:
            assert page.get_attribute("#capture", "capture") == "user" and "rop" not in page.inner_text("#drop")
            with page.expect_file_chooser() as chooser:
                page.tap("#take")
            chooser.value.set_files(photos["one"])
            page.wait_for_selector("#faces li")
        context.close()


def test_errors_are_said_and_the_next_photo_is_answered(page, photos):
    upload(page, photos["letter"])
    page.wait_for_selector("#error:not([hidden])")
    assert "not an image of a known format" in page.inner_text("#error") and page.is_hidden("#result")
    upload(page, photos["none"])
    page.wait_for_selector("#result:not([hidden])")
    assert "No face was found" in page.inner_text("#error") and page.locator("#faces li").count() == 0
    upload(page, photos["one"])
    page.wait_for_selector("#faces li")
    assert page.is_hidden("#error")


def test_a_file_that_is_too_large_is_not_sent(browser, pipeline, photos):
    with running(pipeline, upload_bytes=1000) as (host, port):
        context = browser.new_context()
        page = opened(context, f"http://{host}:{port}/")
        sent = []
        page.on("request", lambda request: sent.append(request.method))
        upload(page, photos["one"])
        page.wait_for_selector("#error:not([hidden])")
        assert "smaller copy" in page.inner_text("#error") and "POST" not in sent
        context.close()


def test_a_server_that_is_gone(browser, pipeline, photos):
    with running(pipeline) as (host, port):
        page = opened(browser.new_context(), f"http://{host}:{port}/")
        page.wait_for_load_state("networkidle")
    upload(page, photos["one"])
    page.wait_for_selector("#error:not([hidden])")
    assert "Is it still running?" in page.inner_text("#error")
    page.context.close()


@pytest.mark.parametrize("number", range(3))
def test_examples(page, number):
    page.click(f"[data-example='{number}']")
    page.wait_for_selector("#faces li")
    assert page.is_hidden("#error")


def test_keyboard_alone(page):
    """Tab to the file, the camera, the first example; Enter; Space turns the heat maps on."""
    focused = []
    for _ in range(3):
        page.keyboard.press("Tab")
        focused.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.example"))
    assert focused == ["file", "open-camera", "0"]
    page.keyboard.press("Enter")
    page.wait_for_selector("#faces li")
    for _ in range(6):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "explain":
            break
    page.keyboard.press("Space")
    page.wait_for_selector("img[alt^='Where GNet looks']")


def test_drop_and_paste(page, photos):
    with open(photos["two"], "rb") as file:
        content = base64.b64encode(file.read()).decode()
    for event, field in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        page.reload()
        page.evaluate("""([event, field, content]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(atob(content), (one) => one.charCodeAt())], "two.jpg", { type: "image/jpeg" }));
            const made = new Event(event, { bubbles: true, cancelable: true });
            Object.defineProperty(made, field, { value: transfer });
            document.body.dispatchEvent(made);
        }""", [event, field, content])
        page.wait_for_selector("#faces li")


def test_camera(page):
    """Chromium's own test picture, a green field with a circle: taken as soon as it can be, sent, said to show no face."""
    page.evaluate("""() => {
        window.asked = 0;
        const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (wanted) => { asked += 1; return ask(wanted); };
        for (let clicks = 0; clicks < 2; clicks += 1) document.getElementById("open-camera").click();
    }""")
    page.wait_for_selector("#camera[open]")
    assert page.evaluate("document.getElementById('shutter').disabled || document.getElementById('video').videoWidth > 0")
    page.click("#shutter")
    page.wait_for_selector("#result:not([hidden])")
    assert "No face was found" in page.inner_text("#error")
    assert not page.evaluate("document.getElementById('camera').open")
    assert page.evaluate("document.getElementById('video').srcObject.getTracks().every(track => track.readyState === 'ended')")
    assert page.evaluate("asked") == 1 and page.wrong == []


def test_a_phone(browser, pipeline, photos):
    with running(pipeline) as (host, port):
        context = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
        page = opened(context, f"http://{host}:{port}/")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        upload(page, photos["two"])
        page.wait_for_selector("#faces li")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360  # nothing to scroll sideways
        heights = page.eval_on_selector_all(".button", "all => all.filter(one => one.offsetParent).map(one => one.offsetHeight)")
        assert min(heights) >= 44  # of a thumb
        context.close()


def test_on_a_phone_the_photo_stays_in_view_beside_its_faces(browser, pipeline, tmp_path):
    """Eight faces: scrolled to any of them, the photo is above, with that face marked; a box leads to its card."""
    import cv2
    from skimage import data

    face = data.astronaut()[:220, 120:340, ::-1]
    cv2.imwrite(str(tmp_path / "eight.jpg"), np.vstack([np.hstack([face] * 4)] * 2))
    with running(pipeline) as (host, port):
        context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
        page = opened(context, f"http://{host}:{port}/")
        upload(page, str(tmp_path / "eight.jpg"))
        page.wait_for_selector("#faces li:nth-child(8)")
        page.wait_for_timeout(300)
        assert page.evaluate("document.querySelector('#faces').offsetHeight") < 8 * 340
        for number in (2, 5, 8):
            page.locator(".box").nth(number - 1).click()
            page.wait_for_timeout(900)  # it scrolls smoothly
            photo, card = page.locator("#photo").bounding_box(), page.locator("#faces li").nth(number - 1).bounding_box()
            assert 0 <= photo["y"] and photo["y"] + photo["height"] <= card["y"] and card["y"] + 100 < 800
            assert page.locator(".box.chosen").count() == 1
        page.mouse.move(195, 700)
        page.mouse.wheel(0, -600)
        page.wait_for_timeout(500)
        chosen = page.eval_on_selector_all("#faces li", "all => all.findIndex((one) => one.classList.contains('chosen'))")
        assert 0 <= chosen < 7 and page.locator("#photo").bounding_box()["y"] >= 0
        context.close()


def test_two_people_at_once(browser, pipeline, photos):
    """Both upload before either is answered; each sees the own photo's answer."""
    with running(pipeline) as (host, port):
        contexts = [browser.new_context() for _ in range(2)]
        pages = [opened(context, f"http://{host}:{port}/") for context in contexts]
        for page, name in zip(pages, ("one", "two")):
            upload(page, photos[name])
        for page, count in zip(pages, (1, 2)):
            page.wait_for_selector("#result:not([hidden])")
            assert page.locator("#faces li").count() == count
        assert "512 × 512" in pages[0].inner_text("#found") and "1024 × 512" in pages[1].inner_text("#found")
        for context in contexts:
            context.close()
