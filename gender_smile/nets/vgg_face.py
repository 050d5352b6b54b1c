"""VGG-Face's weights: which layers and shapes the file must have, and a random file of the same form.

Not a command of its own; `tools/weights.py` and step 1 use it.
"""

from __future__ import annotations

import os
from typing import Dict, Optional, Tuple

import recipe
from common.files import read_json, sha256_of, write_json

Shapes = Tuple[Tuple[int, ...], Tuple[int, ...]]  # of a layer's weights and of its biases

VGG_FACE = "weights/VGG_FACE.caffemodel"  # where `make weights` puts it, in the project's folder
RECORD = ".json"  # appended to a caffemodel's path without its suffix: the file's size and SHA-256 at first use


def expected_shapes(width: float = 1.0, input_size: int = recipe.PAPER.crop_size,
                    units: int = recipe.FULLY_CONNECTED) -> Dict[str, Shapes]:
    """Shapes of VGG-Face's 16 layers with learned weights, in the net's order: {name: (weights, biases)}.

    `width` is the share of VGG-Face's filters and units that the net has, `input_size` its square input in pixels,
    `units` what fc6 and fc7 have at full width.
    Convolutions are (filters, channels, 3, 3), fully connected layers (units, inputs).
    """
    def share(full: int) -> int:
        return max(1, int(round(full * width)))

    shapes: Dict[str, Shapes] = {}
    channels = 3
    for group, (filters, count) in enumerate(recipe.CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            shapes[f"conv{group}_{number}"] = ((share(filters), channels, 3, 3), (share(filters),))
            channels = share(filters)
    side = -(-input_size // 2 ** len(recipe.CONVOLUTIONS))  # each group ends with a pooling that halves, rounding up
    inputs = channels * side * side
    for name, outputs in (("fc6", share(units)), ("fc7", share(units)),
                        ("fc8", recipe.IDENTITIES)):
        shapes[name] = ((outputs, inputs), (outputs,))
        inputs = outputs
    return shapes


def check_vgg_face(path: str, width: float = 1.0, input_size: int = recipe.PAPER.crop_size,
                   units: int = recipe.FULLY_CONNECTED) -> Dict[str, list]:
    """Check that `path` holds VGG-Face's 16 layers, of these shapes, all finite; return {layer: [weights, biases]}.

    The arrays are float32, of expected_shapes, and are read from the file when they are used. V1 and V2 files are
    accepted; further layers and a missing fc8 are not. Raises torchcaffe.core.errors.WeightsError.
    """
    from torchcaffe.formats import files as caffe_files
    from torchcaffe.core.errors import WeightsError

    expected = expected_shapes(width, input_size, units)
    layers = {layer.name: layer for layer in caffe_files.read_weights(path) if layer.blobs}
    absent = [name for name in expected if name not in layers]
    unknown = [name for name in layers if name not in expected]
    if absent or unknown:
        parts = [f"{word} {', '.join(names)}" for word, names in (("lacks", absent), ("has", unknown)) if names]
        raise WeightsError(f"{path}: not VGG-Face's weights: it {' and '.join(parts)}; expected the "
                           f"{len(expected)} layers conv1_1 .. conv5_3, fc6, fc7, fc8 (see weights/README.md)")
    arrays = {}
    for name, shapes in expected.items():
        blobs = layers[name].blobs
        actual = tuple(_without_padding(blob.shape) for blob in blobs)
        if actual != tuple(_without_padding(shape) for shape in shapes):
            raise WeightsError(f"{path}: layer {name} has shapes {_listed(blob.shape for blob in blobs)}, "
                               f"expected {_listed(shapes)} (see weights/README.md)")
        for blob in blobs:
            # A NaN passes through min and max; no temporary array of the blob's size is made.
            if not abs(float(blob.data.min())) + abs(float(blob.data.max())) < float("inf"):
                raise WeightsError(f"{path}: layer {name} holds values that are not finite; fetch the file again")
        arrays[name] = [blob.data.reshape(shape) for blob, shape in zip(blobs, shapes)]
    return arrays


def convert_vgg_face(arrays: Dict[str, list], definition: str, path: str) -> None:
    """Write `arrays` (see check_vgg_face) in Caffe's current format, as weights of the net in the prototxt `definition`."""
    from torchcaffe.formats import files as caffe_files

    net = caffe_files.read_net(definition)
    caffe_files.write_weights(path, net, [arrays.get(layer.name, []) for layer in net.layer])


def verify_vgg_face(path: str) -> str:
    """Check the structure of VGG-Face's file and that it is the one first used; return its sha256.

    Raises torchcaffe.core.errors.WeightsError.
    """
    check_vgg_face(path)
    return same_as_first(path)


def same_as_first(path: str, sha256: Optional[str] = None) -> str:
    """Check that VGG-Face's file is the one first used; return its sha256, which a caller that knows it passes.

    At first use that is written to a JSON file beside it (VGG_FACE.json), later compared with it.
    Raises torchcaffe.core.errors.WeightsError.
    """
    from torchcaffe.core.errors import WeightsError

    record_path = os.path.splitext(path)[0] + RECORD
    sha256 = sha256 or sha256_of(path)
    if not os.path.exists(record_path):
        write_json(record_path, {"file": os.path.basename(path), "size": os.path.getsize(path), "sha256": sha256})
        return sha256
    recorded = (read_json(record_path) or {}).get("sha256")
    if not recorded:
        raise WeightsError(f"{record_path}: does not hold the sha256 of the first use; delete it to record it again")
    if recorded != sha256:
        raise WeightsError(f"{path}: sha256 is {sha256}, but {recorded} was recorded in {record_path} at first use; if you "
                           "changed the file on purpose, delete that record")
    return sha256


def write_random_vgg_face(path: str, width: float = 1.0, seed: int = recipe.PAPER.random_seed,
                          input_size: int = recipe.PAPER.crop_size, units: int = recipe.FULLY_CONNECTED) -> None:
    """Write a file of VGG-Face's form (V1 caffemodel) with random weights. Nothing is learned in it.

    It stands in where the real file is not to be had: in the demo's step 1 and in tests. Fifteen layers without batch
    normalization hardly learn from independent random weights, so every layer comes in mirrored pairs of units, whose
    ReLUs together pass the signal on undistorted: at the start the net is linear in its input but for the pooling
    ("looks linear", Balduzzi et al. 2017). conv1_1 brings pixels of -129..161 to the scale of 1; biases are 0.
    The same arguments give the same file. 580 MB at full width.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    arrays = {
        name: [_mirrored(generator, shape, first=name == "conv1_1"), np.zeros(bias_shape, np.float32)]
        for name, (shape, bias_shape) in expected_shapes(width, input_size, units).items()
    }
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    write_vgg_face(path, "VGG_FACE_random", arrays, input_size)


def write_vgg_face(path: str, title: str, arrays: Dict[str, list], input_size: int) -> None:
    """Write layers as the release has them: V1, blobs with four axes. arrays: {layer: [weights, biases]}, float32."""
    from torchcaffe.formats import files as caffe_files

    layers = [
        (name, "CONVOLUTION" if blobs[0].ndim == 4 else "INNER_PRODUCT", [_padded(blob) for blob in blobs])
        for name, blobs in arrays.items()
    ]
    caffe_files.write_v1_weights(path, title, layers, [("data", (1, 3, input_size, input_size))])


def _mirrored(generator, shape, first):
    """Random weights float32 of `shape` whose second half of units is the negative of the first.

    Units read pairs (the first half of the channels against the second) so that relu(z) - relu(-z) = z arrives; the
    first layer reads pixels. Gaussian with variance 1 / inputs read, which keeps the scale; an odd layer has no pairs.
    """
    import numpy as np

    units, channels = shape[:2]
    if units % 2 or (channels % 2 and not first):
        return generator.standard_normal(shape, dtype=np.float32) * np.float32((2.0 / np.prod(shape[1:])) ** 0.5)
    read = channels if first else channels // 2
    half = generator.standard_normal((units // 2, read, *shape[2:]), dtype=np.float32)
    half *= np.float32((1.0 / np.prod(half.shape[1:])) ** 0.5)
    if first:
        half /= np.float32(recipe.PIXEL_SCALE)
        return np.concatenate([half, -half])
    row = np.concatenate([half, -half], axis=1)
    return np.concatenate([row, -row])


def _padded(array):
    """`array` with four axes, as V1 files have it: leading ones are put before its own."""
    return array.reshape((1,) * (4 - array.ndim) + array.shape)


def _without_padding(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """V1 files pad every shape to four axes with leading ones."""
    shape = tuple(int(size) for size in shape)
    return _without_padding(shape[1:]) if shape[:1] == (1,) else shape


def _listed(shapes) -> str:
    return " and ".join("x".join(str(size) for size in shape) for shape in shapes)
