"""Caffe's random numbers: one MT19937 a thread, whose 32-bit outputs numpy's RandomState reproduces draw for draw."""

from __future__ import annotations

import os
import threading

import numpy as np

_thread = threading.local()
BLOCK = 2**16  # numbers drawn at a time: what is worked out from them stays in the processor's cache
WORDS = 624  # of MT19937's state


class Generator:
    """MT19937 stream of 32-bit outputs, as Caffe's CPU build draws them."""

    def __init__(self, seed: int):
        self._state = np.random.RandomState()
        self.seed(seed)

    def seed(self, seed: int):
        """Restart the stream, for every user of this generator."""
        self._state.seed(seed & 0xFFFFFFFF)

    def draws(self, shape) -> np.ndarray:
        """Next 32-bit outputs in order, uint32 of `shape`."""
        return self._state.randint(0, 2**32, size=shape, dtype=np.uint32)

    def draw(self) -> int:
        return int(self.draws(1)[0])

    def uniform(self, low: float, high: float, shape) -> np.ndarray:
        """U[low, high) as Caffe draws it, float32 of `shape`."""
        width, low = np.float32(high - low), np.float32(low)
        unit = np.float32(2.0**-32)
        return _in_blocks(shape, lambda count: self.draws(count).astype(np.float32) * unit * width + low)

    def normal(self, mean: float, std: float, shape) -> np.ndarray:
        """N(mean, std), float32 of `shape`. Equal to Caffe's in distribution only (Boost's algorithm varies)."""
        return _in_blocks(shape, lambda count: self._state.normal(mean, std, size=count))

    def bernoulli(self, probability: float, shape) -> np.ndarray:
        """True with `probability`, one draw an element, as Caffe's CPU dropout: u / 2^32 <= probability."""
        return np.asarray(self.draws(shape) <= np.uint32(min(probability * 2.0**32, 2.0**32 - 1)))  # of no axes, too

    def state_dict(self) -> dict:
        """State as plain numbers, for a file; see load_state_dict."""
        state = self._state.get_state(legacy=False)
        words = {"key": state["state"]["key"].tolist(), "position": int(state["state"]["pos"])}
        return {**words, "has_gauss": int(state["has_gauss"]), "gauss": float(state["gauss"])}

    def load_state_dict(self, state: dict):
        """Continue from a state_dict(). Raises KeyError, TypeError or ValueError for anything else."""
        key, position = np.array(state["key"]), int(state["position"])
        if key.dtype.kind not in "iu" or key.shape != (WORDS,) or not 0 <= key.min() <= key.max() < 2**32:
            raise ValueError(f"a generator's key is {WORDS} numbers of 32 bits")
        if not 0 <= position <= WORDS:  # numpy would read behind the key
            raise ValueError(f"a generator's position is 0 to {WORDS}, not {position}")
        numbers = (int(bool(state["has_gauss"])), float(state["gauss"]))
        self._state.set_state(("MT19937", key.astype(np.uint32), position, *numbers))


def _in_blocks(shape, draw) -> np.ndarray:
    """float32 of `shape` from draw(count): the same numbers as in one call, without its big temporary arrays."""
    values = np.empty(shape, np.float32)
    flat = values.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        block[...] = draw(block.size)
    return values


def generator() -> Generator:
    """This thread's generator, seeded by the system until set_random_seed is called."""
    if not hasattr(_thread, "generator"):
        set_random_seed(int.from_bytes(os.urandom(4), "little"))
    return _thread.generator


def set_random_seed(seed: int) -> None:
    """Seed this thread's generator, also for nets that exist already, and torch's for what runs on a GPU."""
    import torch

    if hasattr(_thread, "generator"):
        _thread.generator.seed(int(seed))
    else:
        _thread.generator = Generator(int(seed))
    torch.manual_seed(int(seed) & 0x7FFFFFFFFFFFFFFF)
