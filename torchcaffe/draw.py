"""pycaffe's `draw`: a net's definition as a diagram, with pydot and Graphviz."""

from __future__ import annotations

from typing import Any

from torchcaffe.core import extras
from torchcaffe.proto import caffe_pb2

_COLORS = {"Convolution": "#FF5050", "Deconvolution": "#FF5050", "Pooling": "#FF9900", "InnerProduct": "#CC33FF"}
_OTHER, _IN_PLACE, _BLOB = "#6495ED", "#90EE90", "#E0E0E0"


def choose_color_by_layertype(layertype: str) -> str:
    """Fill color of a layer's node."""
    return _COLORS.get(layertype, _OTHER)


def get_pooling_types_dict() -> dict[int, str]:
    """{number: name} of the pooling methods."""
    return {number: name for name, number in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_layer_lr_mult(layer: caffe_pb2.LayerParameter) -> str:
    """Learning-rate multipliers of a layer's parameters, as its label shows them."""
    return ", ".join(f"{spec.lr_mult:g}" for spec in layer.param) or "1"


def get_layer_label(layer: caffe_pb2.LayerParameter, rankdir: str, display_lrm: bool = False) -> str:
    """Label of a layer's node: name, type and, for convolution and pooling, the window."""
    separator = " " if rankdir in ("TB", "BT") else r"\n"  # nodes as wide, or as high, as there is room
    lines = [layer.name, f"({layer.type})"]
    if layer.type in ("Convolution", "Deconvolution"):
        p = layer.convolution_param
        lines += [
            f"kernel size: {_window(p.kernel_size, p.kernel_h, p.kernel_w, 1)}",
            f"stride: {_window(p.stride, p.stride_h, p.stride_w, 1)}",
            f"pad: {_window(p.pad, p.pad_h, p.pad_w, 0)}",
        ]
        lines += [f"dilation: {p.dilation[0]}"] if p.dilation and p.dilation[0] != 1 else []
    elif layer.type == "Pooling":
        pooling = layer.pooling_param
        lines[1] = f"({get_pooling_types_dict()[pooling.pool]} {layer.type})"
        lines += [f"kernel size: {pooling.kernel_size}", f"stride: {pooling.stride}", f"pad: {pooling.pad}"]
    if display_lrm and layer.type in ("Convolution", "Deconvolution", "InnerProduct"):
        lines.append(f"lr mult: {get_layer_lr_mult(layer)}")
    return f'"{separator.join(lines)}"'


def _window(values, height, width, default):
    if height or width:
        return f"{height}x{width}"
    return "x".join(str(value) for value in values) or str(default)


def get_edge_label(layer: caffe_pb2.LayerParameter) -> str:
    """Label of the edge from a layer to its top: its number of outputs, or the batch size."""
    if layer.type == "Data":
        label = f"Batch {layer.data_param.batch_size}"
    elif layer.type in ("Convolution", "Deconvolution"):
        label = str(layer.convolution_param.num_output)
    elif layer.type == "InnerProduct":
        label = str(layer.inner_product_param.num_output)
    else:
        label = '""'
    return label


def _in_phase(layer, phase):
    if phase is None:
        return True
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name} has both include and exclude specified")
    if layer.include:
        return any(not rule.HasField("phase") or rule.phase == phase for rule in layer.include)
    return not any(rule.HasField("phase") and rule.phase == phase for rule in layer.exclude)


def get_pydot_graph(caffe_net: caffe_pb2.NetParameter, rankdir: str, label_edges: bool = True, phase: int | None = None,
                    display_lrm: bool = False) -> Any:  # fmt: skip
    """pydot.Dot of a NetParameter (V2, `layer`): a record for each layer, an octagon for each blob.

    Args:
        rankdir: direction, such as LR or TB.
        phase: draw the layers of this phase only (caffe.TRAIN, caffe.TEST), or None.
        display_lrm: show learning-rate multipliers.
    Raises:
        ImportError: pydot is not installed.
    """
    pydot = extras.load("pydot")
    graph = pydot.Dot(caffe_net.name or "Net", graph_type="digraph", rankdir=rankdir)
    nodes, edges = {}, []
    for layer in caffe_net.layer:
        if not _in_phase(layer, phase):
            continue
        in_place = len(layer.bottom) == 1 and len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
        name = f"{layer.name}_{layer.type}"
        color = _IN_PLACE if in_place else choose_color_by_layertype(layer.type)
        label = get_layer_label(layer, rankdir, display_lrm)
        nodes[name] = pydot.Node(label, shape="record", fillcolor=color, style="filled")
        for blob in (*layer.bottom, *layer.top):
            nodes.setdefault(f"{blob}_blob", pydot.Node(f'"{blob}"', shape="octagon", fillcolor=_BLOB, style="filled"))
        edges += [(f"{blob}_blob", name, '""') for blob in layer.bottom]
        edges += [(name, f"{blob}_blob", get_edge_label(layer) if label_edges else '""') for blob in layer.top]
    for node in nodes.values():
        graph.add_node(node)
    for start, end, label in edges:
        graph.add_edge(pydot.Edge(nodes[start], nodes[end], label=label))
    return graph


def draw_net(caffe_net: caffe_pb2.NetParameter, rankdir: str, ext: str = "png", phase: int | None = None,
             display_lrm: bool = False) -> bytes:  # fmt: skip
    """The diagram as bytes in the format `ext` (png, svg, pdf, dot, raw ...)."""
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    return graph.to_string().encode() if ext == "raw" else graph.create(format=ext)


def draw_net_to_file(caffe_net: caffe_pb2.NetParameter, filename: str, rankdir: str = "LR", phase: int | None = None,
                     display_lrm: bool = False) -> None:  # fmt: skip
    """Write the diagram; the file name's suffix says the format, `.raw` being Graphviz's text as it is."""
    ext = filename[filename.rfind(".") + 1 :]
    content = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with open(filename, "wb") as file:
        file.write(content)
