"""tools/weights.py and gender_smile/nets/vgg_face.py: only VGG-Face's file, whole and as recorded, comes into place."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from https_server import Server, make_certificate

import recipe
from common import download, files
from gender_smile.nets import vgg_face, vgg_face_sources
from tools import weights
from torchcaffe.formats import files as caffe_files
from torchcaffe.core.errors import WeightsError

NARROW = {"width": 1 / 64, "input_size": 32}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A random V1 file of VGG-Face's form with 1/64 of its filters."""
    path = tmp_path_factory.mktemp("narrow") / "VGG_FACE.caffemodel"
    vgg_face.write_random_vgg_face(str(path), **NARROW)
    return path.read_bytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """weights/ of a project whose VGG-Face is narrow; returns where the caffemodel goes."""
    real_check = vgg_face.check_vgg_face
    monkeypatch.setattr(vgg_face_sources, "check_vgg_face", lambda path: real_check(path, **NARROW))
    monkeypatch.setattr(vgg_face, "check_vgg_face", lambda path, *_, **__: real_check(path, **NARROW))
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / weights.VGG_FACE


def archive_of(path: Path, members: dict) -> str:
    """A tar.gz with `members` {name: bytes, or a target that a link points to}; returns its md5."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return download.md5_of(str(path))


def test_of_an_archive_only_the_one_member_is_written(tmp_path, place, narrow) -> None:
    """Names that climb out, absolute ones, links and devices lie beside it: none of them is made."""
    path, outside = tmp_path / "a.tar.gz", tmp_path / "outside"
    members = {"../outside": b"x", str(outside): b"x", "vgg_face_caffe/link": str(outside), "weights/evil": b"x"}
    md5 = archive_of(path, {**members, recipe.VGG_FACE_MEMBER: narrow})
    before = sorted(tmp_path.rglob("*"))
    weights.take_file(str(path), md5=md5)
    assert place.read_bytes() == narrow
    assert set(tmp_path.rglob("*")) - set(before) == {place, place.with_suffix(".json")}


@pytest.mark.parametrize("note", ["", "[1]", "{}", "\xff"])
def test_a_note_that_is_damaged_is_named(tmp_path, place, narrow, note) -> None:
    place.write_bytes(narrow)
    place.with_suffix(".json").write_bytes(note.encode("latin-1"))
    with pytest.raises(WeightsError, match="VGG_FACE.json: does not hold the sha256.*delete it"):
        weights.verify_vgg_face(str(place))


def test_a_member_of_absurd_size_is_not_unpacked(tmp_path, place, narrow, monkeypatch) -> None:
    monkeypatch.setattr(download, "LIMIT", len(narrow) - 1)
    md5 = archive_of(tmp_path / "a.tar.gz", {recipe.VGG_FACE_MEMBER: narrow})
    with pytest.raises(WeightsError, match="more than VGG-Face's"):
        weights.take_file(str(tmp_path / "a.tar.gz"), md5=md5)
    assert not place.exists()


def say(capsys: pytest.CaptureFixture) -> str:
    """What the tool said on stderr: one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "Traceback" not in text
    return text


def test_make_weights_from_a_server(tmp_path, place, narrow, monkeypatch, capsys) -> None:
    server = Server(*make_certificate(tmp_path))
    md5 = archive_of(tmp_path / "a.tar.gz", {"vgg_face_caffe/README": b"words", recipe.VGG_FACE_MEMBER: narrow})
    server.content, server.cut_after = (tmp_path / "a.tar.gz").read_bytes(), [1000]
    real = download.download
    monkeypatch.setattr(download, "download", lambda *given: real(*given, pause=0.0, context=server.trust))
    monkeypatch.setattr(weights.fetch, "__defaults__", (server.url, weights.VGG_FACE, md5))
    try:
        assert weights.main(["--url", server.url]) == 0
    finally:
        server.close()
    assert place.read_bytes() == narrow
    record = json.loads((place.parent / "VGG_FACE.json").read_text())
    assert record == {"file": "VGG_FACE.caffemodel", "size": len(narrow), "sha256": files.sha256_of(str(place))}
    assert sorted(path.name for path in place.parent.iterdir()) == ["VGG_FACE.caffemodel", "VGG_FACE.json"]
    requests = len(server.seen)
    assert weights.main([]) == 0  # there already: no request
    assert len(server.seen) == requests
    assert "is there" in capsys.readouterr().out


def test_local_caffemodel(tmp_path, place, narrow) -> None:
    (tmp_path / "mine").write_bytes(narrow)
    assert weights.main(["--file", str(tmp_path / "mine")]) == 0
    assert place.read_bytes() == narrow


def test_a_file_is_checked_once_and_what_is_wrong_with_it_is_said_under_its_own_name(tmp_path, place, narrow, monkeypatch,
                                                                                    capsys) -> None:
    read, checked = caffe_files.read_weights, []
    monkeypatch.setattr(caffe_files, "read_weights", lambda path: checked.append(path) or read(path))
    (tmp_path / "mine.caffemodel").write_bytes(narrow)
    weights.take_file(str(tmp_path / "mine.caffemodel"))
    assert len(checked) == 1
    (tmp_path / "mine.caffemodel").write_bytes(b"")
    assert weights.main(["--file", str(tmp_path / "mine.caffemodel")]) == 1
    assert capsys.readouterr().err.startswith(f"weights: {tmp_path}/mine.caffemodel: is empty")


def test_channels_are_of_a_port(place, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        weights.main(["--channels", "rgb"])
    assert stop.value.code == 2 and "name it with --file" in capsys.readouterr().err


def test_local_archive_with_another_md5(tmp_path, place, narrow, capsys) -> None:
    archive_of(tmp_path / "a.tar.gz", {recipe.VGG_FACE_MEMBER: narrow})
    assert weights.main(["--file", str(tmp_path / "a.tar.gz")]) == 1
    assert recipe.VGG_FACE_ARCHIVE_MD5 in say(capsys)
    assert not place.exists()


def test_member_missing(tmp_path, place) -> None:
    md5 = archive_of(tmp_path / "a.tar.gz", {"vgg_face_caffe/other": b"words"})
    with pytest.raises(WeightsError, match=f"holds no {recipe.VGG_FACE_MEMBER}"):
        weights.take_file(str(tmp_path / "a.tar.gz"), md5=md5)
    assert not place.exists()


def test_link_in_place_of_the_member(tmp_path, place) -> None:
    md5 = archive_of(tmp_path / "a.tar.gz", {recipe.VGG_FACE_MEMBER: "/etc/passwd"})
    with pytest.raises(WeightsError, match="not a plain file"):
        weights.take_file(str(tmp_path / "a.tar.gz"), md5=md5)
    assert not place.exists()


@pytest.mark.parametrize("share", [0.05, 0.6, 0.999])
def test_archive_cut_short(tmp_path, place, narrow, share) -> None:
    path = tmp_path / "a.tar.gz"
    archive_of(path, {recipe.VGG_FACE_MEMBER: narrow})
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(WeightsError, match="cut short"):
        weights.take_file(str(path), md5=download.md5_of(str(path)))
    assert list(place.parent.iterdir()) == []


def test_missing_file(place, capsys) -> None:
    assert weights.main(["--file", "/no/such/file"]) == 1
    assert "/no/such/file" in say(capsys)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x0a\x04name"],
                         ids=["empty", "page", "no layers"])
def test_not_a_caffemodel(tmp_path, place, content, capsys) -> None:
    (tmp_path / "mine.caffemodel").write_bytes(content)
    assert weights.main(["--file", str(tmp_path / "mine.caffemodel")]) == 1
    say(capsys)
    assert list(place.parent.iterdir()) == []


def test_file_that_changed_since_first_use(place, narrow, capsys) -> None:
    place.write_bytes(narrow)
    assert weights.main([]) == 0
    changed = bytearray(narrow)
    changed[-40] ^= 1  # one bit of a bias of fc8
    place.write_bytes(changed)
    capsys.readouterr()
    assert weights.main([]) == 1
    assert "at first use" in say(capsys)


def rewritten(tmp_path: Path, narrow: bytes, change) -> str:
    """The narrow file with its layers passed through `change` (list of [name, V1 type, arrays]); returns its path."""
    path = str(tmp_path / "changed.caffemodel")
    Path(path).write_bytes(narrow)
    types = {"Convolution": "CONVOLUTION", "InnerProduct": "INNER_PRODUCT"}
    layers = [[layer.name, types[layer.type], [np.array(blob.data).reshape(blob.shape) for blob in layer.blobs]]
              for layer in caffe_files.read_weights(path)]
    change(layers)
    caffe_files.write_v1_weights(path, "changed", layers)
    return path


def renamed(layers) -> None:
    layers[3][0] = "conv2_x"


def dropped(layers) -> None:
    del layers[-1]


def reshaped(layers) -> None:
    layers[14][2][0] = layers[14][2][0][..., :-1]


def infinite(layers) -> None:
    layers[5][2][0][0, 0, 1, 1] = np.inf


def not_a_number(layers) -> None:
    layers[13][2][1][..., 0] = np.nan


@pytest.mark.parametrize("change, words", [
    (renamed, "lacks conv2_2 and has conv2_x"), (dropped, "lacks fc8"), (reshaped, "layer fc7 has shapes 1x1x64x63"),
    (infinite, "layer conv3_2 holds values that are not finite"), (not_a_number, "layer fc6 holds values"),
])
def test_structure(tmp_path, narrow, change, words) -> None:
    with pytest.raises(WeightsError, match=words):
        vgg_face.check_vgg_face(rewritten(tmp_path, narrow, change), **NARROW)


def test_narrow_file_is_not_the_release(tmp_path, narrow) -> None:
    path = tmp_path / "narrow.caffemodel"
    path.write_bytes(narrow)
    with pytest.raises(WeightsError, match="layer conv1_1 has shapes 1x3x3x3.*expected 64x3x3x3 and 64"):
        vgg_face.check_vgg_face(str(path))


def test_expected_shapes_are_vgg_face() -> None:
    """Against Table 1 of the paper, written out: VGG-16 of Parkhi et al. with 2,622 identities."""
    shapes = vgg_face.expected_shapes()
    assert list(shapes) == ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv4_1",
                            "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3", "fc6", "fc7", "fc8"]
    assert shapes["conv3_1"] == ((256, 128, 3, 3), (256,))
    assert shapes["fc6"] == ((4096, 512 * 7 * 7), (4096,))
    assert shapes["fc8"] == ((2622, 4096), (2622,))
    parameters = sum(int(np.prod(shape)) for pair in shapes.values() for shape in pair)
    assert parameters == 138_357_544 + (2622 - 1000) * 4097  # VGG-16's, with its last layer for other classes


def test_random_weights(tmp_path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    vgg_face.write_random_vgg_face(str(first), width=0.25, seed=5, input_size=64)
    vgg_face.write_random_vgg_face(str(second), width=0.25, seed=5, input_size=64)
    assert first.read_bytes() == second.read_bytes()
    layers = {layer.name: layer for layer in caffe_files.read_weights(str(first))}
    for name in ("conv4_2", "fc6", "fc7"):
        data = layers[name].blobs[0].data
        read = np.prod(vgg_face.expected_shapes(0.25, 64)[name][0][1:]) / 2  # a pair of mirrored inputs counts once
        assert np.std(data) == pytest.approx(read**-0.5, rel=0.02)
        assert not np.any(layers[name].blobs[1].data)


def test_random_weights_pass_the_signal_on_linearly(tmp_path) -> None:
    """fc6 of pooled pairs: relu(W relu(+-z)) must give back +-K z, whatever z is."""
    vgg_face.write_random_vgg_face(str(tmp_path / "w"), width=0.125, seed=1, input_size=32)
    layers = {layer.name: np.asarray(layer.blobs[0].data) for layer in caffe_files.read_weights(str(tmp_path / "w"))}
    generator = np.random.default_rng(0)
    z = generator.normal(size=layers["fc6"].size // 512 // 2)
    out = layers["fc6"].reshape(512, -1) @ np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)])
    np.testing.assert_allclose(out[:256], -out[256:], rtol=1e-5)
    other = generator.normal(size=z.shape)
    both = layers["fc6"].reshape(512, -1) @ np.concatenate([np.maximum(z + other, 0), np.maximum(-z - other, 0)])
    alone = layers["fc6"].reshape(512, -1) @ np.concatenate([np.maximum(other, 0), np.maximum(-other, 0)])
    np.testing.assert_allclose(both, out + alone, rtol=1e-4, atol=1e-5)


def test_manifest_agrees_with_the_recipe(root: Path) -> None:
    entry = json.loads((root / "weights" / "manifest.json").read_text())["VGG_FACE.caffemodel"]
    assert entry["archive"] == {"url": recipe.VGG_FACE_URL, "md5": recipe.VGG_FACE_ARCHIVE_MD5,
                                "member": recipe.VGG_FACE_MEMBER}
    assert entry["layers"] == list(vgg_face.expected_shapes())
