"""What pycaffe offers beside nets and solvers, and where torchcaffe says more than it does."""

import sys
import types

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe import coord_map, draw
from torchcaffe.core.errors import CaffeError, SolverError
from torchcaffe.formats.files import parse_net

NET = """name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "loss" type: "Silence" bottom: "pool" include { phase: TRAIN } }"""


@pytest.fixture
def files(tmp_path, make_net):
    """(prototxt, caffemodel) of NET."""
    make_net(NET, caffe.TEST).save(str(tmp_path / "small.caffemodel"))
    (tmp_path / "small.prototxt").write_text(NET)
    return str(tmp_path / "small.prototxt"), str(tmp_path / "small.caffemodel")


def test_detector_pads_windows_with_the_mean(files):
    mean = np.array([10.0, 20.0, 30.0])
    detector = caffe.Detector(*files, mean=mean, raw_scale=255, channel_swap=(2, 1, 0), context_pad=2)
    assert np.allclose(detector.crop_mean[0, 0] * 255, mean[::-1])
    image = np.full((40, 40, 3), 0.5, np.float32)
    inside = detector.crop(image, (16, 16, 23, 23))
    assert inside.shape == (8, 8, 3) and np.allclose(inside, 0.5)
    # A window at the corner: scale 8 / (8 - 4) = 2, so half of the box, and a quarter of each side, lies outside.
    corner = detector.crop(image, (0, 0, 19, 19))
    assert np.allclose(corner[:2], detector.crop_mean[:2]) and np.allclose(corner[:, :2], detector.crop_mean[:, :2])
    assert np.allclose(corner[2:, 2:], 0.5)


def test_selective_search_names_what_is_missing(files):
    with pytest.raises(CaffeError, match="MATLAB"):
        caffe.Detector(*files).detect_selective_search(["photo.jpg"])


def test_classifier_averages_ten_crops(files):
    classifier = caffe.Classifier(*files, image_dims=(10, 10))
    image = np.random.RandomState(0).rand(12, 9, 3).astype(np.float32)
    crops = caffe.io.oversample([caffe.io.resize_image(image, (10, 10))], (8, 8))
    one_by_one = [classifier.forward(data=crop.transpose(2, 0, 1)[None])["pool"].copy() for crop in crops]
    assert np.allclose(classifier.predict([image])[0], np.mean(one_by_one, axis=0)[0], atol=1e-6)


def test_rectangular_kernels_have_coordinates():
    data = caffe.layers.Input()
    wide = caffe.layers.Convolution(data, kernel_h=3, kernel_w=5, num_output=1)
    axis, scale, shift = coord_map.coord_map_from_to(wide, data)
    assert axis == 1 and scale == 1 and list(shift) == [1, 2]


def test_timer(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("torchcaffe.core.timer.time.perf_counter", lambda: now[0])
    timer = caffe.Timer()
    assert timer.ms == 0
    for started, stopped, looked in ((1.0, 1.25, 9.0), (10.0, 10.5, 10.5)):
        now[0] = started
        timer.start()
        now[0] = stopped
        if looked != stopped:
            timer.stop()
        now[0] = looked
        assert timer.ms == timer.ms == 1000 * (stopped - started)  # looking stops it
        now[0] += 1
        assert timer.ms == 1000 * (stopped - started)


def test_nccl_with_one_process_does_nothing_and_refuses_a_foreign_uid(make_solver):
    solver = make_solver(
        """layer { name: "d" type: "DummyData" top: "d" top: "t" dummy_data_param { shape { dim: 1 dim: 2 }
          data_filler { value: 1 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param { num_output: 2 } }
        layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "l" }""",
        "base_lr: 0.1 lr_policy: 'fixed'",
    )
    solver.net.params["ip"][0].data[...] = [[1, 2], [3, 4]]
    nccl = caffe.NCCL(solver, caffe.NCCL.new_uid())
    nccl.bcast()
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, [[1, 2], [3, 4]])
    solver.add_callback(nccl)
    solver.step(1)
    # Data and targets are 1 and 1: the gradient of a weight of output i is (sum of its weights - 1), of one process alone.
    np.testing.assert_allclose(solver.net.params["ip"][0].data, [[0.8, 1.8], [2.4, 3.4]], rtol=1e-6)
    try:
        caffe.set_solver_count(2)
        with pytest.raises(SolverError, match="'uid' is not a uid: call caffe.NCCL.new_uid"):
            caffe.NCCL(solver, "uid")
    finally:
        caffe.set_solver_count(1)


def test_log_and_init_log(capsys, monkeypatch, tmp_path):
    from torchcaffe.core.log import Settings

    for name, value in (("minloglevel", None), ("stderrthreshold", None), ("initialized", False), ("files", {})):
        monkeypatch.setattr(Settings, name, value)
    monkeypatch.setenv("GLOG_minloglevel", "0")
    caffe.log("to stderr")
    assert capsys.readouterr().err.endswith("] to stderr\n")
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    caffe.init_log(0)
    caffe.log("to the file")
    assert capsys.readouterr().err == ""
    assert (tmp_path / "caffe.INFO").read_text().endswith("] to the file\n")
    with pytest.raises(CaffeError, match="once"):
        caffe.init_log()
    Settings.files[0].close()


def test_an_unwritable_log_folder_is_one_line(monkeypatch, tmp_path):
    from torchcaffe.core.log import Settings

    monkeypatch.setattr(Settings, "files", {})
    monkeypatch.setenv("GLOG_minloglevel", "0")
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path / "missing"))
    with pytest.raises(CaffeError, match="missing.*make the folder"):
        caffe.log("x")


# ---- draw, with a pydot that only remembers


class FakePydot(types.ModuleType):
    class Dot:
        def __init__(self, name, **settings):
            self.name, self.settings, self.nodes, self.edges = name, settings, [], []

        def add_node(self, node):
            self.nodes.append(node)

        def add_edge(self, edge):
            self.edges.append(edge)

        def to_string(self):
            return "digraph {}"

        def create(self, format):
            return f"as {format}".encode()

    class Node:
        def __init__(self, label, **settings):
            self.label, self.settings = label, settings

    class Edge:
        def __init__(self, start, end, label):
            self.start, self.end, self.label = start.label, end.label, label


def test_draw(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pydot", FakePydot("pydot"))
    net = parse_net(NET)
    graph = draw.get_pydot_graph(net, "LR", phase=caffe.TEST, display_lrm=True)
    assert graph.name == "small" and graph.settings["rankdir"] == "LR"
    colors = {node.label: node.settings["fillcolor"] for node in graph.nodes}
    assert colors['"conv"'] == "#E0E0E0" and colors[r'"relu\n(ReLU)"'] == "#90EE90"
    labels = [node.label for node in graph.nodes]
    assert r'"conv\n(Convolution)\nkernel size: 3\nstride: 2\npad: 1\nlr mult: 1, 2"' in labels
    assert not any("Silence" in label for label in labels)
    assert [edge.label for edge in graph.edges if edge.start.startswith(r'"conv\n')] == ["2"]
    assert any("Silence" in node.label for node in draw.get_pydot_graph(net, "LR").nodes)
    draw.draw_net_to_file(net, str(tmp_path / "net.png"))
    assert (tmp_path / "net.png").read_bytes() == b"as png"


def test_draw_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(ImportError, match="pip install pydot"):
        draw.draw_net(parse_net(NET), "LR")
