"""The generated nets and solvers: current, and right in every number of the paper."""

import ast
import dataclasses
import re

import numpy as np
import pytest
from reading_nets import (
    ROOT, TABLE1, TEST, TRAIN, TRAININGS, count, dangling, infer, layer_named, read_net, read_solver,
)

import recipe
from gender_smile.nets import comments as net_comments
from tools import make_nets
from torchcaffe.proto import caffe_pb2


# ---------------------------------------------------------------------------------------------- files
def test_committed_files_are_current(tmp_path):
    assert make_nets.main(["--output", str(tmp_path)]) == 0
    fresh = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.prototxt"))
    assert len(fresh) == 2 * (5 + 7 + 7) * len(recipe.PROFILES) + 4 * len(recipe.PROFILES)
    for path in fresh:
        assert (ROOT / path).read_bytes() == (tmp_path / path).read_bytes(), f"{path}: type make prototxt"
    assert make_nets.main(["--check"]) == 0


def test_check_names_changed_missing_and_left_over_files(tmp_path, capsys):
    output = ["--output", str(tmp_path)]
    assert make_nets.main(output) == 0
    changed = tmp_path / "solvers/paper/step2_scheme1.prototxt"
    changed.write_text(changed.read_text().replace("base_lr: 0.001", "base_lr: 0.01"))
    (tmp_path / "prototxt/demo/deploy_gender.prototxt").unlink()
    (tmp_path / "prototxt/demo/old.prototxt").write_text("")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.prototxt")}
    assert make_nets.main([*output, "--check"]) == 1
    text = capsys.readouterr()
    assert "make prototxt" in text.out
    assert text.err.splitlines() == [
        "solvers/paper/step2_scheme1.prototxt: is not what recipe.py gives",
        "prototxt/demo/deploy_gender.prototxt: is missing",
        "prototxt/demo/old.prototxt: is not in the recipe: delete it",
    ]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.prototxt")} == before
    assert make_nets.main([*output, "--profile", "paper"]) == 0
    assert make_nets.main([*output, "--profile", "paper", "--check"]) == 0
    assert make_nets.main([*output, "--profile", "demo", "--check"]) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "prototxt").write_text("a file where a folder should be")
    assert make_nets.main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_file_starts_with_its_generator_and_explains_each_solver_value():
    for path, text in make_nets.generate(recipe.PROFILES.values()).items():
        assert text.startswith("# Written by `make prototxt` (tools/make_nets.py)"), path
        assert max(len(line) for line in text.splitlines() if line.startswith("#")) <= 120, path
        if path.startswith("solvers/"):
            values = [line for line in text.splitlines() if not line.startswith("#")]
            assert all(re.fullmatch(r"\w+: \S+  # \S.*", line) for line in values), path
            assert any(line.startswith("gamma: 0.1  # ") and "poly never reads gamma" in line for line in values)


def test_every_number_of_a_profile_has_its_source():
    """One text, or one for each key of the table that the number is."""
    for field in dataclasses.fields(recipe.Profile):
        if field.name not in ("name", "why", "validation_faces"):
            source, value = field.metadata["source"], getattr(recipe.PAPER, field.name)
            assert isinstance(source, str) or source.keys() == value.keys(), field.name
            for key in value if isinstance(source, dict) else (None,):
                assert net_comments.reason(recipe.PAPER, field.name, key).strip(), field.name


# ---------------------------------------------------------------------------------------------- nets
def test_vgg_face_is_table_1():
    shapes, parameters = infer(read_net("prototxt/paper/deploy_identity.prototxt"), TEST, 224)
    weights = {name: first for name, (first, _) in parameters.items()}
    assert [(name, shape[0], int(np.prod(shape[1:]))) for name, shape in weights.items()] == list(TABLE1)
    assert count(parameters) == sum(filters * read + filters for _, filters, read in TABLE1) == 145_002_878
    assert shapes["pool5"] == (1, 512, 7, 7) and shapes["prob"] == (1, 2622)
    depths = [sum(name.startswith(f"conv{group}_") for name in parameters) for group in range(1, 6)]
    assert depths == [depth for _, depth in recipe.CONVOLUTIONS]


@pytest.mark.parametrize("profile", recipe.PROFILES)
@pytest.mark.parametrize("head, outputs", (("gender", 2), ("smile", 2), ("attributes", 40), ("identity", 2622)))
def test_deploy_nets(profile, head, outputs):
    net = read_net(recipe.deploy_prototxt(profile, head))
    size = recipe.PROFILES[profile].crop_size
    shapes, parameters = infer(net, TEST, size)
    assert shapes["data"] == (1, 3, size, size) and shapes["prob"] == (1, outputs)
    assert dangling(net, TEST) == {"prob"}
    assert list(parameters)[:-1] == [name for name, _, _ in TABLE1[:-1]]
    if (profile, head) == ("paper", "gender"):
        assert count(parameters) == 145_002_878 - (2622 - 2) * 4097
    kinds = [(layer.name, layer.type) for layer in net.layer]
    assert ("drop6", "Dropout") in kinds and ("relu7", "ReLU") in kinds and ("pool5", "Pooling") in kinds


@pytest.mark.parametrize("profile, net, step", TRAININGS)
def test_training_net(profile, net, step):
    settings, task = recipe.PROFILES[profile], recipe.TASKS[recipe.NETS[net].task]
    definition = read_net(recipe.net_prototxt(profile, net, step))
    head = recipe.ATTRIBUTES_LAYER if step == 2 else task.layer
    deploy = read_net(recipe.deploy_prototxt(profile, "attributes" if step == 2 else task.name))
    for phase, batch in ((TRAIN, settings.batch_size), (TEST, settings.test_batch_size)):
        shapes, parameters = infer(definition, phase, settings.crop_size)
        assert shapes["data"][0] == batch
        assert shapes[head] == (batch, 40 if step == 2 else 2)
        assert parameters == infer(deploy, TEST, settings.crop_size)[1]  # what is trained is what is deployed
        accuracies = {"accuracy"} if step > 2 else {"accuracy_gender", "accuracy_smile"} if phase == TEST else set()
        assert dangling(definition, phase) == {"loss"} | accuracies
    loss = layer_named(definition, "loss")
    assert loss.type == ("SigmoidCrossEntropyLoss" if step == 2 else "SoftmaxWithLoss")
    assert list(loss.bottom) == [head, "labels" if step == 2 else "label"]
    assert not loss.HasField("loss_param")  # Caffe's defaults: equation 2 as a mean over the batch


@pytest.mark.parametrize("profile, net, step", TRAININGS)
def test_data_layers(profile, net, step):
    definition, paths = read_net(recipe.net_prototxt(profile, net, step)), recipe.lmdb_paths(profile, net, step)
    for phase, part in ((TRAIN, "train"), (TEST, "val")):
        data = layer_named(definition, "data", phase)
        assert data.data_param.backend == caffe_pb2.DataParameter.LMDB
        assert data.data_param.source == paths[part]
        assert data.transform_param.mirror == (phase == TRAIN)
        assert np.allclose(data.transform_param.mean_value, [93.5940, 104.7624, 129.1863])
        settings = recipe.PROFILES[profile]
        assert data.transform_param.crop_size == (settings.crop_size if settings.margin else 0)
        assert data.transform_param.scale == 1
        if step == 4:
            assert list(data.top) == ["data", "label"]
        else:
            labels = layer_named(definition, "labels", phase)
            assert labels.data_param.source == paths[f"{part}_labels"]
            assert labels.data_param.batch_size == data.data_param.batch_size
            assert not labels.HasField("transform_param")


@pytest.mark.parametrize("net", recipe.NETS)
def test_step_3_reads_its_own_attribute(net):
    definition = read_net(recipe.net_prototxt("paper", net, 3))
    slice_layer = layer_named(definition, "slice_labels")
    column = {"gender": 20, "smile": 31}[recipe.NETS[net].task]  # Male, Smiling in list_attr_celeba.txt, from 0
    assert list(slice_layer.slice_param.slice_point) == [column, column + 1]
    assert slice_layer.top[1] == "label" == layer_named(definition, "loss").bottom[1]


@pytest.mark.parametrize("profile, net, step", TRAININGS)
def test_learning_rates_and_fillers(profile, net, step):
    settings = recipe.PROFILES[profile]
    for layer in read_net(recipe.net_prototxt(profile, net, step)).layer:
        if layer.type not in ("Convolution", "InnerProduct"):
            assert not layer.param
            continue
        kind = "convolution" if layer.type == "Convolution" else "last"
        kind = layer.name if layer.name in ("conv1_1", "fc6", "fc7") else kind
        weight, bias = layer.param
        assert weight.lr_mult == bias.lr_mult == pytest.approx(settings.lr_mult[kind])
        assert (weight.decay_mult, bias.decay_mult) == (1, 0)
        own = layer.convolution_param if layer.type == "Convolution" else layer.inner_product_param
        filler = settings.last_filler if kind == "last" else settings.weight_filler
        assert own.weight_filler.type == filler["type"]
        start = settings.attributes_bias if layer.name == recipe.ATTRIBUTES_LAYER else 0
        assert (own.bias_filler.type, own.bias_filler.value) == ("constant", start)
    if profile == "paper":  # section 3.4
        assert [settings.lr_mult[kind] for kind in ("conv1_1", "convolution", "fc7", "last")] == [0.1, 0.1, 0.5, 1]
        assert settings.attributes_bias == 0


def test_tasks_never_share_a_last_layer():
    names = [task.layer for task in recipe.TASKS.values()] + [recipe.ATTRIBUTES_LAYER, "fc8"]
    assert len(set(names)) == len(names)


# ---------------------------------------------------------------------------------------------- solvers
@pytest.mark.parametrize("profile, net, step", TRAININGS)
def test_solver(profile, net, step):
    settings, dataset = recipe.PROFILES[profile], recipe.STEPS[step].dataset
    solver = read_solver(recipe.solver_prototxt(profile, net, step))
    assert solver.net == recipe.net_prototxt(profile, net, step)
    assert solver.snapshot_prefix == recipe.run_folder(profile, net, step) + "/snapshot"
    faces = settings.expected_faces(dataset)
    assert faces <= solver.test_iter[0] * settings.test_batch_size < faces + settings.test_batch_size
    assert solver.base_lr == pytest.approx(settings.base_lr[step])
    assert solver.max_iter == settings.max_iter[step]
    assert (solver.type, solver.lr_policy, solver.power) == ("SGD", "poly", 1)
    assert (solver.momentum, solver.weight_decay, solver.gamma) == pytest.approx((0.9, 0.0005, 0.1))
    assert solver.test_initialization and solver.HasField("random_seed")
    assert not solver.HasField("solver_mode") and not solver.weights
    if profile == "paper":  # section 3.4
        assert solver.base_lr == pytest.approx({2: 0.001, 3: 0.01, 4: 0.01}[step])
        assert solver.max_iter == 110_000 and settings.batch_size == 120


def test_each_step_starts_from_an_earlier_steps_declared_output():
    for profile in recipe.PROFILES:
        made = {recipe.step_weights(profile, "gnet", 1)}
        for step in (2, 3, 4):
            results = set()
            for net in recipe.NETS:
                text = (ROOT / recipe.solver_prototxt(profile, net, step)).read_text()
                (weights,) = re.findall(r"^# In Caffe: caffe train --solver=\S+ --weights=(\S+)$", text, re.MULTILINE)
                assert weights in made, f"{profile} {net} step {step} starts from {weights}"
                results.add(recipe.step_weights(profile, net, step))
            made |= results


# ---------------------------------------------------------------------------------------------- one home a fact
def project_files():
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in ("tests", "benchmarks")]
    folders = [folder for folder in folders if not folder.name.startswith(".")]
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


def test_mean_values_and_class_names_are_literals_of_the_recipe_only():
    classes = {name for task in recipe.TASKS.values() for name in task.classes}
    homes = {value: set() for value in (*recipe.MEAN_BGR, *classes)}
    for path in project_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            value = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
            if isinstance(value, (str, float)) and value in homes:
                homes[value].add(str(path.relative_to(ROOT)))
    assert homes == {value: {"recipe.py"} for value in homes}
