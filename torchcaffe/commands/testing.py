"""`test`: averages of a net's outputs over a number of batches."""

from __future__ import annotations

from torchcaffe.core import log
from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError
from torchcaffe.core.log import number


def load(flags, phase):
    """The net of -model in its state, on the device of -gpu (the first one)."""
    from torchcaffe.core.net import Net

    devices.use(devices.numbers(flags.gpu))
    return Net(flags.model, phase, level=flags.level, stages=devices.stages(flags.stage))


def test(flags):
    """Score a model: outputs of each batch, then their means."""
    if not flags.model:
        raise UsageError("Need a model definition to score: -model FILE")
    if not flags.weights:
        raise UsageError("Need model weights to score: -weights FILE")
    if flags.iterations < 1:
        raise UsageError(f"flag '-iterations' is 1 or more, not {flags.iterations}")
    from torchcaffe import TEST
    from torchcaffe.core import execution

    net = load(flags, TEST)
    net.copy_from(flags.weights)
    log.info(f"Running for {flags.iterations} iterations.")
    loss, shapes = 0.0, {}
    for batch in range(flags.iterations):
        loss += float(execution.forward_only(net))
        values = execution.output_values(net, shapes).tolist()
        if not batch:
            names = [name for name in net.outputs for _ in range(net.blobs[name].count)]
            sums = [0.0] * len(names)
        for index, (name, value) in enumerate(zip(names, values)):
            sums[index] += value
            log.info(f"Batch {batch}, {name} = {number(value)}")
    log.info(f"Loss: {number(loss / flags.iterations)}")
    for name, total in zip(names, sums):
        weight, mean = net.blob_loss_weights[name], total / flags.iterations
        extra = f" (* {number(weight)} = {number(weight * mean)} loss)" if weight else ""
        log.info(f"{name} = {number(mean)}{extra}")
