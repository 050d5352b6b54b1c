"""Solvers and the command `test` average outputs over batches; detections differ in number from batch to batch."""

import h5py
import numpy as np
import pytest

from torchcaffe.commands import cli
from torchcaffe.core.errors import NetError

SILENCE = 'layer { name: "silence" type: "Silence" bottom: "found" }'


@pytest.fixture
def net_text(tmp_path):
    """Two images with two and one detections, and a parameter to train."""
    scores = np.array([[[0.1, 0.9], [0.2, 0.8]], [[0.9, 0.1], [0.3, 0.7]]])
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["scores"], file["loc"] = scores.reshape(2, 4), np.zeros((2, 8))
    (tmp_path / "images.txt").write_text(f"{tmp_path}/images.h5\n")
    return f"""
        layer {{ name: "d" type: "HDF5Data" top: "scores" top: "loc" hdf5_data_param {{ source: "{tmp_path}/images.txt" batch_size: 1 }} }}
        layer {{ name: "map" type: "DummyData" top: "map" dummy_data_param {{ shape {{ dim: 1 dim: 1 dim: 1 dim: 2 }} }} }}
        layer {{ name: "p" type: "PriorBox" bottom: "map" top: "p" prior_box_param {{ min_size: 9 img_h: 10 img_w: 20 }} }}
        layer {{ name: "found" type: "DetectionOutput" bottom: "loc" bottom: "scores" bottom: "p" top: "found"
                 detection_output_param {{ num_classes: 2 confidence_threshold: 0.5 }} }}
        layer {{ name: "ip" type: "InnerProduct" bottom: "scores" top: "ip" inner_product_param {{ num_output: 1 }} }}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" include {{ phase: TRAIN }} }}"""


SOLVER = "base_lr: 0.1 lr_policy: 'fixed' max_iter: 1 test_iter: 2 test_interval: 1"


def test_a_solver(make_solver, net_text):
    with pytest.raises(NetError, match=r'output "found" has the shape \(1, 1, 1, 7\) after \(1, 1, 2, 7\), so that it has no mean'):
        make_solver(net_text, SOLVER).solve()
    make_solver(net_text + SILENCE, SOLVER).solve()
    nothing = net_text + SILENCE + 'layer { name: "none" type: "Silence" bottom: "ip" include { phase: TEST } }'
    make_solver(nothing, SOLVER).solve()


def test_the_command(net_text, make_net, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    (tmp_path / "net").write_text(net_text)
    make_net(net_text).save(str(tmp_path / "weights"))
    command = ["test", "-model", str(tmp_path / "net"), "-weights", str(tmp_path / "weights"), "-iterations"]
    cli.main([*command, "1"])
    assert capfd.readouterr().err.count("Batch 0, found = ") == 14
    assert cli.main([*command, "2"]) == 1
    assert 'output "found" has the shape (1, 1, 1, 7) after (1, 1, 2, 7)' in capfd.readouterr().err
