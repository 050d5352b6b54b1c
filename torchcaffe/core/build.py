"""Building a net: layers set up in order, blobs wired, parameters shared by name, and which layers run backward."""

from __future__ import annotations

from collections import OrderedDict

import torch

from torchcaffe.core import log, memory
from torchcaffe.core.blob import Blob
from torchcaffe.core.errors import CaffeError, NetError, ShapeError
from torchcaffe.core.log import number
from torchcaffe.proto import caffe_pb2


class NetBuilder:
    """Fills a Net's tables from its (filtered, split) definition. Raises NetError."""

    def __init__(self, net, layer_class, context):
        self.net = net
        self.layer_class = layer_class
        self.context = context
        self.available = OrderedDict()  # blobs not consumed so far
        self.needed = {}  # blob name -> needs backward
        self.owners = {}  # parameter name -> (layer name, blob, spec)
        self.memory_in_bytes = 0
        self.total_memory = memory.total(context.device)  # more is impossible; what is available is asked at run time

    def build(self):
        net = self.net
        net.built_layers, net.blobs, net.inputs = [], OrderedDict(), []
        net.bottom_blobs, net.top_blobs, net.top_blob_names = [], [], []
        net.bottom_need_backward, net.layer_need_backward = [], []
        net.loss_weights, net.weight_of, net.seen_shapes = [], {}, []
        net.unchecked = set()  # layers whose shapes are new: whether there is memory for their tops is asked once
        net.learnable, net.learnable_specs, net.param_specs = [], [], []
        for param in net.param.layer:
            if not param.HasField("phase"):
                param.phase = net.phase
            self.add_layer(param)
        self.prune_backward()
        net.outputs = sorted(name for name in self.available)
        for name in net.outputs:
            log.info(f"This network produces output {name}")
        net.recorded = [None] * len(net.built_layers)
        self.index_blobs()

    # ---- one layer
    def add_layer(self, param):
        net = self.net
        cls = self.layer_class(param.type, param.name)
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
        net.built_layers.append(layer)
        net.bottom_blobs.append(bottoms)
        net.top_blobs.append(tops)
        net.top_blob_names.append(names)
        net.seen_shapes.append(None)
        written = list(param.param)  # a layer may add to its own (BatchNorm); these decide about backward
        self.set_up(layer, bottoms, tops)
        net.reshape_layer(len(net.built_layers) - 1)
        net.require_memory(len(net.built_layers) - 1, self.total_memory)
        log.info(f"Setting up {param.name}")
        self.set_loss_weights(param, cls, tops, names)
        if cls.is_source and param.type == "Input":
            net.inputs.extend(param.top)
        learns = any(spec.lr_mult != 0 for spec in self.parameter_specs(layer, written))
        need = learns or any(self.needed[name] for name in param.bottom)
        net.bottom_need_backward.append(needs)
        net.layer_need_backward.append(need)
        for name in names:
            self.needed[name] = need
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
            needs.append(bool(param.propagate_down[position]) if param.propagate_down else self.needed[name])
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

    def set_loss_weights(self, param, cls, tops, names):
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
                self.net.weight_of[blob] = weight
            self.memory_in_bytes += 4 * blob.count
        del param.loss_weight[:]
        if any(weights):
            param.loss_weight.extend(weights)
        self.net.loss_weights.append(weights)
        log.info(f"Memory required for data: {self.memory_in_bytes}")

    # ---- parameters
    def parameter_specs(self, layer, given):
        if len(given) > len(layer.blobs):
            raise NetError(f'layer "{layer.name}": {len(given)} param entries for {len(layer.blobs)} parameters')
        return [given[i] if i < len(given) else caffe_pb2.ParamSpec() for i in range(len(layer.blobs))]

    def share_parameters(self, layer, specs):
        for index, (blob, spec) in enumerate(zip(layer.blobs, specs)):
            owner = self.owners.get(spec.name) if spec.name else None
            tensor = blob.data_memory.tensor
            if owner is None:
                tensor.requires_grad_(bool(spec.lr_mult != 0 or self.net.force_backward or layer.always_learns))
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
        for field in ("lr_mult", "decay_mult"):
            if not spec.HasField(field):
                continue
            if merged.HasField(field) and getattr(merged, field) != getattr(spec, field):
                raise NetError(
                    f'layer "{layer.name}": shared parameter "{spec.name}" has another {field} than "{owner_name}"'
                )
            setattr(merged, field, getattr(spec, field))

    # ---- backward
    def prune_backward(self):
        """Layers from which no loss can be reached, or whose gradient nobody wants, do not run backward."""
        net = self.net
        under_loss, skipped = set(), set()
        for index in range(len(net.built_layers) - 1, -1, -1):
            layer, names = net.built_layers[index], net.top_blob_names[index]
            weights = net.loss_weights[index]
            contributes = any(weights) or any(name in under_loss for name in names)
            skip = bool(names) and all(name in skipped for name in names) and not any(weights)
            if net.layer_need_backward[index] and skip:
                net.layer_need_backward[index] = False
                net.bottom_need_backward[index] = [False] * len(net.bottom_need_backward[index])
            if not contributes:
                net.layer_need_backward[index] = False
            needed = net.layer_need_backward[index]
            log.info(f"{layer.name} {'needs' if needed else 'does not need'} backward computation.")
            for position, name in enumerate(layer.param.bottom):
                if contributes:
                    under_loss.add(name)
                else:
                    net.bottom_need_backward[index][position] = False
                if not net.bottom_need_backward[index][position]:
                    skipped.add(name)
                else:
                    skipped.discard(name)
        if net.force_backward:
            net.layer_need_backward = [True] * len(net.built_layers)
            for layer, flags in zip(net.built_layers, net.bottom_need_backward):
                allowed = range(len(flags)) if layer.gradient_to is None else layer.gradient_to
                flags[:] = [flag or index in allowed for index, flag in enumerate(flags)]

    # ---- look-ups for running
    def index_blobs(self):
        net = self.net
        readers = {}
        for index, bottoms in enumerate(net.bottom_blobs):
            for blob in bottoms:
                readers.setdefault(blob, []).append(index)
        sources = {blob for layer, tops in zip(net.built_layers, net.top_blobs) if layer.is_source for blob in tops}
        outputs = {net.blobs[name] for name in net.outputs}
        net.all_blobs = list(
            dict.fromkeys(list(net.blobs.values()) + [b for layer in net.built_layers for b in layer.blobs])
        )
        net.intermediate = [
            blob
            for blob in net.blobs.values()
            if blob not in sources and blob not in outputs and not net.weight_of.get(blob) and blob in readers
        ]
        producer = {}
        net.overwrites = []
        for index, (bottoms, tops) in enumerate(zip(net.bottom_blobs, net.top_blobs)):
            in_place = bool(tops) and bool(bottoms) and tops[0] is bottoms[0]
            made_by = producer.get(bottoms[0]) if bottoms else None
            net.overwrites.append(in_place and made_by in ("Convolution", "InnerProduct"))
            for blob in tops:
                producer[blob] = net.built_layers[index].type
        net.rectifiable = [self.rectifiable(index) for index in range(len(net.built_layers))]

    def rectifiable(self, index) -> bool:
        """True for a convolution whose only top the next layer, a plain ReLU, overwrites."""
        net, after = self.net, index + 1
        return (
            after < len(net.built_layers)
            and net.built_layers[index].type == "Convolution"
            and net.built_layers[after].type == "ReLU"
            and net.overwrites[after]
            and net.top_blobs[index] == net.top_blobs[after]
            and not net.built_layers[after].param.relu_param.negative_slope
        )
