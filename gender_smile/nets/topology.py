"""The paper's nets, one layer a line: VGG-Face (Table 1) between its data and its last layer.

    from gender_smile.nets import topology
    net = topology.training_net(recipe.PAPER, "gnet", 3)    # NetParameter: GNet's step 3
    print(topology.deploy_net(recipe.PAPER, "gender"))

Layers bear the names of VGG-Face's release, because Caffe copies weights by layer name. What a number is and where it
comes from stands in recipe.py; `python tools/make_nets.py` writes these nets to files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict

import recipe
from torchcaffe.net_spec import NetSpec, layers as L, params as P
from torchcaffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter

Settings = Dict[str, Dict[str, Any]]  # "conv1_1", "convolution", "fc6", "fc7", "last" -> what such a layer's weights are given


# ---------------------------------------------------------------------------------------------- layers
def conv_relu(bottom, filters: int, settings: Dict[str, Any]):
    """A 3x3 convolution that keeps height and width, and its ReLU."""
    convolution = L.Convolution(bottom, num_output=filters, kernel_size=3, pad=1, **settings)
    return convolution, L.ReLU(convolution, in_place=True)


def max_pool(bottom):
    """The larger of each 2x2 pixels: half the height and width."""
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=2, stride=2)


def fc_relu(bottom, profile: recipe.Profile, settings: Dict[str, Any]):
    """A fully connected layer and its ReLU."""
    fc = L.InnerProduct(bottom, num_output=profile.filters(profile.fully_connected), **settings)
    return fc, L.ReLU(fc, in_place=True)


def vgg_face(n: NetSpec, profile: recipe.Profile, settings: Settings):
    """Put VGG-Face (Table 1) on n.data, up to the blob that the last layer reads, and return that: drop7, or relu7 without
    dropout."""
    c1, c2, c3, c4, c5 = (profile.filters(filters) for filters, _ in recipe.CONVOLUTIONS)
    conv = settings["convolution"]
    n.conv1_1, n.relu1_1 = conv_relu(n.data, c1, settings["conv1_1"])
    n.conv1_2, n.relu1_2 = conv_relu(n.relu1_1, c1, conv)
    n.pool1 = max_pool(n.relu1_2)
    n.conv2_1, n.relu2_1 = conv_relu(n.pool1, c2, conv)
    n.conv2_2, n.relu2_2 = conv_relu(n.relu2_1, c2, conv)
    n.pool2 = max_pool(n.relu2_2)
    n.conv3_1, n.relu3_1 = conv_relu(n.pool2, c3, conv)
    n.conv3_2, n.relu3_2 = conv_relu(n.relu3_1, c3, conv)
    n.conv3_3, n.relu3_3 = conv_relu(n.relu3_2, c3, conv)
    n.pool3 = max_pool(n.relu3_3)
    n.conv4_1, n.relu4_1 = conv_relu(n.pool3, c4, conv)
    n.conv4_2, n.relu4_2 = conv_relu(n.relu4_1, c4, conv)
    n.conv4_3, n.relu4_3 = conv_relu(n.relu4_2, c4, conv)
    n.pool4 = max_pool(n.relu4_3)
    n.conv5_1, n.relu5_1 = conv_relu(n.pool4, c5, conv)
    n.conv5_2, n.relu5_2 = conv_relu(n.relu5_1, c5, conv)
    n.conv5_3, n.relu5_3 = conv_relu(n.relu5_2, c5, conv)
    n.pool5 = max_pool(n.relu5_3)
    n.fc6, n.relu6 = fc_relu(n.pool5, profile, settings["fc6"])
    if profile.dropout:
        n.drop6 = L.Dropout(n.relu6, dropout_ratio=profile.dropout, in_place=True)
    n.fc7, n.relu7 = fc_relu(n.relu6, profile, settings["fc7"])
    if profile.dropout:
        n.drop7 = L.Dropout(n.relu7, dropout_ratio=profile.dropout, in_place=True)
    return n.relu7


# ---------------------------------------------------------------------------------------------- weights
def filled(profile: recipe.Profile) -> Settings:
    """What the weights of each kind of layer start from where no file brings them."""
    zero = dict(type="constant", value=0)
    settings = {kind: dict(weight_filler=profile.weight_filler, bias_filler=zero) for kind in profile.lr_mult}
    settings["last"] = dict(weight_filler=profile.last_filler, bias_filler=zero)
    return settings


def trained(profile: recipe.Profile) -> Settings:
    """`filled`, with the learning rate and decay of each kind of layer: the weights' first, then the biases'."""
    settings = filled(profile)
    for kind, rate in profile.lr_mult.items():
        weight = dict(lr_mult=rate, decay_mult=1)
        bias = dict(lr_mult=rate * profile.bias_lr_mult, decay_mult=profile.bias_decay_mult)
        settings[kind] = dict(param=[weight, bias], **settings[kind])
    return settings


def loaded(profile: recipe.Profile) -> Settings:
    """Nothing: all weights come from a file."""
    return {kind: {} for kind in profile.lr_mult}


# ---------------------------------------------------------------------------------------------- data
def pixels(profile: recipe.Profile, phase: int) -> Dict[str, Any]:
    """What a Data layer makes of the stored crops in a phase."""
    changes: Dict[str, Any] = dict(mirror=profile.mirror and phase == TRAIN, mean_value=recipe.MEAN_BGR)
    if profile.margin:
        changes["crop_size"] = profile.crop_size  # Caffe cuts at random in TRAIN, in the middle in TEST
    return changes


def data_layers(profile: recipe.Profile, net: str, step: int, phase: int) -> NetSpec:
    """The LMDBs of a step in one phase: blobs "data", and "labels", N x labels x 1 x 1 (recipe.DataSet.labels)."""
    paths = recipe.lmdb_paths(profile.name, net, step)
    part, batch = ("train", profile.batch_size) if phase == TRAIN else ("val", profile.test_batch_size)
    common = dict(include=dict(phase=phase), batch_size=batch, backend=P.Data.LMDB)
    n = NetSpec()
    n.data = L.Data(source=paths[part], transform_param=pixels(profile, phase), **common)
    n.labels = L.Data(source=paths[f"{part}_labels"], **common)  # same keys, so the same order
    return n


def own_label(n: NetSpec, data_set: recipe.DataSet, task: recipe.Task) -> None:
    """Cut the task's column out of the labels as n.label, and consume the others."""
    column, count = data_set.column(task.name), len(data_set.labels)
    before, after = ["labels_before"] if column > 0 else [], ["labels_after"] if column < count - 1 else []
    cuts = [point for point in (column, column + 1) if 0 < point < count]
    names = [*before, "label", *after]
    for name, top in zip(names, L.Slice(n.labels, slice_point=cuts, ntop=len(names), name="slice_labels")):
        n[name] = top
    n.unused_labels = L.Silence(*(n[name] for name in before + after), ntop=0)


def attribute_accuracy(n: NetSpec, ignored: Dict[str, Any]) -> None:
    """Accuracy of gender and of smile among the forty, in the TEST phase only.

    Caffe's Accuracy compares one score a class, so an attribute's score s becomes (-s, s): present means s > 0, a
    probability above one half.
    """
    test = dict(include=dict(phase=TEST))
    gender, smile = (recipe.LABELS.index(recipe.TASKS[name].label) for name in ("gender", "smile"))
    cut = dict(slice_point=[gender, gender + 1, smile, smile + 1], ntop=5, **test)
    n.scores_1, n.score_gender, n.scores_2, n.score_smile, n.scores_3 = L.Slice(
        n[recipe.ATTRIBUTES_LAYER], name="slice_scores", **cut
    )
    n.labels_1, n.label_gender, n.labels_2, n.label_smile, n.labels_3 = L.Slice(n.labels, name="slice_labels", **cut)
    n.unused_attributes = L.Silence(
        n.scores_1, n.scores_2, n.scores_3, n.labels_1, n.labels_2, n.labels_3, ntop=0, **test
    )
    for name in ("gender", "smile"):
        score = n[f"score_{name}"]
        n[f"absent_{name}"] = L.Eltwise(score, score, operation=P.Eltwise.SUM, coeff=[1, -2], **test)
        n[f"two_scores_{name}"] = L.Concat(n[f"absent_{name}"], score, **test)
        n[f"accuracy_{name}"] = L.Accuracy(n[f"two_scores_{name}"], n[f"label_{name}"], **ignored, **test)


# ---------------------------------------------------------------------------------------------- nets
def training_net(profile: recipe.Profile, net: str, step: int) -> NetParameter:
    """Net of step 2, 3 or 4 for both phases, as `net:` of a solver."""
    test = data_layers(profile, net, step, TEST)
    n = data_layers(profile, net, step, TRAIN)
    data = len(n.to_proto().layer)
    settings = trained(profile)
    features = vgg_face(n, profile, settings)
    data_set = recipe.DATASETS[recipe.STEPS[step].dataset or ""]
    ignored = dict(ignore_label=recipe.UNUSABLE) if data_set.undetermined else {}
    loss = dict(loss_param=ignored) if ignored else {}
    if recipe.STEPS[step].labels == "attributes":
        head = recipe.ATTRIBUTES_LAYER
        last = dict(settings["last"], bias_filler=dict(type="constant", value=profile.attributes_bias))
        n[head] = L.InnerProduct(features, num_output=len(recipe.LABELS), **last)
        n.loss = L.SigmoidCrossEntropyLoss(n[head], n.labels, **loss)
        attribute_accuracy(n, ignored)
    else:
        task = recipe.TASKS[recipe.NETS[net].task]
        n[task.layer] = L.InnerProduct(features, num_output=len(task.classes), **settings["last"])
        own_label(n, data_set, task)
        n.loss = L.SoftmaxWithLoss(n[task.layer], n.label, **loss)
        n.accuracy = L.Accuracy(n[task.layer], n.label, **ignored)
    layers = n.to_proto().layer
    return NetParameter(layer=[*layers[:data], *test.to_proto().layer, *layers[data:]])


def teacher_data(profile: recipe.Profile, phase: int) -> NetSpec:
    """The faces of all data sets in one phase: blobs "data", and "labels", N x numbers x 1 x 1, a teacher's embeddings.

    Each data set has the same share of a batch.
    """
    paths = recipe.teacher_lmdb_paths(profile)
    part, batch = ("train", profile.batch_size) if phase == TRAIN else ("val", profile.test_batch_size)
    names = [path for path in paths if path.startswith(f"{part}_") and not path.endswith("_labels")]
    common = dict(include=dict(phase=phase), batch_size=max(1, batch // len(names)), backend=P.Data.LMDB)
    n = NetSpec()
    for name in names:
        data_set = name.partition("_")[2]
        n[f"data_{data_set}"] = L.Data(source=paths[name], transform_param=pixels(profile, phase), **common)
        n[f"labels_{data_set}"] = L.Data(source=paths[f"{name}_labels"], **common)
    for blob in ("data", "labels"):
        tops = [n[f"{blob}_{name.partition('_')[2]}"] for name in names]
        n[blob] = L.Concat(*tops, axis=0, include=dict(phase=phase))
    return n


def teacher_net(profile: recipe.Profile) -> NetParameter:
    """Net of step 1 for both phases where the profile has a teacher: VGG-Face learns to give its embeddings."""
    teacher = profile.teacher
    assert teacher is not None
    rates = {**dict.fromkeys(profile.lr_mult, 1.0), "conv1_1": teacher.first_lr_mult}
    profile = replace(profile, dropout=teacher.dropout, lr_mult=rates)
    test, n, settings = teacher_data(profile, TEST), teacher_data(profile, TRAIN), trained(profile)
    data = len(n.to_proto().layer)
    features = vgg_face(n, profile, settings)
    n[recipe.EMBEDDING_LAYER] = L.InnerProduct(features, num_output=teacher.numbers + recipe.SHAPE, **settings["last"])
    n.loss = L.EuclideanLoss(n[recipe.EMBEDDING_LAYER], n.labels)
    layers = n.to_proto().layer
    return NetParameter(layer=[*layers[:data], *test.to_proto().layer, *layers[data:]])


def deploy_net(profile: recipe.Profile, head: str) -> NetParameter:
    """Net that answers: crops in (blob "data"), probabilities out ("prob").

    data: 1 x 3 x size x size float32, BGR, 0..255 with recipe.MEAN_BGR subtracted; reshape it for more crops.
    head: "gender" or "smile" (two probabilities, in the order of the task's classes), "attributes" (forty, each on its
    own) or "identity" (VGG-Face itself). The last has fillers: the demo's step 1 is what they make.
    """
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, profile.crop_size, profile.crop_size]))
    if head == "identity":
        settings = filled(profile)
        features = vgg_face(n, profile, settings)
        n.fc8 = L.InnerProduct(features, num_output=recipe.IDENTITIES, **settings["last"])
        n.prob = L.Softmax(n.fc8)
    elif head == "attributes":
        features = vgg_face(n, profile, loaded(profile))
        n[recipe.ATTRIBUTES_LAYER] = L.InnerProduct(features, num_output=len(recipe.LABELS))
        n.prob = L.Sigmoid(n[recipe.ATTRIBUTES_LAYER])
    else:
        task = recipe.TASKS[head]
        features = vgg_face(n, profile, loaded(profile))
        n[task.layer] = L.InnerProduct(features, num_output=len(task.classes))
        n.prob = L.Softmax(n[task.layer])
    return n.to_proto()
