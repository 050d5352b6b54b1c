"""Which items of a training batch this rank computes on."""

from __future__ import annotations

from dataclasses import dataclass

from torchcaffe.core.errors import NetError


@dataclass(frozen=True)
class Share:
    """The part of each batch that rank `rank` of `count` computes on.

    split: batch_size counts the items of all ranks, and rank r has the r-th of `count` equal parts of every batch.
    Otherwise batch_size is per rank, and items go to the ranks in turn, as on Caffe's several GPUs.
    """

    rank: int = 0
    count: int = 1
    split: bool = False

    def size(self, batch_size: int, layer) -> int:
        """Number of this rank's items of a batch. Raises NetError where it cannot be split evenly."""
        if not self.split:
            return batch_size
        if batch_size % self.count:
            raise NetError(f'layer "{layer.name}" ({layer.type}): {uneven(batch_size, self.count)}')
        return batch_size // self.count

    def owns(self, position: int, batch_size: int) -> bool:
        """True where this rank computes on the item at `position`, counted through all batches and epochs."""
        if self.split:
            return position % batch_size * self.count // batch_size == self.rank
        return position % self.count == self.rank

    def of_batch(self, draw, shape):
        """This rank's part of `draw(shape of the whole batch)`; `shape` is of this rank's items, the batch is axis 0.

        All ranks draw the same numbers, those of one process with the whole batch, and keep those of their own items.
        """
        if not self.split or not shape:
            return draw(shape)
        size = shape[0]
        return draw((size * self.count, *shape[1:]))[self.rank * size : (self.rank + 1) * size]


WHOLE = Share()


def uneven(batch_size: int, count: int) -> str:
    """The message for a `batch_size` that is not a multiple of `count`."""
    below = batch_size // count * count
    sizes = " or ".join(str(size) for size in (below, below + count) if size)
    return (
        f"batch_size {batch_size} cannot be split evenly over {count} ranks: give batch_size {sizes}, "
        "or another number of ranks"
    )
