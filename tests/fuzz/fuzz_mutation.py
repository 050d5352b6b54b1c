"""Plain mutation of files, for where there is no atheris: the same random numbers give the same inputs."""

from __future__ import annotations

import random
from typing import Iterator, Sequence

LIMIT = 64 << 10  # bytes of an input
NUMBERS = [
    value.to_bytes(size, order, signed=value < 0)
    for size in (1, 2, 4, 8)
    for value in (0, 1, -1, -(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1)
    for order in ("little", "big")
]
WORDS = [b"0", b"-1", b"2147483647", b"4294967295", b"18446744073709551615", b"1e400", b"nan", b"-inf", b"../", b"/", b'"']


def mutations(seeds: Sequence[bytes], tokens: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Endless inputs, each a seed that was changed in one to eight places."""
    draw = random.Random(seed)
    words = [*NUMBERS, *WORDS, *tokens]
    while True:
        data = bytearray(draw.choice(seeds))
        for _ in range(1 << draw.randrange(4)):
            change(data, seeds, words, draw)
        yield bytes(data[:LIMIT])


def change(data: bytearray, seeds, words, draw) -> None:
    at = draw.randrange(len(data) + 1)
    length = 1 << draw.randrange(8)
    way = draw.randrange(7)
    if way == 0 and data:
        data[at % len(data)] ^= 1 << draw.randrange(8)
    elif way == 1 and data:
        data[at % len(data)] = draw.randrange(256)
    elif way == 2:
        del data[at : at + length]
    elif way == 3:
        data[at:at] = draw.choice(words)
    elif way == 4:
        word = draw.choice(words)
        data[at : at + len(word)] = word
    elif way == 5:
        start = draw.randrange(len(data) + 1)
        data[at:at] = data[start : start + length]
    else:
        other = draw.choice(seeds)
        start = draw.randrange(len(other) + 1)
        data[at : at + length] = other[start : start + length]
