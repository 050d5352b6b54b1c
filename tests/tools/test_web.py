"""The page's server, asked over HTTP: answers, refusals, limits, several people, and nothing on disk."""

from __future__ import annotations

import contextlib
import html
import io
import json
import os
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import recipe
from page_client import ask, begin_upload, file_of, picture, predict, running
from pipeline_fakes import install, photo
from tools import web
from gender_smile.inference.pipeline import Pipeline, PipelineError
from gender_smile.pages.web_app import HEADERS, Rate


@pytest.fixture
def pipeline(fake_project):
    """A pipeline whose GNet answers with the brightness of the crop."""
    install(fake_project, {"gnet": "bright", "snet1": 0.8, "snet2": 0.6})
    return Pipeline.load("demo")


def test_an_answer_is_the_pipelines(pipeline):
    with running(pipeline) as address:
        status, answer = predict(address, file_of(photo(255)))
    assert status == 200 and (answer["width"], answer["height"], answer["found"], answer["error"]) == (100, 100, 2, None)
    expected = [prediction.as_dict() for prediction in pipeline.predict_faces(photo(255))]
    assert [{name: one[name] for name in expected[0]} for one in answer["answers"]] == expected
    assert answer["answers"][0]["p_positive"] == pytest.approx({"gnet": 1.0, "snet1": 0.8, "snet2": 0.6})
    assert picture(answer["preview"]).size == (100, 100)
    crop = np.asarray(picture(answer["answers"][0]["crops"]["snet1"]))
    assert crop.shape == (224, 224, 3) and (crop == 255).all()
    assert answer["answers"][0]["heat"] == {}
    assert answer["model"] == pipeline.model.as_dict() and answer["model"]["profile"] == "demo"


@pytest.mark.parametrize("origin, told", [
    ({"trained_on": ["CelebA", "FotW"], "drawn": False}, "demo, trained on photographs of CelebA and FotW.</p>"),
    ({"trained_on": ["drawn faces"], "drawn": True}, "demo, trained on drawn faces. Do not rely on what they say of photographs.")])
def test_the_page_tells_which_nets_answer(pipeline, fake_project, origin, told):
    install(fake_project, {"gnet": "bright", "snet1": 0.8, "snet2": 0.6}, record=origin)
    with running(pipeline) as address:
        assert told in ask(address)[2].decode()
        assert predict(address, file_of(photo(0)))[1]["model"]["drawn"] is origin["drawn"]


def test_a_photo_is_turned_upright_and_sent_back_in_colors_and_at_a_screens_size(pipeline):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to show
    image = np.zeros((1000, 3000, 3), np.uint8)
    image[:] = (200, 100, 50)  # R, G, B
    with running(pipeline) as address:
        status, answer = predict(address, file_of(image, "JPEG", exif=exif))
    assert status == 200 and (answer["width"], answer["height"]) == (1000, 3000)
    preview = picture(answer["preview"])
    assert preview.size == (427, 1280)
    assert np.abs(np.asarray(preview)[600, 200].astype(int) - (200, 100, 50)).max() < 6


def test_a_photo_of_too_many_pixels_is_decoded_smaller_or_refused(pipeline):
    with running(pipeline, megapixels=0.004) as address:
        status, answer = predict(address, file_of(photo(), "JPEG"))
        assert status == 200 and (answer["width"], answer["height"]) == (50, 50)
        assert answer["answers"][0]["face"]["box"] == [15, 15, 20, 25]
        status, answer = predict(address, file_of(photo()))
        assert status == 400 and "100 x 100 pixels is more than the limit of 0.004 megapixels" in answer["error"]


def test_only_so_many_faces(pipeline):
    with running(pipeline, faces=1) as address:
        _, answer = predict(address, file_of(photo(255)))
    assert len(answer["answers"]) == 1 and answer["found"] == 2


def test_a_photo_without_a_face(pipeline):
    with running(pipeline) as address:
        status, answer = predict(address, file_of(photo(0)))
    assert (status, answer["answers"], answer["error"]) == (200, [], "no face found")
    assert picture(answer["preview"]).size == (100, 100)


@pytest.mark.parametrize("content, reason", [
    (b"", "the file is empty"), (b"<html>", "not an image of a known format"), (file_of(photo())[:60], "cannot be decoded"),
])
def test_what_is_no_photo(pipeline, content, reason):
    with running(pipeline) as address:
        status, answer = predict(address, content)
    assert status == 400 and reason in answer["error"] and set(answer) == {"error"}


def test_a_phones_heic_is_answered_or_refused_with_what_to_do(pipeline, monkeypatch):
    pillow_heif, content = pytest.importorskip("pillow_heif", reason="needs pillow-heif"), io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(photo(255))).save(content)
    with running(pipeline) as address:
        status, answer = predict(address, content.getvalue())
        assert status == 200 and len(answer["answers"]) == 2
        monkeypatch.setitem(sys.modules, "pillow_heif", None)
        status, answer = predict(address, content.getvalue())
        assert status == 400 and "pip install pillow-heif" in answer["error"] and "save the photo as JPEG" in answer["error"]


def test_nets_that_cannot_run(pipeline, monkeypatch):
    def refuse(*arguments, **options):
        raise PipelineError("weights are gone: make step4")

    monkeypatch.setattr(pipeline, "predict_faces", refuse)
    with running(pipeline) as address:
        status, answer = predict(address, file_of(photo()))
    assert status == 500 and "make step4" in answer["error"]


def test_the_page_knows_the_nets_from_the_recipe(pipeline):
    with running(pipeline) as address:
        text = ask(address)[2].decode()
        script = ask(address, "GET", "/page/page.js")[2].decode()
    nets = json.loads(html.unescape(re.search(r'data-nets="([^"]*)"', text).group(1)))
    assert [(entry["net"], entry["title"], entry["task"], entry["answer"]) for entry in nets] == [
        ("gnet", "GNet", "gender", "female"), ("snet1", "SNet1", "smile", "smiling"), ("snet2", "SNet2", "smile", "smiling")]
    assert nets[2]["view"] == "around mouth and cheeks, aligned" and not re.search("gnet|snet", script, re.I)


# ------------------------------------------------------------------------------------------ limits
def test_uploads_are_limited_however_they_come(pipeline):
    limit = 5_000
    with running(pipeline, upload_bytes=limit) as address:
        status, answer = predict(address, b"x" * (limit + 1))
        assert status == 413 and "smaller copy" in answer["error"]
        status, answer = predict(address, (b"x" * 1000 for _ in range(6)), Transfer_Encoding="chunked")  # tells no length
        assert status == 413
        assert predict(address, b"x" * limit)[0] == 400
        assert f'data-upload-bytes="{limit}"'.encode() in ask(address)[2]


def test_an_upload_that_says_it_is_too_large_is_refused_before_it_comes(pipeline):
    with running(pipeline, upload_bytes=5_000) as address:
        connection = socket.create_connection(address, timeout=20)
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
                           b"Content-Length: 5001\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_an_upload_that_never_ends_is_given_up(pipeline):
    with running(pipeline, upload_seconds=0.3) as address:
        connection = begin_upload(address)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_an_upload_under_way_does_not_keep_the_server_from_ending(pipeline, monkeypatch, capfd):
    monkeypatch.setattr("gender_smile.pages.server.GRACE", 0.2)
    with running(pipeline) as address:
        connection = begin_upload(address)
        time.sleep(0.3)  # until it is under way
    assert connection.recv(100).startswith(b"HTTP/1.1 503")
    assert "Traceback" not in capfd.readouterr().err


def test_one_address_may_not_send_without_end(pipeline):
    with running(pipeline, at_once=3, per_minute=6) as address:
        statuses = [predict(address, file_of(photo()))[0] for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        status, headers, body = ask(address, "POST", "/predict", b"", Content_Type="application/octet-stream")
        assert 8 <= int(headers["Retry-After"]) <= 11 and b"wait" in body
        assert ask(address)[0] == 200  # the page itself


def test_rate():
    now = [0.0]
    rate = Rate(60, 2, lambda: now[0])
    assert [rate.take("a"), rate.take("a"), rate.take("a"), rate.take("b")] == [0, 0, 1, 0]
    now[0] = 1.5
    assert [rate.take("a"), rate.take("a")] == [0, 0.5]
    now[0] = 1e6
    assert [rate.take("a") for _ in range(3)] == [0, 0, 1]  # never more than two in store


def test_more_people_than_can_wait(pipeline, monkeypatch):
    entered, go_on = threading.Semaphore(0), threading.Event()
    predict_faces = pipeline.predict_faces

    def slow(*arguments, **options):
        entered.release()
        assert go_on.wait(20)
        return predict_faces(*arguments, **options)

    monkeypatch.setattr(pipeline, "predict_faces", slow)
    with running(pipeline, waiting=2) as address, ThreadPoolExecutor(2) as pool:
        first = [pool.submit(predict, address, file_of(photo())) for _ in range(2)]
        assert entered.acquire(timeout=20) and entered.acquire(timeout=20)
        status, answer = predict(address, file_of(photo()))
        go_on.set()
        assert status == 503 and "Too many people" in answer["error"]
        assert [result.result()[0] for result in first] == [200, 200]
        assert predict(address, file_of(photo()))[0] == 200


def test_uploads_that_do_not_arrive_leave_room_for_others(pipeline):
    """Only photos that have arrived wait for the nets; of one address, only so many may be arriving."""
    with running(pipeline, waiting=2, at_once=5, upload_seconds=20) as address:
        slow = [begin_upload(address) for _ in range(5)]
        assert ask(address)[0] == 200  # the server has read them
        assert predict(address, file_of(photo()), source="127.0.0.2")[0] == 200
        status, answer = predict(address, file_of(photo()))
        assert status == 429
        for connection in slow:
            connection.close()


def test_the_memory_of_uploads_is_bounded(pipeline):
    content = file_of(photo())
    with running(pipeline, held_bytes=len(content) + 2) as address:
        assert predict(address, content)[0] == 200  # and its bytes are given back
        slow = begin_upload(address)  # three bytes
        assert ask(address)[0] == 200
        assert predict(address, content)[0] == 503
        slow.close()
        while predict(address, content)[0] == 429:
            time.sleep(0.1)
        assert predict(address, content)[0] == 200


def test_connections_that_send_no_headers_are_closed(pipeline, monkeypatch):
    monkeypatch.setattr("gender_smile.pages.server.HEADERS_SECONDS", 1.0)
    with running(pipeline) as address:
        idle = [begin_upload(address, head_only=True) for _ in range(120)]
        assert ask(address, source="127.0.0.2")[0] == 200  # one address cannot take all connections
        for connection in idle:
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        assert ask(address)[0] == 200


def test_a_connection_that_is_kept_open_has_as_long_for_its_next_headers(pipeline, monkeypatch):
    monkeypatch.setattr("gender_smile.pages.server.HEADERS_SECONDS", 1.0)
    with running(pipeline) as address, socket.create_connection(address, timeout=20) as connection:
        connection.sendall(b"GET /page/icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"</svg>" not in received:
            received += connection.recv(4096)
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert connection.recv(1) == b""


@pytest.mark.parametrize("behind_a_proxy, statuses", [(False, [200, 200, 429, 429]), (True, [200] * 4)])
def test_addresses_that_a_client_states_count_behind_a_proxy_only(pipeline, behind_a_proxy, statuses):
    with running(pipeline, at_once=2, per_minute=1, proxy_headers=behind_a_proxy) as address:
        found = [predict(address, file_of(photo()), X_Forwarded_For=f"10.0.0.{number}")[0] for number in range(4)]
    assert found == statuses


def test_everybody_gets_the_own_answer(pipeline):
    levels = list(range(20, 60))
    with running(pipeline, at_once=100, waiting=100) as address, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda level: predict(address, file_of(photo(level))), levels))
    assert [status for status, _ in found] == [200] * len(levels)
    assert np.allclose([answer["answers"][0]["p_positive"]["gnet"] for _, answer in found], np.array(levels) / 255)


# ------------------------------------------------------------------------------------------ who may ask, and what is kept
def test_no_browser_keeps_an_answer(pipeline):
    with running(pipeline) as address:
        _, headers, _ = ask(address, "POST", "/predict", file_of(photo()), Content_Type="application/octet-stream")
    assert headers["Cache-Control"] == "no-store"


def test_other_pages_may_not_ask(pipeline):
    with running(pipeline) as address:
        assert predict(address, b"", Sec_Fetch_Site="cross-site")[0] == 403
        assert predict(address, b"", Sec_Fetch_Site="same-site")[0] == 403
        assert ask(address, "POST", "/predict", b"", Content_Type="text/plain")[0] == 415
        assert ask(address, Host="elsewhere.example")[0] == 400
        assert ask(address, Host=f"localhost:{address[1]}")[0] == 200
        assert ask(address, "GET", "/predict")[0] == 405


@pytest.mark.parametrize("host, status", [("127.0.0.1", 400), ("127.0.0.2", 400), ("0.0.0.0", 200)])
def test_another_name_that_leads_to_this_computer_is_refused(pipeline, host, status):
    try:
        with running(pipeline, host) as address:
            assert ask(address)[0] == 200 and ask(address, Host="elsewhere.example")[0] == status
    except OSError:
        pytest.skip(f"this system does not listen at {host}")


def test_every_response_says_what_the_page_may_do(pipeline):
    with running(pipeline) as address:
        for path in ("/", "/page/page.js", "/page/style.css", "/page/icon.svg", "/nothing"):
            status, headers, _ = ask(address, path=path)
            assert status == (404 if path == "/nothing" else 200), path
            assert all(headers[name] == value for name, value in HEADERS.items()), path
        for path in ("/page/../web.py", "/page/%2e%2e/web.py", "/page//etc/passwd"):
            assert ask(address, path=path)[0] == 404, path


def test_examples_are_photos(pipeline):
    """Photos, that is; the real detector looks at them in test_web_page.py."""
    with running(pipeline) as address:
        photos = [Image.open(io.BytesIO(ask(address, path=f"/examples/{number}.jpg")[2])) for number in range(3)]
        for name in ("3.jpg", "9" * 5_000 + ".jpg", "0", "-1.jpg"):
            assert ask(address, path=f"/examples/{name}")[0] == 404, name
    assert [min(found.size) >= 300 for found in photos] == [True] * 3


def test_examples_are_made_once(pipeline, monkeypatch):
    made = []

    def slow(self):
        made.append(self)
        time.sleep(0.2)
        return {f"{number}.jpg": b"photo" for number in range(3)}

    monkeypatch.setattr("gender_smile.pages.web_app.Examples._make", slow)
    with running(pipeline) as address, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda number: ask(address, path=f"/examples/{number}.jpg")[2], range(3)))
    assert found == [b"photo"] * 3 and len(made) == 1


written: list = []
watching = threading.Event()


def watch(event: str, arguments: tuple) -> None:
    if watching.is_set() and event in ("open", "os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp"):
        if event != "open" or (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")) \
                or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            written.append((event, arguments))


def test_nothing_is_written_to_disk(pipeline):
    large = np.random.RandomState(1).randint(0, 256, (1500, 1500, 3)).astype(np.uint8)
    with running(pipeline) as address:
        predict(address, file_of(photo()))  # modules are loaded
        sys.addaudithook(watch)
        watching.set()
        assert predict(address, file_of(large))[0] == 200
        assert predict(address, b"no photo")[0] == 400
        watching.clear()
    assert written == []


# ------------------------------------------------------------------------------------------ the command
def test_command(pipeline, capsys, monkeypatch):
    """Says where it listens, serves there, ends with status 0 on Ctrl-C."""
    import uvicorn

    def run(server, sockets):
        thread = threading.Thread(target=lambda: asked.append(sockets[0].getsockname()[1]))
        thread.start()
        thread.join()
        raise KeyboardInterrupt

    asked: list = []
    monkeypatch.setattr(uvicorn.Server, "run", run)
    assert web.main(["--port", "0", "--profile", "demo"]) == 0
    assert capsys.readouterr().out == f"http://127.0.0.1:{asked[0]}/ (demo profile; Ctrl-C ends it)\n"


@pytest.mark.parametrize("terminal, no_color", [(False, False), (True, False), (True, True)])
def test_other_devices_are_told_an_address_and_shown_a_code(pipeline, capsys, monkeypatch, terminal, no_color):
    """The code is read back by OpenCV."""
    import cv2
    import uvicorn

    from gender_smile.pages import server

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: sockets[0].close())
    monkeypatch.setattr(server, "own_address", lambda: "192.168.1.20")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("NO_COLOR", "1") if no_color else monkeypatch.delenv("NO_COLOR", raising=False)
    web.serve(pipeline, "0.0.0.0", 0)
    first, second, *code = capsys.readouterr().out.splitlines()
    port = re.fullmatch(r"http://192\.168\.1\.20:(\d+)/ \(demo profile; Ctrl-C ends it\)", first)[1]
    assert "no password" in second and bool(code) == terminal
    if terminal:
        assert all(line.startswith("\033[97;40m") and line.endswith("\033[0m") for line in code) != no_color
        halves = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
        rows = [row for line in code for row in zip(*(halves[cell] for cell in re.sub(r"\033\[[\d;]*m", "", line)))]
        image = np.kron(np.array(rows, np.uint8), np.ones((8, 8), np.uint8))
        assert cv2.QRCodeDetector().detectAndDecode(image)[0] == f"http://192.168.1.20:{port}/"


@pytest.mark.parametrize("host, url", [
    ("127.0.0.1", "http://127.0.0.1:80/"), ("::1", "http://[::1]:80/"), ("photos.example", "http://photos.example:80/"),
    ("0.0.0.0", "http://10.0.0.7:80/"), ("::", "http://10.0.0.7:80/"),
])
def test_the_address_that_is_printed_can_be_typed(monkeypatch, host, url):
    from gender_smile.pages import server

    monkeypatch.setattr(server, "own_address", lambda: "10.0.0.7")
    assert server.address(host, 80) == url
    monkeypatch.setattr(server, "own_address", lambda: "")
    assert server.address("0.0.0.0", 80) == f"http://{socket.gethostname()}:80/"


def test_own_address_is_one_of_this_computers():
    from gender_smile.pages.server import own_address

    found = own_address()
    if found:
        socket.create_server((found, 0)).close()  # only an own address can be listened at


def test_threshold_and_warning_reach_the_page(pipeline, fake_project, capsys, monkeypatch):
    install(fake_project, {"gnet": "bright", "snet1": 0.8, "snet2": 0.6}, record={"trained_on": ["drawn faces"], "drawn": True})
    served: list = []
    monkeypatch.setattr(web, "serve", lambda pipeline, *rest: served.append(pipeline))
    assert web.main(["--threshold", "0.75", "--profile", "demo"]) == 0
    assert "web.py: these nets were trained on drawn faces" in capsys.readouterr().err
    with running(served[0]) as address:
        _, answer = predict(address, file_of(photo(255)))
    assert [answer["answers"][0][task]["uncertain"] for task in ("gender", "smile")] == [False, True]


def test_a_port_in_use(pipeline, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert web.main(["--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error == (f"web.py: cannot listen at 127.0.0.1, port {port} (Address already in use); --port (PORT=) takes "
                     "another\n")
    assert web.main(["--port", "99999"]) == 2


def test_without_the_extra(pipeline, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "gender_smile.pages.server", raising=False)
    assert web.main([]) == 2
    assert capsys.readouterr().err == "web.py: uvicorn is not installed: .venv/bin/pip install uvicorn\n"


def test_without_weights(pipeline, capsys):
    os.remove(recipe.absolute(recipe.step_weights("demo", "gnet", 4)))
    assert web.main([]) == 2
    assert "make demo" in capsys.readouterr().err


def test_rates_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr("gender_smile.pages.web_app.CLIENTS", 3)
    rate = Rate(60, 1, time.monotonic)
    for number in range(10):
        rate.take(str(number))
    assert list(rate.full) == ["7", "8", "9"]


def test_the_page_links_to_the_model_card(pipeline, fake_project, root):
    (fake_project / "docs").mkdir()
    (fake_project / "docs" / "model-card.md").write_text((root / "docs" / "model-card.md").read_text())
    with running(pipeline) as address:
        assert 'href="/model-card"' in ask(address)[2].decode()
        status, headers, content = ask(address, path="/model-card")
    assert status == 200 and headers["content-type"].startswith("text/plain") and b"### Less reliable" in content
