"""Make the paper's Table 2 (training schemes) or Table 3 (cropping schemes): train what is missing, score, compare.

    make table2 PROFILE=demo                                    # or the same without make:
    python tools/tables.py --table 2 --profile demo
    python tools/tables.py --table 2 3 --profile demo --seeds 2016 2017 2018 --jobs 2

Each row stands with the paper's number, the difference and a 95 % interval, and each of the paper's orderings with a
paired test on the same faces. Written to runs/<profile>/table2.txt, .csv, .png, table2_orderings.csv, table2.json.
Trainings are tools/train.py's, done ones are not done again; Ctrl-C takes snapshots, the same command goes on. What the
trainings need is checked before the first one starts.
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
from dataclasses import replace
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
    from gender_smile.inference.pipeline import PipelineError

    return command.run("tables", lambda: make(options), PipelineError, BuildError, engine.EngineError, writes=[
        recipe.absolute(f"runs/{options.profile}/table{table}.{kind}") for table in options.table
        for kind in ("txt", "csv", "json", "png")])


def make(options: argparse.Namespace) -> int:
    """Train, score and write what the command line asks for; the exit status."""
    from common import engine
    from gender_smile.evaluation import tables as table_report
    from gender_smile.training import schemes, workers
    from gender_smile.evaluation.faces import EvaluationError
    from gender_smile.inference.pipeline import PipelineError
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
            _train(cells, options, workers)
        if not cells:
            raise PipelineError("no seed is trained yet: leave out --report")
        answers = score(cells, options)
        for table in options.table:
            facts = {"profile": profile.name, "seeds": list(cells), "share": options.share, "precision": options.precision}
            text, paths = table_report.write(table, cells, answers, facts)
            print(f"\n{text}\nwritten: {', '.join(paths)}", flush=True)
    except workers.Interrupted:
        print("tables: stopped; the same command goes on from here", file=sys.stderr)
        return command.INTERRUPTED
    except (EvaluationError, workers.TrainingError, CaffeError) as error:
        print(f"tables: {error}", file=sys.stderr)
        return 1
    return 0


def _train(cells: Dict[int, list], options, workers):
    """Train what the cells of every seed need, a seed after the other, but without waiting between them."""
    from gender_smile.training import schemes

    rows = {row.weights_out: row for found in cells.values() for row in schemes.trainings(found)}
    check_inputs(list(rows.values()))
    jobs = len(options.gpus) or options.jobs
    flags = ["--engine", options.engine] if options.engine != "auto" else []
    flags += ["--gpu", str(options.gpu)] if options.gpu is not None else []
    print(f"{len(rows)} trainings, those that are done included; {jobs} at a time", flush=True)
    workers.train(list(rows.values()), jobs, flags, lambda line: print(line, flush=True), options.gpus)


def check_inputs(rows: Sequence):
    """Raise PipelineError that names everything that is missing for the trainings `rows`, and the commands that make it."""
    from gender_smile.training import chain
    from gender_smile.inference.pipeline import PipelineError

    made, problems = {row.weights_out for row in rows}, {}
    lacking: Dict[str, Dict[str, str]] = {}  # crop -> name of an LMDB -> its data set
    for row in rows:
        absent = [path for path in row.databases.values() if not os.path.exists(row.path(os.path.join(path, "data.mdb")))]
        for path in absent:
            crop = lacking.setdefault(recipe.NETS[row.net].crop, {})
            crop[os.path.basename(path)] = recipe.STEPS[row.step].dataset
        try:
            if not absent:
                chain.check_inputs(replace(row, start="") if row.weights_in in made else row)
        except chain.ChainError as error:
            problems[str(error)] = None
    lines = [f"LMDBs of {crop}: {', '.join(names)}" for crop, names in lacking.items()]
    if lacking:
        crops = [crop for crop in recipe.CROPS if crop in lacking]
        folders = [f"{data_set.variable}=path" for name, data_set in recipe.DATASETS.items()
                   if any(name in names.values() for names in lacking.values())]
        crop = crops[0] if len(crops) == 1 else f"\"{' '.join(crops)}\""
        lines.append(f"make lmdb CROP={crop} PROFILE={rows[0].profile.name} {' '.join(folders)}")
    lines += problems
    if lines:
        raise PipelineError("inputs are missing, so no training was started:\n  " + "\n  ".join(lines))


def _trained(rows: Sequence) -> bool:
    return all(os.path.exists(row.path(row.weights_out)) for cell in rows for row in cell.finals)


def score(cells: Dict[int, list], options) -> Dict[tuple, Dict[int, dict]]:
    """Every cell's answers: key -> seed -> {"labels": face -> 0 or 1, "ones": face -> probability of class 1, "weights":
    file -> sha256}.

    Raises faces.EvaluationError where a net's faces are not those of its manifest, or not the same in an ensemble.
    """
    from common import engine
    from gender_smile.evaluation import faces
    from gender_smile.inference import pipeline

    caffe = functools.cache(lambda: pipeline.load_engine(options.engine, options.gpu))
    scored: Dict[str, dict] = {}  # rows of both tables share nets
    answers: Dict[tuple, Dict[int, dict]] = {}
    for seed, rows in cells.items():
        for cell in rows:
            for row in cell.finals:
                if row.weights_out not in scored:
                    scored[row.weights_out] = score_row(row, caffe, engine.module_name(options.engine))
            nets = [scored[row.weights_out] for row in cell.finals]
            for row, net in zip(cell.finals[1:], nets[1:]):
                faces.check_same(cell.finals[0].net, nets[0]["labels"], row.net, net["labels"])
            ones = {face: sum(net["ones"][face] for net in nets) / len(nets) for face in nets[0]["labels"]}
            weights = {row.weights_out: net["inputs"]["weights"] for row, net in zip(cell.finals, nets)}
            answers.setdefault(cell.key, {})[seed] = {"labels": nets[0]["labels"], "ones": ones, "weights": weights}
    return answers


def score_row(row, caffe, module: str) -> dict:
    """Inputs, labels and probabilities of a trained step 4 on its validation faces, kept in its run folder as faces.json.

    caffe(): the engine's module, of the name `module`.
    """
    from common import files
    from gender_smile.evaluation import faces
    from gender_smile.inference import pipeline
    from gender_smile.training import chain

    weights, folder = row.path(row.weights_out), row.path(row.databases["val"])
    if not os.path.exists(weights):
        raise pipeline.PipelineError(f"{row.weights_out} is missing: leave out --report")
    if not os.path.exists(os.path.join(folder, "data.mdb")):
        raise pipeline.PipelineError(f"{row.databases['val']} is missing: make lmdb CROP={recipe.NETS[row.net].crop} "
                                     f"PROFILE={row.profile.name} {recipe.target().variable}=path")
    inputs = {"weights": files.sha256_of(weights), "faces": chain.database_fingerprint(folder),
              "engine": module}
    path = row.path(os.path.join(row.folder, "faces.json"))
    kept = files.read_json(path)
    if kept and kept.get("inputs") == inputs:
        return kept
    classifier = pipeline.Classifier(caffe(), row.profile.name, row.net, row.profile.test_batch_size, row.weights_out)
    labels, ones = faces.score_lmdb(classifier, folder)
    faces.check_count(folder, len(labels))
    found = {"inputs": inputs, "labels": labels, "ones": ones}
    files.write_json(path, found)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
