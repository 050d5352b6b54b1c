"""Which items of a training net's batches this process takes, where several train one net."""

from __future__ import annotations

from dataclasses import dataclass

from torchcaffe.core.errors import NetError


@dataclass(frozen=True)
class Share:
    """Part of rank `rank` of `count`.

    split: batch_size counts the items of all ranks, and rank r takes the r-th of `count` equal parts of every batch.
    Otherwise batch_size is this rank's own, and the data layers deal items in turn: Caffe's several GPUs.
    """

    rank: int = 0
    count: int = 1
    split: bool = False

    def size(self, batch_size: int, layer) -> int:
        """Items of a batch that are ours. Raises NetError where the ranks cannot have equal parts."""
        if not self.split:
            return batch_size
        if batch_size % self.count:
            raise NetError(f'layer "{layer.name}" ({layer.type}): {uneven(batch_size, self.count)}')
        return batch_size // self.count

    def owns(self, position: int, batch_size: int) -> bool:
        """True where the item at `position` of the data, counted on over batches and epochs, is ours."""
        if self.split:
            return position % batch_size * self.count // batch_size == self.rank
        return position % self.count == self.rank

    def of_batch(self, draw, shape):
        """Our part of `draw(shape of the whole batch)`: `shape` is of our items, the batch is axis 0.

        All ranks draw the same numbers, as one process would that has the whole batch, and each keeps its own items'.
        """
        if not self.split or not shape:
            return draw(shape)
        size = shape[0]
        return draw((size * self.count, *shape[1:]))[self.rank * size : (self.rank + 1) * size]


WHOLE = Share()


def uneven(batch_size: int, count: int) -> str:
    """What to say where `batch_size` is no multiple of `count`."""
    below = batch_size // count * count
    sizes = " or ".join(str(size) for size in (below, below + count) if size)
    return (
        f"batch_size {batch_size} cannot be split evenly over {count} ranks: give batch_size {sizes}, "
        "or another number of ranks"
    )
