"""Layers over time: RNN, LSTM, LSTMUnit."""

from functools import partial

from case import Abort, Case

STATES = {"RNN": 1, "LSTM": 2}  # parts of the state that expose_hidden shows
FILLERS = 'weight_filler { type: "uniform" min: -0.7 max: 0.7 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
Over = partial(Case, parameters="small")  # so that tanh does not saturate: 1 - y * y there is rounding


def bottoms(kind, steps, streams, units, inputs=(3,), static=None, exposed=False, cont="bits"):
    found = [((steps, streams) + inputs, "normal"), ((steps, streams), cont)]
    if static:
        found.append(((streams,) + static, "normal"))
    return found + [((1, streams, units), "normal")] * (STATES[kind] if exposed else 0)


def layers():
    for kind in STATES:
        for steps, streams, units in ((1, 1, 2), (1, 3, 2), (4, 1, 3), (5, 3, 4)):
            for static in (None, (2,)):
                yield from sized(kind, steps, streams, units, static)
        for inputs, static in (((2, 3), None), ((2, 3), (3, 2)), ((1, 1, 2), (1, 2, 1))):
            yield Over(kind, "recurrent_param { num_output: 4 debug_info: true }", bottoms(kind, 3, 2, 4, inputs, static))
        yield from resized(kind)
        yield from drawn(kind)
        yield from partly_learned(kind)


def sized(kind, steps, streams, units, static):
    """Three passes each: the state goes on from one to the next, except where cont is 0."""
    for phase in ("TRAIN", "TEST"):
        for cont in ("bits", "zero"):
            yield Over(
                kind,
                "recurrent_param { num_output: %d }" % units,
                bottoms(kind, steps, streams, units, static=static, cont=cont),
                phase=phase,
                passes=3,
            )
    exposed = "recurrent_param { num_output: %d expose_hidden: true }" % units
    for weight in (0, 1):  # a gradient into the state that is left goes nowhere in Caffe
        yield Over(
            kind,
            exposed,
            bottoms(kind, steps, streams, units, static=static, exposed=True),
            tops=1 + STATES[kind],
            weights=[1] + [weight] * STATES[kind],
        )


def resized(kind):
    """Another number of streams in the second pass: the state is what lies in its memory, or zero where that grows."""
    for streams in (2, 3, 5):
        yield Over(
            kind, "recurrent_param { num_output: 4 }", bottoms(kind, 5, 3, 4), second=[(5, streams, 3), (5, streams)], passes=3
        )
    second = [(5, 2, 3), (5, 2)] + [(1, 2, 4)] * STATES[kind]
    layer = "recurrent_param { num_output: 4 expose_hidden: true }"
    yield Over(kind, layer, bottoms(kind, 5, 3, 4, exposed=True), tops=1 + STATES[kind], second=second)


def drawn(kind):
    """What the fillers draw, also of a layer that follows: each time step draws its own copy of what all share."""
    after = 'layer { name: "before" type: "%s" bottom: "b0" bottom: "b1" top: "before" recurrent_param { num_output: 2 %s } }'
    for static in (None, (2,)):
        layer = "recurrent_param { num_output: 4 %s }" % FILLERS
        yield Case(kind, layer, bottoms(kind, 3, 2, 4, static=static), parameters=None)
        yield Case(
            kind,
            layer,
            bottoms(kind, 3, 2, 4, static=static),
            parameters=None,
            before=after % (kind, FILLERS),
            weights=None,
            force=False,
            backward=False,
        )


def partly_learned(kind):
    """Caffe runs a net of its own backward, whole, whatever lr_mult and propagate_down say."""
    rates = ("", "param { lr_mult: 0 }", "param { lr_mult: 0 } " * 3)
    for static, exposed in ((None, False), ((2,), False), ((2,), True)):
        given = bottoms(kind, 3, 2, 4, static=static, exposed=exposed)
        for rate in rates:
            for learn in (False, True):
                for down in ([1, 0] + [1] * (len(given) - 2), [0] * len(given)):
                    flags = " ".join("propagate_down: %s" % str(bool(flag)).lower() for flag in down)
                    yield Over(
                        kind,
                        "recurrent_param { num_output: 4 expose_hidden: %s } %s %s" % (str(exposed).lower(), rate, flags),
                        given,
                        tops=1 + (STATES[kind] if exposed else 0),
                        force=False,
                        learn=learn,
                    )


def units():
    for streams, size in ((1, 1), (3, 4), (2, 7)):
        for weights in ([1, 1], [1, 0], [0, 1]):
            for cont in ("bits", "zero"):
                given = [((1, streams, size), "normal"), ((1, streams, 4 * size), "normal"), ((1, streams), cont)]
                second = [(1, 5, 2), (1, 5, 8), (1, 5)]
                yield Case("LSTMUnit", "", given, tops=["c", "h"], weights=weights, second=second)
    large = [((1, 3, 4), "large"), ((1, 3, 16), "normal"), ((1, 3), "bits")]  # gates that saturate are rounding alone
    yield Case("LSTMUnit", "", large, tops=["c", "h"])
    given = [((1, 3, 4), "normal"), ((1, 3, 16), "normal"), ((1, 3), "bits")]
    yield Case("LSTMUnit", "propagate_down: true propagate_down: true propagate_down: false", given, tops=2, force=False,
               learn=True)  # fmt: skip


CASES = [case for group in (layers, units) for case in group()]
X, CONT, SIZE = (4, 2, 3), (4, 2), "recurrent_param { num_output: 3 }"
EXPOSED = "recurrent_param { num_output: 3 expose_hidden: true }"
ABORTS = [
    Abort("LSTM", "", [X, CONT], "num_output must be positive"),
    Abort("RNN", "", [X, CONT], "num_output must be positive"),
    Abort("LSTM", SIZE, [X], "takes 2 to 3 bottom blobs"),
    Abort("LSTM", SIZE, [X, CONT, (2, 3), (1, 2, 3)], "takes 2 to 3 bottom blobs"),
    Abort("LSTM", SIZE, [X, CONT], "takes 1 top blobs", tops=2),
    Abort("LSTM", EXPOSED, [X, CONT], "takes 4 to 5 bottom blobs", tops=3),
    Abort("RNN", EXPOSED, [X, CONT, (1, 2, 3)], "takes 2 top blobs", tops=1),
    Abort("LSTM", SIZE, [(4, 2), CONT], "3 axes or more"),
    Abort("LSTM", SIZE, [(4,), CONT], "3 axes or more"),
    Abort("LSTM", SIZE, [X, (4, 3)], "cont needs shape"),
    Abort("LSTM", SIZE, [X, (4, 2, 1)], "cont needs shape"),
    Abort("LSTM", SIZE, [X, CONT, (3, 2)], "static input needs 2 streams"),
    Abort("LSTM", SIZE, [X, CONT, (2,)], "static input needs 2 axes"),
    Abort("LSTM", EXPOSED, [X, CONT, (1, 2, 3), (1, 2, 4)], "hidden state needs shape", tops=3),
    Abort("RNN", EXPOSED, [X, CONT, (2, 3)], "hidden state needs shape", tops=2),
    Abort("RNN", SIZE + " propagate_down: true propagate_down: true", [X, CONT], "has no gradient", run=True, learn=False),
    Abort("LSTMUnit", "", [(1, 2, 3), (1, 2, 11), (1, 2)], "the gates, needs shape", tops=2),
    Abort("LSTMUnit", "", [(2, 2, 3), (2, 2, 12), (2, 2)], "the cells, needs shape", tops=2),
    Abort("LSTMUnit", "", [(2, 3), (2, 12), (2,)], "the cells, needs shape", tops=2),
    Abort("LSTMUnit", "", [(1, 2, 3), (1, 2, 12), (1, 3)], "cont, needs shape", tops=2),
]
