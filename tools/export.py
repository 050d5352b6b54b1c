"""Trained nets for other programs: ONNX, safetensors, and a JSON that says how their input is made.

    python tools/export.py                               # GNet, SNet1, SNet2 into weights/PROFILE/export/
    python tools/export.py --net gnet --profile demo --output somewhere

Each net becomes <net>.onnx, <net>.safetensors and <net>.json. The ONNX file is run by onnxruntime beside the engine and
gets its name only where both give the same answers. Needs the packages onnx, onnxruntime and safetensors.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import os
from typing import Sequence

import recipe
from common import command
from common.options import add_trained_profile


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="+", choices=sorted(recipe.NETS), default=list(recipe.PIPELINE_NETS),
                        metavar="NET", help=f"{', '.join(recipe.NETS)} (default: {' '.join(recipe.PIPELINE_NETS)})")
    add_trained_profile(parser)
    parser.add_argument("--output", metavar="FOLDER", help="default: weights/PROFILE/export")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 when all nets are written, 1 when not; those written before stay."""
    options = get_parser().parse_args(argv)
    os.environ.setdefault("GLOG_minloglevel", "1")  # Caffe's report of each layer is for training
    from torchcaffe.core.errors import CaffeError

    from gender_smile.inference.classifier import PipelineError

    return command.run("export", lambda: export_all(options), CaffeError, PipelineError, status=1,
                       writes=[os.path.join(_folder(options.profile, options), f"{net}.onnx") for net in options.net])


def _folder(profile: str, options: argparse.Namespace) -> str:
    return recipe.absolute(f"weights/{profile}/export") if options.output is None else options.output


def export_all(options: argparse.Namespace) -> int:
    """Export the nets that the command line names; the exit status."""
    from gender_smile.inference import classifier, export

    profile = classifier.choose_profile(options.profile, options.variant)
    folder = _folder(profile, options)
    for net in options.net:
        paths, difference = export.export(profile, net, folder, options.variant)
        names = ", ".join(os.path.relpath(path) for path in paths.values())
        print(f"{recipe.NETS[net].title}: {names}; onnxruntime differs from the engine by {difference:.1e}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
