"""Atomic writes of small files."""

from __future__ import annotations

import errno
import os

import pytest

from common import files


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "folder" / "results.json"
    with files.whole_file(str(path)) as first, open(first, "w") as stream:
        files.write_json(str(path), {"by": "the second"})
        stream.write("the first, which ends last")
    assert path.read_text() == "the first, which ends last" and os.listdir(path.parent) == ["results.json"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    files.write_json(str(path), {"value": 1})
    with pytest.raises(TypeError):
        files.write_json(str(path), {"value": object()})
    assert files.read_json(str(path)) == {"value": 1} and os.listdir(tmp_path) == ["results.json"]


def test_a_full_disk_is_an_oserror_that_names_the_file(tmp_path):
    path = str(tmp_path / "results.json")
    with pytest.raises(OSError) as caught, files.whole_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "something else")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, path)


@pytest.mark.parametrize("place, number", [("folder", errno.EISDIR), ("pipe", errno.EINVAL), ("file/inside", errno.ENOTDIR)])
def test_what_no_file_can_replace_is_refused_before_and_after_the_work(tmp_path, place, number):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for write in (files.check_writable, lambda path: files.write_text(path, "text")):
        with pytest.raises(OSError) as caught:
            write(str(tmp_path / place))
        assert caught.value.errno in (number, errno.EEXIST) and str(tmp_path) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "pipe"]


def test_trying_leaves_nothing_and_makes_no_folder(tmp_path):
    files.check_writable(str(tmp_path / "new" / "folder" / "file"))
    files.check_writable(str(tmp_path / "file"))
    assert not os.listdir(tmp_path)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "results.json").symlink_to(tmp_path / "disk" / "results.json")
    files.write_text(str(tmp_path / "results.json"), "text")
    assert (tmp_path / "results.json").is_symlink() and (tmp_path / "disk" / "results.json").read_text() == "text"
