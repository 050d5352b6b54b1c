"""The part of a solver that writes and reads snapshots: Caffe's own files, whole or not at all."""

from __future__ import annotations

import os

import numpy as np
import torch

from torchcaffe.core import execution, log
from torchcaffe.formats import storage
from torchcaffe.solvers import resume
from torchcaffe.core.errors import CaffeError, SolverError, WeightsError
from torchcaffe.proto import caffe_pb2


class SolverFiles:
    """Mixin of the solvers."""

    def check_snapshots(self):
        """Try now what a snapshot will write. Raises SolverError for a snapshot_prefix where it cannot."""
        for path in self._snapshot_files(max(self.iter, self.proto.max_iter)):
            try:
                storage.check_writable(path)
            except CaffeError as error:
                raise SolverError(f"snapshot {error}, or change snapshot_prefix") from error

    def _snapshot_files(self, iteration):
        """(model, state) of an iteration's snapshot."""
        stem = f"{self.proto.snapshot_prefix}_iter_{iteration}"
        suffix = ".h5" if self.proto.snapshot_format == caffe_pb2.SolverParameter.HDF5 else ""
        return f"{stem}.caffemodel{suffix}", f"{stem}.solverstate{suffix}"

    def snapshot(self):
        """Write {prefix}_iter_{N}.caffemodel and .solverstate (or .h5 both), then their record (see resume).

        The model comes first, so that a state never names a model that is not there. Each is whole or absent.
        """
        from torchcaffe.formats.files import SolverState, write_solver_state

        execution.settle(self.net)
        hdf5 = self.proto.snapshot_format == caffe_pb2.SolverParameter.HDF5
        kind = "HDF5" if hdf5 else "binary proto"
        model, state = self._snapshot_files(self.iter)
        log.info(f"Snapshotting to {kind} file {model}")
        (self.net.save_hdf5 if hdf5 else self.net.save)(model, self.proto.snapshot_diff)
        log.info(f"Snapshotting solver state to {kind} file {state}")
        history = [tensor.cpu().numpy() for tensor in self.history]
        write_solver_state(state, SolverState(self.iter, model, self.current_step, history))
        resume.write(self, model, state)

    def restore(self, path):
        """Go on from a .solverstate (or .solverstate.h5): iteration, weights, history; data and random numbers by its record.

        Raises WeightsError, SolverError: what is damaged, or is another net's or solver's, is refused before use.
        """
        from torchcaffe.formats.files import read_solver_state

        record = resume.read(path)
        state = read_solver_state(path)
        resume.check(path, record, state.iter)
        if len(state.history) != len(self.history):
            raise WeightsError(
                f"{path}: holds {len(state.history)} history blobs, this {self.type} solver needs {len(self.history)}; "
                "it was written by another type of solver or for another net"
            )
        for index, (array, tensor) in enumerate(zip(state.history, self.history)):
            if np.size(array) != tensor.numel():
                raise WeightsError(f"{path}: history blob {index} has {np.size(array)} values, not {tensor.numel()}")
        if not os.path.isfile(state.learned_net):
            raise WeightsError(
                f"{path}: its weights, {state.learned_net}, are not there; run from the folder it was made in"
            )
        self.equal = False
        self.net.copy_from(state.learned_net)
        log.info("SGDSolver: restoring history")
        for array, tensor in zip(state.history, self.history):
            tensor.copy_(torch.from_numpy(np.array(array, np.float32).reshape(tensor.shape)))
        self._iter, self.current_step = state.iter, state.current_step
        resume.restore(self, path, record)
        self.resumed = record

    def share_weights(self, net):
        """Let `net` use the memory of the training net's parameters."""
        net.share_with(self.net)
