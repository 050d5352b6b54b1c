"""Building and running nets: phases, splits, live arrays, weights by layer name, both ways of running."""

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.core import execution
from torchcaffe.core.errors import NetError, WeightsError

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } include { phase: TRAIN } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc"
  inner_product_param { num_output: %d weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" exclude { phase: TRAIN } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" include { phase: TRAIN } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TRAIN } }
"""


def test_phases_choose_layers(make_net):
    train, test = make_net(NET % 3), make_net(NET % 3, caffe.TEST)
    assert train.inputs == ["data", "label"] and train.outputs == ["accuracy", "loss"]
    assert test.inputs == ["data"] and test.outputs == ["prob"]
    assert list(test.params) == ["conv1", "fc"]
    assert [tuple(blob.data.shape) for blob in test.params["fc"]] == [(3, 64), (3,)]


def test_a_blob_read_twice_is_split_under_caffes_names(make_net):
    net = make_net(NET % 3)
    assert list(net.blobs) == [
        "data", "label", "label_label_0_split_0", "label_label_0_split_1", "conv1", "fc", "fc_fc_0_split_0",
        "fc_fc_0_split_1", "loss", "accuracy",
    ]  # fmt: skip
    assert net.bottom_names["loss"] == ["fc_fc_0_split_0", "label_label_0_split_0"]


def test_wrong_wiring_is_named(make_net):
    layer = 'layer { name: "a" type: "ReLU" bottom: "nothing" top: "a" }'
    with pytest.raises(NetError, match='"a": unknown bottom blob "nothing"'):
        make_net(layer)
    twice = 'layer { name: "%s" type: "Input" top: "x" input_param { shape { dim: 1 } } }'
    with pytest.raises(NetError, match='"b": top blob "x" is produced by multiple sources'):
        make_net(twice % "a" + twice % "b")


def test_arrays_are_live_and_outlive_the_net(make_net):
    net = make_net(NET % 3, caffe.TEST)
    data, prob = net.blobs["data"].data, net.blobs["prob"].data
    data[...] = np.random.default_rng(0).normal(size=data.shape)
    net.forward()
    first = prob.copy()
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-6)
    data[...] *= -1
    net.forward()
    assert not np.allclose(first, prob)  # the array held since before sees the new answer
    del net
    np.testing.assert_allclose(prob.sum(1), 1, rtol=1e-6)


def test_blobs_can_be_changed_between_layers(make_net):
    net = make_net(NET % 3, caffe.TEST)
    net.blobs["data"].data[...] = 1
    net.forward(end="relu1")
    net.blobs["conv1"].data[...] = 0
    net.params["fc"][1].data[...] = [0, np.log(2), np.log(5)]
    np.testing.assert_allclose(net.forward(start="fc")["prob"], np.tile([1 / 8, 2 / 8, 5 / 8], (2, 1)), rtol=1e-6)


def test_one_sweep_and_layer_by_layer_give_the_same_gradients(make_net):
    net = make_net(NET % 3)
    net.blobs["data"].data[...] = np.random.default_rng(0).normal(size=(2, 3, 6, 6))
    net.blobs["label"].data[...] = [0, 2]
    net.forward()
    net.backward()
    expected = {name: [blob.diff.copy() for blob in blobs] for name, blobs in net.params.items()}
    for keep_diffs in (False, True):
        net.clear_param_diffs()
        autograd_pass = execution.AutogradPass(net, keep_diffs)
        autograd_pass.forward()
        autograd_pass.backward()
        for name, blobs in net.params.items():
            for blob, gradient in zip(blobs, expected[name]):
                np.testing.assert_allclose(blob.diff, gradient, rtol=1e-5, atol=1e-7)


def test_backward_of_one_layer_needs_no_forward_where_its_gradient_does_not(make_net):
    net = make_net(NET % 3)
    generator = np.random.default_rng(0)
    diff, bottom = generator.normal(size=(2, 3)), generator.normal(size=net.blobs["conv1"].shape)
    for factor in (1, -2):  # what the bottoms hold now counts, not what they held at the last backward
        net.clear_param_diffs()
        net.blobs["fc"].diff[...], net.blobs["conv1"].data[...] = diff, factor * bottom
        net.backward(start="fc", end="fc")
        weight = net.params["fc"][0]
        np.testing.assert_allclose(weight.diff, factor * diff.T @ bottom.reshape(2, -1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(net.blobs["conv1"].diff.reshape(2, -1), diff @ weight.data, rtol=1e-5, atol=1e-6)
        assert not net.blobs["fc"].data.any()
    with pytest.raises(NetError, match='"loss" .SoftmaxWithLoss.: its backward needs what its forward left; call forward'):
        net.backward(start="loss", end="loss")


def test_a_backward_after_a_training_step_is_not_of_an_earlier_forward(make_net):
    net = make_net(NET % 3)
    net.forward()
    net.blobs["data"].data[...] = 1
    autograd_pass = execution.AutogradPass(net, keep_diffs=True)
    autograd_pass.forward()
    autograd_pass.backward()
    with pytest.raises(NetError, match="call forward first"):
        net.backward()


def test_a_written_loss_weight_is_kept_and_shown(make_net):
    """As in Caffe, where it is what the log shows; the loss itself is weighted by the diff of its blob."""
    net = make_net(NET % 3)
    net._blob_loss_weights[list(net.blobs).index("loss")] = 3
    assert net._blob_loss_weights[list(net.blobs).index("loss")] == net.blob_loss_weights["loss"] == 3
    assert net._forward(0, len(net.layers) - 1) == net.blobs["loss"].data
    with pytest.raises(AttributeError):
        net._blob_loss_weights = []


def test_weights_are_copied_by_name_and_the_rest_is_reported(make_net, tmp_path):
    source, path = make_net(NET % 3, seed=1), str(tmp_path / "a.caffemodel")
    source.save(path)
    renamed = (NET % 3).replace('name: "fc"', 'name: "fc_new"')
    target = make_net(renamed, seed=2)
    before = target.params["fc_new"][0].data.copy()
    target.copy_from(path)
    np.testing.assert_array_equal(target.params["conv1"][0].data, source.params["conv1"][0].data)
    np.testing.assert_array_equal(target.params["fc_new"][0].data, before)
    report = target.copy_report
    assert (report.copied, report.left, report.ignored) == (["conv1"], ["fc_new"], ["fc"])


def test_a_mismatch_names_both_shapes_and_changes_nothing(make_net, tmp_path):
    source, path = make_net(NET % 3, seed=1), str(tmp_path / "a.caffemodel")
    source.save(path)
    target = make_net(NET % 5, seed=2)
    before = target.params["conv1"][0].data.copy()
    with pytest.raises(WeightsError, match=r'"fc", blob 0: .*\(3, 64\), this net \(5, 64\); rename the layer'):
        target.copy_from(path)
    np.testing.assert_array_equal(target.params["conv1"][0].data, before)


@pytest.mark.parametrize("suffix", ["caffemodel", "caffemodel.h5"])
def test_saved_weights_come_back(make_net, tmp_path, suffix):
    source, path = make_net(NET % 3, seed=1), str(tmp_path / f"a.{suffix}")
    (source.save_hdf5 if suffix.endswith("h5") else source.save)(path)
    target = make_net(NET % 3, caffe.TEST, seed=2, weights=path)
    for name, blobs in source.params.items():
        for ours, theirs in zip(target.params[name], blobs):
            np.testing.assert_array_equal(ours.data, theirs.data)


def test_shared_weights_are_one_memory(make_net):
    train, test = make_net(NET % 3, seed=1), make_net(NET % 3, caffe.TEST, seed=2)
    test.share_with(train)
    train.params["fc"][1].data[...] = 7
    np.testing.assert_array_equal(test.params["fc"][1].data, 7)


def test_batches_of_any_size(make_net):
    net = make_net(NET % 3, caffe.TEST)
    images = np.random.default_rng(0).normal(size=(5, 3, 6, 6)).astype(np.float32)
    answers = net.forward_all(data=images)["prob"]
    assert answers.shape == (5, 3)
    net.blobs["data"].reshape(5, 3, 6, 6)
    net.blobs["data"].data[...] = images
    np.testing.assert_allclose(net.forward()["prob"], answers, rtol=1e-5)


def test_a_new_seed_reaches_nets_that_are_there_already(make_net):
    filler = 'shape { dim: 4 } data_filler { type: "uniform" }'
    layer = f'layer {{ name: "d" type: "DummyData" top: "d" dummy_data_param {{ {filler} }} }}'
    net = make_net(layer)
    caffe.set_random_seed(9)
    expected = np.random.RandomState(9).randint(0, 2**32, 4, dtype=np.uint32) / 2.0**32
    np.testing.assert_allclose(net.forward()["d"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "rule, line",
    [
        ("include { phase: TEST }", "phase (0) differed from the phase (1)"),
        ("include { min_level: 2 }", "level (1) is above the min_level (2)"),
        ("include { max_level: 0 }", "level (1) is above the max_level (0)"),
        ('include { stage: "a" stage: "b" }', "did not contain stage 'b'"),
        ('include { not_stage: "a" }', "contained a not_stage 'a'"),
        ('exclude { stage: "b" }', "did not contain stage 'b'"),
    ],
)
def test_why_a_rule_does_not_hold_is_logged_as_caffe_does(make_net, monkeypatch, capsys, rule, line):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    net = make_net('layer { name: "x" type: "Parameter" top: "x" %s }' % rule, level=1, stages=["a"])
    assert list(net._layer_names) == (["x"] if "exclude" in rule else [])
    assert f"] The NetState {line} specified by a rule in layer x\n" in capsys.readouterr().err


