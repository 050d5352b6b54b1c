"""The plain part of protobuf's text format, read fast: fields, blocks, numbers, words, texts and comments.

Nearly every prototxt holds nothing else. protobuf's own parser is written in Python and takes longer for a small net than
everything else in building it. What is not plain (a mistake, an escape, a list, an extension, a hexadecimal number) is
left to that parser, and so are all messages about it.
"""

from __future__ import annotations

import functools
import re

_TOKEN = re.compile(  # as protobuf's; spaces and comments give ""
    r"""\s+|#[^\n]*|([a-zA-Z_][\w+-]*|(?:[0-9+-]|\.[0-9])[\w.+-]*|"[^"\\\n]*"|'[^'\\\n]*'|.)""", re.S | re.A
)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}


def read(text: str, message) -> bool:
    """Parse `text` into `message` (empty before); False where it is not plain: `message` is then undefined."""
    tokens = [token for token in _TOKEN.findall(text) if token]
    tokens.append("")  # the end
    tokens.reverse()
    try:
        _read_block(tokens, message, "")
    except (LookupError, ValueError):
        return False
    return True


def _read_block(tokens, message, end):
    """Fields up to the token `end`. Raises LookupError or ValueError for what is not plain."""
    fields = _fields(message.DESCRIPTOR)
    while (name := tokens.pop()) != end:
        value_of, repeated = fields[name]
        token = tokens.pop()
        if not repeated and message.HasField(name):
            raise ValueError("given twice")
        if value_of is None:
            if token == ":":
                token = tokens.pop()
            if token != "{":
                raise ValueError("not a block")
            block = getattr(message, name).add() if repeated else getattr(message, name)
            block.SetInParent()
            _read_block(tokens, block, "}")
        elif token != ":":
            raise ValueError("not a value")
        elif repeated:
            getattr(message, name).append(value_of(tokens.pop()))
        else:
            setattr(message, name, value_of(tokens.pop()))


@functools.cache
def _fields(descriptor):
    """{field: (function from token to value, None for a block; whether it is repeated)}."""
    fields = {}
    for field in descriptor.fields:
        if field.cpp_type == field.CPPTYPE_ENUM:
            value_of = {value.name: value.number for value in field.enum_type.values}.__getitem__
        else:
            value_of = {
                field.CPPTYPE_STRING: _text, field.CPPTYPE_BOOL: _BOOLEANS.__getitem__, field.CPPTYPE_MESSAGE: None,
                field.CPPTYPE_FLOAT: _number, field.CPPTYPE_DOUBLE: _number,
            }.get(field.cpp_type, _integer)  # fmt: skip
        if field.type != field.TYPE_BYTES:
            fields[field.name] = value_of, isinstance(field.default_value, list)
    return fields


def _text(token):
    if len(token) < 2 or token[0] not in "\"'":  # one quote alone: its end is missing
        raise ValueError("not a text")
    return token[1:-1]


def _integer(token):
    if not _INTEGER.fullmatch(token):
        raise ValueError("not an integer")
    return int(token)


def _number(token):
    if not _NUMBER.fullmatch(token):
        raise ValueError("not a number")
    return float(token)
