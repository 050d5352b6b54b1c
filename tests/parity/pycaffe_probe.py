"""Small questions to pycaffe, answered in JSON by the engine that runs this file: `python pycaffe_probe.py FOLDER`.

Run under real Caffe's Python and under torchcaffe (`--torchcaffe ROOT` first); test_pycaffe_parity.py compares the
answers. Only questions that real Caffe survives: what it aborts on cannot be asked in one process.
"""

import json
import os
import re
import sys

os.environ.setdefault("GLOG_minloglevel", "2")
if "--torchcaffe" in sys.argv:
    position = sys.argv.index("--torchcaffe")
    sys.path.insert(0, sys.argv[position + 1])
    del sys.argv[position : position + 2]
    import torchcaffe

    torchcaffe.install()

import caffe  # noqa: E402
import caffe.io  # noqa: E402
import numpy as np  # noqa: E402
from caffe import layers as L  # noqa: E402
from caffe import params as P  # noqa: E402
from caffe.proto import caffe_pb2  # noqa: E402

NET = """name: "probe"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.5 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2
  exclude { stage: "deploy" } }
layer { name: "extra" type: "ReLU" bottom: "prob" top: "extra" include { min_level: 1 } }
"""
SOLVER = """net: "NETFILE" base_lr: 0.1 lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 3 momentum: 0.9
max_iter: 6 display: 2 random_seed: 3 type: "Nesterov" snapshot_prefix: "PREFIX" test_iter: 1 test_interval: 100
test_initialization: false"""
TRAIN_NET = """name: "train"
layer { name: "data" type: "DummyData" top: "data" top: "target" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } data_filler { type: "constant" value: 0.5 } data_filler { type: "constant" value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""
MEMORY_NET = """layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }
layer { name: "relu" type: "ReLU" bottom: "data" top: "relu" }"""

ANSWERS = {}


def plain(value):
    """Anything as JSON; arrays as shape and rounded numbers."""
    if isinstance(value, np.ndarray):
        return ["array", str(value.dtype), list(value.shape), [float("%.4g" % v) for v in value.reshape(-1).tolist()]]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, (float, np.floating)):
        return float("%.4g" % value)
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return [plain(item) for item in value]
    return type(value).__name__


def ask(name, question):
    """Record the answer, or the kind of exception and, for the documented ones, its first words."""
    try:
        ANSWERS[name] = plain(question())
    except Exception as error:
        kinds = [kind for kind in (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) if isinstance(error, kind)]
        ANSWERS[name] = ["raises", kinds[0].__name__ if kinds else "Exception"]


def run(statement, **names):
    """Question made of statements, for what is no expression."""

    def question():
        scope = dict(globals(), **names)
        exec(statement, scope)
        return scope.get("answer")

    return question


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def numbers(*shape):
    """Fixed values in [-1, 1)."""
    count = int(np.prod(shape))
    return ((np.arange(count, dtype=np.float32) * 37 % 101) / 50.5 - 1).reshape(shape)


def fill(net):
    for index, blobs in enumerate(net.params.values()):
        for blob in blobs:
            blob.data[...] = numbers(*blob.data.shape) * 0.3 + 0.01 * index
    return net


def module_questions():
    names = (
        "Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL Timer Layer Classifier "
        "Detector NetSpec get_solver set_mode_cpu set_mode_gpu set_device set_random_seed TRAIN TEST layer_type_list "
        "init_log log solver_count set_solver_count solver_rank set_solver_rank set_multiprocess has_nccl layers params "
        "to_proto io net_spec classifier detector proto Blob Solver"
    ).split()
    ask("names", lambda: [name for name in names if hasattr(caffe, name)])
    ask("version", lambda: [caffe.__version__, caffe.TRAIN, caffe.TEST])
    ask("ranks", lambda: [caffe.solver_count(), caffe.solver_rank()])
    ask("timer", run("t = caffe.Timer(); t.start(); t.stop(); answer = t.ms >= 0"))
    ask("layer types", lambda: [name for name in caffe.layer_type_list() if name in ("Data", "ReLU", "Softmax")])
    for module in ("io", "net_spec", "classifier", "detector", "coord_map", "pycaffe", "_caffe", "proto.caffe_pb2"):
        ask("import " + module, run("import importlib; importlib.import_module('caffe.%s'); answer = True" % module))
    for name in ("BlobVec", "RawBlobVec", "LayerVec", "StringVec", "IntVec", "DtypeVec", "NetVec", "BoolVec", "Blob", "Solver"):
        ask("_caffe." + name, run("from caffe import _caffe; answer = hasattr(_caffe, %r)" % name))
    


def net_questions(path, folder):
    net = fill(caffe.Net(path, caffe.TEST))
    for name in (
        "inputs outputs _layer_names bottom_names top_names blob_loss_weights _blob_names _inputs _outputs _blob_loss_weights"
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
    ask("forward_all", lambda: fill(caffe.Net(path, caffe.TEST, stages=["deploy"])).forward_all(blobs=["ip"], data=many, label=labels))
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
    ask("share_with", run("a.share_with(b); b.params['ip'][0].data[...] = 9; answer = a.params['ip'][0].data[0]", a=net, b=back))
    seen = []
    hooks = caffe.Net(path, caffe.TRAIN)
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        ask("hook " + name, lambda: getattr(hooks, name)(lambda index, name=name: seen.append([name, index])))
    hooks.forward()
    hooks.backward()
    ask("hooks", lambda: seen)
    ask("reshape", run("net.blobs['data'].reshape(1, 3, 6, 6); net.blobs['label'].reshape(1); net.reshape(); answer = net.blobs['prob'].data.shape", net=net))
    ask("reshape in forward", run("net.blobs['data'].reshape(3, 3, 6, 6); net.blobs['label'].reshape(3); answer = net.forward()['prob'].shape", net=net))
    ask("set_input_arrays on Input", lambda: net.set_input_arrays(data, label))


def blob_questions(path):
    net = fill(caffe.Net(path, caffe.TEST))
    blob = net.blobs["data"]
    ask("legacy axes", lambda: [blob.num, blob.channels, blob.height, blob.width, blob.count])
    ask("shape", lambda: [list(blob.shape), tuple(blob.shape), blob.shape[0], blob.shape[-1], len(blob.shape)])
    ask("shape is no list", lambda: blob.shape == [2, 3, 6, 6])
    ask("label axes", lambda: [net.blobs["label"].num, net.blobs["label"].width])
    ask("scalar", lambda: [net.blobs["loss"].data.shape, list(net.blobs["loss"].shape), net.blobs["loss"].count])
    ask("fresh", lambda: net.blobs["prob"].data)
    ask("flags", lambda: [blob.data.dtype.str, blob.data.flags["C_CONTIGUOUS"], blob.data.flags["WRITEABLE"], blob.diff.shape])
    for name in ("data", "diff", "shape", "num", "count"):
        ask("assign blob." + name, run("blob.%s = 3" % name, blob=blob))
    ask("reshape keywords", lambda: blob.reshape(n=3))
    ask("reshape list", lambda: blob.reshape([1, 2]))
    ask("reshape float", lambda: blob.reshape(1.5, 2))
    ask("in place", run("blob.data[...] = 3; blob.data[0, 0] += 1; answer = blob.data[:, :, 0, 0]", blob=blob))
    ask("smaller keeps", run("blob.data[...] = numbers(2, 3, 6, 6); blob.reshape(1, 3, 2, 2); answer = blob.data", blob=blob))
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


def solver_questions(folder):
    net = write(folder, "train.prototxt", TRAIN_NET)
    text = SOLVER.replace("NETFILE", net).replace("PREFIX", os.path.join(folder, "snap"))
    path = write(folder, "solver.prototxt", text)
    solver = caffe.get_solver(path)
    fill(solver.net)
    ask("solver class", lambda: [type(solver).__name__, isinstance(solver, caffe.SGDSolver)])
    ask("direct class", lambda: type(caffe.AdamSolver(path)).__name__)
    ask("solver.param", lambda: [solver.param.max_iter, solver.param.display, solver.param.layer_wise_reduce, solver.param.base_lr])
    ask("solver.iter", lambda: solver.iter)
    ask("test nets", lambda: [len(solver.test_nets), solver.test_nets[0].outputs, type(solver.test_nets).__name__ != ""])
    for name in ("iter", "net", "test_nets", "lr", "param"):
        ask("assign solver." + name, run("solver.%s = 3" % name, solver=solver))
    for name in ("max_iter", "display", "layer_wise_reduce", "stepsize"):
        ask("assign param." + name, run("solver.param.%s = 3" % name, solver=solver))
    ask("lr", run("answer = solver.lr", solver=solver))
    ask("step result", lambda: solver.step(2))
    ask("after step", lambda: [solver.iter, solver.net.params["ip"][0].data, solver.net.params["ip"][0].diff])
    ask("lr moves", lambda: [solver.lr, solver.lr, solver.lr])
    ask("base_lr", run("solver.param.base_lr = 1.0; answer = solver.lr", solver=solver))
    ask("snapshot result", lambda: solver.snapshot())
    ask("snapshot files", lambda: sorted(name for name in os.listdir(folder) if name.startswith("snap")))
    order = []
    solver.add_callback(lambda: order.append("start"), lambda: order.append("ready"))
    ask("callbacks", run("solver.step(2); answer = order", solver=solver, order=order))
    ask("apply_update", run("before = solver.iter; solver.apply_update(); answer = [solver.iter - before, solver.net.params['ip'][1].diff]", solver=solver))
    ask("solve", run("solver.solve(); answer = [solver.iter, solver.net.params['ip'][0].data]", solver=solver))
    ask("solve resumes", run("solver.solve(%r); answer = solver.iter" % os.path.join(folder, "snap_iter_2.solverstate"), solver=solver))
    ask("restore", run("solver.restore(%r); answer = [solver.iter, solver.net.params['ip'][0].data]" % os.path.join(folder, "snap_iter_2.solverstate"), solver=solver))
    ask("one callback", lambda: solver.add_callback(lambda: 1))
    ask("step word", lambda: solver.step("2"))
    ask("step float", lambda: solver.step(1.5))
    ask("share_weights", run("solver.share_weights(solver.test_nets[0]); solver.net.params['ip'][0].data[...] = 5; answer = solver.test_nets[0].params['ip'][0].data", solver=solver))

    def orphan():
        net = caffe.SGDSolver(path).net
        import gc

        gc.collect()
        return [net.forward()["loss"].shape, len(net.params)]

    ask("net outlives the solver", orphan)
    memory = caffe.Net(write(folder, "memory.prototxt", MEMORY_NET), caffe.TEST)
    images, labels = numbers(4, 1, 2, 2), np.arange(4, dtype=np.float32)
    ask("set_input_arrays", run("net.set_input_arrays(images, labels); answer = [net.forward()['relu'].copy(), net.forward()['label'].copy()]", net=memory, images=images, labels=labels))
    ask("set_input_arrays float64", lambda: memory.set_input_arrays(images.astype(float), labels))
    ask("set_input_arrays odd", lambda: memory.set_input_arrays(images[:3], labels[:3]))
    ask("set_input_arrays lengths", lambda: memory.set_input_arrays(images, labels[:2]))
    ask("set_input_arrays axes", lambda: memory.set_input_arrays(images[0], labels))
    ask("set_input_arrays channels", lambda: memory.set_input_arrays(numbers(4, 2, 2, 2), labels))
    ask("set_input_arrays strided", lambda: memory.set_input_arrays(np.asfortranarray(numbers(4, 1, 2, 2)), labels))


def text(spec):
    """The prototxt; protobuf's versions differ in how they print 1.0."""
    return re.sub(r"(\d)\.0\b", r"\1", str(spec.to_proto()))


def spec_questions():
    n = caffe.NetSpec()
    n.data, n.label = L.Data(batch_size=4, backend=P.Data.LMDB, source="db", ntop=2, transform_param=dict(scale=0.5))
    n.conv = L.Convolution(n.data, kernel_size=3, num_output=4, param=[dict(lr_mult=1), dict(lr_mult=2)])
    n.relu = L.ReLU(n.conv, in_place=True)
    n.score = L.Deconvolution(n.relu, convolution_param=dict(num_output=4, kernel_size=4, stride=2, bias_term=False))
    ask("spec", lambda: text(n))
    from caffe.coord_map import coord_map_from_to, crop

    ask("coordinates", lambda: coord_map_from_to(n.score, n.data))
    big = L.Deconvolution(n.score, convolution_param=dict(num_output=4, kernel_size=8, stride=4, pad=1))
    ask("crop", run("n.final = crop(big, n.score); answer = text(n)", n=n, big=big, crop=crop))
    for kind in caffe.layer_type_list():
        ask("map of " + kind, lambda: coord_map_from_to(getattr(L, kind)(n.data, kernel_size=3), n.data))
    ask("pooled", lambda: coord_map_from_to(L.Pooling(n.relu, kernel_size=2, stride=2, pad=1), n.data))
    ask("dilated", lambda: coord_map_from_to(L.Convolution(n.data, kernel_size=3, dilation=2, stride=2, num_output=1), n.data))
    ask("two sizes", lambda: coord_map_from_to(L.Convolution(n.data, kernel_size=[3, 5], stride=[1, 2], num_output=1), n.data))
    ask("cropped", lambda: coord_map_from_to(L.Crop(n.relu, n.data, axis=2, offset=3), n.data))
    ask("sum", lambda: coord_map_from_to(L.Eltwise(n.conv, n.relu), n.data))
    ask("no map", lambda: coord_map_from_to(L.InnerProduct(n.data, num_output=1), n.data))
    ask("unrelated", lambda: coord_map_from_to(n.relu, L.Input()))
    ask("crop half a pixel", lambda: crop(L.Pooling(n.data, kernel_size=2, stride=1), n.data))
    ask("crop outside", lambda: crop(n.data, n.score))


def io_questions(path):
    image = numbers(7, 8, 3) / 2 + 0.5
    ask("resize_image", lambda: caffe.io.resize_image(image, (4, 5)))
    ask("oversample", lambda: caffe.io.oversample([image, image[::-1]], (3, 4)).sum(axis=(1, 2, 3)))
    transformer = caffe.io.Transformer({"data": (2, 3, 6, 6)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([104.0, 117.0, 123.0]))
    ask("preprocess", lambda: transformer.preprocess("data", image))
    ask("deprocess", lambda: transformer.deprocess("data", transformer.preprocess("data", image)))
    ask("transformer unknown", lambda: transformer.set_raw_scale("nobody", 1))
    ask("blobproto", lambda: caffe.io.blobproto_to_array(caffe.io.array_to_blobproto(image)))
    ask("datum", lambda: caffe.io.datum_to_array(caffe.io.array_to_datum((image * 255).astype(np.uint8), 3)))
    ask("datum axes", lambda: caffe.io.array_to_datum(image[0]))
    ask("pb2", lambda: str(caffe_pb2.NetParameter(name="x")))


def classifier_questions(path, folder):
    deploy = write(
        folder,
        "deploy.prototxt",
        NET.replace('layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }\n', "").split('layer { name: "loss"')[0],
    )
    net = fill(caffe.Net(deploy, caffe.TEST))
    weights = os.path.join(folder, "deploy.caffemodel")
    net.save(weights)
    images = [numbers(9, 10, 3) / 2 + 0.5, numbers(10, 9, 3) / 2 + 0.5]
    classifier = caffe.Classifier(deploy, weights, image_dims=(8, 8), mean=np.array([1.0, 2.0, 3.0]), raw_scale=255, channel_swap=(2, 1, 0), input_scale=0.01)
    ask("classifier", lambda: [classifier.image_dims, classifier.crop_dims, classifier.inputs])
    ask("predict", lambda: classifier.predict(images))
    ask("predict center", lambda: classifier.predict(images, oversample=False))
    ask("predict default", lambda: caffe.Classifier(deploy, weights).predict(images, False))
    ask("classifier is a net", lambda: isinstance(classifier, caffe.Net))
    import skimage.io

    photo = os.path.join(folder, "photo.png")
    skimage.io.imsave(photo, (numbers(20, 24, 3) * 127 + 128).astype(np.uint8))
    detector = caffe.Detector(
        deploy, weights, mean=np.array([1.0, 2.0, 3.0]), raw_scale=255, channel_swap=(2, 1, 0)
    )  # with context_pad, pycaffe of 1.0 fails under Python 3
    windows = np.array([[0, 0, 12, 12], [5, 6, 20, 24], [2, 3, 9, 11]])
    ask("crop", lambda: [detector.crop(numbers(20, 24, 3), window) for window in windows])
    ask("context", lambda: detector.context_pad)
    # load_image of 1.0 fails with scikit-image 0.16 and newer, so that the photo is handed over instead.
    caffe.io.load_image = lambda filename, color=True: numbers(20, 24, 3) / 2 + 0.5
    ask("detect", lambda: [[found["prediction"], found["window"], found["filename"], sorted(found)] for found in detector.detect_windows([("photo.png", windows)])])


def main():
    folder = sys.argv[1]
    path = write(folder, "probe.prototxt", NET)
    module_questions()
    net_questions(path, folder)
    blob_questions(path)
    solver_questions(folder)
    spec_questions()
    io_questions(path)
    classifier_questions(path, folder)
    print(json.dumps(ANSWERS))


if __name__ == "__main__":
    main()
