"""The load test of the page in small: 15 seconds; and what it would call wrong."""

from collections import Counter
from pathlib import Path

import load_page
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_user_is_answered_while_others_attack(capfd):
    if not (ROOT / "weights" / "mtcnn" / "det1.caffemodel").exists():
        pytest.skip("needs weights/mtcnn: make setup")
    assert load_page.main(["--seconds", "15"]) == 0, capfd.readouterr()


def test_what_is_wrong_is_seen():
    right = Counter({("user", 200): 5, ("path", 404): 9, ("large", 200): 2, ("flood", 200): 30, ("flood", 429): 300})
    assert not load_page.check(right, 20, 2000, 700)
    assert load_page.check(right, 20, 3300, 700) == ["the server held 3300 MB, more than 2500"]
    assert load_page.check(right, 20, 2000, 1600) == ["the server still held 1600 MB at the end, more than 1500"]
    assert load_page.check(right, 20, 2000, 700, "WARNING:  Exceeded concurrency limit.\n") == ["attackers took all connections"]
    for change in ({("user", 503): 1}, {("path", 500): 1}, {("large", 0): 1}, {("flood", 500): 1}, {("flood", 200): 500},
                   {"a client that never ended": 1}):
        assert len(load_page.check(right + Counter(change), 20, 2000, 700)) == 1, change
    assert load_page.check(Counter({("flood", 200): 1}), 20, 0, 0)[:2] == ["no answer to user", "no answer to path"]
