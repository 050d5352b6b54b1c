"""The documentation is true: its links resolve, its commands exist, and its examples run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FIRST = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "weights/README.md")]
PAGES = sorted([*DOCS.glob("*.md"), *FIRST])
CHECKED = [  # pages whose every command is checked
    *(DOCS / f"{name}.md" for name in ("predict", "data-sets", "training", "engines", "evaluation", "faq", "export", "fine-tuning",
                                       "contrib", "extending")),
    ROOT / "CONTRIBUTING.md", ROOT / "README.md",
]  # fmt: skip
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*)(?: [a-z0-9 ]*)?:", MAKEFILE, re.M))
VARIABLES = dict(re.findall(r"^#= ([A-Z_]+) +(.+)$", MAKEFILE, re.M))


def blocks(page: Path) -> list:
    """The fenced blocks of a page in order: what stands after the first fence, and the text."""
    fence = "`" * 3
    return [(found, body) for _, found, body in
            re.findall(rf"^( *){fence}([^\n]*)\n(.*?)^ *{fence}$", page.read_text(encoding="utf-8"), re.M | re.S)]


def code(page: Path, language: str) -> list:
    """The fenced blocks of a page; language "" for plain ones, which are commands."""
    return [body for found, body in blocks(page) if found == language]


def commands(page: Path) -> list:
    """make and python commands of a page, in plain blocks and between backquotes."""
    lines = [line for block in code(page, "") for line in block.replace("\\\n", " ").splitlines()]
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines += [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]
    found = []
    for line in lines:
        line = line.split(" #")[0].strip()
        found += [part.strip() for part in re.split(r"&&|\|", line) if re.match(r"(make|\S*python) ", part.strip())]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if "://" not in target:
            path = page.parent / target if target else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pointers_name_what_is_there(page: Path) -> None:
    """`file.py:name` of fidelity.md, and every path that a page names below a folder of ours."""
    text = page.read_text(encoding="utf-8")
    for path, name in re.findall(r"`([\w/]+\.py):(\w+)`", text):
        assert (ROOT / path).is_file(), path
        assert name in defined(ROOT / path), f"{path}:{name}"
    folders = "benchmarks|common|detector|gender_smile|lmdb_builders|tests|tools|torchcaffe"
    for path in re.findall(rf"`((?:{folders})/[\w/.*]*)", text):
        assert list(ROOT.glob(path.rstrip("./"))), path


def defined(path: Path) -> set[str]:
    """Names that a module defines at its top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            found |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)} if target else set()
    return found


def test_lines_are_at_most_120_characters() -> None:
    """But for tables, links alone, and the pages that commands write."""
    written = {DOCS / "benchmarks.md", DOCS / "parity.md", DOCS / "variables.md"}
    long = [f"{page.name} line {number}" for page in PAGES if page not in written
            for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
            if len(line) > 120 and not line.startswith("|")]
    assert not long


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)]+)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in DOCS.glob("*.md")} - {"README.md"}
    assert "(docs/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_variables_page_is_what_make_docs_writes(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "Makefile").write_text(MAKEFILE, encoding="utf-8")
    subprocess.run(["make", "-C", str(tmp_path), "docs"], check=True, capture_output=True, timeout=60)
    page = (tmp_path / "docs" / "variables.md").read_text(encoding="utf-8")
    assert page == (DOCS / "variables.md").read_text(encoding="utf-8"), "type make docs"
    assert re.findall(r"^\| `([A-Z_]+)` \| (.+) \|$", page, re.M) == list(VARIABLES.items())


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """Targets and variables are the Makefile's, scripts and modules are there, flags are those that they know."""
    added = {name.upper() for name in re.findall(r'recipe\.DATASETS\["(\w+)"\]', page.read_text(encoding="utf-8"))}
    for command in commands(page):
        words = shlex.split(command.replace("…", "").replace("'", ""))
        if words[0] == "make":
            for word in words[1:]:
                name, equals, _ = word.partition("=")
                known = {*VARIABLES, *added} if equals else TARGETS
                assert name in known, command
            continue
        tool = words[2:3] if words[1:2] == ["-m"] else words[1:2]
        if tool and tool[0].endswith(".py"):
            assert (ROOT / tool[0]).is_file(), command
        name = tool[0].removesuffix(".py").replace("/", ".") if tool else ""
        source = (ROOT / name.replace(".", "/")).with_suffix(".py")
        if name and source.is_file() and "def get_parser" in source.read_text(encoding="utf-8"):
            options = importlib.import_module(name).get_parser().format_help()
            for flag in (word.split("=")[0] for word in words if word.startswith("--")):
                assert re.search(rf"{flag}\b", options), command


SWITCHES = {"FORCE": "--force", "TEST_SPLIT": "--test", "ATTRIBUTES": "--attributes", "FAST": "--fast",
            "DETERMINISTIC": "--deterministic", "COMPILE": "--compile"}  # whose value is 1
EXAMPLES = """
step4 NET=gnet
step2 PROFILE=demo
step4 ENGINE=caffe
step2 GPU=0
step2 GPUS=4
step2 PROCESSES=2
lmdb CROP=scheme5 FOTW=/data/FotW
lmdb CELEBA=/data/CelebA
lmdb FOTW=/data/FotW
weights VGG_FACE=vgg_face_caffe.tar.gz
weights VGG_FACE=port.onnx CHANNELS=rgb
step2 PRECISION=bf16
step2 SEED=7
step2 GPU=0 DETERMINISTIC=1
step2 COMPILE=1
table2 SEEDS="1 2 3"
table3 SHARE=0.5
table2 JOBS=2
step2 BATCH=60
step2 ITER_SIZE=4
step2 MAX_ITER=100
step2 BASE_LR=0.0005
lmdb FOTW=/data/FotW ENCODE=jpg
lmdb TEST_SPLIT=1 CELEBA=/data/CelebA
lmdb LANDMARKS=detector CELEBA=/data/CelebA
lmdb CELEBA_IMAGES=aligned CELEBA=/data/CelebA
lmdb MAX_LOST=0.05 CELEBA=/data/CelebA
lmdb WORKERS=1 CELEBA=/data/CelebA
lmdb GPU=0 FOTW=/data/FotW
lmdb FOTW=/data/FotW CORRECTIONS=corrections.csv
evaluate PHOTOS=/data/FotW
evaluate PHOTOS=/data/FotW SUBMISSION=mine.csv
evaluate PHOTOS=/data/FotW SCORE=mine.csv
evaluate ATTRIBUTES=1
predict IMAGE=photo.jpg
web PORT=8080
cov TESTS=tests/tools
fuzz TARGET=--list
fuzz SECONDS=10
step2 KEEP=5
step3 FORCE=1
step4 VARIANT=alone
step4 VARIANT=alone START=none
setup PYTHON=python3.12
setup TORCH=cpu
parity FAST=1
caffe DEBIAN_MIRROR=http://mirror/debian
"""


IN_ENVIRONMENT = ["CAFFE_PYTHON"]  # variables that the tools read there themselves


@pytest.mark.parametrize("name", IN_ENVIRONMENT)
def test_variables_that_tools_read_from_the_environment_reach_it(name: str) -> None:
    show = ["make", "-s", "-C", str(ROOT), "--eval", f"show: ; @printenv {name}", "show", f"{name}=a value"]
    assert subprocess.run(show, capture_output=True, text=True, timeout=60).stdout == "a value\n"
    assert any(name in path.read_text(encoding="utf-8") for path in (ROOT / "common").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in VARIABLES if name not in IN_ENVIRONMENT])
def test_each_variable_reaches_its_tool(name: str) -> None:
    """What make -n would run for the variable's example contains its value."""
    examples = [shlex.split(line) for line in EXAMPLES.strip().splitlines() if f" {name}=" in line]
    assert examples, f"EXAMPLES has none of {name}"
    words = examples[0]
    clean = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME")}
    # PYTHON and TORCH are for a set-up that is still to be made; the others for one that is done.
    state = ["-W", "pyproject.toml"] if name in ("PYTHON", "TORCH") else ["-o", ".venv/ready", "-o", ".venv/dev"]
    result = subprocess.run(["make", "-n", "-C", str(ROOT), *state, *words], env=clean, capture_output=True, text=True,
                            timeout=60)
    assert result.returncode == 0, result.stderr
    value = next(word for word in words if word.startswith(f"{name}=")).split("=")[1]
    typed = result.stdout.replace("'", "")  # each word of a value is quoted by itself
    assert SWITCHES.get(name, value) in typed


def run_blocks(page: Path, folder: Path, setup: str = "") -> None:
    """The Python blocks of a page as one program, in `folder`."""
    program = folder / "page.py"
    program.write_text(setup + "\n\n".join(code(page, "python")), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "2"}
    result = subprocess.run([sys.executable, "-B", str(program)], cwd=folder, env=environment, capture_output=True,
                            text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["contrib", "extending", "engines", "faq"])
def test_examples_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "prototxt").symlink_to(ROOT / "prototxt")
    run_blocks(DOCS / f"{name}.md", tmp_path)


@pytest.mark.slow
def test_examples_of_export_run(tmp_path: Path) -> None:
    """With the demo's real net, weights of its fillers, and the port that the page converts."""
    setup = f"""
import os, torch, recipe, torchcaffe
os.symlink({str(ROOT / "prototxt")!r}, "prototxt")
os.makedirs("weights/demo")
torchcaffe.Net("prototxt/demo/deploy_gender.prototxt", torchcaffe.TEST).save("weights/demo/step4_gnet.caffemodel")
torch.save({{"fc8.bias": torch.zeros(2)}}, "port.pth")
recipe.ROOT = os.getcwd()
from gender_smile.inference import export
export.export("demo", "gnet", "weights/demo/export")
"""
    run_blocks(DOCS / "export.md", tmp_path, setup)
    assert (tmp_path / "gnet.onnx").is_file() and (tmp_path / "port.safetensors").is_file()


@pytest.mark.slow
def test_fine_tuning_runs_from_start_to_end(tmp_path: Path) -> None:
    """The page's blocks in order: files are written, commands and Python are run, its figures are the output's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "0"}
    page, program, output = DOCS / "fine-tuning.md", "", ""
    for kind, body in blocks(page):
        if kind.startswith("prototxt "):
            (tmp_path / kind.split()[1]).write_text(body, encoding="utf-8")
            continue
        program = program + body if kind == "python" else program
        for words in [["-c", program]] if kind == "python" else [shlex.split(line)[1:] for line in body.splitlines()]:
            done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr[-2000:]
            output += done.stdout + done.stderr
    told = " ".join(page.read_text(encoding="utf-8").split())
    (report,) = {line for line in output.splitlines() if line.startswith("quarters_iter_200.caffemodel: copied")}
    assert f"`{report}`" in told
    accuracies = [float(number) for number in re.findall(r"\] accuracy = (\S+)", output)]
    assert len(accuracies) == 1 and accuracies[0] > 0.9
    assert int(re.search(r"^(\d+) of 100 validation images are right", output, re.M)[1]) == round(100 * accuracies[0])


@pytest.mark.slow
def test_examples_of_predicting_run(tmp_path: Path) -> None:
    """With the demo's real nets, weights of their fillers, and the astronaut."""
    setup = f"""
import os, cv2, recipe, torchcaffe
from skimage import data
os.symlink({str(ROOT / "prototxt")!r}, "prototxt")
os.makedirs("weights/demo")
for net in recipe.PIPELINE_NETS:
    made = torchcaffe.Net(recipe.deploy_prototxt("demo", recipe.NETS[net].task), torchcaffe.TEST)
    made.save(recipe.step_weights("demo", net, 4))
cv2.imwrite("photo.png", data.astronaut()[:, :, ::-1])
recipe.ROOT = os.getcwd()
"""
    if not (ROOT / "weights" / "mtcnn" / "det1.caffemodel").exists():
        pytest.skip("needs weights/mtcnn: make setup")
    run_blocks(DOCS / "predict.md", tmp_path, setup)


def test_folder_trees_are_what_the_readers_take(tmp_path: Path) -> None:
    """data-sets.md's trees, made with a row and a photo each."""
    from lmdb_builders.celeba import read_celeba
    from lmdb_builders.fotw import read_fotw
    import recipe

    celeba, fotw = (block for block in code(DOCS / "data-sets.md", "") if "├──" in block)
    made = {}
    for tree in (celeba, fotw):
        place = []
        for line in tree.splitlines():
            name = re.sub(r"^[│├└─ ]*", "", line).split()[0] if line.strip("│├└─ ") else ""
            depth = (len(line) - len(line.lstrip("│├└─ "))) // 4
            place[depth:] = [name.rstrip("/")]
            path = tmp_path.joinpath(*place)
            if name.endswith("/"):
                path.mkdir(parents=True)
            elif name not in ("…", ""):
                made[path.name.replace("*", "one")] = path.with_name(path.name.replace("*", "one"))
                made[path.name.replace("*", "one")].touch()
    assert {"list_attr_celeba.txt", "list_eval_partition.txt", "000001.jpg", "gender_fex_trset.csv", "one.jpg"} <= set(made)
    header = " ".join(recipe.CELEBA_ATTRIBUTES)
    made["list_attr_celeba.txt"].write_text(f"1\n{header}\n000001.jpg {' '.join(['1'] * 40)}\n")
    made["list_eval_partition.txt"].write_text("000001.jpg 0\n")
    points = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    made["list_landmarks_celeba.txt"].write_text(f"1\n{points}\n000001.jpg 1 2 3 4 5 6 7 8 9 10\n")
    made["list_bbox_celeba.txt"].write_text("1\nimage_id x_1 y_1 width height\n000001.jpg 1 2 30 40\n")
    columns = re.search(r"gender_fex_trset.csv +(.+)", fotw).group(1)
    for table in ("gender_fex_trset.csv", "gender_fex_valset.csv"):
        made[table].write_text(f"{columns}\none.jpg, 1, 2, 30, 40, 1, 0\n")
        (made[table].parent / "one.jpg").touch()
    (face,) = read_celeba(str(tmp_path / "CelebA")).records
    assert face.box == (1, 2, 30, 40) and face.landmarks.shape == (5, 2)
    assert [list(face.labels) for face in read_fotw(str(tmp_path / "FotW")).records] == [[1, 0], [1, 0]]
