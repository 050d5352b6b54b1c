"""A thread that reads batches ahead of the net."""

from __future__ import annotations

import queue
import threading
import weakref


class Prefetcher:
    """Draws from `batches` in a thread, `depth` ahead. An error there is raised by next()."""

    def __init__(self, batches, depth, device):
        self.queue = queue.Queue(max(1, depth))
        self.stopped = threading.Event()
        self.device = device
        self.thread = None
        self.batches = batches
        weakref.finalize(self, Prefetcher._stop, self.stopped, self.queue)

    @staticmethod
    def _stop(stopped, waiting):
        stopped.set()
        while not waiting.empty():
            try:
                waiting.get_nowait()
            except queue.Empty:
                break

    @staticmethod
    def _run(batches, waiting, stopped, pin):
        try:
            for batch in batches:
                if pin:
                    batch = tuple(tensor.pin_memory() for tensor in batch)
                while not stopped.is_set():
                    try:
                        waiting.put(batch, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if stopped.is_set():
                    return
        except BaseException as error:  # handed over to the thread that asks for the next batch
            waiting.put(error)

    def next(self):
        """Next (data, labels) on the device."""
        if self.thread is None:
            pin = self.device.type == "cuda"
            arguments = (self.batches, self.queue, self.stopped, pin)
            self.thread = threading.Thread(target=Prefetcher._run, args=arguments, daemon=True, name="prefetch")
            self.thread.start()
        batch = self.queue.get()
        if isinstance(batch, BaseException):
            self.queue.put(batch)
            raise batch
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
