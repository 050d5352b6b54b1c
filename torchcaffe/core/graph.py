"""From a net definition to the layers that one phase runs: include/exclude rules and automatic Split layers."""

from __future__ import annotations

from collections import defaultdict

from torchcaffe.core import log, names
from torchcaffe.core.errors import NetError
from torchcaffe.proto import caffe_pb2


def meets(rule, state, layer_name) -> bool:
    """True when a NetStateRule holds in a NetState: every condition that is given must."""
    if rule.HasField("phase") and rule.phase != state.phase:
        log.info(
            f"The NetState phase ({state.phase}) differed from the phase ({rule.phase}) "
            f"specified by a rule in layer {layer_name}"
        )
        return False
    for name, outside in (("min_level", state.level < rule.min_level), ("max_level", state.level > rule.max_level)):
        if rule.HasField(name) and outside:
            log.info(
                f"The NetState level ({state.level}) is above the {name} ({getattr(rule, name)}) "
                f"specified by a rule in layer {layer_name}"
            )
            return False
    for stage in rule.stage:
        if stage not in state.stage:
            log.info(f"The NetState did not contain stage '{stage}' specified by a rule in layer {layer_name}")
            return False
    for stage in rule.not_stage:
        if stage in state.stage:
            log.info(f"The NetState contained a not_stage '{stage}' specified by a rule in layer {layer_name}")
            return False
    return True


def filter_layers(param):
    """Copy of a NetParameter with the layers that its `state` includes. Raises NetError."""
    filtered = caffe_pb2.NetParameter()
    filtered.CopyFrom(param)
    del filtered.layer[:]
    for layer in param.layer:
        if layer.include and layer.exclude:
            raise NetError(f'layer "{layer.name}": give include or exclude rules, not both')
        if layer.include:
            kept = any(meets(rule, param.state, layer.name) for rule in layer.include)
        else:
            kept = not any(meets(rule, param.state, layer.name) for rule in layer.exclude)
        if kept:
            filtered.layer.add().CopyFrom(layer)
    return filtered


def insert_splits(param):
    """Copy of a NetParameter in which a blob that several layers read goes through a Split layer, as Caffe does it.

    A non-zero explicit loss_weight counts as one reader and moves to the Split's first top. Raises NetError.
    """
    readers, producer_of, weights = _readers(param)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(param)
    del result.layer[:]
    renamed = defaultdict(list)  # (producer, top index) -> names still to be handed out
    for index, layer in enumerate(param.layer):
        copy = result.layer.add()
        copy.CopyFrom(layer)
        for position in range(len(layer.bottom)):
            source = producer_of[index, position]
            if renamed[source]:
                copy.bottom[position] = renamed[source].pop(0)
        for position, top in enumerate(layer.top):
            source, count = (index, position), readers[index, position]
            if count < 2:
                continue
            split = _split_layer(top, layer.name, position, count, weights.get(source))
            if source in weights:
                del copy.loss_weight[:]
            renamed[source] = list(split.top)[1 if source in weights else 0 :]
            result.layer.add().CopyFrom(split)
    return result


def _readers(param):
    """Number of readers by (layer, top), producer by (layer, bottom), loss weights by (layer, top)."""
    readers, producer_of, weights, latest = defaultdict(int), {}, {}, {}
    for index, layer in enumerate(param.layer):
        for position, bottom in enumerate(layer.bottom):
            if bottom not in latest:
                raise NetError(
                    f'layer "{layer.name}": unknown bottom blob "{bottom}" (bottom {position}); '
                    f'{names.suggestion(bottom, latest, "blobs so far:")}'
                )
            producer_of[index, position] = latest[bottom]
            readers[latest[bottom]] += 1
        for position, top in enumerate(layer.top):
            latest[top] = (index, position)
            if position < len(layer.loss_weight) and layer.loss_weight[position]:
                weights[index, position] = layer.loss_weight[position]
                readers[index, position] += 1
    return readers, producer_of, weights


def _split_layer(blob, producer, position, count, weight):
    name = f"{blob}_{producer}_{position}_split"
    split = caffe_pb2.LayerParameter(name=name, type="Split", bottom=[blob])
    split.top.extend(f"{name}_{index}" for index in range(count))
    if weight is not None:
        split.loss_weight.extend([weight] + [0.0] * (count - 1))
    return split
