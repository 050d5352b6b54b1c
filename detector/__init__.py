"""Stage 1 of the paper's pipeline: MTCNN, which finds faces and five landmarks on each."""

from typing import Optional

from detector.mtcnn import (
    LANDMARKS, Detector, DetectorError, Face, from_center, iou, nearest_to_box, nearest_to_center,
)

__all__ = ["LANDMARKS", "Detector", "DetectorError", "Face", "from_center", "iou", "make_detector", "nearest_to_box",
           "nearest_to_center"]  # fmt: skip


def make_detector(gpu: Optional[int] = None, caffe=None) -> Detector:
    """The detector for the CPU, or for GPU number `gpu`; `caffe`: the engine, torchcaffe when None.

    With torchcaffe a GPU takes many photos at a time. Real Caffe runs the nets where its mode says, a photo at a time.
    """
    if gpu is None or getattr(caffe, "__name__", "torchcaffe") != "torchcaffe":
        return Detector(caffe=caffe)
    from detector.batched import BatchedDetector

    return BatchedDetector(f"cuda:{gpu}")
