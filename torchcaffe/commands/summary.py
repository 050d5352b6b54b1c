"""`summary`: a net's layers, output shapes and parameters as a table, without training or running it."""

from __future__ import annotations

import os

from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError
from torchcaffe.core import log


def summary(flags, model):
    """Print the table of a prototxt's net, and with -weights what a weights file would set in it."""
    if flags.phase not in ("TRAIN", "TEST"):
        raise UsageError(f"flag '-phase' is TRAIN or TEST, not '{flags.phase}'")
    from torchcaffe import TEST, TRAIN
    from torchcaffe.core.fillers import fill_with_zeros
    from torchcaffe.core.net import Net
    from torchcaffe.formats.files import read_net

    if log.Settings.minloglevel is None and "GLOG_minloglevel" not in os.environ:
        log.Settings.minloglevel = log.WARNING  # the log of building the net would hide the table
    param = read_net(model)
    param.state.phase, param.state.level = {"TRAIN": TRAIN, "TEST": TEST}[flags.phase], flags.level
    param.state.stage.extend(devices.stages(flags.stage))
    fill_with_zeros(param)
    net = Net.from_proto(param)
    if flags.weights:
        net.copy_from(flags.weights)
    print(net, flush=True)
    if flags.weights:
        print(net.copy_report, flush=True)
