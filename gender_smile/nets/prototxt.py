"""The texts of prototxt/ and solvers/: every step's net and solver, and the deploy nets, with each number's source.

    from gender_smile.nets import prototxt
    texts = prototxt.generate([recipe.DEMO])    # {path below the project: text}
    print(texts["solvers/demo/step4_gnet.prototxt"])
"""

from __future__ import annotations

import math
import os
from typing import Dict, Iterable, List, Tuple

from google.protobuf import text_format

import recipe
from common.files import write_text
from gender_smile.nets import topology
from gender_smile.nets.comments import comment, head, number_table, plain, reason, step_title
from gender_smile.nets.comments import training_numbers, value, width_numbers

DEPLOY_HEADS = {
    "gender": "gender: probabilities of {0} and {1}",
    "smile": "smile: probabilities of {0} and {1}",
    "attributes": "Model 1: each of CelebA's forty attributes on its own, in the order of recipe.LABELS",
    "identity": "VGG-Face itself (Table 1), step 1: probabilities of its identities",
}


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
        if profile.teacher is not None:
            net = recipe.PIPELINE_NETS[0]
            files[recipe.net_prototxt(profile.name, net, 1)] = teacher_file(profile, profile.teacher)
            files[recipe.solver_prototxt(profile.name, net, 1)] = teacher_solver_file(profile, profile.teacher)
        for name in DEPLOY_HEADS:
            if name == "identity" and profile.teacher is not None:
                continue  # such a net learned no identities
            files[recipe.deploy_prototxt(profile.name, name)] = deploy_file(profile, name)
    return files


def differences(files: Dict[str, str], root: str) -> List[Tuple[str, str]]:
    """(path, problem) of what below `root` is not as generated; files that nothing generates any more included."""
    problems = []
    for path, text in files.items():
        try:
            with open(os.path.join(root, path), encoding="utf-8", newline="") as file:
                if file.read() != text:
                    problems.append((path, "is not what recipe.py gives"))
        except (FileNotFoundError, NotADirectoryError):
            problems.append((path, "is missing"))
        except UnicodeDecodeError:
            problems.append((path, "is not text"))
    for folder in sorted({os.path.dirname(path) for path in files}):
        present = os.path.join(root, folder)
        for name in sorted(os.listdir(present)) if os.path.isdir(present) else ():
            if f"{folder}/{name}" not in files:
                problems.append((f"{folder}/{name}", "is not in the recipe: delete it"))
    return problems


def write(files: Dict[str, str], root: str) -> None:
    """Write each text to its path below `root`; OSError where that fails."""
    for path, text in files.items():
        write_text(os.path.join(root, path), text)


# ---------------------------------------------------------------------------------------------- texts
def render(comments: List[str], path: str, net) -> str:
    """A net file: comments, the net's name (the file's) and its layers."""
    name = os.path.splitext(os.path.basename(path))[0]
    net.name = name
    return "\n".join(comments) + "\n" + text_format.MessageToString(net)


def training_file(profile: recipe.Profile, net: str, step: int) -> str:
    comments = head(profile, step_title(net, step)) + training_numbers(profile)
    return render(comments, recipe.net_prototxt(profile.name, net, step), topology.training_net(profile, net, step))


def deploy_file(profile: recipe.Profile, name: str) -> str:
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

    faces, batch = profile.expected_faces(recipe.STEPS[step].dataset or ""), profile.test_batch_size
    covering = f"ceil({faces:,} / {batch}); training adjusts it to the LMDB"
    definition = recipe.net_prototxt(profile.name, net, step)
    rows = (
        ("net", plain(definition), "both phases; paths are relative to the project's folder"),
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
    weights = recipe.step_weights(profile.name, net, step - 1)
    return solver_text(profile, net, step, step_title(net, step), weights, rows)


def solver_text(profile: recipe.Profile, net: str, step: int, title: str, weights: str, rows) -> str:
    """A solver's file: what it is, and its rows of (field, value, reason)."""
    solver, result = recipe.solver_prototxt(profile.name, net, step), recipe.step_weights(profile.name, net, step)
    lines = [
        *head(profile, title),
        *comment(f"From {weights} to {result}: make step{step} NET={net} PROFILE={profile.name}"),
        f"# In Caffe: caffe train --solver={solver} --weights={weights}",
        *comment("No solver_mode: the caller selects the device (GPU=0 of make, --gpu of caffe)."),
        *(f"{field}: {shown}  # {why}" for field, shown, why in rows),
    ]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------- step 1 with a teacher
def teacher_title(teacher: recipe.Teacher) -> str:
    crop = recipe.CROPS[teacher.crop]
    return (f"Step 1 for all nets: VGG-Face, too narrow for its release, learns to give {teacher.title} ({teacher.source}). "
            f"Ours. Crops: {crop.name} ({crop.describes}).")


def teacher_file(profile: recipe.Profile, teacher: recipe.Teacher) -> str:
    net = recipe.PIPELINE_NETS[0]
    comments = head(profile, teacher_title(teacher)) + comment(
        f"labels: embeddings of {teacher.numbers} numbers, and {recipe.SHAPE} of the face's shape "
        "(lmdb_builders/embeddings.py); each number of this net is "
        "ours: recipe.Teacher has the reasons of those that differ from the other steps'.")
    return render(comments, recipe.net_prototxt(profile.name, net, 1), topology.teacher_net(profile))


def teacher_solver_file(profile: recipe.Profile, teacher: recipe.Teacher) -> str:
    net = recipe.PIPELINE_NETS[0]
    faces, batch = profile.expected_faces(recipe.STEPS[2].dataset or ""), profile.test_batch_size
    ours = "ours: recipe.Teacher"
    rows = (
        ("net", plain(recipe.net_prototxt(profile.name, net, 1)), "both phases; paths are relative to the project's folder"),
        ("test_iter", str(math.ceil(faces / batch)), "training adjusts it to the LMDBs"),
        ("test_interval", str(teacher.test_interval), ours),
        ("test_initialization", "true", "ours: so that the curve starts at the initial weights"),
        ("type", plain(teacher.solver), ours),
        ("base_lr", plain(teacher.base_lr), ours),
        ("lr_policy", plain("poly"), "as in the other steps"),
        ("power", "1", "as in the other steps"),
        ("momentum", "0.9", "Adam's usual beta1"),
        ("momentum2", "0.999", "Adam's usual beta2"),
        ("weight_decay", plain(teacher.weight_decay), ours),
        ("max_iter", str(teacher.max_iter), ours),
        ("display", str(profile.display), "ours: log interval"),
        ("snapshot", str(profile.snapshot), "as in the other steps"),
        ("snapshot_prefix", plain(recipe.run_folder(profile.name, net, 1) + "/snapshot"), "recipe.run_folder"),
        ("random_seed", str(profile.random_seed), "as in the other steps"),
    )
    return solver_text(profile, net, 1, teacher_title(teacher), recipe.stand_in(profile.name), rows)
