"""`upgrade_net_proto_text`, `upgrade_net_proto_binary`, `upgrade_solver_proto_text`: old files in Caffe 1.0's form."""

from __future__ import annotations

from torchcaffe.core import log


def upgrade_net_proto_text(flags, source, target):
    """A net's prototxt."""
    from torchcaffe.proto import caffe_pb2
    from torchcaffe.formats.upgrade import upgrade_net

    net = _upgrade_text(source, caffe_pb2.NetParameter(), upgrade_net)
    _write_text(target, net)
    log.info(f"Wrote upgraded NetParameter text proto to {target}")


def upgrade_solver_proto_text(flags, source, target):
    """A solver's prototxt."""
    from torchcaffe.proto import caffe_pb2
    from torchcaffe.formats.upgrade import upgrade_solver

    solver = _upgrade_text(source, caffe_pb2.SolverParameter(), upgrade_solver)
    _write_text(target, solver)
    log.info(f"Wrote upgraded SolverParameter text proto to {target}")


def upgrade_net_proto_binary(flags, source, target):
    """A caffemodel."""
    from google.protobuf.message import DecodeError

    from torchcaffe.formats import storage
    from torchcaffe.core.errors import WeightsError
    from torchcaffe.proto import caffe_pb2
    from torchcaffe.formats.upgrade import upgrade_net

    content = storage.read_bytes(source, WeightsError, "weights file")
    storage.refuse_other_kind(source, content, "caffemodel", WeightsError)
    try:
        net = caffe_pb2.NetParameter.FromString(bytes(content))
    except DecodeError:
        raise WeightsError(f"{source}: is truncated or not a .caffemodel; fetch or copy it again") from None
    _upgrade(source, net, upgrade_net)
    with storage.atomic_write(target) as temporary, open(temporary, "wb") as file:
        file.write(net.SerializeToString())
    log.info(f"Wrote upgraded NetParameter binary proto to {target}")


def _upgrade_text(source, message, upgrade):
    from torchcaffe.formats import storage
    from torchcaffe.core.errors import PrototxtError
    from torchcaffe.formats.prototxt import parse

    content = storage.read_bytes(source, PrototxtError, "definition")
    storage.refuse_other_kind(source, content, "text", PrototxtError)
    return _upgrade(source, parse(content.decode("utf-8-sig", "replace"), message, source), upgrade)


def _upgrade(source, message, upgrade):
    before = type(message)()
    before.CopyFrom(message)
    upgrade(message, source)
    if message == before:
        log.error(f"File already in latest proto format: {source}")
    return message


def _write_text(target, message):
    from torchcaffe.formats import storage
    from torchcaffe.proto import extensions

    with storage.atomic_write(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(extensions.text(message))
