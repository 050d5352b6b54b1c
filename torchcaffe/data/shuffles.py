"""Caffe's two shuffles, with the same random numbers."""

from __future__ import annotations

from collections import deque


def up_to(limit: int, generator) -> int:
    """Uniform integer 0..limit (both included) from a Generator, as Boost's uniform_int draws it."""
    largest = 2**32 - 1
    width = largest // (limit + 1)
    if largest % (limit + 1) == limit:
        width += 1
    while True:
        value = generator.draw() // width
        if value <= limit:
            return value


def shuffle(items: list, generator):
    """In place, from the last: ImageData's lines. `generator` is a rng.Generator."""
    for index in range(len(items) - 1, 0, -1):
        other = up_to(index, generator)
        items[index], items[other] = items[other], items[index]


class LibraryRandom:
    """The C library's rand() as Linux has it (glibc, additive feedback), in its state at a program's start."""

    def __init__(self, seed: int = 1):
        numbers = [seed]
        for _ in range(30):
            numbers.append(16807 * numbers[-1] % 2147483647)
        self._last = deque(numbers + numbers[:3], maxlen=34)
        for _ in range(310):
            self._step()

    def _step(self) -> int:
        value = (self._last[-3] + self._last[-31]) & 0xFFFFFFFF
        self._last.append(value)
        return value

    def draw(self) -> int:
        return self._step() >> 1

    def state(self) -> list:
        """The generator's state: its last 34 numbers."""
        return list(self._last)

    def set_state(self, state: list):
        if len(state) != 34:
            raise ValueError(f"a state has 34 numbers, not {len(state)}")
        self._last = deque((int(number) & 0xFFFFFFFF for number in state), maxlen=34)


library = LibraryRandom()  # one for the whole process, as in C; Caffe's random_seed does not reach it


def library_shuffle(items: list):
    """In place, from the second: HDF5Data's files and rows (std::random_shuffle)."""
    for index in range(1, len(items)):
        other = library.draw() % (index + 1)
        items[index], items[other] = items[other], items[index]
