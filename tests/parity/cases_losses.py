"""Losses and Accuracy."""

from case import Abort, Case

DENSE = [((2, 4, 3, 2), "normal"), ((2, 1, 3, 2), "labels:4")]
IGNORED = [((2, 4, 3, 2), "normal"), ((2, 3, 2), "ignored:4")]
FLAT = [((5, 4), "normal"), ((5,), "labels:4")]
MODES = ("FULL", "VALID", "BATCH_SIZE", "NONE")
WEIGHTS = (None, [0.5])


def losses_with_modes(type, flat, dense, ignored, settings=""):
    for bottoms in (flat, dense):
        for weights in WEIGHTS:
            yield Case(type, settings, bottoms, weights=weights)
    for mode in MODES:
        for bottoms in (dense, ignored):
            yield Case(
                type, settings + " loss_param { normalization: %s ignore_label: 255 }" % mode, bottoms, weights=None
            )
        yield Case(type, settings + " loss_param { normalization: %s }" % mode, dense, weights=[2])
    yield Case(type, settings, flat, weights=None, phase="TEST", tops=0)
    yield Case(type, settings, dense, weights=None, force=False, learn=True)


def classes():
    yield from losses_with_modes("SoftmaxWithLoss", FLAT, DENSE, IGNORED)
    for normalize in ("true", "false"):
        yield Case(
            "SoftmaxWithLoss", "loss_param { normalize: %s ignore_label: 255 }" % normalize, IGNORED, weights=None
        )
        yield Case(
            "SoftmaxWithLoss", "loss_param { normalize: %s normalization: FULL }" % normalize, DENSE, weights=None
        )
    yield Case("SoftmaxWithLoss", "", [((5, 4), "large"), ((5, 1, 1, 1), "fractions:4")], weights=None)
    yield Case("SoftmaxWithLoss", "", [((5, 4), "huge"), ((5,), "labels:4")], weights=None)  # of a training that diverges
    yield Case(
        "SoftmaxWithLoss",
        "softmax_param { axis: 2 }",
        [((2, 3, 4, 2), "normal"), ((2, 3, 2), "labels:4")],
        weights=None,
    )
    yield Case(
        "SoftmaxWithLoss", "softmax_param { axis: -1 }", [((2, 3, 4), "normal"), ((2, 3), "labels:4")], weights=None
    )
    yield Case("SoftmaxWithLoss", "loss_param { ignore_label: 0 }", [((4, 2), "normal"), ((4,), "zero")], weights=None)
    yield Case("SoftmaxWithLoss", "", FLAT, weights=None, second=[(7, 4), (7,)])

    targets = [((4, 3), "normal"), ((4, 3), "unit")]
    image = [((2, 3, 2, 2), "normal"), ((2, 12), "bits")]
    ignored = [((2, 3, 2, 2), "normal"), ((2, 3, 2, 2), "ignored:2")]
    yield from losses_with_modes("SigmoidCrossEntropyLoss", targets, image, ignored)
    yield Case("SigmoidCrossEntropyLoss", "", [((4, 3), "large"), ((4, 3), "bits")], weights=None)
    yield Case("SigmoidCrossEntropyLoss", "", [((4, 3), "normal"), ((4, 3), "normal")], weights=None)  # beyond 0 to 1
    yield Case(
        "SigmoidCrossEntropyLoss",
        "loss_param { ignore_label: 0 }",
        [((4, 3), "normal"), ((4, 3), "halves")],
        weights=None,
    )
    yield Case(
        "SigmoidCrossEntropyLoss",
        "loss_param { ignore_label: 0 normalization: VALID }",
        [((4, 3), "normal"), ((4, 3), "halves")],
        weights=None,
    )

    matrix = 'infogain_loss_param { source: "{folder}/infogain4.binaryproto" }'
    yield from losses_with_modes("InfogainLoss", FLAT, DENSE, IGNORED, matrix)
    yield Case("InfogainLoss", matrix, FLAT, tops=2, weights=[1, 0])
    yield Case("InfogainLoss", matrix, FLAT, tops=2, weights=[2, 0.5], passes=1)
    yield Case("InfogainLoss", matrix, [((5, 4), "huge"), ((5,), "labels:4")], weights=None)
    third = [((4, 4), "positive")]
    yield Case("InfogainLoss", "", FLAT + third, weights=None, force=False, learn=True)
    yield Case(
        "InfogainLoss",
        "",
        [((5, 4), "large"), ((5,), "labels:4"), ((1, 1, 4, 4), "positive")],
        weights=None,
        force=False,
        learn=True,
    )
    yield Case(
        "InfogainLoss",
        "infogain_loss_param { axis: 2 }",
        [((2, 3, 4), "normal"), ((2, 3), "labels:4")] + third,
        weights=None,
        force=False,
        learn=True,
    )

    for weights in WEIGHTS:
        yield Case("MultinomialLogisticLoss", "", [((5, 4), "rows"), ((5,), "fractions:4")], weights=weights)
        yield Case("MultinomialLogisticLoss", "", [((5, 4, 1, 1), "rows"), ((5, 1, 1, 1), "labels:4")], weights=weights)
        yield Case("MultinomialLogisticLoss", "", [((5, 4), "bits"), ((5,), "labels:4")], weights=weights)


def vectors():
    for weights in WEIGHTS:
        yield Case("EuclideanLoss", "", [((4, 3), "normal")] * 2, weights=weights, second=[(2, 3), (2, 3)])
        yield Case("EuclideanLoss", "", [((2, 3, 2, 2), "normal"), ((2, 12), "normal")], weights=weights)
        yield Case("EuclideanLoss", "", [((4, 3), "normal")] * 2, weights=weights, force=False, learn=True)
        for norm in ("L1", "L2"):
            yield Case("HingeLoss", "hinge_loss_param { norm: %s }" % norm, FLAT, weights=weights)
            yield Case(
                "HingeLoss",
                "hinge_loss_param { norm: %s }" % norm,
                [((5, 4), "ties"), ((5,), "fractions:4")],
                weights=weights,
            )
            yield Case(
                "HingeLoss",
                "hinge_loss_param { norm: %s }" % norm,
                [((3, 4, 1, 1), "normal"), ((3, 1, 1, 1), "labels:4")],
                weights=weights,
            )
        for settings in ("", "margin: 4", "legacy_version: true", "legacy_version: true margin: 5", "margin: 0.1"):
            pairs = [((8, 3), "normal"), ((8, 3), "normal"), ((8,), "bits")]
            yield Case("ContrastiveLoss", "contrastive_loss_param { %s }" % settings, pairs, weights=weights)
    yield Case(
        "ContrastiveLoss",
        "contrastive_loss_param { margin: 2 }",
        [((8, 3, 1, 1), "ties"), ((8, 3, 1, 1), "ties"), ((8, 1, 1, 1), "fractions:2")],
        weights=None,
    )
    yield Case("ContrastiveLoss", "", [((3, 2), "zero"), ((3, 2), "zero"), ((3,), "zero")], weights=None)
    yield Case("ContrastiveLoss", "", [((4, 3), "normal"), ((4, 3), "normal"), ((4,), "bits")], weights=None)
    yield Case("ContrastiveLoss", "", [((4,), "normal"), ((4,), "normal"), ((4,), "bits")], weights=None)
    # numbers that are no probabilities, some below the limit
    yield Case("MultinomialLogisticLoss", "", [((5, 4), "normal"), ((5,), "labels:4")], weights=None)


def metrics():
    for settings in ("", "top_k: 2", "top_k: 4", "ignore_label: 255", "ignore_label: 255 top_k: 3", "ignore_label: 0"):
        for kind in ("normal", "ties", "special"):
            for tops in (1, 2):
                label = "ignored:4" if "255" in settings else "labels:4"
                yield Case(
                    "Accuracy",
                    "accuracy_param { %s }" % settings,
                    [((2, 4, 3, 3), kind), ((2, 3, 3), label)],
                    tops=tops,
                    backward=False,
                    phase="TEST",
                )
    yield Case("Accuracy", "accuracy_param { axis: -1 }", [((2, 3, 5), "normal"), ((2, 3), "labels:5")], backward=False)
    yield Case(
        "Accuracy", "accuracy_param { ignore_label: 0 }", [((3, 5), "normal"), ((3,), "zero")], tops=2, backward=False
    )
    yield Case("Accuracy", "", FLAT, backward=False, second=[(2, 4), (2,)])


CASES = [case for group in (classes, vectors, metrics) for case in group()]
ABORTS = [
    Abort("SoftmaxWithLoss", "", [(5, 4), (4,)], "differ in batch size|need 5 labels"),
    Abort("SoftmaxWithLoss", "", [(5, 4, 2), (5,)], "need 10 labels, got 5"),
    Abort("EuclideanLoss", "", [(), ()], "needs a batch along axis 0"),
    Abort("ContrastiveLoss", "", [(), (), ()], "needs a batch along axis 0"),
    Abort("SoftmaxWithLoss", "", [(5, 4), (5,)], "takes 0 to 1 top|takes 1 top|second top", tops=2, weights=None),
    Abort(
        "SoftmaxWithLoss",
        "propagate_down: true propagate_down: true",
        [(5, 4), (5,)],
        "has no gradient for its bottom",
        run=True,
        weights=None,
    ),
    Abort("SigmoidCrossEntropyLoss", "", [(5, 4), (5, 3)], "differ in count"),
    Abort("EuclideanLoss", "", [(5, 4), (5, 3)], "differ in size"),
    Abort("EuclideanLoss", "", [(5, 4), (4, 4)], "batch size|differ in size"),
    Abort("EuclideanLoss", "", [(5, 4)], "takes 2 bottom"),
    Abort("InfogainLoss", "loss_param { normalize: true }", [(5, 4), (5,), (4, 4)], "normalize is not for this loss"),
    Abort("InfogainLoss", "", [(5, 4), (5,)], "infogain matrix is missing"),
    Abort("InfogainLoss", "", [(5, 4), (5,), (3, 3)], "infogain matrix of 16 values"),
    Abort("InfogainLoss", "", [(5, 4), (5,), (4, 4)], "has no gradient for its bottom", run=True, weights=None),
    Abort("MultinomialLogisticLoss", "", [(5, 4), (5, 2)], "one label an item"),
    Abort("ContrastiveLoss", "", [(5, 4), (5, 3), (5,)], "vectors of one length"),
    Abort("ContrastiveLoss", "", [(5, 4, 2), (5, 4, 2), (5,)], "vectors of one length"),
    Abort("ContrastiveLoss", "", [(5, 4), (5, 4), (5, 2)], "one similarity a pair"),
    Abort("Accuracy", "accuracy_param { top_k: 5 }", [(5, 4), (5,)], "top_k 5 exceeds", weights=None),
    Abort("Accuracy", "", [(5, 4), (4,)], "need 5 labels", weights=None),
    Abort("Accuracy", "", [(5, 4), (5,)], "has no gradient", run=True, weights=None),
]
