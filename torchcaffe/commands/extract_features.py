"""`extract_features`: blobs of a net, item by item, into LMDBs or LevelDBs. Its lines are of level ERROR, as Caffe's are."""

from __future__ import annotations

from torchcaffe.core.names import suggestion
from torchcaffe.core import log
from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError
from torchcaffe.data.database import create
from torchcaffe.core.errors import NetError


def extract_features(flags, weights, model, blobs, databases, batches, kind, device="CPU", device_id="0"):
    """Run `batches` batches of `model` and store each of `blobs` (comma list) in its database, as float Datums."""
    names, paths = blobs.split(","), databases.split(",")
    if len(names) != len(paths):
        raise UsageError("the number of blob names and dataset names must be equal")
    if not batches.isdigit() or not device_id.isdigit():
        raise UsageError(f"the number of mini-batches and DEVICE_ID are whole numbers, not '{batches}', '{device_id}'")
    from torchcaffe import TEST
    from torchcaffe.core.net import Net

    devices.use([int(device_id)] if device == "GPU" else [], flag=devices.IN_WORDS)
    net = Net(model, TEST)
    net.copy_from(weights)
    for name in names:
        if name not in net.blobs:
            raise NetError(f"Unknown feature blob name {name} in the network {model}; {suggestion(name, net.blobs)}")
    log.error("Extracting Features")
    writers = []
    try:
        writers += [create(path, kind) for path in paths]
        for _ in range(int(batches)):
            net._forward(0, len(net.layers) - 1)
            for name, writer in zip(names, writers):
                _store(net.blobs[name], name, writer)
        for name, writer in zip(names, writers):
            writer.close()
            if writer.count % 1000:
                log.error(f"Extracted features of {writer.count} query images for feature blob {name}")
    finally:
        for writer in writers:
            writer.abandon()
    log.error("Successfully extracted the features!")


def _store(blob, name, writer):
    from torchcaffe.proto import caffe_pb2

    for item in blob.data.reshape(blob.num, -1):
        datum = caffe_pb2.Datum(channels=blob.channels, height=blob.height, width=blob.width)
        datum.float_data.extend(item.tolist())
        writer.put(f"{writer.count:010d}", datum.SerializeToString())
        if writer.count % 1000 == 0:
            log.error(f"Extracted features of {writer.count} query images for feature blob {name}")
