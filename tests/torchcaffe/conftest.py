"""Nets and solvers from short prototxt strings, silent unless a test asks for the log."""

import pytest

import torchcaffe as caffe
from torchcaffe.data.prefetch import stop_all


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    yield
    stop_all()  # threads that read ahead log, too


@pytest.fixture
def make_net(tmp_path):
    """make_net(text, phase=caffe.TRAIN, seed=1, **arguments) -> Net."""
    counter = iter(range(1000))

    def make(text, phase=caffe.TRAIN, seed=1, **arguments):
        path = tmp_path / f"net{next(counter)}.prototxt"
        path.write_text(text)
        caffe.set_random_seed(seed)
        return caffe.Net(str(path), phase, **arguments)

    return make


@pytest.fixture
def make_solver(tmp_path):
    """make_solver(net text, solver text) -> solver with snapshots in tmp_path."""
    counter = iter(range(1000))

    def make(net_text, solver_text):
        number = next(counter)
        net, solver = tmp_path / f"train{number}.prototxt", tmp_path / f"solver{number}.prototxt"
        net.write_text(net_text)
        solver.write_text(f'net: "{net}"\nsnapshot_prefix: "{tmp_path}/snapshot{number}"\n{solver_text}')
        return caffe.get_solver(str(solver))

    return make
