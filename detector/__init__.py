"""Stage 1 of the paper's pipeline: MTCNN, which finds faces and five landmarks on each."""

from detector.face import LANDMARKS, DetectorError, Face, from_center, iou, nearest_to_box, nearest_to_center
from detector.mtcnn import Detector

__all__ = ["LANDMARKS", "Detector", "DetectorError", "Face", "from_center", "iou", "nearest_to_box", "nearest_to_center"]
