"""Stage 1 of the paper's pipeline: MTCNN, which finds faces and five landmarks on each."""

from detector.mtcnn import (
    LANDMARKS, Detector, DetectorError, Face, from_center, iou, nearest_to_box, nearest_to_center,
)

__all__ = ["LANDMARKS", "Detector", "DetectorError", "Face", "from_center", "iou", "nearest_to_box", "nearest_to_center"]
