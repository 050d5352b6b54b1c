"""Sharing work among threads: order, the first error, and nothing left running."""

import threading
import time

import pytest

from torchcaffe.data import workers


@pytest.fixture(params=[1, 2, 5])
def threads(request, monkeypatch):
    monkeypatch.setattr(workers, "threads", lambda: request.param)
    monkeypatch.setattr(workers, "_pool", None)
    return request.param


@pytest.mark.parametrize("count", [0, 1, 2, 7, 300])
def test_answers_are_in_the_items_order(threads, count):
    assert workers.thread_map(lambda item: item * item, list(range(count))) == [item * item for item in range(count)]


def test_all_threads_take_part(threads):
    together = threading.Barrier(threads, timeout=20)
    workers.thread_map(lambda item: together.wait(), list(range(threads)))


def test_the_first_items_error_is_raised_when_all_have_ended(threads):
    running = []

    def work(item):
        running.append(item)
        time.sleep(0.001)
        running.remove(item)
        if item % 30 == 20:
            raise ValueError(item)

    with pytest.raises(ValueError, match="^20$"):
        workers.thread_map(work, list(range(100)))
    assert not running
