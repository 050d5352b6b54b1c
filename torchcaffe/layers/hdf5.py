"""Layers that read and write HDF5 files."""

from __future__ import annotations

import os

import numpy as np
import torch

from torchcaffe.core import extras, names
from torchcaffe.data import shuffles
from torchcaffe.core.errors import DataError
from torchcaffe.formats.hdf5 import member, open_hdf5, read_array
from torchcaffe.layers.base import Layer, register
from torchcaffe.layers.data import Source
from torchcaffe.formats.storage import is_hdf5, read_bytes


@register
class HDF5Data(Source):
    """Rows of HDF5 files that a text file lists; each top is the dataset of its name. A file is held whole."""

    type = "HDF5Data"

    def setup(self, bottom, top):
        p = self.param.hdf5_data_param
        self.check(
            not self.param.HasField("transform_param"), "transform_param has no effect here: transform the files"
        )
        self.check(p.batch_size > 0, "hdf5_data_param.batch_size must be positive")
        self.check(p.source, "hdf5_data_param.source is missing")
        if is_hdf5(p.source):
            raise DataError(f'layer "{self.name}" (HDF5Data): source {p.source} is an HDF5 file itself; source is a text file '
                            "that lists .h5 files, one a line")
        self.files = read_bytes(p.source, DataError, "list of HDF5 files").decode("utf-8", "surrogateescape").split()
        self.check(self.files, f"{p.source} lists no files")
        if p.shuffle:
            shuffles.library_shuffle(self.files)
        self.file, self.row, self.turn = 0, 0, 0
        self.load()
        self.size = self.share.size(p.batch_size, self)
        for blob, array in zip(top, self.arrays):
            blob.reshape(self.size, *array.shape[1:])

    def load(self):
        """Load the current file; shuffles its rows where asked for."""
        path = self.files[self.file]
        try:
            with open_hdf5(path, DataError) as file:
                self.arrays = [self.dataset(file, name, path) for name in self.param.top]
        except DataError as problem:
            raise DataError(f"{problem} (named in {self.param.hdf5_data_param.source})") from None
        rows = {len(array) for array in self.arrays}
        if len(rows) != 1 or not min(rows):
            raise DataError(
                f"{path}: its datasets {', '.join(self.param.top)} need equal numbers of rows, not {sorted(rows)}"
            )
        self.order = list(range(min(rows)))
        self.mix()

    def dataset(self, file, name, path):
        if name not in file:
            raise DataError(
                f'{path}: no dataset "{name}" for the top of layer "{self.name}"; {names.suggestion(name, file, "there are:")}'
            )
        array = read_array(path, member(path, file, name, DataError), f'dataset "{name}"', DataError)
        if not array.shape:
            raise DataError(f'{path}: dataset "{name}" must have rows, not a single number')
        if hasattr(self, "arrays") and array.shape[1:] != self.arrays[list(self.param.top).index(name)].shape[1:]:
            raise DataError(f'{path}: dataset "{name}" has rows of {array.shape[1:]}, unlike the first file')
        return array

    def mix(self):
        if self.param.hdf5_data_param.shuffle:
            shuffles.library_shuffle(self.order)

    def advance(self):
        self.turn += 1
        self.row += 1
        if self.row < len(self.order):
            return
        self.row = 0
        if len(self.files) > 1:
            self.file = (self.file + 1) % len(self.files)
            if not self.file and self.param.hdf5_data_param.shuffle:
                shuffles.library_shuffle(self.files)
            self.load()
        self.mix()

    def data_state(self):
        order = {"files": self.files, "order": self.order, "library": shuffles.library.state()}
        return {"file": self.file, "row": self.row, "turn": self.turn, **order}

    def set_data_state(self, state):
        files, order, file, row = state["files"], state["order"], int(state["file"]), int(state["row"])
        if sorted(files) != sorted(self.files) or not 0 <= file < len(files):
            raise ValueError(f"its files are not the ones listed in {self.param.hdf5_data_param.source}")
        self.files, self.file = list(files), file
        self.load()
        if sorted(order) != list(range(len(self.order))) or not 0 <= row < len(order):
            raise ValueError(f"its rows are not those of {files[file]}")
        self.row, self.turn, self.order = row, int(state["turn"]), list(order)
        shuffles.library.set_state(state["library"])

    def forward(self):
        batch = [np.empty((self.size,) + array.shape[1:], np.float32) for array in self.arrays]
        for item in range(self.size):
            while not self.share.owns(self.turn, self.param.hdf5_data_param.batch_size):
                self.advance()
            for target, array in zip(batch, self.arrays):
                target[item] = array[self.order[self.row]]
            self.advance()
        while self.share.split and self.turn % self.param.hdf5_data_param.batch_size:
            self.advance()  # over the others' part: all ranks stand at the batch's end
        return tuple(torch.from_numpy(array).to(self.context.device) for array in batch)


@register
class HDF5Output(Layer):
    """Writes its two bottoms as `data` and `label`, four axes each, once."""

    type = "HDF5Output"
    bottoms = (2, 2)
    tops = (0, 0)

    def setup(self, bottom, top):
        h5py = extras.load("h5py")

        self.path = self.param.hdf5_output_param.file_name
        self.check(self.path, "hdf5_output_param.file_name is missing")
        if os.path.exists(self.path) and os.path.getsize(self.path) and not is_hdf5(self.path):
            raise DataError(f"{self.path}: exists and is not an HDF5 file; remove it or give another name")
        try:
            h5py.File(self.path, "w").close()
        except OSError as problem:
            folder = os.path.dirname(os.path.abspath(self.path))
            raise DataError(f"{self.path}: cannot be written ({problem}); check the folder {folder}") from None
        self.written = False

    def shapes(self, data, label):
        self.check_shape(data[:1] == label[:1], f"data {data} and label {label} differ in axis 0")
        return []

    def forward(self, data, label):
        h5py = extras.load("h5py")

        if self.written:
            raise DataError(
                f'layer "{self.name}" (HDF5Output): {self.path} holds a batch already; one forward pass writes one file'
            )
        with h5py.File(self.path, "a") as file:
            for name, tensor in (("data", data), ("label", label)):
                array = tensor.detach().cpu().numpy()
                file.create_dataset(name, data=array.reshape(array.shape + (1,) * (4 - array.ndim)))
        self.written = True
        return ()
