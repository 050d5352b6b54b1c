"""A thread that prefetches batches to the device that the net computes on."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from typing import Callable, NamedTuple, Optional, Tuple

import numpy as np
import torch

_running = weakref.WeakSet()


class Batch(NamedTuple):
    """A prefetched batch: tensors on the host, and the function that turns them into tops on the device."""

    tensors: Tuple[torch.Tensor, ...]
    finish: Callable = lambda *tensors: tensors
    state: Optional[dict] = None  # where the source stands behind this batch, as plain data


class Buffers:
    """Host arrays for batches of one shape, reused once no tensor refers to them.

    Fresh memory costs a page fault every 4 kB when it is written first, which takes longer than converting the images
    that go into it. For a GPU the memory is pinned, and PyTorch itself uses it again when the copies from it are done.
    """

    def __init__(self, pinned: bool):
        self.pinned = pinned
        self.free = []

    def take(self, shape, dtype):
        """(array, tensor): the same C-contiguous memory, of numpy's `dtype`."""
        if self.pinned:
            tensor = torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)
            return tensor.numpy(), tensor
        array = None
        while self.free and array is None:
            kept = self.free.pop()
            array = kept if kept.shape == shape and kept.dtype == dtype else None
        if array is None:
            array = np.empty(shape, dtype)
        lent = array.view()  # the tensor's memory holds on to it, through whatever views, until the last one is gone
        weakref.finalize(lent, self.free.append, array).atexit = False
        return array, torch.from_numpy(lent)


class Prefetcher:
    """Runs `batches()`, a generator of Batch, in a thread, `depth` batches ahead. next() raises its errors.

    `state` is that of the last batch that next() returned; `batches(state)` must continue after it.
    On a GPU, copies and what finishes a batch run on a stream of their own, beside the net's work.
    """

    def __init__(self, batches, depth, device):
        self.depth, self.device, self.batches = max(1, depth), device, batches
        self.thread = None
        self._start_from(None)

    def _start_from(self, state):
        self.state = state
        self.queue = queue.Queue(self.depth)
        self.stopped = threading.Event()
        weakref.finalize(self, self.stopped.set)

    def restore(self, state):
        """Continue after `state`, discarding what was prefetched."""
        if self.thread is not None:
            self.stopped.set()
            self.thread.join()  # it draws from the generators that the new one goes on with
            self.thread = None
        self._start_from(state)

    def next(self):
        """The next batch's tops on the device."""
        if self.thread is None:
            move = _StreamMover(self.device) if self.device.type == "cuda" else _move_nothing
            arguments = (self.batches(self.state), self.queue, self.stopped, move)
            self.thread = threading.Thread(target=_run, args=arguments, daemon=True, name="prefetch")
            self.thread.stopped = self.stopped
            self.thread.start()
            _running.add(self.thread)
        batch, event, state = self.queue.get()
        if isinstance(batch, BaseException):
            self.queue.put((batch, None, None))
            raise batch
        self.state = state
        if event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            for tensor in batch:
                tensor.record_stream(stream)
        return batch


def _run(batches, waiting, stopped, move):
    """The thread's function. It has no reference to the Prefetcher, so deleting that ends the thread."""
    try:
        for batch in batches:
            if not _put((*move(batch), batch.state), waiting, stopped):
                break
    except BaseException as error:  # handed over to the thread that asks for the next batch
        _put((error, None, None), waiting, stopped)
    finally:
        batches.close()


def _put(item, waiting, stopped):
    while not stopped.is_set():
        try:
            waiting.put(item, timeout=0.2)
            return True
        except queue.Full:
            continue
    return False


def _move_nothing(batch):
    return batch.finish(*batch.tensors), None


class _StreamMover:
    """batch -> (tops on the GPU, event that marks them ready)"""

    def __init__(self, device):
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def __call__(self, batch):
        with torch.cuda.device(self.device), torch.cuda.stream(self.stream):
            tops = batch.finish(*(tensor.to(self.device, non_blocking=True) for tensor in batch.tensors))
            event = torch.cuda.Event()
            event.record()
        return tops, event


@atexit.register
def stop_all():
    """Stop all threads: one that still runs C++ code when the interpreter exits would abort the process."""
    threads = list(_running)
    for thread in threads:
        thread.stopped.set()
    for thread in threads:
        thread.join(timeout=10)
