"""Files of Caffe's other formats: atomic writes, and errors that help."""

import errno
import os

import h5py
import numpy as np
import pytest
from small_files import floats, small_blobs, small_net

from torchcaffe.formats import files, storage
from torchcaffe.core.errors import CaffeError, DataError, NetError, PrototxtError, SolverError, WeightsError
from torchcaffe.proto import caffe_pb2


@pytest.mark.parametrize("name", ["s.solverstate", "s.solverstate.h5"])
def test_solver_state_returns(tmp_path, name):
    state = files.SolverState(120, "runs/m_iter_120.caffemodel", 2, [floats(4, 3, 3, 3), floats(4), floats()])
    files.write_solver_state(tmp_path / name, state)
    back = files.read_solver_state(tmp_path / name)
    assert (back.iter, back.learned_net, back.current_step) == (120, "runs/m_iter_120.caffemodel", 2)
    for old, new in zip(state.history, back.history, strict=True):
        np.testing.assert_array_equal(old, new)


def test_solver_state_has_protobufs_bytes(tmp_path):
    history = [floats(2, 3)]
    files.write_solver_state(tmp_path / "s", files.SolverState(7, "m", 0, history))
    message = caffe_pb2.SolverState(iter=7, learned_net="m", current_step=0)
    message.history.add(data=history[0].ravel().tolist()).shape.dim.extend((2, 3))
    assert (tmp_path / "s").read_bytes() == message.SerializeToString()


def test_hdf5_solver_state_layout(tmp_path):
    files.write_solver_state(tmp_path / "s.h5", files.SolverState(7, "m.caffemodel", 1, [floats(2) for _ in range(12)]))
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["iter"].shape == (1,) and file["iter"].dtype == np.int32
        kind = file["learned_net"].id.get_type()
        assert (kind.get_size(), kind.get_strpad(), file["learned_net"].shape) == (13, h5py.h5t.STR_NULLTERM, ())
        assert sorted(file["history"], key=int) == [str(index) for index in range(12)]


def test_blob_files(tmp_path):
    mean = floats(1, 3, 4, 5)
    for legacy in (False, True):
        files.write_blob(tmp_path / "mean.binaryproto", mean, legacy)
        np.testing.assert_array_equal(files.read_blob(tmp_path / "mean.binaryproto"), mean)
    message = caffe_pb2.BlobProto.FromString((tmp_path / "mean.binaryproto").read_bytes())
    assert (message.num, message.width, message.HasField("shape")) == (1, 5, False)
    with pytest.raises(DataError, match="four axes"):
        files.write_blob(tmp_path / "x", floats(2), legacy=True)




@pytest.fixture
def wrong(tmp_path):
    """One file of each kind, and broken ones."""
    files.write_weights(tmp_path / "weights", small_net(), small_blobs())
    files.write_solver_state(tmp_path / "state", files.SolverState(3, "m", 0, [floats(3, 3)]))
    files.write_weights_hdf5(tmp_path / "weights.h5", [("a", [floats(3)])])
    files.write_solver_state(tmp_path / "state.h5", files.SolverState(3, "m", 0, []))
    files.write_blob(tmp_path / "mean", floats(1, 3, 2, 2))
    for name in ("weights", "state", "weights.h5", "mean"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[:-5] if name != "weights.h5" else content[:600])
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text('name: "net"\nlayer { type: "ReLU" }\n')
    (tmp_path / "page").write_text("\n<!DOCTYPE html><html><body>404</body></html>")
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "archive").write_bytes(b"PK\3\4rest")
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "nothing_in_it").write_bytes(caffe_pb2.NetParameter(name="x").SerializeToString())
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "reader, error, name, message",
    [
        (files.read_weights, WeightsError, "missing", "no such weights file"),
        (files.read_weights, WeightsError, "folder", "is a folder"),
        (files.read_weights, WeightsError, "empty", "is empty"),
        (files.read_weights, WeightsError, "page", "is a web page"),
        (files.read_weights, WeightsError, "pointer", "git lfs pull"),
        (files.read_weights, WeightsError, "archive", "compressed archive"),
        (files.read_weights, WeightsError, "noise", "is not a .caffemodel"),
        (files.read_weights, WeightsError, "nothing_in_it", "holds no layers"),
        (files.read_weights, WeightsError, "text", "is text, such as a net's"),
        (files.read_weights, WeightsError, "state", "is a solver state .* not weights"),
        (files.read_weights, WeightsError, "state.h5", "a solver state; give the .caffemodel.h5"),
        (files.read_weights, WeightsError, "mean", "is a single array"),
        (files.read_weights, WeightsError, "cut_weights", "truncated after layer 'fc': .* bytes are there"),
        (files.read_weights, WeightsError, "cut_weights.h5", "HDF5 cannot read it"),
        (files.read_solver_state, SolverError, "weights", "is weights .* not a solver state"),
        (files.read_solver_state, SolverError, "weights.h5", "it is weights; give the .solverstate.h5"),
        (files.read_solver_state, SolverError, "cut_state", "truncated: .* earlier snapshot"),
        (files.read_solver_state, SolverError, "noise", "is not a .solverstate"),
        (files.read_solver_state, SolverError, "missing", "no such solver state"),
        (files.read_blob, DataError, "weights", "is weights"),
        (files.read_blob, DataError, "cut_mean", "truncated"),
        (files.read_net, PrototxtError, "weights", "is weights .* not text"),
        (files.read_net, PrototxtError, "missing", "no such net definition"),
        (files.read_net, PrototxtError, "empty", "is empty"),
        (files.read_solver, PrototxtError, "weights.h5", "is HDF5, not text"),
    ],
)
def test_wrong_files_are_named_in_one_line(wrong, reader, error, name, message):
    with pytest.raises(error, match=message) as raised:
        reader(wrong / name)
    assert str(wrong / name) in str(raised.value) and "\n" not in str(raised.value)


def test_every_truncation_of_weights_is_noticed(tmp_path):
    """Wherever the file is cut, reading raises an error of ours, or gives whole layers where the cut is between two."""
    path = tmp_path / "w"
    files.write_weights(path, small_net(), [[], [floats(1, 1, 2, 2), floats(1)], [floats(2, 3)], []])
    content = path.read_bytes()
    whole = []
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            whole.append(len(files.read_weights(path)))
        except WeightsError:
            pass
    assert whole == [1, 2, 3]


def test_mixed_layer_forms_are_refused(tmp_path):
    message = caffe_pb2.NetParameter()
    message.layer.add(name="a")
    message.layers.add(name="b")
    (tmp_path / "w").write_bytes(message.SerializeToString())
    with pytest.raises(NetError, match="both 'layer' and 'layers'"):
        files.read_weights(tmp_path / "w")




@pytest.mark.parametrize(
    "text, message",
    [
        ('layer {\n nam: "x" }', "n, line 2: LayerParameter has no field 'nam'; did you mean name?"),
        ("layer { kernel_size: 3 }", "line 1: LayerParameter has no field 'kernel_size'; it belongs inside conv"),
        ("layer { pooling_param { pool: AVG } }", "PoolingParameter.PoolMethod has no value AVG; did you mean AVE?"),
        ("layer { pooling_param { pool: 9 } }", "PoolMethod has no value 9; it has MAX, AVE, STOCHASTIC"),
        ("state { phase: test }", "Phase has no value test; did you mean TEST?"),
        ("\n\nbase_lr: 1", "line 3: NetParameter has no field 'base_lr', but a solver has"),
        ('layer { name: "a"\nname: "b" }', "line 2: name of LayerParameter is given twice"),
        ("layer { dropout_param { x: 1 } }", "DropoutParameter has no field 'x'; it has dropout_ratio"),
        ("layer { clip_param { min: 1 } }", "required fields are missing: layer[0].clip_param.max"),
        ("layer { type: Pooling }", "line 1: Expected string but found: 'Pooling'"),
        ("layer {", 'line 1: Expected "}"'),
        ("input_dim: 99999999999", "line 1: Value out of range"),
    ],
)
def test_text_errors(text, message):
    with pytest.raises(PrototxtError) as raised:
        files.parse_net(text, "n")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_text_forms(tmp_path):
    (tmp_path / "n").write_bytes(b"\xef\xbb\xbf# caf\xe9\r\nname: 'x'; state < phase: 1 > layer: { phase: TRAIN },\n")
    net = files.read_net(tmp_path / "n")
    assert net.name == "x" and net.state.phase == 1 and net.layer[0].HasField("phase")


def test_net_given_as_solver(tmp_path):
    (tmp_path / "n").write_text('layer { name: "x" }')
    with pytest.raises(PrototxtError, match="but a net has: is this a net's definition"):
        files.read_solver(tmp_path / "n")




def test_atomic_write(tmp_path):
    path = tmp_path / "file.bin"
    with files.atomic_write(path) as temporary:
        assert os.path.dirname(temporary) == str(tmp_path) and temporary.endswith(".bin")
        with open(temporary, "w") as file:
            file.write("new")
        assert not path.exists()
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("problem", [RuntimeError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_failed_write_changes_nothing(tmp_path, problem):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(CaffeError if isinstance(problem, OSError) else type(problem)):
        with files.atomic_write(path) as temporary:
            with open(temporary, "w") as file:
                file.write("half")
            raise problem
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_flush", full)
    with pytest.raises(CaffeError, match="No space left on device; an existing file is unchanged"):
        files.write_blob(tmp_path / "mean", floats(2))
    assert not os.listdir(tmp_path)


def test_write_through_a_link_and_into_no_folder(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.write_blob(tmp_path / "link", floats(2))
    assert (tmp_path / "link").is_symlink() and files.read_blob(tmp_path / "real").shape == (2,)
    with pytest.raises(CaffeError, match="folder .* does not exist; create it first"):
        files.write_blob(tmp_path / "none" / "x", floats(2))
    with pytest.raises(CaffeError, match="not a regular file"):
        files.write_blob(tmp_path, floats(2))


def test_large_files_are_refused_before_they_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr("torchcaffe.formats.weights._LIMIT", 100)
    with pytest.raises(WeightsError, match="more than protobuf reads; use HDF5"):
        files.write_weights(tmp_path / "w", small_net(), small_blobs())
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("text, value", [("base_lr: - 1", -1.0), ("base_lr: -\n 0.5 # - 2", -0.5), ("base_lr: -inf", float("-inf"))])
def test_a_minus_apart_from_its_number_is_read_as_caffe_reads_it(text, value):
    assert files.parse_solver(text).base_lr == value


def test_a_minus_in_a_text_stays_where_it_is():
    assert files.parse_net('name: "a - 1" # - 2').name == "a - 1"
    assert files.parse_net("name: 'a \\' - 1'").name == "a ' - 1"
    with pytest.raises(PrototxtError, match="line 2.*did you mean base_lr"):
        files.parse_solver("momentum: - 1\n  base_lrr: 1")
