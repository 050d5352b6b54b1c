"""Mean of the gradients over ranks, taken while the rest of the backward pass still runs."""

from __future__ import annotations

import torch
import torch.distributed as dist

BUCKET_BYTES = 25 << 20  # of gradients that travel together: torch's DistributedDataParallel has the same


class Bucket:
    """Parameters whose gradients travel together."""

    def __init__(self, blobs):
        self.blobs = blobs
        self.buffer = None  # the gradients, end to end; not needed for one that is contiguous by itself
        self.views = None
        self.clear()

    def clear(self):
        self.gradients = {}  # blob -> gradient, as backward comes to it
        self.tensor = self.work = None

    def launch(self, group):
        """Start to sum this bucket over the ranks."""
        gradients = [self.gradients.get(blob) for blob in self.blobs]
        gradients = [blob.diff_tensor() if g is None else g for blob, g in zip(self.blobs, gradients)]
        if len(gradients) == 1 and gradients[0].is_contiguous():
            self.tensor, views = gradients[0], gradients
        else:
            views = self.pack(gradients)
        self.gradients = dict(zip(self.blobs, views))
        self.work = dist.all_reduce(self.tensor, group=group, async_op=True)

    def pack(self, gradients):
        if self.buffer is None:
            sizes = [blob.count for blob in self.blobs]
            self.buffer = torch.empty(sum(sizes), device=gradients[0].device)
            self.views = [part.view(blob.dims) for part, blob in zip(self.buffer.split(sizes), self.blobs)]
        torch._foreach_copy_(self.views, [g.view(blob.dims) for g, blob in zip(gradients, self.blobs)])
        self.tensor = self.buffer
        return self.views

    def finish(self, count):
        """Wait for the sum (on a GPU the stream does, not the host), and give the blobs their means."""
        self.work.wait()
        self.tensor.div_(count)
        for blob, gradient in self.gradients.items():
            blob.put_diff(gradient)
        self.clear()


class Reducer:
    """Averages the gradients of a net's parameters over `count` ranks.

    `arm()` before the backward pass whose gradients are complete (the last of iter_size), `finish()` after it. Between
    them, each bucket is sent off as soon as its gradients are there, in the same order on every rank. Without `arm()`,
    or where layers run one at a time, `finish()` does it all.
    """

    def __init__(self, learnable, count, group=None, bucket_bytes=BUCKET_BYTES):
        self.count, self.group = count, group
        self.armed, self.next = False, 0
        blobs = [blob for blob in reversed(learnable) if blob.data_memory.tensor.requires_grad]  # as backward comes
        self.buckets = [Bucket(part) for part in _parts(blobs, bucket_bytes)]
        self.hooks = [
            blob.data_memory.tensor.register_post_accumulate_grad_hook(self._hook(bucket, blob))
            for bucket in self.buckets
            for blob in bucket.blobs
        ]

    def _hook(self, bucket, blob):
        def ready(leaf):
            if not self.armed:
                return
            bucket.gradients[blob] = leaf.grad
            while self.next < len(self.buckets) and self._complete(self.buckets[self.next]):
                self._launch()

        return ready

    @staticmethod
    def _complete(bucket):
        return len(bucket.gradients) == len(bucket.blobs)

    def _launch(self):
        self.next += 1
        self.buckets[self.next - 1].launch(self.group)

    def arm(self):
        """The next backward pass gives the gradients of this iteration."""
        self.armed = True

    def finish(self):
        """The parameters' diffs are now the means over all ranks."""
        self.armed = False
        with torch.no_grad():
            while self.next < len(self.buckets):  # parameters that backward has not reached, or all
                self.buckets[self.next].gradients.clear()
                self._launch()
            for bucket in self.buckets:
                bucket.finish(self.count)
        self.next = 0


def _parts(blobs, most):
    """Runs of `blobs` whose gradients take at most `most` bytes, or a larger one alone."""
    parts, size = [], 0
    for blob in blobs:
        size += 4 * blob.count
        if not parts or size > most:
            parts.append([])
            size = 4 * blob.count
        parts[-1].append(blob)
    return parts
