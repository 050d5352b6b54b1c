"""The part of a solver that tests and reports: Caffe's log lines, which parsers of its logs know."""

from __future__ import annotations

import time

import torch

from torchcaffe.core import execution, log
from torchcaffe.core.log import number


class SolverReports:
    """Mixin of the solvers."""

    def test_all(self):
        """Test every test net; a requested stop ends it between batches."""
        for index in range(len(self.test_nets)):
            if self.requested == "stop":
                return
            self.test(index)

    def test(self, index: int):
        """Average the outputs of test net `index` over test_iter batches and log them."""
        p, net = self.proto, self.test_nets[index]
        log.info(f"Iteration {self.iter}, Testing net (#{index})")
        net.share_with(self.net)
        count, loss, sums = p.test_iter[index], 0.0, None
        for _ in range(count):
            if self.requested == "snapshot":
                self.requested = None
                self.snapshot()
            if self.requested == "stop":
                log.info("Test interrupted.")
                return
            batch_loss = execution.forward_only(net)
            loss += float(batch_loss) if p.test_compute_loss else 0.0
            values = torch.cat([net.blobs[name].tensor().reshape(-1) for name in net.outputs])
            sums = values if sums is None else sums + values
        if p.test_compute_loss:
            log.info(f"Test loss: {number(loss / count)}")
        values = (sums / count).tolist()
        execution.settle(net)
        self.log_outputs(net, values, "Test")

    def log_outputs(self, net, values, which):
        position, weights = 0, net.blob_loss_weights
        for name in net.outputs:
            blob, weight = net.blobs[name], weights[name]
            for value in values[position : position + blob.count]:
                extra = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
                log.info(f"    {which} net output #{position}: {name} = {number(value)}{extra}")
                position += 1

    def log_iteration(self):
        now = time.monotonic()
        previous, self._last_display = self._last_display, (now, self.iter)
        speed, seconds, done = 0.0, 0.0, 0
        if previous is not None and now > previous[0]:
            seconds, done = now - previous[0], self.iter - previous[1]
            speed = done / seconds
        blobs = [self.net.blobs[name] for name in self.net.outputs]
        losses = [float(blob.tensor()) for blob in blobs if not blob.dims]
        means = iter(self.ranks.means([float(self.smoothed_loss), *losses]))
        log.info(
            f"Iteration {self.iter} ({number(speed)} iter/s, {number(seconds)}s/{self.proto.display} iters), "
            f"loss = {number(next(means))}"
        )
        values = []  # of the whole batch where an output is one number, else of this rank's part
        for blob in blobs:
            values += blob.tensor().detach().reshape(-1).tolist() if blob.dims else [next(means)]
        self.log_outputs(self.net, values, "Train")
