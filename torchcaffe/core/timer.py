"""pycaffe's Timer."""

from __future__ import annotations

import time


class Timer:
    """Wall-clock time between start() and stop(), the GPU's work of this thread included; `ms` in milliseconds."""

    def __init__(self) -> None:
        self._started = self._stopped = 0.0
        self._running = False

    def start(self) -> None:
        self._started, self._running = _now(), True

    def stop(self) -> None:
        if self._running:
            self._stopped, self._running = _now(), False

    @property
    def ms(self) -> float:
        """Milliseconds from start() to stop(); stops a timer that is running, as Caffe's does. 0 if never started."""
        self.stop()
        return 1000 * (self._stopped - self._started)


def _now():
    from torchcaffe.core import mode

    if mode.device().type == "cuda":
        import torch

        torch.cuda.synchronize(mode.device())
    return time.perf_counter()
