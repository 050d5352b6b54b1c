"""Write prototxt/ and solvers/ from recipe.py: the nets and solvers of every step, and the deploy nets.

    python tools/make_nets.py                     # all profiles, as `make prototxt`
    python tools/make_nets.py --profile paper     # one of them
    python tools/make_nets.py --check             # write nothing; exit 1 and say what differs

Exit status: 0 all files are current, 1 --check found some that are not, 2 wrong use.
"""

if __name__ == "__main__":
    import os, sys
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from common import environment; environment.ensure()

import argparse
import math
import os
import sys
from typing import Dict, Iterable, List, Tuple

import recipe
from gender_smile.nets.comments import comment, head, number_table, plain, reason, step_title
from gender_smile.nets.comments import training_numbers, value, width_numbers

DEPLOY_HEADS = {
    "gender": "gender: probabilities of {0} and {1}",
    "smile": "smile: probabilities of {0} and {1}",
    "attributes": "Model 1: each of CelebA's forty attributes on its own, in the order of recipe.LABELS",
    "identity": "VGG-Face itself (Table 1), step 1: probabilities of its identities",
}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_nets.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=list(recipe.PROFILES), help="write this profile only (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    parser.add_argument(
        "--output", metavar="FOLDER", default=recipe.ROOT, help="where prototxt/ and solvers/ go (default: the project)"
    )
    return parser


def main(argv=None) -> int:
    args = get_parser().parse_args(argv)
    profiles = [recipe.PROFILES[args.profile]] if args.profile else list(recipe.PROFILES.values())
    files = generate(profiles)
    try:
        stale = differences(files, args.output)
        if args.check:
            for path, problem in stale:
                print(f"{path}: {problem}", file=sys.stderr)
            print(f"{len(files)} files, {len(stale)} not current{': type make prototxt' if stale else ''}")
            return 1 if stale else 0
        changed = {path: files[path] for path, _ in stale if path in files}
        write(changed, args.output)
    except OSError as error:
        print(f"make_nets.py: cannot use {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    for path, problem in stale:
        if path not in files:
            print(f"{path}: {problem}", file=sys.stderr)
    print(f"{len(files)} nets and solvers: {len(changed)} written, {len(files) - len(changed)} were current")
    return 0


# ---------------------------------------------------------------------------------------------- files
def generate(profiles: Iterable[recipe.Profile]) -> Dict[str, str]:
    """Path below the project -> text, for all nets and solvers of the profiles."""
    files = {}
    for profile in profiles:
        for step in (2, 3, 4):
            for net in recipe.NETS:
                path = recipe.net_prototxt(profile.name, net, step)
                if path not in files:  # nets on one crop share step 2
                    files[path] = training_file(profile, net, step)
                    files[recipe.solver_prototxt(profile.name, net, step)] = solver_file(profile, net, step)
        for name in DEPLOY_HEADS:
            files[recipe.deploy_prototxt(profile.name, name)] = deploy_file(profile, name)
    return files


def differences(files: Dict[str, str], root: str) -> List[Tuple[str, str]]:
    """(path, problem) of what below `root` is not as generated; files that nothing generates any more included."""
    found = []
    for path, text in files.items():
        try:
            with open(os.path.join(root, path), encoding="utf-8", newline="") as file:
                if file.read() != text:
                    found.append((path, "is not what recipe.py gives"))
        except (FileNotFoundError, NotADirectoryError):
            found.append((path, "is missing"))
        except UnicodeDecodeError:
            found.append((path, "is not text"))
    for folder in sorted({os.path.dirname(path) for path in files}):
        present = os.path.join(root, folder)
        for name in sorted(os.listdir(present)) if os.path.isdir(present) else ():
            if f"{folder}/{name}" not in files:
                found.append((f"{folder}/{name}", "is not in the recipe: delete it"))
    return found


def write(files: Dict[str, str], root: str) -> None:
    """Write each text to its path below `root`; OSError where that fails."""
    for path, text in files.items():
        target = os.path.join(root, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8", newline="") as file:
            file.write(text)


# ---------------------------------------------------------------------------------------------- texts
def render(comments: List[str], path: str, net) -> str:
    """A net file: comments, the net's name (the file's) and its layers."""
    from google.protobuf import text_format

    name = os.path.splitext(os.path.basename(path))[0]
    net.name = name
    return "\n".join(comments) + "\n" + text_format.MessageToString(net)


def training_file(profile: recipe.Profile, net: str, step: int) -> str:
    from gender_smile.nets import topology

    comments = head(profile, step_title(net, step)) + training_numbers(profile)
    return render(comments, recipe.net_prototxt(profile.name, net, step), topology.training_net(profile, net, step))


def deploy_file(profile: recipe.Profile, name: str) -> str:
    from gender_smile.nets import topology

    classes = recipe.TASKS[name].classes if name in recipe.TASKS else ()
    comments = [
        *head(profile, f"Deploy net of {DEPLOY_HEADS[name].format(*classes)}."),
        *comment('Input "data": N x 3 x size x size, B G R, 0..255 with recipe.MEAN_BGR subtracted. Output: "prob".'),
        *number_table(profile, ("crop_size", None, "size")),
        *width_numbers(profile),
    ]
    return render(comments, recipe.deploy_prototxt(profile.name, name), topology.deploy_net(profile, name))


def solver_file(profile: recipe.Profile, net: str, step: int) -> str:
    """A solver, with the reason beside each value."""

    def number(field: str, key=None) -> tuple:
        return field, plain(value(profile, field, key)), reason(profile, field, key)

    weights, result = (recipe.step_weights(profile.name, net, row) for row in (step - 1, step))
    faces, batch = profile.expected_faces(recipe.STEPS[step].dataset), profile.test_batch_size
    covering = f"{faces:,} validation faces by {batch}, rounded up; the driver counts those it finds"
    definition = recipe.net_prototxt(profile.name, net, step)
    rows = (
        ("net", plain(definition), "both phases; run from the project's folder, where all paths start"),
        ("test_iter", str(math.ceil(faces / batch)), covering),
        number("test_interval", step),
        number("test_initialization"),
        ("type", plain("SGD"), "section 3.4 speaks of momentum and weight decay only"),
        number("base_lr", step),
        number("lr_policy"),
        number("gamma"),
        number("power"),
        number("momentum"),
        number("weight_decay"),
        number("max_iter", step),
        number("display"),
        number("snapshot"),
        ("snapshot_prefix", plain(recipe.run_folder(profile.name, net, step) + "/snapshot"), "recipe.run_folder"),
        number("random_seed"),
    )
    solver = recipe.solver_prototxt(profile.name, net, step)
    lines = [
        *head(profile, step_title(net, step)),
        *comment(f"From {weights} to {result}: make step{step} NET={net} PROFILE={profile.name}"),
        f"# In Caffe: caffe train --solver={solver} --weights={weights}",
        *comment("solver_mode is left out: the device is the caller's choice (GPU=0 of make, --gpu of caffe)."),
        *(f"{field}: {shown}  # {why}" for field, shown, why in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
