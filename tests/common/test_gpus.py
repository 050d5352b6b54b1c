"""The GPUs of a machine as the driver's files tell them, and the line about one that lies idle."""

from __future__ import annotations

from importlib import metadata

import pytest
from fake_chain import FAKE
from tiny_project import TINY

from common import gpus
from gender_smile.training import chain
from tools import train

INFORMATION = "Model: \t\t NVIDIA {}\nIRQ:   \t\t 35\nGPU UUID: \t GPU-1\nBus Type: \t PCIe\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine("H100", ...): what the driver then shows."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "DRIVER", str(tmp_path / "*" / "information"))
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0")

    def make(*names):
        for index, name in enumerate(names):
            (tmp_path / f"0000:{index:02d}:00.0").mkdir()
            (tmp_path / f"0000:{index:02d}:00.0" / "information").write_text(INFORMATION.format(name))
    return make


def test_no_gpu(machine):
    assert gpus.models() == [] and gpus.idle_note() == ""


def test_gpus_are_named_unless_they_are_hidden(machine, monkeypatch):
    machine("H100 80GB HBM3", "A2")
    assert gpus.models() == ["NVIDIA H100 80GB HBM3", "NVIDIA A2"]
    assert gpus.idle_note() == ("note: this machine's GPU is idle (2 GPUs, NVIDIA H100 80GB HBM3 first) and the CPU trains: "
                                "GPU=0 (--gpu 0) trains on it")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus.models()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.models() == [] and gpus.idle_note() == ""


def test_a_cpu_build_needs_another_set_up_first(machine, monkeypatch):
    machine("L4")
    monkeypatch.setattr(metadata, "version", lambda name: "2.13.0+cpu")
    assert "(NVIDIA L4) and the CPU trains: make setup TORCH=cu130 installs PyTorch for it, and GPU=0" in gpus.idle_note()


@pytest.mark.parametrize("gpu, steps, where, idle", [(None, [1, 2], "the CPU", True), (1, [1, 2], "GPU 1", False),
                                                     (None, [1], "the CPU", False)])
def test_the_plan_names_the_device_and_an_idle_gpu(machine, tmp_path, gpu, steps, where, idle):
    machine("L4")
    lines = train.plan(chain.rows(TINY, ["gnet"], steps, root=str(tmp_path)), FAKE, gpu=gpu).splitlines()
    assert any(line.startswith(f"engine: a fake on {where}; ") for line in lines)
    assert any(line.startswith("note: this machine's GPU is idle (NVIDIA L4)") for line in lines) is idle
