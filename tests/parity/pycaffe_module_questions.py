"""Questions about what pycaffe has beside nets and solvers: names, net_spec, coord_map, io, Classifier, Detector."""

import os

import caffe  # noqa: E402
import caffe.io  # noqa: F401
import numpy as np  # noqa: E402
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2
from pycaffe_asking import ask, fill, numbers, run, text, write
from pycaffe_net_questions import NET


def module_questions():
    names = (
        "Net SGDSolver NesterovSolver AdaGradSolver RMSPropSolver AdaDeltaSolver AdamSolver NCCL Timer Layer "
        "Classifier Detector NetSpec get_solver "
        "set_mode_cpu set_mode_gpu set_device set_random_seed TRAIN TEST layer_type_list "
        "init_log log solver_count set_solver_count solver_rank set_solver_rank set_multiprocess has_nccl layers "
        "params to_proto io net_spec classifier detector proto Blob Solver"
    ).split()
    ask("names", lambda: [name for name in names if hasattr(caffe, name)])
    ask("version", lambda: [caffe.__version__, caffe.TRAIN, caffe.TEST])
    ask("ranks", lambda: [caffe.solver_count(), caffe.solver_rank()])
    ask("timer", run("t = caffe.Timer(); t.start(); t.stop(); answer = t.ms >= 0"))
    ask("layer types", lambda: list(caffe.layer_type_list()))
    for module in ("io", "net_spec", "classifier", "detector", "coord_map", "pycaffe", "_caffe", "proto.caffe_pb2"):
        ask("import " + module, run("import importlib; importlib.import_module('caffe.%s'); answer = True" % module))
    for name in (
        "BlobVec",
        "RawBlobVec",
        "LayerVec",
        "StringVec",
        "IntVec",
        "DtypeVec",
        "NetVec",
        "BoolVec",
        "Blob",
        "Solver",
    ):
        ask("_caffe." + name, run("from caffe import _caffe; answer = hasattr(_caffe, %r)" % name))


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
    ask(
        "dilated",
        lambda: coord_map_from_to(L.Convolution(n.data, kernel_size=3, dilation=2, stride=2, num_output=1), n.data),
    )
    ask(
        "two sizes",
        lambda: coord_map_from_to(L.Convolution(n.data, kernel_size=[3, 5], stride=[1, 2], num_output=1), n.data),
    )
    ask("cropped", lambda: coord_map_from_to(L.Crop(n.relu, n.data, axis=2, offset=3), n.data))
    ask("sum", lambda: coord_map_from_to(L.Eltwise(n.conv, n.relu), n.data))
    ask("no map", lambda: coord_map_from_to(L.InnerProduct(n.data, num_output=1), n.data))
    ask("unrelated", lambda: coord_map_from_to(n.relu, L.Input()))
    ask("crop half a pixel", lambda: crop(L.Pooling(n.data, kernel_size=2, stride=1), n.data))
    ask("crop outside", lambda: crop(n.data, n.score))


def io_questions():
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


def classifier_questions(folder):
    deploy = write(
        folder,
        "deploy.prototxt",
        NET.replace('layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }\n', "").split(
            'layer { name: "loss"'
        )[0],
    )
    net = fill(caffe.Net(deploy, caffe.TEST))
    weights = os.path.join(folder, "deploy.caffemodel")
    net.save(weights)
    images = [numbers(9, 10, 3) / 2 + 0.5, numbers(10, 9, 3) / 2 + 0.5]
    classifier = caffe.Classifier(
        deploy,
        weights,
        image_dims=(8, 8),
        mean=np.array([1.0, 2.0, 3.0]),
        raw_scale=255,
        channel_swap=(2, 1, 0),
        input_scale=0.01,
    )
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
    ask(
        "detect",
        lambda: [
            [found["prediction"], found["window"], found["filename"], sorted(found)]
            for found in detector.detect_windows([("photo.png", windows)])
        ],
    )
