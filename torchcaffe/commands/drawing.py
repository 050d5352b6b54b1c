"""`draw_net`: a net's definition as a diagram."""

from __future__ import annotations

from torchcaffe.commands.flags import UsageError


def draw_net(flags, source, target):
    """Draw a prototxt to an image file; its suffix says the format."""
    if flags.phase not in ("TRAIN", "TEST", "ALL"):
        raise UsageError(f"flag '-phase' is TRAIN, TEST or ALL, not '{flags.phase}'")
    from torchcaffe import draw
    from torchcaffe.formats.files import read_net

    phase = {"TRAIN": 0, "TEST": 1}.get(flags.phase)
    net = read_net(source)
    print(f"Drawing net to {target}")
    draw.draw_net_to_file(net, target, flags.rankdir, phase, flags.display_lrm)
