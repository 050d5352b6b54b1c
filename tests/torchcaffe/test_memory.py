"""What a file or a definition asks of the memory is counted before it is taken, and refused with the sum."""

import os
import subprocess
import sys

import h5py
import lmdb
import numpy as np
import pytest

from torchcaffe.core import memory
from torchcaffe.core.errors import CaffeError, DataError, NetError, PrototxtError, ShapeError, SolverError, WeightsError
from torchcaffe.formats.files import read_net, read_solver_state, read_weights
from torchcaffe.proto import caffe_pb2

INPUT = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: %d } } }\n'
PRODUCT = INPUT + 'layer { name: "fc" type: "InnerProduct" bottom: "d" top: "fc" inner_product_param { num_output: %d } }'


@pytest.fixture
def little(monkeypatch):
    """A machine with 1 GB, of which 0.8 GB are available."""
    monkeypatch.setattr(memory, "available", lambda device=None: 800_000_000)
    monkeypatch.setattr(memory, "total", lambda device=None: 1_000_000_000)


def test_a_parameter_that_no_blob_can_hold(make_net):
    with pytest.raises(ShapeError) as raised:
        make_net(PRODUCT % (100_000, 100_000))
    assert str(raised.value) == (
        'layer "fc" (InnerProduct): parameter 0: shape (100000, 100000) has 10,000,000,000 elements (40.0 GB), more than '
        "2147483647, which is Caffe's limit for one blob"
    )


def test_a_parameter_beyond_the_memory(make_net, little):
    with pytest.raises(NetError) as raised:
        make_net(PRODUCT % (40_000, 30_000))
    assert str(raised.value) == (
        'layer "fc" (InnerProduct): parameter 0 of shape (30000, 40000), filled, needs 4,800,000,000 bytes (4.8 GB), '
        "and there are 800,000,000 (0.8 GB)"
    )
    make_net(PRODUCT % (4_000, 300))


def test_a_top_beyond_the_machine_is_refused_when_built_and_one_beyond_the_rest_when_run(make_net, little):
    tile = 'layer { name: "c" type: "Tile" bottom: "d" top: "c" tile_param { tiles: %d } }'
    with pytest.raises(NetError, match=r'"c" \(Tile\): its output of shape \(1, 300000000\) needs 1,200,000,000 bytes'):
        make_net(INPUT % 1000 + tile % 300_000)
    net = make_net(INPUT % 1000 + tile % 225_000)  # a user may make the input smaller before anything is computed
    with pytest.raises(NetError, match=r'"c" .* needs 900,000,000 bytes \(0.9 GB\), and there are 800,000,000'):
        net.forward()
    net.blobs["d"].reshape(1, 10)
    assert net.forward()["c"].shape == (1, 2_250_000)


def test_a_filled_blob_beyond_the_memory(make_net, little):
    with pytest.raises(NetError, match='"d" .DummyData.: a top of shape .*, filled, needs 1,600,000,000'):
        make_net('layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 400000000 } } }')


def test_a_solvers_memory_counts_too(make_solver, monkeypatch):
    net = PRODUCT % (5_000, 5_000) + '\nlayer { name: "l" type: "Reduction" bottom: "fc" top: "l" loss_weight: 1 }'
    monkeypatch.setattr(memory, "available", lambda device=None: 150_000_000)
    with pytest.raises(SolverError, match="the history of Adam needs 200,040,000 bytes"):
        make_solver(net, 'base_lr: 0.1 lr_policy: "fixed" type: "Adam"')


def test_batches_read_ahead_count_too(make_net, little, tmp_path):
    with lmdb.open(str(tmp_path / "db")) as environment, environment.begin(write=True) as transaction:
        datum = caffe_pb2.Datum(channels=1, height=100, width=100, data=bytes(10_000))
        transaction.put(b"0", datum.SerializeToString())
    text = (
        f'layer {{ name: "d" type: "Data" top: "d" data_param {{ source: "{tmp_path}/db" backend: LMDB batch_size: 100 '
        "prefetch: %d } }"
    )
    make_net(text % 4)
    with pytest.raises(NetError, match=r'"d" \(Data\): reading 4000000000 batches of shape .*100, 1, 100, 100. ahead needs'):
        make_net(text % 4_000_000_000)


def test_the_limits_hold_for_real(root, tmp_path):
    """In a process that may have 3 GB more than torch takes: an error with the sum, where numpy's would name no layer."""
    (tmp_path / "net.prototxt").write_text(PRODUCT % (40_000, 25_000))
    code = """
import resource
import torchcaffe as caffe
Net = caffe.Net  # loads torch, whose builds for GPUs map several GB
limit = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0]) + (3 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
Net("net.prototxt", caffe.TEST)"""
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert 'NetError: layer "fc" (InnerProduct): parameter 0 of shape (25000, 40000)' in done.stderr, done.stderr[-2000:]
    assert "needs 4,000,000,000 bytes (4.0 GB), and there are " in done.stderr


def test_what_is_available_is_the_least_of_all_limits(tmp_path, monkeypatch):
    assert 0 < memory.available() <= memory.total()
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("50000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 20000000\n")
    assert memory.total() > 100_000_000
    (tmp_path / "memory.max").write_text("100000000\n")
    assert (memory.total(), memory.available()) == (100_000_000, 70_000_000)


# ---- HDF5


def write_weights(path, make):
    """Weights of the layer "i", whose blobs make(group) makes."""
    with h5py.File(path, "w") as file:
        make(file.create_group("data/i"))
    return path


def absurd(group, shape=(40_000, 50_000), **settings):
    group.create_dataset("0", shape, np.float32, **settings)


def virtual(group):
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
    group.create_virtual_dataset("0", layout)


OTHER_FILE = "is stored in another file, which is not read"
HDF5 = {
    "never written": (absurd, r"has the shape \(40000, 50000\), 8,000,000,000 bytes, of which the file holds 0"),
    "chunks never written": (lambda g: absurd(g, chunks=(100, 100), compression="gzip"), "the file holds 0"),
    "more than a blob": (lambda g: absurd(g, (1 << 20, 1 << 20)), "2147483647, which is Caffe's limit"),
    "numbers elsewhere": (lambda g: g.create_dataset("0", (9,), "u1", external=[("/etc/hostname", 0, 9)]), OTHER_FILE),
    "virtual": (virtual, OTHER_FILE),
    "link to another file": (lambda g: g.__setitem__("0", h5py.ExternalLink("/etc/x.h5", "y")), "0 is a link"),
    "link in the file": (lambda g: g.__setitem__("0", h5py.SoftLink("/data/i/0")), "0 is a link"),
    "a number too high": (lambda g: g.create_dataset("999999999", data=[1]), "a blob numbered 999999999"),
    "text": (lambda g: g.create_dataset("0", data=b"text"), "not an array of numbers"),
    "nothing": (lambda g: g.create_dataset("0", data=h5py.Empty("f")), "not an array of numbers"),
    "a type": (lambda g: g.__setitem__("0", np.dtype("f4")), "not an array of numbers"),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5_that_claims_or_points_elsewhere(tmp_path, name):
    make, message = HDF5[name]
    path = write_weights(tmp_path / "w.h5", make)
    with pytest.raises(WeightsError, match=f"w.h5: .*{message}"):
        read_weights(path)


def test_hdf5_packed_as_closely_as_it_can_be_is_read(tmp_path, monkeypatch):
    """Zeros, a thousand to one: no reason to refuse them, unless the memory is too small."""
    zeros = np.zeros((500, 40_000), np.float32)
    path = write_weights(tmp_path / "w.h5", lambda g: g.create_dataset("0", data=zeros, compression="gzip"))
    assert os.path.getsize(path) < 400_000
    assert read_weights(path)[0].blobs[0].shape == (500, 40_000)
    monkeypatch.setattr(memory, "available", lambda device=None: 100_000_000)
    with pytest.raises(WeightsError, match="blob 0 of shape .500, 40000. needs 160,000,000 bytes"):
        read_weights(path)


def write_state(path, **changed):
    """A solver state with some of its members replaced."""
    with h5py.File(path, "w") as file:
        members = {"iter": np.int32([5]), "current_step": np.int32([0]), "learned_net": "w.caffemodel.h5", **changed}
        for name, value in members.items():
            file[name] = value
        return absurd(file.create_group("history"))


def test_hdf5_states_are_read_as_carefully(tmp_path):
    path = tmp_path / "s.solverstate.h5"
    write_state(path)
    with pytest.raises(SolverError, match="history 0 has the shape .*, of which the file holds 0"):
        read_solver_state(path)
    for name, value, message in (
        ("iter", np.float32([5]), "iter is not a whole number"),
        ("iter", np.int32([1, 2]), "iter is not a whole number"),
        ("learned_net", [b"a", b"b"], "learned_net is not a string"),
        ("current_step", "x", "not an array of numbers"),
    ):
        write_state(path, **{name: value})
        with pytest.raises(SolverError, match=message):
            read_solver_state(path)


def test_hdf5_tables_are_read_as_carefully(tmp_path, make_net):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        absurd(file.create_group("x"))
        file["d"] = h5py.SoftLink("/x/0")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/t.h5\n")
    with pytest.raises(DataError, match="t.h5: d is a link.*named in .*list.txt"):
        make_net(
            f'layer {{ name: "h" type: "HDF5Data" top: "d" '
            f'hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 1 }} }}'
        )


def test_hdf5_output_replaces_no_file_of_another_kind(tmp_path, make_net):
    """Caffe overwrites whatever the definition names."""
    layer = (
        'layer { name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param { shape { dim: 2 } } }\n'
        f'layer {{ name: "o" type: "HDF5Output" bottom: "a" bottom: "b" hdf5_output_param {{ file_name: "{tmp_path}/out" }} }}'
    )
    (tmp_path / "out").write_text("a thesis")
    with pytest.raises(DataError, match="out: exists and is not an HDF5 file; remove it or give another name"):
        make_net(layer)
    assert (tmp_path / "out").read_text() == "a thesis"
    (tmp_path / "out").unlink()
    for _ in range(2):  # an older output is replaced
        make_net(layer).forward()
    with h5py.File(tmp_path / "out") as file:
        assert file["data"].shape == (2, 1, 1, 1)


# ---- what is no file


def test_devices_and_pipes_are_not_read(tmp_path):
    """/dev/zero has no end, and a pipe may never begin."""
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        for read, kind in ((read_net, PrototxtError), (read_weights, WeightsError), (read_solver_state, SolverError)):
            with pytest.raises(kind, match="a device or a pipe, not a regular file"):
                read(path)
    with pytest.raises(CaffeError, match="null byte"):
        read_net("a\0b")


# ------------------------------------------------------------------------------------------ freed memory that is kept
ROUNDS = """
import ctypes, resource, sys
import numpy as np
import torchcaffe as caffe
from torchcaffe.core import memory

if sys.argv[1] == "solver":
    caffe.set_mode_cpu()
    caffe.get_solver(sys.argv[2])
print(memory.keep_freed() if sys.argv[1] == "solver" else None)
for number in range(20):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(10_000_000, 1, np.uint8)  # 10 MB, no huge pages: numpy's own are for 4 MB and more, so not below
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="not glibc")
def test_a_solver_on_the_cpu_lets_glibc_keep_what_it_frees(tmp_path):
    """Counted by the kernel: a page that is new to the process is a fault."""
    (tmp_path / "net.prototxt").write_text(PRODUCT % (3, 2) + 'layer { name: "s" type: "Reduction" bottom: "fc" top: "s" loss_weight: 1 }')
    (tmp_path / "solver.prototxt").write_text(f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1')

    def faults(who, **variables):
        environment = {**{name: value for name, value in os.environ.items() if name not in memory.VARIABLES}, **variables}
        words = [sys.executable, "-c", ROUNDS, who, str(tmp_path / "solver.prototxt")]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        kept, count = done.stdout.split()
        return kept, int(count)

    assert faults("solver")[0] == "True" and faults("solver")[1] < 10
    assert faults("solver", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"  # the user's own settings stay
