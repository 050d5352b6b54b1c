"""The schema against the format's tables, field by field, and against protobuf's own output on the wire."""

import copy
import multiprocessing
import os
import pickle
import re
import subprocess
import sys

import pytest
from google.protobuf import descriptor

from torchcaffe.proto import caffe_pb2

KINDS = {"i32": "int32", "i64": "int64", "u32": "uint32", "f32": "float", "f64": "double", "str": "string"}
MESSAGES = caffe_pb2.DESCRIPTOR.message_types_by_name


def facts(shared):
    path = shared / "caffe-facts.md"
    if not path.exists():
        pytest.skip("needs caffe-facts.md in shared/")
    return path.read_text()


def tables(text):
    """{message: {number: (field, type, default)}} from the Markdown tables A.1 and A.2."""
    messages, current = {}, None
    for line in text[text.index("### A.1") : text.index("### A.3")].splitlines():
        if not line.startswith("|") or line.startswith(("|---", "| message")):
            continue
        cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
        if cells[0]:
            current = messages.setdefault(cells[0].strip("*"), {})
        for column in range(1, len(cells) - 3, 4):
            if cells[column]:
                current[int(cells[column])] = tuple(cells[column + 1 : column + 4])
    return messages


def described(field):
    """A live field the way the tables write it: (name, type, default)."""
    if field.message_type or field.enum_type:
        kind = (field.message_type or field.enum_type).name
    else:
        kind = {value: key[5:].lower() for key, value in vars(descriptor.FieldDescriptor).items() if key[:5] == "TYPE_"}
        kind = kind[field.type]
    if field.is_repeated:
        kind += " rep-packed" if field.GetOptions().packed else " rep"
    return field.name, kind, field.default_value if field.has_default_value else None


def wanted(name, kind, default, field):
    first, *rest = kind.split()
    kind = " ".join([KINDS.get(first, first), *rest])
    if default == "—":
        return name, kind, None
    if field.enum_type:
        return name, kind, field.enum_type.values_by_name[default].number
    if field.type == descriptor.FieldDescriptor.TYPE_BOOL:
        return name, kind, default == "true"
    if field.type == descriptor.FieldDescriptor.TYPE_STRING:
        return name, kind, default.strip('"')
    return name, kind, pytest.approx(float(default), rel=1e-6)


def test_every_field_has_the_formats_number_type_and_default(shared):
    expected = tables(facts(shared))
    assert set(expected) == set(MESSAGES)
    assert sum(map(len, expected.values())) == 423
    for message, fields in expected.items():
        live = MESSAGES[message].fields_by_number
        assert set(live) == set(fields), message
        for number, row in fields.items():
            assert described(live[number]) == wanted(*row, live[number]), f"{message} {number}"


def test_every_enum_has_the_formats_values(shared):
    text = facts(shared)
    part = text[text.index("### A.3") : text.index("### A.4")]
    rows = {}
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip()[1:-1].split("|")]
        for names, values in zip(cells[::2], cells[1::2]):
            if re.match(r"[A-Z]\w* \d", values):
                rows[names] = {pair.split()[0]: int(pair.split()[1]) for pair in values.split(", ")}
    assert len(rows) == 15
    for message in MESSAGES.values():
        for enum in message.enum_types:
            if enum.name == "LayerType":
                continue
            row = next(values for names, values in rows.items() if re.search(rf"\.{enum.name}\b", names))
            assert {value.name: value.number for value in enum.values} == row, enum.full_name
    types = dict(caffe_pb2.V1LayerParameter.LayerType.items())
    part = text[text.index("### A.4") : text.index("### A.5")]
    assert types == {name: int(number) for number, name in re.findall(r'\| (\d+) \| ([A-Z0-9_]+) \| (?=""|\w)', part)}


def test_only_clip_has_required_fields():
    required = [
        field.full_name for message in MESSAGES.values() for field in message.fields if getattr(field, "is_required", 0)
    ]
    assert required == ["caffe.ClipParameter.min", "caffe.ClipParameter.max"]


@pytest.mark.parametrize(
    "message, wire",
    [
        (caffe_pb2.BlobProto(data=[1.0], shape=caffe_pb2.BlobShape(dim=[1])), "2a 04 00 00 80 3f 3a 03 0a 01 01"),
        (caffe_pb2.Datum(channels=3, label=1, encoded=False), "08 03 28 01 38 00"),
        (caffe_pb2.Datum(float_data=[0.5, 1.0]), "35 00 00 00 3f 35 00 00 80 3f"),
        (caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="a")]), "a2 06 03 0a 01 61"),
    ],
)
def test_messages_have_these_bytes(message, wire):
    assert message.SerializeToString() == bytes.fromhex(wire)


def test_generated_module_is_current(root):
    """caffe.proto and caffe_pb2.py say the same: every message and field line of the one is in the other."""
    text = re.sub(r"//.*", "", (root / "torchcaffe" / "proto" / "caffe.proto").read_text())
    for name, message in MESSAGES.items():
        body = re.search(rf"^message {name} {{\n(.*?)^}}", text, re.S | re.M)[1]
        fields = re.findall(r"(?:optional|repeated|required) [\w.]+ (\w+) = (\d+)", body)
        assert {field: int(number) for field, number in fields} == {f.name: f.number for f in message.fields}


@pytest.mark.parametrize("first", ["ours", "the script's"])
def test_a_script_may_bring_its_own_caffe_pb2(first, tmp_path, root):
    generated = (root / "torchcaffe" / "proto" / "caffe_pb2.py").read_text()
    own = generated.replace("_descriptor_pool.DescriptorPool()", "_descriptor_pool.Default()")  # as protoc writes it
    (tmp_path / "caffe_pb2.py").write_text(own.replace("'torchcaffe.proto.caffe_pb2'", "'caffe_pb2'"))
    imports = ["from torchcaffe.proto import caffe_pb2 as ours", "import caffe_pb2"]
    code = "\n".join([*(imports if first == "ours" else imports[::-1]), "assert ours.Datum is not caffe_pb2.Datum",
                      "data = caffe_pb2.Datum(label=3).SerializeToString()", "print(ours.Datum.FromString(data).label)"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])})
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


@pytest.mark.parametrize("message", [
    caffe_pb2.Datum(label=3, data=b"\0\1"), caffe_pb2.V1LayerParameter(name="x"),
    caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="ip", bottom=["a"])]),
], ids=lambda message: message.DESCRIPTOR.name)  # fmt: skip
def test_messages_are_pickled(message):
    again = pickle.loads(pickle.dumps(message))
    assert again == message and type(again) is type(message)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(copy.copy, [message]) == [message]
