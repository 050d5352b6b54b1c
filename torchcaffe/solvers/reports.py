"""What a solver reports: the smoothed loss, the speed, and Caffe's log lines, which parsers of its logs know."""

from __future__ import annotations

import time

from torchcaffe.core import log
from torchcaffe.core.log import number


class SmoothedLoss:
    """Mean of the last `size` losses, as Caffe keeps it; a loss is a float, or a tensor on its device."""

    def __init__(self, size: int):
        self.size = max(1, size)
        self.value = 0.0
        self._losses = []

    def add(self, loss, turn: int):
        """Take the loss of iteration `turn` of this call of step()."""
        if len(self._losses) < self.size:
            self._losses.append(loss)
            count = len(self._losses)
            self.value = (self.value * (count - 1) + loss) / count
        else:
            slot = turn % self.size
            self.value = self.value + (loss - self._losses[slot]) / self.size
            self._losses[slot] = loss


class Speed:
    """Iterations per second between two displays."""

    def __init__(self):
        self._last = None  # (time, iteration) of the last display

    def measure(self, iteration: int):
        """(iterations per second, seconds) since the last call; zeros at the first."""
        now = time.monotonic()
        previous, self._last = self._last, (now, iteration)
        if previous is None or now <= previous[0]:
            return 0.0, 0.0
        seconds = now - previous[0]
        return (iteration - previous[1]) / seconds, seconds


def log_iteration(net, iteration: int, display: int, speed: Speed, loss, ranks):
    """The lines of one display: speed and smoothed loss, then each output of the net, averaged over the ranks."""
    rate, seconds = speed.measure(iteration)
    blobs = [net.blobs[name] for name in net.outputs]
    scalars = [float(blob.tensor()) for blob in blobs if not blob.dims]
    means = iter(ranks.means([float(loss), *scalars]))
    log.info(f"Iteration {iteration} ({number(rate)} iter/s, {number(seconds)}s/{display} iters), loss = {number(next(means))}")
    values = []  # of the whole batch where an output is one number, else of this rank's part
    for blob in blobs:
        values += blob.tensor().detach().reshape(-1).tolist() if blob.dims else [next(means)]
    log_outputs(net, values, "Train")


def log_outputs(net, values, which: str):
    """A line for each number of the net's outputs, with its part in the loss. which: "Train" or "Test"."""
    position, weights = 0, net.blob_loss_weights
    for name in net.outputs:
        blob, weight = net.blobs[name], weights[name]
        for value in values[position : position + blob.count]:
            extra = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
            log.info(f"    {which} net output #{position}: {name} = {number(value)}{extra}")
            position += 1
