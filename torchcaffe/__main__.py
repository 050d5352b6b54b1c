"""`python -m torchcaffe`: Caffe's command line and its tools."""

from torchcaffe.commands.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
