"""The subcommands of `torchcaffe`, one module each; importing them loads neither torch nor OpenCV."""
