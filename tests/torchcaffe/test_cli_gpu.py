"""Which GPU the command line takes, with GPUs that are only pretended."""

import re
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
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name, value in (("is_available", True), ("device_count", 2), ("get_device_name", "Pretended"),
                        ("get_device_capability", (9, 0)), ("get_arch_list", ["sm_90"])):  # fmt: skip
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
    with pytest.raises(CaffeError, match="-gpu 5: there is no GPU 5; this machine has GPUs 0 to 1; leave out -gpu"):
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


# ---- why there is no GPU
def why(monkeypatch, cuda="13.0", problem=None, **pretended):
    """mode.why_no_gpu() where torch.cuda answers so; `problem`: what its init raises."""
    import torch

    def init():
        if problem:
            raise RuntimeError(problem)

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "init", init)
    for name, value in {"is_available": False, **pretended}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    return mode.why_no_gpu()


def test_a_cpu_build_is_told_from_a_driver_and_from_no_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "is a CPU build; install one for your GPU: make setup TORCH=cu130" in why(monkeypatch, cuda=None)
    # The beginnings of what PyTorch 2.13 raises in these cases.
    for version, remedy in ((11040, r"\); update it: https://www.nvidia.com/drivers$"),
                            (12020, r"\); update it, or install a build for its CUDA 12.2: make setup TORCH=cu126$")):
        problem = f"The NVIDIA driver on your system is too old (found version {version}). Please update your GPU driver"
        assert re.search("driver is too old for this PyTorch .*" + remedy, why(monkeypatch, problem=problem))
    assert "there is no NVIDIA driver on this machine" in why(
        monkeypatch, problem="Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver")
    assert "finds no usable GPU (No CUDA GPUs are available)" in why(monkeypatch, problem="No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES= hides all GPUs" in why(monkeypatch, problem="No CUDA GPUs are available")


@pytest.mark.parametrize("capability, remedy", [((5, 2), "cu126"), ((7, 0), "cu126"), ((12, 0), "cu130")])
def test_the_build_that_a_gpu_needs(monkeypatch, capability, remedy):
    """Builds for CUDA 13 have no Maxwell, Pascal and Volta any more; a newer GPU needs a newer build."""
    reason = why(monkeypatch, is_available=True, device_count=1, get_arch_list=["sm_75", "sm_90"],
                 get_device_capability=capability, get_device_name="Some GPU")
    assert "is not supported by this PyTorch" in reason and reason.endswith(f"make setup TORCH={remedy}")


@pytest.mark.parametrize("capability, built_for, works", [
    ((8, 9), ["sm_75", "sm_80", "sm_90"], True),      # a later minor version
    ((12, 0), ["sm_80", "compute_90"], True),         # compiled when it is loaded
    ((9, 0), ["sm_90a"], True), ((12, 0), ["sm_90a", "sm_100f"], False),
    ((10, 3), ["sm_100f"], True),
    ((5, 2), ["sm_75", "sm_80", "sm_120", "compute_120"], False),
    ((8, 0), ["sm_86"], False),
])  # fmt: skip
def test_a_gpu_that_this_build_no_longer_supports(monkeypatch, capability, built_for, works):
    reason = why(monkeypatch, is_available=True, device_count=1, get_arch_list=built_for,
                 get_device_capability=capability, get_device_name="Maxwell")
    assert reason == "" if works else "GPU 0 (Maxwell) is not supported by this PyTorch" in reason and built_for[0] in reason


def test_the_remedy_is_what_was_used(monkeypatch, tmp_path, capsys):
    import torch

    from torchcaffe.commands import cli

    monkeypatch.setattr(torch.version, "cuda", None)
    for call in (mode.set_mode_gpu, lambda: mode.set_device(0)):
        with pytest.raises(CaffeError, match=r"CPU build.*; call set_mode_cpu\(\) instead to compute on the CPU$"):
            call()
    (tmp_path / "solver").write_text('net: "x" solver_mode: GPU')
    solver = str(tmp_path / "solver")
    for words, remedy in (
        (["train", "-solver", solver, "-gpu", "0"], "leave out -gpu"), (["train", "-solver", solver, "-gpu", "all"], "leave out -gpu"),
        (["train", "-solver", solver, "-gpu", "0,1"], "leave out -gpu"), (["train", "-solver", solver], "write solver_mode: CPU"),
        (["extract_features", "w", "m", "b", "d", "1", "lmdb", "GPU"], "give CPU instead"),
    ):  # fmt: skip
        assert cli.main(words) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("torchcaffe ")]
        assert "is a CPU build" in line and line.endswith(f"; {remedy} to compute on the CPU") and "set_mode_cpu" not in line
