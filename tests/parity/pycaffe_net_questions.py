"""Questions about caffe.Net and its blobs."""

import os

import caffe  # noqa: E402
import numpy as np  # noqa: E402
from pycaffe_asking import ask, fill, members, numbers, run, write

NET = """name: "probe"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { value: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2
  exclude { stage: "deploy" } }
layer { name: "extra" type: "ReLU" bottom: "prob" top: "extra" include { min_level: 1 } }
"""


LONE_NET = """force_backward: true
layer { name: "x" type: "Input" top: "x" top: "z" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "l" type: "%s" bottom: "x" %s }
"""
CONV = "convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: 'xavier' } }"
LONE_LAYERS = {
    "InnerProduct": "top: 'y' inner_product_param { num_output: 5 weight_filler { type: 'xavier' } }",
    "Convolution": "top: 'y' " + CONV,
    "Deconvolution": "top: 'y' " + CONV,
    "ReLU": "top: 'y' relu_param { negative_slope: 0.5 }",
    "PReLU": "top: 'y'",
    "AbsVal": "top: 'y'",
    "Clip": "top: 'y' clip_param { min: -0.5 max: 0.5 }",
    "Pooling": "top: 'y' pooling_param { pool: AVE kernel_size: 2 stride: 2 }",
    "Scale": "top: 'y' scale_param { bias_term: true }",
    "Bias": "top: 'x'",
    "Eltwise": "bottom: 'z' top: 'y' eltwise_param { operation: PROD }",
    "Concat": "bottom: 'z' top: 'y'",
    "Slice": "top: 'y' top: 'w' slice_param { axis: 1 slice_point: 1 }",
    "Reduction": "top: 'y' reduction_param { axis: 1 operation: SUMSQ }",
    "Tile": "top: 'y' tile_param { tiles: 2 }",
    "Im2col": "top: 'y' convolution_param { kernel_size: 3 }",
}


def lone_backward(net):
    """Diffs that the last layer's backward gives from made-up bottoms and top diffs, without a forward."""
    fill(net)
    for index, blob in enumerate(net.blobs.values()):
        blob.data[...] = numbers(*blob.shape) - 0.5
        if index > 1:
            blob.diff[...] = numbers(*blob.shape)
    net.blobs[list(net.top_names["l"])[0]].diff[...] = numbers(*net.blobs[list(net.top_names["l"])[0]].shape)
    net.backward(start="l", end="l")
    return [[net.blobs[name].diff for name in net.bottom_names["l"]], [blob.diff for blob in net.layers[-1].blobs]]


def net_questions(path, folder):
    net = fill(caffe.Net(path, caffe.TEST))
    for name in (
        "inputs outputs _layer_names bottom_names top_names blob_loss_weights _blob_names _inputs _outputs "
        "_blob_loss_weights"
    ).split():
        ask("net." + name, lambda: getattr(net, name))
    ask("blobs", lambda: {name: blob.data.shape for name, blob in net.blobs.items()})
    ask("blob order", lambda: list(net.blobs))
    ask("_blobs", lambda: [blob.count for blob in net._blobs])
    ask("ids", lambda: [[net._bottom_ids(i), net._top_ids(i)] for i in range(len(net.layers))])
    ask("params", lambda: {name: [blob.data for blob in blobs] for name, blobs in net.params.items()})
    ask("param order", lambda: list(net.params))
    ask("layer_dict", lambda: {name: layer.type for name, layer in net.layer_dict.items()})
    ask("layers", lambda: [[layer.type, len(layer.blobs)] for layer in net.layers])
    ask("same blobs object", lambda: net.blobs is net.blobs and net.params is net.params and net.inputs is net.inputs)
    data, label = numbers(2, 3, 6, 6), np.array([1, 3], np.float32)
    ask("forward", lambda: net.forward(data=data, label=label))
    ask("forward keys", lambda: sorted(net.forward(blobs=["conv"])))
    ask("forward end", lambda: net.forward(end="ip"))
    ask("forward start", lambda: sorted(net.forward(start="ip")))
    ask("forward start end", lambda: sorted(net.forward(start="relu", end="ip")))
    ask("forward missing input", lambda: net.forward(data=data))
    ask("forward unknown input", lambda: net.forward(data=data, label=label, more=data))
    ask("forward batch", lambda: net.forward(data=data[:1], label=label))
    ask("forward shape", lambda: net.forward(data=data[:, :, :2], label=label))
    ask("forward broadcast", lambda: net.forward(data=data[:, :1], label=label)["prob"])
    ask("forward list", lambda: net.forward(data=data.tolist(), label=label))
    ask("forward float64", lambda: net.forward(data=data.astype(float), label=label)["loss"])
    ask("forward unknown layer", lambda: net.forward(start="nobody"))
    ask("forward unknown end", lambda: net.forward(end="nobody"))
    ask("forward unknown blob", lambda: net.forward(blobs=["nobody"]))
    ask("_forward", lambda: [net._forward(0, len(net.layers) - 1), net._forward(0, 1)])
    ask("live", run("out = net.forward(); net.blobs['prob'].data[...] = 7; answer = out['prob']", net=net))
    back = fill(caffe.Net(path, caffe.TRAIN))
    back.forward(data=data, label=label)
    ask("backward", lambda: back.backward())
    ask("backward keys", lambda: sorted(back.backward(diffs=["conv"])))
    ask("backward diffs", lambda: [back.params["ip"][0].diff, back.params["conv"][1].diff])
    back.clear_param_diffs()
    ask("cleared", lambda: [float(abs(blob.diff).sum()) for blobs in back.params.values() for blob in blobs])
    ask("backward part", lambda: back.backward(start="loss", end="ip"))
    ask("backward missing", lambda: back.backward(prob=data))
    ask("backward batch", lambda: back.backward(prob=data[:1], loss=np.ones(3)))
    ask("backward unknown layer", lambda: back.backward(start="nobody"))
    many, labels = numbers(5, 3, 6, 6), np.arange(5, dtype=np.float32)
    ask(
        "forward_all",
        lambda: fill(caffe.Net(path, caffe.TEST, stages=["deploy"])).forward_all(blobs=["ip"], data=many, label=labels),
    )
    ask("forward_all without input", lambda: net.forward_all())
    ask("constructor stages", lambda: caffe.Net(path, caffe.TEST, stages=["deploy"]).outputs)
    ask("constructor level", lambda: caffe.Net(path, caffe.TEST, level=1).outputs)
    ask("constructor keywords", lambda: caffe.Net(network_file=path, phase=caffe.TEST, level=0).outputs)
    ask("constructor position", lambda: caffe.Net(path, 1, 1, ["deploy"]).outputs)
    ask("constructor no phase", lambda: caffe.Net(path))
    ask("constructor phase word", lambda: caffe.Net(path, "TEST"))
    ask("constructor nothing", lambda: caffe.Net())
    ask("constructor too many", lambda: caffe.Net(path, 1, 0, [], path, 3))
    ask("constructor unknown keyword", lambda: caffe.Net(path, phase=1, color=2))
    ask("constructor missing file", lambda: caffe.Net(path + ".no", caffe.TEST))
    ask("constructor missing weights", lambda: caffe.Net(path, caffe.TEST, weights=path + ".no"))
    ask("constructor missing legacy weights", lambda: caffe.Net(path, path + ".no", caffe.TEST))
    weights = os.path.join(folder, "probe.caffemodel")
    net.save(weights)
    net.save_hdf5(weights + ".h5")
    for name, build in (
        ("keyword", lambda: caffe.Net(path, caffe.TEST, weights=weights)),
        ("legacy", lambda: caffe.Net(path, weights, caffe.TEST)),
        ("fifth", lambda: caffe.Net(path, caffe.TEST, 0, None, weights)),
        ("hdf5", lambda: caffe.Net(path, caffe.TEST, weights=weights + ".h5")),
    ):
        ask("weights " + name, lambda: build().params["conv"][0].data)
    ask("attributes", run("net.mine = 3; answer = net.mine", net=net))
    for name in "blobs params inputs outputs layers layer_dict bottom_names top_names".split():
        ask("assign net." + name, run("net.%s = 3" % name, net=caffe.Net(path, caffe.TEST)))
    ask("assign a parameter", run("net.params['ip'][0] = net.params['ip'][0].data", net=caffe.Net(path, caffe.TEST)))
    text = '''layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "d" bottom: "d" top: "loss" }
    layer { name: "after" type: "ReLU" bottom: "loss" top: "loss" }'''
    over = caffe.Net(write(folder, "over.prototxt", text), caffe.TRAIN)
    ask("loss weight of a loss changed in place", lambda: [over.blob_loss_weights["loss"], over.outputs])
    ask(
        "share_with",
        run("a.share_with(b); b.params['ip'][0].data[...] = 9; answer = a.params['ip'][0].data[0]", a=net, b=back),
    )
    weighted = fill(caffe.Net(path, caffe.TRAIN))
    before = weighted.forward(data=data, label=label)["loss"]
    position = list(weighted._blob_names).index("loss")
    ask("write a loss weight", run("net._blob_loss_weights[i] = 3; answer = net._blob_loss_weights[i]", net=weighted, i=position))
    ask("written loss weight", lambda: weighted.blob_loss_weights["loss"])
    ask("loss under it", lambda: [weighted.forward()["loss"] / before, weighted._forward(0, len(weighted.layers) - 1)])
    ask("gradient under it", lambda: [weighted.backward() and weighted.params["ip"][0].diff])
    for name, layer in LONE_LAYERS.items():
        lone = caffe.Net(write(folder, "lone.prototxt", LONE_NET % (name, layer)), caffe.TRAIN)
        ask("backward before any forward: " + name, lambda: lone_backward(lone))
    seen = []
    hooks = caffe.Net(path, caffe.TRAIN)
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        ask("hook " + name, lambda: getattr(hooks, name)(lambda index, name=name: seen.append([name, index])))
    hooks.forward()
    hooks.backward()
    ask("hooks", lambda: seen)
    ask(
        "reshape",
        run(
            "net.blobs['data'].reshape(1, 3, 6, 6); net.blobs['label'].reshape(1); net.reshape(); "
            "answer = net.blobs['prob'].data.shape",
            net=net,
        ),
    )
    ask(
        "reshape in forward",
        run(
            "net.blobs['data'].reshape(3, 3, 6, 6); net.blobs['label'].reshape(3); "
            "answer = net.forward()['prob'].shape",
            net=net,
        ),
    )
    ask("set_input_arrays on Input", lambda: net.set_input_arrays(data, label))


def blob_questions(path):
    net = fill(caffe.Net(path, caffe.TEST))
    ask(
        "members of a net",
        lambda: members(
            net,
            "_backward _batch _blob_loss_weights _blob_names _blobs _bottom_ids _forward _inputs "
            "_layer_names _outputs _set_input_arrays _top_ids after_backward after_forward backward before_backward "
            "before_forward blob_loss_weights blobs bottom_names clear_param_diffs copy_from forward forward_all "
            "forward_backward_all inputs layer_dict layers load_hdf5 "
            "outputs params reshape save save_hdf5 set_input_arrays share_with top_names",
        ),
    )
    ask(
        "members of a blob",
        lambda: members(net.blobs["data"], "channels count data diff height num reshape shape width"),
    )
    ask("members of a layer", lambda: members(net.layers[2], "blobs reshape setup type"))
    ask("members of a vector", lambda: members(net.params["conv"], "add_blob append extend"))
    ask(
        "add_blob",
        run("vector.add_blob(2, 3); answer = [len(vector), vector[2].data]", vector=caffe.Net(path, 1).params["conv"]),
    )
    blob = net.blobs["data"]
    ask("legacy axes", lambda: [blob.num, blob.channels, blob.height, blob.width, blob.count])
    ask("shape", lambda: [list(blob.shape), tuple(blob.shape), blob.shape[0], blob.shape[-1], len(blob.shape)])
    ask("shape is no list", lambda: blob.shape == [2, 3, 6, 6])
    ask("label axes", lambda: [net.blobs["label"].num, net.blobs["label"].width])
    ask("scalar", lambda: [net.blobs["loss"].data.shape, list(net.blobs["loss"].shape), net.blobs["loss"].count])
    ask("fresh", lambda: net.blobs["prob"].data)
    ask(
        "flags",
        lambda: [blob.data.dtype.str, blob.data.flags["C_CONTIGUOUS"], blob.data.flags["WRITEABLE"], blob.diff.shape],
    )
    for name in ("data", "diff", "shape", "num", "count"):
        ask("assign blob." + name, run("blob.%s = 3" % name, blob=blob))
    ask("reshape keywords", lambda: blob.reshape(n=3))
    ask("reshape list", lambda: blob.reshape([1, 2]))
    ask("reshape float", lambda: blob.reshape(1.5, 2))
    ask("in place", run("blob.data[...] = 3; blob.data[0, 0] += 1; answer = blob.data[:, :, 0, 0]", blob=blob))
    ask(
        "smaller keeps",
        run("blob.data[...] = numbers(2, 3, 6, 6); blob.reshape(1, 3, 2, 2); answer = blob.data", blob=blob),
    )
    ask("growing clears", run("blob.reshape(3, 3, 6, 6); answer = float(abs(blob.data).sum())", blob=blob))
    ask("no axes", run("blob.reshape(); answer = [blob.data.shape, blob.count]", blob=blob))

    def orphan():
        other = fill(caffe.Net(path, caffe.TEST))
        kept, params = other.blobs["conv"].data, other.params["ip"][0]
        kept[...] = 4
        del other
        import gc

        gc.collect()
        return [float(kept.sum()), params.data]

    ask("outlives the net", orphan)
    vector = net.params["conv"]
    ask("vector", lambda: [len(vector), vector[0].data.shape, [b.count for b in vector], vector[-1].count])
    ask("vector index", lambda: vector[5])
    ask("layer vector", lambda: [len(net.layers), net.layers[0].type, net.layers[-1].type])
