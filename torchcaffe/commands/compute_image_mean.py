"""`compute_image_mean`: the mean of all records of an LMDB, as a binaryproto."""

from __future__ import annotations

from torchcaffe.core import log
from torchcaffe.data.database import records
from torchcaffe.core.errors import DataError
from torchcaffe.formats.storage import check_writable


def compute_image_mean(flags, database, output=None):
    """Mean per pixel, in float32 as Caffe adds up, written with legacy shape 1, C, H, W; log the channels' means."""
    import numpy as np

    from torchcaffe.data.datum import to_array

    if output is not None:
        check_writable(output)
    total, count = None, 0
    log.info("Starting iteration")
    for key, datum in records(database, flags.backend):
        array = to_array(datum, f"{database}: record {key}")
        if total is None:
            total = np.zeros(array.shape, np.float32)
        if array.shape != total.shape:
            raise DataError(
                f"{database}: record {key} is {array.shape}, the first one {total.shape}: Incorrect data field size"
            )
        total += array
        count += 1
        if count % 10000 == 0:
            log.info(f"Processed {count} files.")
    if count % 10000:
        log.info(f"Processed {count} files.")
    mean = total / np.float32(count)
    if output is not None:
        from torchcaffe.formats.files import write_blob

        log.info(f"Write to {output}")
        write_blob(output, mean[None], legacy=True)
    log.info(f"Number of channels: {len(mean)}")
    for channel, plane in enumerate(mean):
        value = np.add.accumulate(plane.reshape(-1), dtype=np.float32)[-1] / np.float32(plane.size)
        log.info(f"mean_value channel [{channel}]: {log.number(float(value))}")
