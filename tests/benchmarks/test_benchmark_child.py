"""benchmarks/child.py: work in a process of its own, one call at a time."""

import os

import pytest

from benchmarks.child import Child

MEGABYTES = 64


def counting(caffe, start):
    """What the tests run in the child: a counter that keeps more memory with each call."""
    state = {"count": start, "kept": []}

    def call():
        print("a library's chatter on stdout")
        state["count"] += 1
        state["kept"].append(bytearray(os.urandom(2**20) * MEGABYTES))
        return {"engine": caffe.__name__, "count": state["count"], "process": os.getpid()}

    return call


def failing(caffe):
    return lambda: 1 / 0


@pytest.fixture
def environment(root):
    """The child finds this module."""
    return {"PYTHONPATH": os.pathsep.join((str(root), os.path.dirname(__file__)))}


def test_the_child_makes_one_call_at_a_time_in_a_process_of_its_own(environment):
    with Child("torch", "test_benchmark_child:counting", environment, start=41) as child:
        before = child.started["peak"]
        first = child()
        assert first == {"engine": "torchcaffe", "count": 42, "process": first["process"]}
        assert first["process"] != os.getpid()
        assert child()["count"] == 43
        assert child.last["peak"] >= before + 2 * MEGABYTES - 1  # its own memory, not ours
        assert child.last["seconds"] > 0


def test_a_child_that_stops_is_an_error(environment):
    with Child("torch", "test_benchmark_child:failing", environment) as child:
        with pytest.raises(RuntimeError, match="test_benchmark_child:failing in torch stopped with status 1"):
            child()


def test_real_caffe_is_a_child_too(environment, root):
    if not (root / ".caffe" / "python").exists():
        pytest.skip("needs real Caffe in .caffe (make caffe)")
    with Child("caffe", "test_benchmark_child:counting", environment, start=0) as child:
        assert child()["engine"] == "caffe"
