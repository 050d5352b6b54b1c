"""What test_two_ranks.py lets two ranks train, and one process alone: `contrib_ranks_job.py FOLDER` writes the weights."""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np

import torchcaffe as caffe
from torchcaffe.distributed import parallel

BATCH, CLASSES, WORDS, ITERATIONS = 8, 5, 7, 6
DATA = """layer {{ name: "data" type: "HDF5Data" top: "data" top: "words" top: "label"
  hdf5_data_param {{ source: "{folder}/hdf5.txt" batch_size: {batch} }} }}
"""
# Faces: features of length 1, an embedding of words beside them, center loss, angular softmax.
FACES = DATA + """
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "each" type: "DepthwiseConvolution" bottom: "conv" top: "each"
  convolution_param {{ num_output: 6 group: 6 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU6" bottom: "each" top: "each" }}
layer {{ name: "norm" type: "Normalize" bottom: "each" top: "norm"
  norm_param {{ across_spatial: false channel_shared: false scale_filler {{ value: 4 }} }} }}
layer {{ name: "image" type: "InnerProduct" bottom: "norm" top: "image"
  inner_product_param {{ num_output: 8 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "embed" type: "Embed" bottom: "words" top: "embed"
  embed_param {{ input_dim: 7 num_output: 4 weight_filler {{ type: "gaussian" std: 0.5 }} }} }}
layer {{ name: "text" type: "InnerProduct" bottom: "embed" top: "text"
  inner_product_param {{ num_output: 8 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "feature" type: "Eltwise" bottom: "image" bottom: "text" top: "feature" }}
layer {{ name: "center" type: "CenterLoss" bottom: "feature" bottom: "label" top: "center" loss_weight: 0.2
  loss_param {{ ignore_label: 3 }} center_loss_param {{ num_output: 5 center_filler {{ type: "xavier" }} }} }}
layer {{ name: "score" type: "MarginInnerProduct" bottom: "feature" bottom: "label" top: "score"
  margin_inner_product_param {{ num_output: 5 type: DOUBLE base: 5 gamma: 0.1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }}
"""
# Squeezed and excited feature maps, shuffled, enlarged; regression.
MAPS = DATA + """
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "squeeze" type: "Pooling" bottom: "conv" top: "squeeze" pooling_param {{ pool: AVE global_pooling: true }} }}
layer {{ name: "excite" type: "Convolution" bottom: "squeeze" top: "excite"
  convolution_param {{ num_output: 6 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "gate" type: "Sigmoid" bottom: "excite" top: "gate" }}
layer {{ name: "axpy" type: "Axpy" bottom: "gate" bottom: "conv" bottom: "conv" top: "axpy" }}
layer {{ name: "shuffle" type: "ShuffleChannel" bottom: "axpy" top: "shuffle" shuffle_channel_param {{ group: 2 }} }}
layer {{ name: "pool" type: "Pooling" bottom: "shuffle" top: "pool" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "interp" type: "Interp" bottom: "pool" top: "interp" interp_param {{ height: 8 width: 8 }} }}
layer {{ name: "back" type: "Convolution" bottom: "interp" top: "back"
  convolution_param {{ num_output: 3 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SmoothL1Loss" bottom: "back" bottom: "data" top: "loss" loss_weight: 0.02 }}
layer {{ name: "end" type: "Silence" bottom: "words" bottom: "label" }}
"""
# SSD with one map of prior boxes; testing finds a varying number of boxes.
SSD = DATA + """
layer {{ name: "boxes" type: "Input" top: "boxes" include {{ phase: TRAIN }}
  input_param {{ shape {{ dim: 1 dim: 1 dim: {rows} dim: 8 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 stride: 2 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "prior" type: "PriorBox" bottom: "conv" bottom: "data" top: "prior"
  prior_box_param {{ min_size: 4 aspect_ratio: 2 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }} }}
layer {{ name: "where" type: "Convolution" bottom: "conv" top: "where"
  convolution_param {{ num_output: 12 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "whereP" type: "Permute" bottom: "where" top: "whereP" permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "offsets" type: "Flatten" bottom: "whereP" top: "offsets" }}
layer {{ name: "what" type: "Convolution" bottom: "conv" top: "what"
  convolution_param {{ num_output: 9 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "whatP" type: "Permute" bottom: "what" top: "whatP" permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "scores" type: "Flatten" bottom: "whatP" top: "scores" }}
layer {{ name: "loss" type: "MultiBoxLoss" bottom: "offsets" bottom: "scores" bottom: "prior" bottom: "boxes" top: "loss"
  include {{ phase: TRAIN }} multibox_loss_param {{ num_classes: 3 overlap_threshold: 0.4 }} }}
layer {{ name: "found" type: "DetectionOutput" bottom: "offsets" bottom: "scores" bottom: "prior" top: "found"
  include {{ phase: TEST }} detection_output_param {{ num_classes: 3 nms_param {{ nms_threshold: 0.4 }} confidence_threshold: 0.4 }} }}
layer {{ name: "unused" type: "Silence" bottom: "found" include {{ phase: TEST }} }}
layer {{ name: "end" type: "Silence" bottom: "words" bottom: "label" }}
"""
SOLVER = """net: "{net}" base_lr: 0.02 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" random_seed: 7
max_iter: {iterations} test_iter: 2 test_interval: 3 snapshot: 3 snapshot_prefix: "{folder}/{name}" """


def object_rows(first: int, count: int) -> np.ndarray:
    """Ground truth of images `first` .. of the whole batch, two objects an image, numbered from 0 here."""
    random = np.random.default_rng(5)
    rows = np.zeros((BATCH, 2, 8), np.float32)
    corner = random.uniform(0, 0.5, (BATCH, 2, 2))
    rows[..., 1] = random.integers(1, 3, (BATCH, 2))
    rows[..., 3:5], rows[..., 5:7] = corner, corner + random.uniform(0.3, 0.5, (BATCH, 2, 2))
    part = rows[first : first + count]
    part[..., 0] = np.arange(count)[:, None]
    return part.reshape(1, 1, -1, 8)


def train(folder: str, name: str, text: str, rank) -> dict:
    """Weights after ITERATIONS."""
    if rank is not None:
        parallel.join(name)
    items = BATCH if rank is None else BATCH // 2
    paths = [f"{folder}/{name}-{rank}.{kind}" for kind in ("net", "solver")]
    with open(paths[0], "w") as file:
        file.write(text.format(folder=folder, batch=BATCH, rows=2 * items))
    with open(paths[1], "w") as file:
        file.write(SOLVER.format(net=paths[0], folder=folder, name=name, iterations=ITERATIONS))
    solver = caffe.get_solver(paths[1])
    if "boxes" in solver.net.blobs:
        solver.net.blobs["boxes"].data[...] = object_rows((rank or 0) * items, items)
    solver.solve()
    parallel.leave()
    return {f"{layer} {i}": blob.data.copy() for layer, blobs in solver.net.params.items() for i, blob in enumerate(blobs)}


if __name__ == "__main__":
    import torchcaffe.contrib  # not where the tests import this: it registers layers

    rank = int(os.environ["RANK"]) if "RANK" in os.environ else None
    found = {name: train(sys.argv[1], name, text, rank) for name, text in (("faces", FACES), ("maps", MAPS), ("ssd", SSD))}
    with open(f"{sys.argv[1]}/{'alone' if rank is None else f'rank{rank}'}.pickle", "wb") as file:
        pickle.dump(found, file)
