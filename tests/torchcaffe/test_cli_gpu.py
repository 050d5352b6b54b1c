"""Which GPU the command line takes, with GPUs that are only pretended."""

import signal
from types import SimpleNamespace

import pytest

from torchcaffe.core import mode
from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError
from torchcaffe.core.errors import CaffeError


@pytest.fixture
def two_gpus(monkeypatch):
    """PyTorch says that there are two; the mode set is returned in a list, and nothing computes on them."""
    import torch

    found = SimpleNamespace(major=9, minor=0, name="Pretended", total_memory=7, multi_processor_count=3)
    for name, value in (("is_available", True), ("device_count", 2), ("get_device_name", "Pretended")):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: found)
    monkeypatch.setenv("GLOG_minloglevel", "0")
    chosen = []
    monkeypatch.setattr(mode, "set_mode_gpu", lambda: chosen.append(mode._settings.device_id))
    yield chosen
    mode.set_device(0)


def test_each_rank_of_a_machine_trains_on_its_own(two_gpus, capsys):
    devices.use(devices.numbers("all"), training=True, rank=1)
    log = capsys.readouterr().err
    assert two_gpus == [1]
    assert "Using GPUs 0, 1\n" in log and "GPU 0: Pretended" in log and "GPU 1: Pretended" in log
    with pytest.raises(UsageError, match="-gpu names 1 of this machine's GPUs, but there is a rank 1 here"):
        devices.use(devices.numbers("1"), training=True, rank=1)


def test_several_gpus_get_a_process_each_with_a_batch_each(two_gpus, tmp_path, monkeypatch):
    from torchcaffe.commands import cli
    from torchcaffe.distributed import launch

    (tmp_path / "solver").write_text('net: "x"')
    started = []
    monkeypatch.setattr(launch, "launch", lambda *arguments: started.append(arguments) or 7)
    assert cli.main(["train", "-solver", str(tmp_path / "solver"), "-gpu", "0,1", "-level", "2"]) == 7
    (arguments, count, signals, environment), = started
    assert arguments[:3] == ["-m", "torchcaffe", "train"] and count == 2 and signal.SIGHUP in signals
    assert {f"-solver={tmp_path}/solver", "-gpu=0,1", "-level=2"} <= set(arguments)
    assert environment == {"TORCHCAFFE_BATCH_PER_GPU": "1"}
    assert cli.main(["train", "-solver", str(tmp_path / "solver"), "-gpu", "0,2"]) == 1  # there is no GPU 2


def test_testing_uses_the_first_without_a_word(two_gpus, capsys):
    devices.use(devices.numbers("1,0"))
    log = capsys.readouterr().err
    assert two_gpus == [1] and "Use GPU with device ID 1" in log and "GPU device name: Pretended" in log
    assert "torchrun" not in log


def test_a_gpu_that_is_not_there(two_gpus):
    with pytest.raises(CaffeError, match="no GPU 5; this machine has 0 to 1"):
        devices.use([5])


def test_device_query(two_gpus, capsys):
    devices.device_query(SimpleNamespace(gpu="all"))
    log = capsys.readouterr().err
    assert log.count("Device id:") == 2
    assert f"] {'Number of multiprocessors:':<31}3\n" in log


@pytest.mark.parametrize("flag, solver, expected", [("", "solver_mode: GPU device_id: 1", [1]), ("", "", []),
                                                    ("0", "solver_mode: GPU device_id: 1", [0])])  # fmt: skip
def test_solver_mode_counts_where_no_flag_is_given(two_gpus, tmp_path, monkeypatch, flag, solver, expected):
    from torchcaffe.commands import cli
    from torchcaffe.solvers import solver as solvers

    class Stop(CaffeError):
        pass

    def refuse(*arguments):
        raise Stop("far enough")

    monkeypatch.setattr(solvers, "create_solver", refuse)
    (tmp_path / "solver").write_text(f'net: "x" {solver}')
    words = ["train", "-solver", str(tmp_path / "solver")] + (["-gpu", flag] if flag else [])
    assert cli.main(words) == 1
    assert two_gpus == expected
