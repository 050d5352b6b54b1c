"""The load test in small: 40 photos, 5 of them bad, in one process; and what it would call wrong."""

from pathlib import Path

import load_predict
import pytest


@pytest.mark.slow
def test_bad_photos_among_good_ones_are_named_and_the_rest_is_answered(capsys):
    assert load_predict.main(["--count", "40", "--bad", "0.125"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert said.startswith("40 of 40 photos") and "(5 of them bad files), exit status 1" in said


REASONS = {
    "bomb": "more than the limit of", "dangling": "is missing", "missing": "is missing", "x": "is missing", "empty": "is empty",
    "endless": "not a regular file", "pipe": "not a regular file", "folder": "is a folder", "scans": "more than 100 scans",
    "header": "cannot be decoded: ", "truncated": "cannot be decoded: .*truncated", "secret": "Permission denied",
    "postscript": "not an image of a known format", "text": "not an image of", "zeros": "not an image of",
}  # fmt: skip


def test_every_kind_of_bad_photo_is_named(tmp_path):
    """Read as predict.py reads them, without nets."""
    from lmdb_builders.errors import ImageError
    from gender_smile.inference.pipeline import read_photo

    seen = set()
    for path in load_predict.bad_photos(tmp_path, 30):
        kind = next(kind for kind in REASONS if Path(path).name.startswith(kind))
        seen.add(kind)
        with pytest.raises(ImageError, match=REASONS[kind]):
            read_photo(path)
    assert set(REASONS) - seen <= {"secret"}  # which root may read


def test_what_is_wrong_is_seen():
    photos, windows = ["a", "b", "bad"], [100.0] * 10
    face, failed = {"gender": 1}, {"error": "file is empty (0 bytes)"}
    right = [{"image": "a", **face}, {"image": "b", "error": "no face found"}, {"image": "bad", **failed}]

    def wrong(answers=right, status=1, windows=windows):
        return load_predict.check(photos, {"bad"}, answers, status, windows)

    assert not wrong()
    assert wrong(right[:2]) and wrong(status=0) and wrong(windows=[100.0] * 9 + [200.0])
    assert wrong([*right[:2], {"image": "bad", **face}]) and wrong([{"image": "a", **failed}, *right[1:]])
