"""Building a net: layers set up in order, blobs wired, parameters shared by name, and which layers run backward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List

import torch

from torchcaffe.core import log, memory
from torchcaffe.core.blob import Blob
from torchcaffe.core.errors import CaffeError, NetError, ShapeError
from torchcaffe.core.log import number
from torchcaffe.core.named import Blobs
from torchcaffe.core.node import Node
from torchcaffe.layers import layer_class
from torchcaffe.proto import caffe_pb2


@dataclass
class BuiltNet:
    """What a definition becomes: layers and blobs, ready to run.

    learnable: parameters in order, those shared by name once; learnable_specs: a ParamSpec for each, multipliers merged.
    loss_blobs: the blobs that count in the loss. intermediate: blobs that only layers of the net read. all_blobs: with
    the parameters.
    """

    nodes: List[Node] = field(default_factory=list)
    blobs: Blobs = field(default_factory=Blobs)
    inputs: List[str] = field(default_factory=list)
    outputs: List[str] = field(default_factory=list)
    learnable: List[Blob] = field(default_factory=list)
    learnable_specs: list = field(default_factory=list)
    loss_blobs: set = field(default_factory=set)
    intermediate: List[Blob] = field(default_factory=list)
    all_blobs: List[Blob] = field(default_factory=list)


def build_net(param, context) -> BuiltNet:
    """Build a NetParameter that is filtered and split. Raises NetError.

    It is changed to what each layer uses: its phase, its loss weights, the parameters it adds.
    """
    builder = _Builder(param, context)
    for layer_param in param.layer:
        if not layer_param.HasField("phase"):
            layer_param.phase = param.state.phase
        builder.add_layer(layer_param)
    net = builder.net
    prune_backward(net.nodes, param.force_backward)
    mark_in_place_work(net.nodes)
    net.outputs = sorted(builder.available)
    for name in net.outputs:
        log.info(f"This network produces output {name}")
    index_blobs(net)
    return net


class _Builder:
    """Adds layers to a BuiltNet, with what is known of the layers before."""

    def __init__(self, param, context):
        self.net = BuiltNet()
        self.force_backward = param.force_backward
        self.context = context
        self.available = {}  # names of blobs that no layer has consumed so far
        self.needs_backward = {}  # blob name -> bool
        self.owners = {}  # parameter name -> (layer name, blob, position among the learnable)
        self.memory_in_bytes = 0

    def add_layer(self, param):
        net = self.net
        cls = layer_class(param.type, param.name).chosen(param)
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise NetError(
                f'layer "{param.name}": propagate_down needs none or one value a bottom ({len(param.bottom)})'
            )
        log.info(f"Creating layer {param.name}")
        log.info(f"Creating Layer {param.name}")
        layer = cls(param, param.phase, self.context)
        bottoms, needs = self.connect_bottoms(param)
        tops, names = self.connect_tops(param, cls, bottoms)
        layer.check_counts(len(bottoms), len(tops))
        node = Node(len(net.nodes), layer, bottoms, tops, names, needs)
        net.nodes.append(node)
        written = list(param.param)  # a layer may add to its own (BatchNorm); these decide about backward
        self.set_up(layer, bottoms, tops)
        node.reshape()
        node.require_memory(memory.total)  # the limit here; what is available is checked at run time
        log.info(f"Setting up {param.name}")
        node.loss_weights = self.set_loss_weights(param, cls, tops)
        if cls.is_source and param.type == "Input":
            net.inputs.extend(param.top)
        learns = any(spec.lr_mult != 0 for spec in self.parameter_specs(layer, written))
        node.needs_backward = learns or any(self.needs_backward[name] for name in param.bottom)
        for name in names:
            self.needs_backward[name] = node.needs_backward
        self.share_parameters(layer, self.parameter_specs(layer, param.param))

    @staticmethod
    def set_up(layer, bottoms, tops):
        try:
            layer.setup(bottoms, tops)
        except CaffeError as error:
            if f'"{layer.name}"' in str(error):
                raise
            raise type(error)(f'layer "{layer.name}" ({layer.type}): {error}') from error

    def connect_bottoms(self, param):
        bottoms, needs = [], []
        for position, name in enumerate(param.bottom):
            if name not in self.available:
                raise NetError(f'layer "{param.name}": unknown bottom blob "{name}" (bottom {position})')
            log.info(f"{param.name} <- {name}")
            del self.available[name]
            bottoms.append(self.net.blobs[name])
            needs.append(bool(param.propagate_down[position]) if param.propagate_down else self.needs_backward[name])
        return bottoms, needs

    def connect_tops(self, param, cls, bottoms):
        tops, names = [], list(param.top)
        for position, name in enumerate(names):
            in_place = position < len(param.bottom) and param.bottom[position] == name
            log.info(f"{param.name} -> {name}" + (" (in-place)" if in_place else ""))
            if in_place:
                if not cls.in_place:
                    raise NetError(f'layer "{param.name}" ({cls.type}) cannot work in place: give its top another name')
                tops.append(bottoms[position])
            elif name in self.net.blobs:
                raise NetError(f'layer "{param.name}": top blob "{name}" is produced by multiple sources')
            else:
                self.net.blobs[name] = Blob(device=self.context.device)
                tops.append(self.net.blobs[name])
            self.available[name] = True
        while cls.is_loss and len(tops) < cls.tops[0]:
            blob = self.net.blobs["(automatic)"] = Blob(device=self.context.device)  # no output, and nobody can read it
            tops.append(blob)
            names.append("(automatic)")
            log.info(f"{param.name} -> (automatic)")
        return tops, names

    def set_loss_weights(self, param, cls, tops):
        weights = list(param.loss_weight)
        if weights and len(weights) != len(tops):
            raise NetError(f'layer "{param.name}": loss_weight needs none or one value a top ({len(tops)})')
        if not weights:
            weights = [1.0 if cls.is_loss and index == 0 else 0.0 for index in range(len(tops))]
        for blob, weight in zip(tops, weights):
            dims = " ".join(str(dim) for dim in blob.dims)
            log.info(f"Top shape: {dims} ({blob.count})" if dims else f"Top shape: ({blob.count})")
            if weight:
                log.info(f"    with loss weight {number(weight)}")
                blob.put_diff(torch.full(blob.dims, weight, device=self.context.device))
                self.net.loss_blobs.add(blob)
            self.memory_in_bytes += 4 * blob.count
        del param.loss_weight[:]
        if any(weights):
            param.loss_weight.extend(weights)
        log.info(f"Memory required for data: {self.memory_in_bytes}")
        return weights

    def parameter_specs(self, layer, given):
        if len(given) > len(layer.blobs):
            raise NetError(f'layer "{layer.name}": {len(given)} param entries for {len(layer.blobs)} parameters')
        return [given[i] if i < len(given) else caffe_pb2.ParamSpec() for i in range(len(layer.blobs))]

    def share_parameters(self, layer, specs):
        for index, (blob, spec) in enumerate(zip(layer.blobs, specs)):
            owner = self.owners.get(spec.name) if spec.name else None
            tensor = blob.data_memory.tensor
            if owner is None:
                tensor.requires_grad_(bool(spec.lr_mult != 0 or self.force_backward or layer.always_learns))
                if spec.name:
                    self.owners[spec.name] = (layer.name, blob, len(self.net.learnable))
                self.net.learnable.append(blob)
                copy = caffe_pb2.ParamSpec()
                copy.CopyFrom(spec)
                self.net.learnable_specs.append(copy)
                continue
            owner_name, owner_blob, position = owner
            self.check_shared(layer, spec, blob, owner_name, owner_blob)
            blob.share_data(owner_blob)
            blob.share_diff(owner_blob)
            if spec.lr_mult != 0:
                owner_blob.data_memory.tensor.requires_grad_(True)
            self.merge_multipliers(layer, spec, self.net.learnable_specs[position], owner_name)

    @staticmethod
    def check_shared(layer, spec, blob, owner_name, owner):
        permissive = spec.share_mode == spec.PERMISSIVE
        fits = blob.count == owner.count if permissive else blob.dims == owner.dims
        if not fits:
            raise ShapeError(
                f'layer "{layer.name}": parameter "{spec.name}" has shape {blob.dims}, but its owner, layer '
                f'"{owner_name}", has {owner.dims}'
                + ("" if permissive else "; share_mode: PERMISSIVE needs equal counts only")
            )

    @staticmethod
    def merge_multipliers(layer, spec, merged, owner_name):
        for name in ("lr_mult", "decay_mult"):
            if not spec.HasField(name):
                continue
            if merged.HasField(name) and getattr(merged, name) != getattr(spec, name):
                raise NetError(
                    f'layer "{layer.name}": shared parameter "{spec.name}" has another {name} than "{owner_name}"'
                )
            setattr(merged, name, getattr(spec, name))


def prune_backward(nodes, force_backward: bool):
    """Turn backward off for layers from which no loss can be reached, or whose gradient no layer below needs."""
    under_loss, skipped = set(), set()
    for node in reversed(nodes):
        weighted = any(node.loss_weights)
        contributes = weighted or any(name in under_loss for name in node.top_names)
        skip = bool(node.top_names) and all(name in skipped for name in node.top_names) and not weighted
        if node.needs_backward and skip:
            node.needs_backward = False
            node.bottom_needs_backward[:] = [False] * len(node.bottoms)
        if not contributes:
            node.needs_backward = False
        log.info(f"{node.layer.name} {'needs' if node.needs_backward else 'does not need'} backward computation.")
        for position, name in enumerate(node.layer.param.bottom):
            if contributes:
                under_loss.add(name)
            else:
                node.bottom_needs_backward[position] = False
            if not node.bottom_needs_backward[position]:
                skipped.add(name)
            else:
                skipped.discard(name)
    if force_backward:
        for node in nodes:
            flags, allowed = node.bottom_needs_backward, node.layer.gradient_to
            flags[:] = [flag or allowed is None or index in allowed for index, flag in enumerate(flags)]
            node.needs_backward = True


def mark_in_place_work(nodes):
    """Find the layers that may overwrite their bottom, and the ReLUs that the layer before them may compute itself."""
    producer = {}  # blob -> type of the layer that has written it last
    for node in nodes:
        made_by = producer.get(node.bottoms[0]) if node.bottoms else None
        overwrites = node.in_place and node.layer.forward_in_place is not None
        node.may_overwrite = overwrites and made_by in ("Convolution", "InnerProduct")  # neither needs its own top
        producer.update(dict.fromkeys(node.tops, node.layer.type))
    for node, following in zip(nodes, nodes[1:]):
        plain_relu = following.layer.type == "ReLU" and not following.layer.param.relu_param.negative_slope
        if node.layer.fuses_relu and plain_relu and following.may_overwrite and node.tops == following.tops:
            node.fused_relu = following.index


def index_blobs(net: BuiltNet):
    """Fill `all_blobs` and `intermediate`."""
    parameters = [blob for node in net.nodes for blob in node.layer.blobs]
    net.all_blobs = list(dict.fromkeys([*net.blobs.values(), *parameters]))
    read = {blob for node in net.nodes for blob in node.bottoms}
    sources = {blob for node in net.nodes if node.layer.is_source for blob in node.tops}
    outputs = {net.blobs[name] for name in net.outputs}
    net.intermediate = [blob for blob in net.blobs.values() if blob in read - sources - outputs - net.loss_blobs]
