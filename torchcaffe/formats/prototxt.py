"""Protobuf's text format (.prototxt), with errors that name line, field and the likely intention."""

from __future__ import annotations

import re
from collections.abc import Sequence

from google.protobuf import text_format

from torchcaffe.core import names, plugins
from torchcaffe.core.errors import PrototxtError
from torchcaffe.formats import plain_text
from torchcaffe.proto import caffe_pb2, extensions

_UNKNOWN_FIELD = re.compile(r'Message type "caffe\.([\w.]+)" has no field named "([^"]*)"')
_UNKNOWN_EXTENSION = re.compile(r'Extension "caffe\.(\w+)" not registered')
_UNKNOWN_VALUE = re.compile(r'Enum type "caffe\.([\w.]+)" has no value (?:named|with number) (.*)\.$')
_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>:]|[\w.+-]+""")
# A minus sign apart from its number, outside texts and comments: Caffe's parser reads it, Python's does not.
_MINUS = re.compile(r"""(#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|-(\s+)(?=[\d.]|inf|nan)""")
# Fields that name a file or a folder.
_PATHS = frozenset((
    "net", "train_net", "test_net", "weights", "snapshot_prefix", "source", "mean_file", "meanfile", "root_folder", "file_name",
    "label_map_file", "name_size_file", "output_directory",
))  # fmt: skip
_PIECE = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\w+|[{}<>\[\]]""")
_REPEATED = re.compile(r'Message type "caffe\.([\w.]+)" should not have multiple "(\w+)" fields')


def parse(text: str, message, source: str):
    """Parse `text` into `message` (empty before) and return it.

    Args:
        source: the file's name, for messages.
    Raises:
        PrototxtError: names source, line and what is wrong; for an unknown field or value, what was likely meant.
            Also for a path that holds a NUL character.
    """
    readable = text
    try:
        if not plain_text.read(text, message):
            message.Clear()
            readable = _bracket(_MINUS.sub(lambda found: found[1] or found[2] + "-", text), message)
            text_format.Parse(readable, message)
    except text_format.ParseError as problem:
        kind, field = _unknown(str(problem))
        if kind == "LayerParameter" and plugins.load():
            message.Clear()
            return parse(text, message, source)
        place, blocks = _place(problem, readable)
        inside = f" (in {', '.join(blocks)})" if blocks else ""
        unregistered = kind == "LayerParameter" and field.endswith("_param")
        how = plugins.how_to_register(field) if unregistered else ""
        raise PrototxtError(f"{source}{place}: {_explain(str(problem), message)}{inside}{how}") from None
    except UnicodeEncodeError:
        raise PrototxtError(f"{source}: holds text that is not UTF-8; save it as UTF-8") from None
    missing = message.FindInitializationErrors()
    if missing:
        raise PrototxtError(f"{source}: required fields are missing: {', '.join(missing)}")
    if "\\" in text or "\0" in text:  # a NUL is written in one of these ways
        _refuse_nul(message, source)
    return message


def _bracket(text, message):
    """The text with `norm_param {` of registered layers as protobuf reads an extension: `[caffe.norm_param] {`."""
    if not any(name in text for name in extensions.DECLARED):
        return text
    blocks = ["layer" if message.DESCRIPTOR.name == "LayerParameter" else ""]
    word, kept, pieces = None, 0, []
    for found in _PIECE.finditer(text):
        token = found[0]
        if token in "{<[":  # in a list, `layer: [{ ... }, { ... }]`, each block is what the list is
            if blocks[-1] == "layer" and word and word[0] in extensions.DECLARED:
                pieces += [text[kept : word.start()], f"[caffe.{word[0]}]"]
                kept = word.end()
            blocks.append(word[0] if word else blocks[-1])
            word = None
        elif token in "}>]":
            word = None
            if len(blocks) > 1:
                blocks.pop()
        elif token[0] not in "#\"'":
            word = found
    return "".join([*pieces, text[kept:]])


def _refuse_nul(message, source, inside=""):
    """Raise PrototxtError for a path that holds a NUL character: opening it would fail, perhaps only after training."""
    for field, value in message.ListFields():
        values = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else [value]
        for part in values:
            if field.message_type:
                name = getattr(part, "name", "")
                _refuse_nul(part, source, f'{inside}{field.name}{f" {name!r}" if isinstance(name, str) and name else ""}, ')
            elif field.name in _PATHS and "\0" in part:
                raise PrototxtError(
                    f"{source}: {inside}{field.name} {part!r} holds a NUL character, which no path can hold; write the path "
                    "without it"
                )


def _place(problem, text):
    """(", line 3", names of the blocks around it) of a parse error."""
    line = problem.GetLine()
    if not line:
        return "", []
    lines = text.split("\n")[:line]
    lines[-1] = lines[-1][: max(0, (problem.GetColumn() or 1) - 1)]
    return f", line {line}", _path("\n".join(lines))


def _path(text):
    """The blocks that are open at the end of `text`: ['layer "conv1"', 'convolution_param']."""
    blocks, word, field = [], "", ""
    for token in _TOKEN.findall(text):
        if token in "{<":
            blocks.append(word)
        elif token in "}>":
            del blocks[-1:]
        elif token[0] in "\"'":
            if field == "name" and len(blocks) == 1:
                blocks[0] = f'{blocks[0].split(" ")[0]} "{token[1:-1]}"'
        elif token == ":":
            field = word
        elif token[0] != "#":
            word = token.removeprefix("caffe.")  # of a registered layer's settings, see _bracket
    return blocks


def _explain(complaint, message):
    kind, name = _unknown(complaint)
    if kind:
        return _unknown_field(kind, name, message)
    found = _UNKNOWN_VALUE.search(complaint)
    if found:
        enum = caffe_pb2.DESCRIPTOR.pool.FindEnumTypeByName(f"caffe.{found[1]}")
        values = [value.name for value in enum.values]
        return f"{found[1]} has no value {found[2]}; {names.suggestion(found[2], values)}"
    found = _REPEATED.search(complaint)
    if found:
        return f"{found[2]} of {found[1]} is given twice; it takes one value"
    complaint = re.sub(r"^\d+:\d+ : ", "", complaint)  # our place says it already
    return re.sub(r"^'.*?': (?=[A-Z])", "", complaint)  # the line itself


def _unknown(complaint):
    """(message type, field) of a complaint about a field that does not exist, or two empty strings."""
    found = _UNKNOWN_FIELD.search(complaint)
    if found:
        return found[1], found[2]
    found = _UNKNOWN_EXTENSION.search(complaint)
    return ("LayerParameter", found[1]) if found else ("", "")


def _unknown_field(kind, name, message):
    descriptor = caffe_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"caffe.{kind}")
    where = f"{kind} has no field '{name}'"
    other = {"NetParameter": caffe_pb2.SolverParameter, "SolverParameter": caffe_pb2.NetParameter}.get(kind)
    if other and message.DESCRIPTOR.name == kind and name in other.DESCRIPTOR.fields_by_name:
        what = "solver" if kind == "NetParameter" else "net"
        return f"{where}, but a {what} has: is this a {what}'s definition, given where the other is expected?"
    holders = [
        field.name
        for field in descriptor.fields
        if field.message_type and field.name.endswith("_param") and name in field.message_type.fields_by_name
    ]
    if holders:
        return f"{where}; it belongs inside {' or '.join(holders)} {{ ... }}"
    if kind == "LayerParameter" and plugins.contributed(name):
        return where
    return f"{where}; {names.suggestion(name, extensions.names_of(descriptor))}"
