"""`export`: a net with its weights for other programs, as ONNX, safetensors or PyTorch's .pt2."""

from __future__ import annotations

import os

from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError
from torchcaffe.core import log


def export(flags, model, weights):
    """Write the files that the flags name. All are made before the first is written."""
    wanted = {kind: path for kind in ("onnx", "safetensors", "pt2") if (path := getattr(flags, kind))}
    if not wanted:
        raise UsageError("name at least one file to write: -onnx out.onnx, -safetensors out.safetensors or -pt2 out.pt2")
    if log.Settings.minloglevel is None and "GLOG_minloglevel" not in os.environ:
        log.Settings.minloglevel = log.WARNING
    from torchcaffe.formats import export as exporting
    from torchcaffe.formats.storage import check_writable

    for path in wanted.values():
        check_writable(path)
    net = load(model, weights, flags, runs=list(wanted) != ["safetensors"])
    steps = {
        "onnx": (exporting.to_onnx, exporting.save_onnx, describe_onnx),
        "safetensors": (exporting.tensors, exporting.save_safetensors, describe_tensors),
        "pt2": (exporting.to_pt2, exporting.save_pt2, describe_program),
    }
    made = {kind: steps[kind][0](net) for kind in wanted}
    for kind, path in wanted.items():
        _, save, describe = steps[kind]
        save(path, made[kind])
        print(f"{path}: {describe(made[kind])}", flush=True)


def load(model, weights, flags, runs):
    """The TEST net of a prototxt with its weights.

    Raises ExportError where these leave a layer out, and for data layers where it `runs` elsewhere.
    """
    from torchcaffe import TEST
    from torchcaffe.core.errors import ExportError
    from torchcaffe.core.fillers import fill_with_zeros
    from torchcaffe.core.names import listed
    from torchcaffe.core.net import Net
    from torchcaffe.formats.files import read_net

    param = read_net(model)
    param.state.phase, param.state.level = TEST, flags.level
    param.state.stage.extend(devices.stages(flags.stage))
    check_types(model, param, runs)
    fill_with_zeros(param)
    net = Net.from_proto(param)
    net.copy_from(weights)
    if net.copy_report.left:
        raise ExportError(
            f"{weights}: has no weights for {listed(net.copy_report.left)}; export the weights that were trained for {model}"
        )
    return net


def check_types(model, param, runs):
    """Name all layers that stand in the way before any data is looked for. Raises ExportError."""
    from torchcaffe.core.errors import ExportError, NetError
    from torchcaffe.core.graph import filter_layers
    from torchcaffe.layers import layer_class

    unknown, reading = [], []
    for layer in filter_layers(param).layer:
        name = f'"{layer.name}" ({layer.type})'
        try:
            reads = layer_class(layer.type, layer.name).is_source and layer.type not in ("Input", "Parameter")
        except NetError:
            unknown.append(name)
        else:
            reading += [name] if reads else []
    if len(unknown) > 1:  # of one, the error of building the net says more
        raise ExportError(f"{model}: layers of unknown types: {', '.join(unknown)}; register them, see docs/extending.md")
    if reading and runs:
        raise ExportError(
            f"{model}: {', '.join(reading)}: reads data; export the deploy prototxt, which begins with Input layers"
        )


def describe_onnx(model) -> str:
    opset, graph = model.opset_import[0].version, model.graph
    return f"opset {opset}, {len(graph.node)} nodes; {_values(graph.input)} -> {_values(graph.output)}"


def _values(values):
    shown = []
    for value in values:
        sizes = [str(dim.dim_param or dim.dim_value or "?") for dim in value.type.tensor_type.shape.dim]
        shown.append(f"{value.name} ({', '.join(sizes)})")
    return ", ".join(shown)


def describe_tensors(tensors) -> str:
    return f"{len(tensors)} tensors, {sum(array.size for array in tensors.values()):,} numbers"


def describe_program(program) -> str:
    names = program.graph_signature.user_inputs
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.name in names}
    return f"torch.export program; inputs ({'), ('.join(', '.join(_size(size) for size in shapes[name]) for name in names)})"


def _size(size):
    return str(size) if isinstance(size, int) else "batch"
