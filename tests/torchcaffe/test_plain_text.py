"""The fast reader of prototxts against protobuf's own: what it reads is the same, and what it leaves is left whole."""

import random
from pathlib import Path

import pytest
from google.protobuf import text_format

from torchcaffe.core.errors import PrototxtError
from torchcaffe.formats import plain_text
from torchcaffe.formats.files import parse_net
from torchcaffe.proto import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]
NET = """# a comment with "quotes" and { braces
name: 'small'  force_backward: true
layer { name: "data" type: "Input" top: "data" input_param: { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1e-1 } param { lr_mult: .5 decay_mult: 0. }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: -0.25 } engine: CAFFE } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 2 } include { } }
"""
PIECES = (
    '"', "'", "{", "}", ":", "#", "\n", "-", "+", "0x1", "1e", "'a'", '"a" "b"', "<", "[1]", ",", ";", "true", "1", "MAX", "\\", "inf",
    "nanf", "010", "1_0", "name: 'x'", "\0", "\u00a0", "99999999999", "pool: MAX ", "state { phase: TEST }", "[caffe.other] { }",
)  # fmt: skip


def protobufs(text):
    message = caffe_pb2.NetParameter()
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError:
        return None


def check(text):
    """True where the text was read; it is then what protobuf reads."""
    message = caffe_pb2.NetParameter()
    if not plain_text.read(text, message):
        return False
    expected = protobufs(text)
    assert expected is not None, text
    assert message.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True), text
    return True


def test_the_projects_nets_are_plain_and_read_as_protobuf_reads_them():
    assert check(NET) and check("") and check("# nothing\n")
    nets = sorted((ROOT / "prototxt").rglob("*.prototxt"))
    assert nets and all(check(path.read_text()) for path in nets)


def test_damaged_texts_are_never_read_otherwise():
    dice = random.Random(0)
    read = left = 0
    for _ in range(1500):
        text = NET
        for _ in range(dice.randint(1, 3)):
            place, length = dice.randrange(len(text)), dice.choice((0, 0, 1, 4))
            text = text[:place] + dice.choice(PIECES + ("",)) + text[place + length :]
        if check(text):
            read += 1
        else:
            left += 1
    assert read > 50 and left > 500  # both happen


@pytest.mark.parametrize("text, name", [
    (r'name: "\x41"', "A"), ('name: "A" "B"', "AB"), ("name: 'A';", "A"), ("layer < name: 'b' > name: 'A'", "A"),
    ("layer: [{ name: 'b' }] name: 'A'", "A"), ("force_backward: True name: 'A'", "A"),
])  # fmt: skip
def test_what_is_not_plain_is_read_by_protobuf(text, name):
    assert not plain_text.read(text, caffe_pb2.NetParameter())
    assert parse_net(text).name == name


def test_what_was_read_before_a_mistake_is_forgotten():
    with pytest.raises(PrototxtError, match="line 2.*given twice"):
        parse_net('name: "a"\nname: "b"')
    assert [layer.name for layer in parse_net("layer { name: 'a' } layer { name: '\\x62' }").layer] == ["a", "b"]
