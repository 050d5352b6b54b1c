"""The verbs of `python -m torchcaffe`, a module each; importing them loads neither torch nor OpenCV."""
