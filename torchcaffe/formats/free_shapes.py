"""Which axes of a net's blobs vary with the number of inputs: what an exported net can leave open."""

from __future__ import annotations

from torchcaffe.core.errors import CaffeError

BATCH = "batch"  # the name of a first axis that may have any size


class Shapes:
    """tops: the shapes of the tops, a list for each layer, with None for an axis that varies with the number of inputs.

    free: input -> name of its first axis, for those whose first axis may have any size: inputs of as many items as the
    first one share the name BATCH. Empty with `fixed`, and where a layer of the net wants the net's own sizes.
    """

    def __init__(self, net, fixed: bool = False):
        self.net = net
        self.inputs = {name: net.blobs[name].dims for name in net.inputs}
        self.free = {}
        self.tops = self._propagate(self.inputs)
        if not fixed:
            self._vary(self.tops)

    def _vary(self, own):
        """Compare with what comes of twice as many items: in all inputs, or in those that have as many as the first."""
        everything = [name for name, shape in self.inputs.items() if shape]
        if not everything:
            return
        several = [name for name in everything if self.inputs[name][0] == self.inputs[everything[0]][0]]
        for free in dict.fromkeys((tuple(everything), tuple(several))):
            changed = {
                name: (2 * shape[0], *shape[1:]) if name in free else shape for name, shape in self.inputs.items()
            }
            try:
                other = self._propagate(changed)
            except CaffeError:
                continue
            finally:
                self._propagate(self.inputs)  # layers remember what they were asked last
            count = self.inputs[free[0]][0]
            self.free = {name: BATCH if self.inputs[name][0] == count else f"{BATCH}_{name}" for name in free}
            self.tops = [[_varying(*pair) for pair in zip(*tops)] for tops in zip(own, other)]
            return

    def larger_inputs(self):
        """Shapes of the inputs with twice as many items in those that are free, and so with at least two."""
        return {name: (2 * shape[0], *shape[1:]) if name in self.free else shape for name, shape in self.inputs.items()}

    def _propagate(self, inputs):
        shapes, tops = dict(inputs), []
        for node in self.net.nodes:
            layer = node.layer
            if layer.type == "Input":
                found = [shapes[name] for name in node.top_names]
            elif layer.is_source or layer.works_on_blobs:
                found = [blob.dims for blob in node.tops]
            else:
                found = [tuple(shape) for shape in layer.shapes(*(shapes[name] for name in layer.param.bottom))]
            shapes.update(zip(node.top_names, found))
            tops.append(found)
        return tops


def _varying(own, other):
    return tuple(None if a != b else a for a, b in zip(own, other))
