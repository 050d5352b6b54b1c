"""The nets of a solver by Caffe's rules: one to train, any number to test."""

from __future__ import annotations

from torchcaffe.core import log
from torchcaffe.core.errors import SolverError
from torchcaffe.proto import caffe_pb2


def _load(path):
    from torchcaffe.formats.files import read_net

    return read_net(path)


def _staged(param, phase, *states):
    """Copy of a net definition with its state: phase, then the net's own, then the solver's."""
    net = caffe_pb2.NetParameter()
    net.CopyFrom(param)
    state = caffe_pb2.NetState(phase=phase)
    state.MergeFrom(param.state)
    for extra in states:
        state.MergeFrom(extra)
    net.state.CopyFrom(state)
    return net


def build_nets(param, net_class):
    """(training net, list of test nets) of a SolverParameter. Raises SolverError."""
    sources = [name for name in ("net", "net_param", "train_net", "train_net_param") if param.HasField(name)]
    if len(sources) != 1:
        raise SolverError(
            f"a solver needs exactly one of net, net_param, train_net, train_net_param; found: {', '.join(sources) or 'none'}"
        )
    source = sources[0]
    given = getattr(param, source)
    if source.endswith("_param"):
        log.info(f"Creating training net specified in {source}.")
    else:
        log.info(f"Creating training net from {source} file: {given}")
    definition = given if source.endswith("_param") else _load(given)
    net = net_class.from_proto(_staged(definition, caffe_pb2.TRAIN, param.train_state))
    tests = [
        net_class.from_proto(test, shared_from=None) for test in _test_definitions(param, definition, source)
    ]
    return net, tests


def _test_definitions(param, generic, source):
    explicit = [(f"test_net_param #{i}", proto) for i, proto in enumerate(param.test_net_param)]
    explicit += [(f"test_net file: {path}", path) for path in param.test_net]
    count = len(param.test_iter)
    has_generic = source in ("net", "net_param")
    if has_generic and count < len(explicit) or not has_generic and count != len(explicit):
        raise SolverError(f"{count} test_iter entries do not fit {len(explicit)} test nets; give one for each")
    if count and param.test_interval <= 0:
        raise SolverError("test_interval must be positive where test nets are given")
    if len(param.test_state) not in (0, count):
        raise SolverError(f"{len(param.test_state)} test_state entries do not fit {count} test nets; give none or one each")
    shared = (f"{source} file: {param.net}" if source == "net" else source, generic)
    for index, (text, definition) in enumerate(explicit + [shared] * (count - len(explicit))):
        log.info(f"Creating test net (#{index}) specified by {text}")
        definition = _load(definition) if isinstance(definition, str) else definition
        states = [param.test_state[index]] if param.test_state else []
        yield _staged(definition, caffe_pb2.TEST, *states)
