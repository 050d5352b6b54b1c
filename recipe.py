"""Every number of the paper, once, each with its source.

*Gender and Smile Classification using Deep Convolutional Neural Networks*, Zhang, Tan, Li, Qiao, CVPR workshops 2016.
Sources are written "section 3.4" (the paper) or "ours: ..." (the paper is silent; docs/fidelity.md argues each). Those of
Profile's numbers are data too: `make prototxt` writes them beside the numbers (gender_smile/nets/comments.py).
Plain data and a few look-ups: this module imports nothing of this project and nothing heavy.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Optional, Tuple

ROOT = os.path.dirname(os.path.abspath(__file__))

# ---------------------------------------------------------------------------------------------- preprocessing
MEAN_BGR = (93.5940, 104.7624, 129.1863)  # pixels 0..255, channel order B, G, R
MEAN_SOURCE = "VGG-Face's training mean, from its release; the paper does not say"

PIXEL_SCALE = 64.0  # ours: about the spread of pixels around that mean; scales random weights of conv1_1, never pixels

# ---------------------------------------------------------------------------------------------- labels
# CelebA's forty attributes in CelebA's own order (list_attr_celeba.txt). A label is 1 where the file has 1 and 0 where
# it has -1, except "Male", which is negated and stored as "Female", so that 1 = female everywhere, as in FotW.
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)
UNUSABLE = 2  # a label that is neither 0 nor 1; FotW itself writes 2 for "undetermined"
LABELS = tuple("Female" if name == "Male" else name for name in CELEBA_ATTRIBUTES)  # order of the forty outputs


@dataclass(frozen=True)
class Task:
    """One two-valued question: which of the forty labels answers it, and what the two outputs mean."""

    name: str
    label: str  # entry of LABELS
    classes: Tuple[str, str]  # meaning of output 0 and output 1
    layer: str  # name of the last fully connected layer; one name a task, or weights would be copied between tasks


TASKS = {
    "gender": Task("gender", "Female", ("male", "female"), "fc8_gender"),
    "smile": Task("smile", "Smiling", ("not smiling", "smiling"), "fc8_smile"),
}
ATTRIBUTES_LAYER = "fc8_attributes"


# ---------------------------------------------------------------------------------------------- data sets
@dataclass(frozen=True)
class DataSet:
    """A data set of faces: its reader, and what its LMDBs hold.

    Its folder is given as `make lmdb CELEBA=folder`, the name in capitals, or as `--celeba folder`.
    """

    name: str  # lower-case letters and digits: the option, the start of its LMDBs' names
    title: str
    reader: str  # "module:function"; function(folder, splits=(...)) returns a lmdb_builders.records.DataSet
    layout: str  # what its folder holds, for --help
    labels: Tuple[str, ...]  # the reader's names of a face's labels, in its order
    columns: Dict[str, str]  # task -> its label among them
    validation_faces: int  # expected, for test_iter; training counts those it finds
    splits: Tuple[str, ...] = ("train", "val")
    landmarks: bool = False  # True: the reader gives each face's five landmarks, which are taken unless --landmarks detector
    editions: Tuple[str, ...] = ()  # of its photos, the preferred one first: the reader then takes edition=
    undetermined: bool = True  # False: every label is 0 or 1; else a task's nets ignore the faces whose label is UNUSABLE

    def __post_init__(self) -> None:
        if not (self.name.isalnum() and self.name.islower()):
            raise ValueError(f"data set {self.name!r}: the name has to be lower-case letters and digits")
        missing = [label for label in self.columns.values() if label not in self.labels]
        if isinstance(self.labels, str) or missing:
            raise ValueError(f"data set {self.name}: labels is {self.labels!r}, not a tuple of names with "
                             f"{', '.join(self.columns.values())} of `columns` among them")

    @property
    def variable(self) -> str:
        """Variable of make and of the environment that names its folder."""
        return self.name.upper()

    def database(self, split: str) -> str:
        """Name of the LMDB of a split's faces."""
        return f"{self.name}_{split}"

    def labels_database(self, split: str) -> str:
        """Name of the LMDB of their labels, under the same keys."""
        return f"{self.database(split)}_labels"

    def embeddings_database(self, split: str) -> str:
        """Name of the LMDB of what a Teacher gives for them, under the same keys."""
        return f"{self.database(split)}_embeddings"

    def column(self, task: str) -> int:
        """Where the label of a task stands among a face's labels."""
        return self.labels.index(self.columns[task])


DATASETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "celeba", "CelebA", "lmdb_builders.celeba:read_celeba", "as unpacked: Anno, Eval, Img", LABELS,
            {task.name: task.label for task in TASKS.values()},
            validation_faces=19_867,  # by CelebA's partition
            splits=("train", "val", "test"), landmarks=True, editions=("wild", "aligned"),
            undetermined=False,
        ),
        DataSet(
            "fotw", "FotW", "lmdb_builders.fotw:read_fotw", "as unpacked: smiles_trset, smiles_valset",
            ("Gender", "Smile"), {"gender": "Gender", "smile": "Smile"},
            validation_faces=3_086,  # images in FotW's folder
            splits=("train", "val", "test"),
        ),
    )
}


# ---------------------------------------------------------------------------------------------- crops
@dataclass(frozen=True)
class Crop:
    """A square window in face units (section 3.3, Figure 3; the extents are ours, read off the figure).

    The face frame: origin at the midpoint between the middle of the eyes and the middle of the mouth corners, y down,
    one unit = distance from the middle of the eyes to the middle of the mouth corners of the fitted template.
    """

    name: str
    aligned: bool  # True: rotate the face upright (similarity fit of the five landmarks); False: keep the photo's axes
    center: Tuple[float, float]  # window center in face units, x right, y down
    side: float  # window side in face units
    describes: str


CROPS = {
    "scheme1": Crop("scheme1", True, (0.0, -0.10), 2.60, "overall face, aligned: Figure 3(b)"),
    "scheme2": Crop("scheme2", False, (0.0, -0.10), 2.60, "the extent of scheme 1, not aligned: Figure 3(c)"),
    "scheme3": Crop("scheme3", False, (0.0, -0.30), 2.90, "overall face without neck, not aligned: Figure 3(d)"),
    "scheme4": Crop("scheme4", False, (0.0, -0.10), 4.00, "larger, with hair and neck, not aligned: Figure 3(e)"),
    "scheme5": Crop("scheme5", True, (0.0, 0.40), 1.70, "around mouth and cheeks, aligned: Figure 3(f)"),
}

# Upright template of the five landmarks in face units: left eye, right eye, nose, left and right mouth corner ("left"
# is the viewer's left). Ours: the usual 96x112 template of the MTCNN authors' later work, turned into face units.
FACE_TEMPLATE = (
    (-0.4358, -0.4976), (0.4302, -0.5024), (0.0000, -0.0050), (-0.3558, 0.5020), (0.3614, 0.4980),
)


# ---------------------------------------------------------------------------------------------- nets
@dataclass(frozen=True)
class Net:
    """A task on a crop."""

    key: str
    title: str
    task: str
    crop: str
    source: str

    def __post_init__(self) -> None:
        if self.task not in TASKS or self.crop not in CROPS:
            raise ValueError(f"net {self.key}: its task has to be of {', '.join(TASKS)}, not {self.task!r}; its crop of "
                             f"{', '.join(CROPS)}, not {self.crop!r}")


NETS = {
    net.key: net
    for net in (
        Net("gnet", "GNet", "gender", "scheme3", "sections 3 and 3.3"),
        Net("snet1", "SNet1", "smile", "scheme1", "sections 3 and 3.3"),
        Net("snet2", "SNet2", "smile", "scheme5", "sections 3 and 3.3"),
        Net("gender1", "gender on scheme 1", "gender", "scheme1", "Table 3"),
        Net("gender2", "gender on scheme 2", "gender", "scheme2", "Table 3"),
        Net("gender4", "gender on scheme 4", "gender", "scheme4", "Table 3"),
        Net("smile2", "smile on scheme 2", "smile", "scheme2", "Table 3"),
    )
}
ENSEMBLES = {"gender": ("gnet",), "smile": ("snet1", "snet2")}  # Figure 1: a task's answer is the mean of its nets'
PIPELINE_NETS = tuple(net for nets in ENSEMBLES.values() for net in nets)

# VGG-Face, Table 1: five groups of 3x3 convolutions, each closed by a 2x2 max pooling; then fc6, fc7 and the output.
CONVOLUTIONS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # (filters, how many) of conv1_* .. conv5_*
FULLY_CONNECTED = 4096  # fc6, fc7
IDENTITIES = 2622  # fc8 of VGG-Face


# ---------------------------------------------------------------------------------------------- steps
@dataclass(frozen=True)
class Step:
    """One row of section 3.1's scheme."""

    number: int
    title: str
    dataset: Optional[str]  # of DATASETS
    labels: Optional[str]  # "attributes" (all forty) or "task" (the net's own)
    model: str  # the paper's name for the result
    source: str

    def __post_init__(self) -> None:
        if self.labels == "attributes" and DATASETS[self.dataset or ""].labels != LABELS:
            raise ValueError(f"step {self.number} learns the forty attributes, which data set {self.dataset} does not have")


STEPS = {
    1: Step(1, "adopt VGG-Face", None, None, "VGG-Face", "section 3.1, step 1"),
    2: Step(2, "forty attributes on CelebA", "celeba", "attributes", "Model 1", "sections 3.1 and 3.4"),
    3: Step(3, "one attribute on CelebA", "celeba", "task", "Model 2", "sections 3.1 and 3.4"),
    4: Step(4, "one attribute on FotW", "fotw", "task", "Model 3", "sections 3.1 and 3.4"),
}


# ---------------------------------------------------------------------------------------------- profiles
def number(value: Any, source: Any) -> Any:
    """A field of Profile: the paper profile's value, and where it comes from; one source for each key of a table, or for all.

    make prototxt writes the source beside the value.
    """
    return field(default_factory=lambda: copy.copy(value), metadata={"source": source})


@dataclass(frozen=True)
class Teacher:
    """Step 1 of a profile that VGG-Face does not fit: on the training faces of all data sets, the net learns to give what
    another net gives, an embedding of the face that is alike for photos of one person. The numbers are ours.

    Only who trains step 1 needs the other net (lmdb_builders/teacher.py).
    """

    title: str
    source: str
    numbers: int  # of an embedding; each is learned with mean 0 and spread 1 over the training faces
    # Five numbers beside them, of the places of eyes, nose and mouth (lmdb_builders/embeddings.py:shape), which an embedding
    # of the person leaves out and a smile changes; times this, for they are few.
    shape_weight: float
    crop: str  # one net for all schemes, as VGG-Face is
    max_iter: int
    base_lr: float
    test_interval: int
    solver: str = "Adam"  # SGD hardly leaves the first plateau: an embedding's many small errors pull everywhere
    weight_decay: float = 0.0
    dropout: float = 0.3  # without it, 3,000 faces are learned by heart: the validation loss rises after 4,000 iterations
    # Of conv1_1, whose weights are PIXEL_SCALE times smaller: Adam's steps do not depend on the scale of gradients.
    first_lr_mult: float = 1 / PIXEL_SCALE

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"teacher {self.title}: its crop has to be of {', '.join(CROPS)}, not {self.crop!r}")


SHAPE = 5  # numbers that Teacher.shape_weight is for
DLIB = Teacher("dlib's face embedding", "dlib_face_recognition_resnet_model_v1 by Davis King, in the public domain",
               numbers=128, shape_weight=3.0, crop="scheme3", max_iter=7_000, base_lr=0.0005, test_interval=1000)
EMBEDDING_LAYER = "fc8_embedding"


@dataclass(frozen=True)
class Profile:
    """The numbers that differ between the paper's run and a small one of the same shape; the defaults are the paper's."""

    name: str
    crop_size: int = number(224, "section 3, stage 2")  # pixels, square
    width: float = number(1.0, "VGG-Face's own filters, Table 1")  # filters and units as a share of VGG-Face's
    fully_connected: int = number(FULLY_CONNECTED, "Table 1")  # units of fc6 and fc7 at full width
    batch_size: int = number(120, "section 3.4")
    test_batch_size: int = number(50, "ours: needs less memory than training")  # any size gives the same mean
    # By step.
    max_iter: Dict[int, int] = number({2: 110_000, 3: 110_000, 4: 110_000}, "section 3.4: 110K in all steps")
    base_lr: Dict[int, float] = number(
        {2: 0.001, 3: 0.01, 4: 0.01},
        {2: "section 3.4: 0.001 in step 2", 3: "section 3.4: 0.01 in steps 3 and 4", 4: "section 3.4: 0.01 in steps 3 and 4"},
    )
    lr_mult: Dict[str, float] = number(  # "convolution": all but conv1_1
        {"conv1_1": 0.1, "convolution": 0.1, "fc6": 0.5, "fc7": 0.5, "last": 1.0},
        {
            "conv1_1": "section 3.4", "convolution": "section 3.4",
            "fc6": "ours: not given in the paper; fc6 is between the convolutions and fc7",
            "fc7": "section 3.4", "last": "section 3.4",
        },
    )
    display: int = number(20, "ours: log interval")
    test_interval: Dict[int, int] = number(  # by step
        {2: 5_000, 3: 5_000, 4: 1_000},
        {2: "ours: CelebA's validation is large", 3: "ours: CelebA's validation is large",
         4: "ours: FotW's validation is small and quick"},
    )
    snapshot: int = number(5_000, "ours: the most iterations that a killed run loses")
    momentum: float = number(0.9, "section 3.4")
    weight_decay: float = number(0.0005, "section 3.4")
    lr_policy: str = number("poly", 'section 3.4: "reduced by polynomial"')
    gamma: float = number(0.1, "section 3.4: given there; Caffe's poly policy ignores gamma")
    power: float = number(1.0, "ours: required by poly: lr = base_lr * (1 - iter / max_iter) ^ power")
    bias_lr_mult: float = number(1.0, "ours: the paper gives one lr_mult per layer")  # share of the layer's lr_mult
    bias_decay_mult: float = number(0.0, "ours: as in Caffe's published nets")  # VGG-16 and CaffeNet, for instance
    dropout: float = number(0.5, "as VGG-Face; the paper does not say")  # after relu6 and relu7 (Parkhi et al. 2015)
    # Pixels by which stored crops are larger than crop_size; training crops them at random.
    margin: int = number(0, "the paper: crops are used whole")
    copies: int = number(0, "the paper: each face once")  # of a training face in its LMDB, changed (lmdb_builders/jitter.py)
    mirror: bool = number(True, "ours: training only, as VGG-Face was trained")
    mirrored_answers: bool = number(False, "the paper does not say")  # an answer is the mean over a crop and its mirror image
    test_initialization: bool = number(True, "ours: so that curves start at the initial weights")
    random_seed: int = number(2016, "ours: so that a run can be repeated")
    # Of layers below the last. Pixels of -129..161 come out of 15 such layers at the scale of 1: VGG-Face's Gaussian 0.01
    # makes 1e-6 of them, msra 100.
    weight_filler: Dict[str, object] = number(
        {"type": "xavier"}, "ours: only for a step that starts without weights (first row of Table 2)")
    last_filler: Dict[str, object] = number(
        {"type": "gaussian", "std": 0.01}, "ours: as VGG-Face's layers began; the paper does not say")
    attributes_bias: float = number(0.0, "ours: the paper does not say")  # what the forty outputs' biases start from
    teacher: Optional[Teacher] = None  # None: step 1 adopts VGG-Face, or random numbers in its form
    validation_faces: Optional[int] = None  # of every data set, for test_iter; None: DATASETS has each one's
    why: str = ""

    @property
    def stored_size(self) -> int:
        """Side in pixels of the crops that LMDBs hold."""
        return self.crop_size + self.margin

    def expected_faces(self, data_set: str) -> int:
        """Validation faces of a data set that test_iter covers."""
        return self.validation_faces or DATASETS[data_set].validation_faces

    def filters(self, full: int) -> int:
        """Filters or units of a layer that has `full` of them in VGG-Face."""
        return max(1, int(round(full * self.width)))


PAPER = Profile("paper")

DEMO = replace(
    PAPER,
    name="demo",
    crop_size=56,
    margin=8,  # ours: random cropping, because a small data set is soon overfitted
    width=0.25,
    batch_size=16,  # ours: many small updates leave the initial plateau sooner than few large ones
    max_iter={2: 1500, 3: 400, 4: 900},
    base_lr={2: 0.003, 3: 0.005, 4: 0.005},
    # The demo's step 1 is random weights, so its convolutions learn at the full rate. The inputs of conv1_1 are pixels,
    # PIXEL_SCALE times those of the other layers, and its weights as much smaller (gender_smile/nets/vgg_face.py): with
    # this rate it learns as if its input had their scale.
    lr_mult={"conv1_1": PIXEL_SCALE**-2, "convolution": 1.0, "fc6": 1.0, "fc7": 1.0, "last": 1.0},
    # Most attributes are absent from most faces: with this bias, the first updates are not spent on learning only that.
    attributes_bias=-3.0,
    test_interval={2: 300, 3: 100, 4: 150},
    snapshot=500,
    validation_faces=300,  # about; training counts the LMDB it finds
    why="minutes on two cores: small crops, a quarter of the filters, random weights in step 1",
)
DRAWN_FACES = "drawn faces"  # among what weights were trained on, instead of a data set's title
DRAWN_MAX_ITER = 250  # ours, of each step where the demo draws its faces: enough to learn what is drawn (docs/results.md)
# Of step 2 there, the paper's: drawn faces have 27 attributes that are known and common, and at the demo's own rate their
# summed gradients put a net of random weights onto a plateau that it does not leave (docs/results.md).
DRAWN_BASE_LR = PAPER.base_lr[2]

SMALL = replace(
    DEMO,
    name="small",
    crop_size=64,
    fully_connected=1536,  # ours: three nets of 5 MB
    teacher=DLIB,
    mirrored_answers=True,  # ours: a second look costs a few milliseconds
    copies=11,  # ours: 4,044 photographs are few
    batch_size=32,  # ours: gradients of few images are noisy at the end of a longer training
    max_iter={2: 2500, 3: 600, 4: 1200},
    base_lr={2: 0.01, 3: 0.005, 4: 0.005},
    # Nearer to the paper's than the demo's: step 1, too, knows faces. But not expressions, which step 2 has to learn.
    lr_mult={"conv1_1": 0.4 * PIXEL_SCALE**-2, "convolution": 0.4, "fc6": 0.5, "fc7": 0.5, "last": 1.0},
    test_interval={2: 500, 3: 200, 4: 300},
    why="the nets that are released with the project: quick on a CPU, trained on photographs, each with changed copies",
)
PROFILES = {profile.name: profile for profile in (PAPER, DEMO, SMALL)}

# ---------------------------------------------------------------------------------------------- the paper's results
# Table 2, gender accuracy of GNet on FotW's validation faces: row, steps before step 4, accuracy in percent.
TABLE2_NET = "gnet"
TABLE2 = (
    ("without step 1, 2 and 3", (), 84.04),
    ("without step 2, 3", (1,), 91.07),
    ("without step 2", (1, 3), 91.19),
    ("without step 3", (1, 2), 91.30),
    ("with all steps", (1, 2, 3), 91.66),
)
# Table 3: cropping scheme(s), nets for gender, their accuracy in percent, nets for smile, theirs.
PAPER_TABLE3 = (
    ("1", ("gender1",), 89.34, ("snet1",), 88.79),
    ("2", ("gender2",), 89.66, ("smile2",), 88.66),
    ("3", ("gnet",), 91.66, (), None),
    ("4", ("gender4",), 91.21, (), None),
    ("5", (), None, ("snet2",), 88.89),
    ("1+5", (), None, ("snet1", "snet2"), 89.34),
    ("3+4", ("gnet", "gender4"), 91.32, (), None),
)


def _own_rows() -> Tuple[tuple, ...]:
    """A row like PAPER_TABLE3's, without a number of the paper, for each net that has no row of its own there."""
    listed = {nets for row in PAPER_TABLE3 for nets in (row[1], row[3])}
    taken = {(task, row[0]) for row in PAPER_TABLE3 for task in TASKS}
    rows = []
    for net in NETS.values():
        if (net.key,) in listed:
            continue
        name = net.crop.replace("scheme", "")
        name = net.key if (net.task, name) in taken else name
        taken.add((net.task, name))
        nets = [((net.key,) if net.task == task else ()) for task in ("gender", "smile")]
        rows.append((name, nets[0], None, nets[1], None))
    return tuple(rows)


TABLE3 = (*PAPER_TABLE3, *_own_rows())  # a net of yours gets a row beside the paper's


@dataclass(frozen=True)
class Ordering:
    """One of the paper's findings: in a table, one row is more accurate than another. Rows by the tables' first column."""

    table: int
    task: str
    better: str
    worse: str
    source: str


ORDERINGS = (
    Ordering(2, "gender", "with all steps", "without step 3", "Table 2, section 3.1: step 3"),
    Ordering(2, "gender", "without step 3", "without step 2", "Table 2"),
    Ordering(2, "gender", "without step 2", "without step 2, 3", "Table 2"),
    Ordering(2, "gender", "without step 2, 3", "without step 1, 2 and 3", "Table 2: step 1"),
    Ordering(2, "gender", "with all steps", "without step 2", "Table 2, section 3.1: step 2"),
    Ordering(2, "gender", "with all steps", "without step 2, 3", "Table 2, section 4.1: the fine-tuning scheme"),
    Ordering(3, "gender", "3", "4", "Table 3, section 3.3: without neck"),
    Ordering(3, "gender", "3", "3+4", "Table 3: one net, not two"),
    Ordering(3, "gender", "3+4", "4", "Table 3"),
    Ordering(3, "gender", "4", "2", "Table 3: hair and neck"),
    Ordering(3, "gender", "2", "1", "Table 3, section 4.2: alignment is useless for gender"),
    Ordering(3, "smile", "1+5", "5", "Table 3, section 3.3: the ensemble"),
    Ordering(3, "smile", "5", "1", "Table 3"),
    Ordering(3, "smile", "1", "2", "Table 3, section 4.2: alignment is useful for smile"),
)
CHALLENGE_ERROR = 263.5  # section 4.3, "mean square error"; read as a sum over validation images (docs/fidelity.md)

# ---------------------------------------------------------------------------------------------- VGG-Face's release
VGG_FACE_URL = "https://www.robots.ox.ac.uk/~vgg/software/vgg_face/src/vgg_face_caffe.tar.gz"
VGG_FACE_ARCHIVE_MD5 = "ee707ac6e890bc148cb155adeaad12be"  # as published by bob.bio.face
VGG_FACE_MEMBER = "vgg_face_caffe/VGG_FACE.caffemodel"


# ---------------------------------------------------------------------------------------------- where things lie
# Paths are relative to the project's folder: prototxts name LMDBs by them, and tools run there.
def stem(net: str, step: int) -> str:
    """What a step's files are named: step 1 has one net, step 2 one a crop, steps 3 and 4 one a net."""
    return {1: "step1", 2: f"step2_{NETS[net].crop}"}.get(step, f"step{step}_{net}")


def net_prototxt(profile: str, net: str, step: int) -> str:
    """Training net of a step; step 1 has one where the profile has a teacher."""
    return f"prototxt/{profile}/{stem(net, step)}.prototxt"


def deploy_prototxt(profile: str, head: str) -> str:
    """Deploy net; `head` is "gender", "smile", "attributes" or "identity" (VGG-Face itself, fc8)."""
    return f"prototxt/{profile}/deploy_{head}.prototxt"


def solver_prototxt(profile: str, net: str, step: int) -> str:
    return net_prototxt(profile, net, step).replace("prototxt/", "solvers/", 1)


def lmdb_folder(profile: str, crop: str) -> str:
    return f"data/{profile}/{crop}"


def lmdb_paths(profile: str, net: str, step: int) -> Dict[str, str]:
    """LMDBs that a step reads: {"train": faces, "val": faces, "train_labels": their labels, "val_labels": their labels}."""
    folder, data_set = lmdb_folder(profile, NETS[net].crop), DATASETS[STEPS[step].dataset or ""]
    faces = {split: f"{folder}/{data_set.database(split)}" for split in ("train", "val")}
    return {**faces, **{f"{split}_labels": f"{folder}/{data_set.labels_database(split)}" for split in ("train", "val")}}


def teacher_data_sets() -> Tuple[str, ...]:
    """Whose faces step 1 learns from where a profile has a teacher: those of all steps."""
    return tuple(dict.fromkeys(step.dataset for step in STEPS.values() if step.dataset))


def teacher_lmdb_paths(profile: Profile) -> Dict[str, str]:
    """LMDBs that step 1 reads where the profile has a teacher.

    {"train_celeba": faces, "train_celeba_labels": their embeddings, ...}, of each data set of the steps and "val" too.
    """
    assert profile.teacher is not None
    folder, paths = lmdb_folder(profile.name, profile.teacher.crop), {}
    for name in teacher_data_sets():
        for split in ("train", "val"):
            paths[f"{split}_{name}"] = f"{folder}/{DATASETS[name].database(split)}"
            paths[f"{split}_{name}_labels"] = f"{folder}/{DATASETS[name].embeddings_database(split)}"
    return paths


def target() -> DataSet:
    """The data set of the last step, whose faces evaluate, tables, report and suspects look at."""
    return DATASETS[STEPS[4].dataset or ""]


def step_weights(profile: str, net: str, step: int) -> str:
    """Declared output of a step, which is the declared input of the next."""
    return f"weights/{profile}/{stem(net, step)}.caffemodel"


def stand_in(profile: str) -> str:
    """Random weights in VGG-Face's form, which step 1 of a narrow profile starts from."""
    return f"weights/{profile}/VGG_FACE_stand_in.caffemodel"


def run_folder(profile: str, net: str, step: int) -> str:
    """Where a step keeps its log, metrics, curve and snapshots."""
    return "runs/" + os.path.splitext(net_prototxt(profile, net, step))[0].split("/", 1)[1]


def absolute(path: str) -> str:
    """`path` of the project as an absolute path; an absolute path stays as it is."""
    return os.path.join(ROOT, path)
