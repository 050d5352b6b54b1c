"""The device under test: `--device 0` (default: GPU 0) or another GPU's number; `--device cpu` runs the same code there."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import pytest

import torchcaffe
from torchcaffe.core import mode

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / name) for name in ("parity", "reliability")]  # whose cases and kills are run on the device


@dataclass(frozen=True)
class Device:
    """`gpu`: its number, None for the CPU."""

    gpu: Optional[int]

    @contextlib.contextmanager
    def use(self, **settings):
        """Nets built inside compute on the device; `settings`: precision, exact_draws."""
        if self.gpu is not None:
            torchcaffe.set_device(self.gpu)
            torchcaffe.set_mode_gpu()
        torchcaffe.set_precision(settings.get("precision", "float32"))
        torchcaffe.set_exact_draws(settings.get("exact_draws", True))
        try:
            yield
        finally:
            torchcaffe.set_mode_cpu()
            torchcaffe.set_precision("float32")
            torchcaffe.set_exact_draws(False)


@pytest.fixture(scope="session")
def device(request) -> Device:
    """The device of --device, or skip with the reason."""
    name = request.config.getoption("--device")
    if name == "cpu":
        return Device(None)
    reason = mode.why_no_gpu(int(name))
    if reason:
        pytest.skip(reason)
    return Device(int(name))


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "3")
