"""Make the paper's Table 2 (training schemes) or Table 3 (cropping schemes): train what is missing, score, compare.

    make table2 PROFILE=demo                                    # or the same without make:
    python tools/tables.py --table 2 --profile demo
    python tools/tables.py --table 2 3 --profile demo --seeds 2016 2017 2018 --jobs 2

Each row has the paper's number, the difference, a 95 % interval and the accuracy of always giving the more common answer;
each of the paper's orderings is tested in pairs on the same faces. Written to runs/<profile>/table2.txt, .csv, .png,
table2_orderings.csv, table2.json. Trainings are those of tools/train.py; finished ones are not repeated. Ctrl-C writes
snapshots, and the same command resumes. All inputs are checked before the first training starts.
"""

from __future__ import annotations

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import functools
import os
import sys
from typing import Dict, Sequence

import recipe
from common import command
from common.options import add_engine, add_profile, gpu_list, positive, random_seed, share


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=int, nargs="+", choices=(2, 3), required=True, help="which tables")
    add_profile(parser)
    parser.add_argument("--seeds", type=random_seed, nargs="+", metavar="N", help="train everything once from each of these "
                        "random seeds (default: the recipe's only)")
    parser.add_argument("--share", type=share, default=1.0, metavar="X", help="of the recipe's iterations, the same share "
                        "in every step of every row (default: 1)")
    parser.add_argument("--precision", choices=("float32", "tf32", "bf16"), default="float32",
                        help="how torchcaffe multiplies while it trains (default: %(default)s); scores are float32's")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="trainings at a time, which share the "
                        "cores (default: 1)")
    add_engine(parser)
    parser.add_argument("--gpus", type=gpu_list, default=[], metavar="LIST", help="GPU numbers such as 0,1,2,3: as many "
                        "trainings at a time, each on its own (default: --gpu's)")
    parser.add_argument("--report", action="store_true", help="train nothing: tables of the seeds that are trained")
    return parser


def main(argv=None) -> int:
    """Return 0 when the tables are written, 1 when a training failed, scores do not match or an LMDB is damaged, 2 on wrong use
    or a missing input, 130 stopped."""
    parser = get_parser()
    options = parser.parse_args(argv)
    if options.engine == "caffe" and options.precision != "float32":
        parser.error(f"real Caffe computes in float32: leave out --precision {options.precision}, or take ENGINE=torch")
    if options.gpus and (options.gpu is not None or options.jobs not in (1, len(options.gpus))):
        parser.error("--gpus gives each training a GPU of its own: leave out --gpu and --jobs")
    from lmdb_builders.errors import BuildError
    from common import engine
    from gender_smile.inference.classifier import PipelineError

    return command.run("tables", lambda: make(options), PipelineError, BuildError, engine.EngineError, writes=[
        recipe.absolute(f"runs/{options.profile}/table{table}.{kind}") for table in options.table
        for kind in ("txt", "csv", "json", "png")])


def make(options: argparse.Namespace) -> int:
    """Train, score and write what the command line asks for; the exit status."""
    from common import engine
    from gender_smile.evaluation import tables
    from gender_smile.evaluation.faces import EvaluationError
    from gender_smile.inference.classifier import PipelineError, load_engine
    from gender_smile.training import schemes, workers
    from torchcaffe.core.errors import CaffeError

    if options.engine == "caffe":
        engine.resolve("caffe")  # scores come from this Python: refuse now, not after days of training
    profile = recipe.PROFILES[options.profile]
    seeds = list(dict.fromkeys(options.seeds or [profile.random_seed]))
    try:
        cells = {seed: schemes.table_rows(profile, options.table, seed, options.share, options.precision)
                 for seed in seeds}
        if options.report:
            cells = {seed: rows for seed, rows in cells.items() if _trained(rows)}
        else:
            _train(cells, options)
        if not cells:
            raise PipelineError("no seed is trained yet: leave out --report")
        caffe = functools.cache(lambda: load_engine(options.engine, options.gpu))
        answers = tables.answer(cells, caffe, engine.module_name(options.engine))
        for table in options.table:
            facts = {"profile": profile.name, "seeds": list(cells), "share": options.share, "precision": options.precision}
            text, paths = tables.write(table, cells, answers, facts)
            print(f"\n{text}\nwritten: {', '.join(paths)}", flush=True)
    except workers.Interrupted:
        print("tables: stopped; the same command resumes", file=sys.stderr)
        return command.INTERRUPTED
    except (EvaluationError, workers.TrainingError, CaffeError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 1
    return 0


def _train(cells: Dict[int, list], options: argparse.Namespace) -> None:
    """Train what the cells of every seed need, one seed after the other, without waiting between them."""
    from gender_smile.evaluation import tables
    from gender_smile.training import schemes, workers

    rows = {row.weights_out: row for of_seed in cells.values() for row in schemes.trainings(of_seed)}
    tables.check_inputs(list(rows.values()))
    jobs = len(options.gpus) or options.jobs
    flags = ["--engine", options.engine] if options.engine != "auto" else []
    flags += ["--gpu", str(options.gpu)] if options.gpu is not None else []
    print(f"{len(rows)} trainings, finished ones included; {jobs} at a time", flush=True)
    workers.train(list(rows.values()), jobs, flags, lambda line: print(line, flush=True), options.gpus)


def _trained(rows: Sequence) -> bool:
    return all(os.path.exists(row.path(row.weights_out)) for cell in rows for row in cell.finals)


if __name__ == "__main__":
    raise SystemExit(main())
