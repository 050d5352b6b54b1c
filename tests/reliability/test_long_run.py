"""The long training in small; and what it would call wrong."""

import long_run
import pytest


@pytest.mark.slow
def test_memory_and_handles_of_a_training_are_watched(capsys):
    assert long_run.main(["--iterations", "400", "--every", "0.05"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert said.startswith("400 iterations") and "driver: " in said and "trainer: " in said


def test_what_grows_is_seen():
    flat = [(100.0, 10)] * 20
    assert not long_run.wrong(0, {"driver": flat, "trainer": flat})
    growing = [(100.0 + 5 * number, 10) for number in range(20)]
    leaking = [(100.0, 10 + number) for number in range(20)]
    assert "MB" in long_run.wrong(0, {"trainer": growing})[0]
    assert "open files" in long_run.wrong(0, {"trainer": leaking})[0]
    assert long_run.wrong(1, {"trainer": flat}) and long_run.wrong(0, {"trainer": []})
