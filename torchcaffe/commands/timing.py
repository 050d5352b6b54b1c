"""`time`: how long each layer takes, forward and backward."""

from __future__ import annotations

from torchcaffe.core import log
from torchcaffe.commands.flags import UsageError
from torchcaffe.commands.testing import load
from torchcaffe.core.log import number


def time(flags):
    """Benchmark a model, layer by layer."""
    if not flags.model:
        raise UsageError("Need a model definition to time: -model FILE")
    if flags.phase not in ("", "TRAIN", "TEST"):
        raise UsageError(f'phase must be "TRAIN" or "TEST", not \'{flags.phase}\'')
    if flags.iterations < 1:
        raise UsageError(f"flag '-iterations' is 1 or more, not {flags.iterations}")
    from torchcaffe import TEST, TRAIN
    from torchcaffe.core.timer import Timer

    net = load(flags, TEST if flags.phase == "TEST" else TRAIN)
    last = len(net.layers) - 1
    log.info("Performing Forward")
    log.info(f"Initial loss: {number(net._forward(0, last))}")
    log.info("Performing Backward")
    net._backward(last, 0)
    log.info("*** Benchmark begins ***")
    log.info(f"Testing for {flags.iterations} iterations.")
    timer, total = Timer(), 0.0
    layers = {"forward": [0.0] * (last + 1), "backward": [0.0] * (last + 1)}
    for iteration in range(flags.iterations):
        spent = 0.0
        for direction, run, order in (
            ("forward", net._forward, range(last + 1)),
            ("backward", net._backward, range(last, -1, -1)),
        ):
            for index in order:
                timer.start()
                run(index, index)
                layers[direction][index] += timer.ms
                spent += timer.ms
        total += spent
        log.info(f"Iteration: {iteration + 1} forward-backward time: {number(spent)} ms.")
    _report(net, layers, total, flags.iterations)


def _report(net, layers, total, iterations):
    log.info("Average time per layer: ")
    for index, name in enumerate(net._layer_names):
        for direction, spent in layers.items():
            log.info(f"{name:>10}\t{direction}: {number(spent[index] / iterations)} ms.")
    log.info(f"Average Forward pass: {number(sum(layers['forward']) / iterations)} ms.")
    log.info(f"Average Backward pass: {number(sum(layers['backward']) / iterations)} ms.")
    log.info(f"Average Forward-Backward: {number(total / iterations)} ms.")
    log.info(f"Total Time: {number(total)} ms.")
    log.info("*** Benchmark ends ***")
