"""Settings of registered layers: `norm_param { ... }` becomes a field of LayerParameter while the program runs.

Each is a protobuf extension of LayerParameter, so that everything protobuf does with a message holds for it, too: copies,
comparison, pickling, the bytes of a caffemodel, the checks of types. Text names an extension as `[caffe.norm_param]`;
here, and in printed messages, it is written as Caffe's own fields are (formats/prototxt.py reads both). In Python it is
`layer.norm_param`, as if it were in caffe.proto.
"""

from __future__ import annotations

import enum
import re
import zlib
from collections.abc import Mapping

from google.protobuf import descriptor_pb2, message_factory, text_format

from torchcaffe.proto import caffe_pb2

_PACKAGE = "caffe."
_FIRST, _FIRST_DERIVED, _END = 149, 20000, 2**29  # numbers for extensions; protobuf keeps 19000 to 19999 for itself
_KINDS = {bool: "BOOL", int: "INT64", float: "FLOAT", str: "STRING"}
_BRACKETED = re.compile(r"^( *)\[caffe\.(\w+)\] \{", re.M)

DECLARED: dict = {}  # "norm_param" -> its FieldDescriptor
OWNERS: dict = {}  # layer type -> the first field that its class declares: where NetSpec puts plain keywords
_SCHEMAS: dict = {}  # "norm_param" -> the bytes of its declaration
_PLAIN: set = set()  # message types that print these fields' plain names


def declare(name: str, fields, number: int | None = None):
    """Make `name` a field of LayerParameter; the FieldDescriptor. Declaring the same again is no mistake.

    Args:
        name: ends in "_param".
        fields: the message's fields, in the order of their numbers 1, 2, 3 …: name -> type or (type, default). A type is
            bool, int, float, str, an enum.IntEnum, the name of a message of caffe.proto such as "FillerParameter", a dict of
            fields, or a list of one of these, for a repeated field. None: no field, its number stays free.
        number: the field's number in LayerParameter where files of a fork of Caffe have it; else it follows from the name.
    Raises:
        ValueError, TypeError: a name or number that is taken, or a type that is none of these.
    """
    if not re.fullmatch(r"[a-z]\w*_param", name):
        raise ValueError(f'settings "{name}": the name is in small letters and ends in "_param", as norm_param does')
    if name in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name:
        raise ValueError(
            f'settings "{name}": Caffe\'s LayerParameter has this field: leave it out and read self.param.{name}, or take '
            "another name"
        )
    schema = _schema(name, fields, number)
    content = schema.SerializeToString(deterministic=True)
    if name in DECLARED:
        if _SCHEMAS[name] != content:
            raise ValueError(
                f'settings "{name}" are declared already, with other fields or another number: take another name, or start '
                "Python anew where you have changed the class"
            )
        return DECLARED[name]
    _check_free(name, schema)
    pool = caffe_pb2.DESCRIPTOR.pool
    try:
        pool.AddSerializedFile(content)
        field = pool.FindExtensionByName(_PACKAGE + name)
    except (TypeError, KeyError) as problem:  # names that clash inside the message
        raise ValueError(f'settings "{name}": protobuf refuses them: {problem}') from None
    _SCHEMAS[name], DECLARED[name] = content, field
    _show(name, field)
    return field


def _check_free(name, schema):
    number, message = schema.extension[0].number, schema.message_type[0].name
    for other, field in DECLARED.items():
        if field.number == number:
            raise ValueError(f'settings "{name}": "{other}" has the field number {number} already: state another')
    if hasattr(caffe_pb2, message):
        raise ValueError(f'settings "{name}": caffe.proto has a message {message} already: take another name')


def _show(name, field):
    """layer.norm_param, caffe_pb2.NormParameter (and so net_spec's params.Norm), and printed messages with plain names."""
    message = message_factory.GetMessageClass(field.message_type)
    message.__module__ = caffe_pb2.__name__
    setattr(caffe_pb2, field.message_type.name, message)
    setattr(caffe_pb2.LayerParameter, name, property(lambda layer: layer.Extensions[field]))
    for kind in (caffe_pb2.LayerParameter, caffe_pb2.NetParameter, caffe_pb2.SolverParameter):
        if kind not in _PLAIN:
            _PLAIN.add(kind)
            kind.__str__ = kind.__repr__ = _plain_str(kind.__str__)


def _plain_str(original):
    return lambda message: _BRACKETED.sub(r"\1\2 {", original(message))


def given(layer, name: str) -> bool:
    """Whether a LayerParameter has the settings `name`, if only as `norm_param { }`: HasField, for declared ones."""
    return layer.HasExtension(DECLARED[name])


def text(message) -> str:
    """The message as prototxt, with plain names."""
    return _BRACKETED.sub(r"\1\2 {", text_format.MessageToString(message))


def field_of(descriptor, name: str):
    """The field `name` of a message's descriptor, declared ones included; None where there is none."""
    found = descriptor.fields_by_name.get(name)
    if found is None and descriptor.full_name == caffe_pb2.LayerParameter.DESCRIPTOR.full_name:
        found = DECLARED.get(name)
    return found


def names_of(descriptor) -> list:
    """The names of all fields of a message's descriptor, declared ones included."""
    own = [field.name for field in descriptor.fields]
    return [*own, *DECLARED] if descriptor.full_name == caffe_pb2.LayerParameter.DESCRIPTOR.full_name else own


# ---- the declaration as protobuf states it
def _schema(name, fields, number):
    if number is None:
        number = _FIRST_DERIVED + zlib.crc32(name.encode()) % (_END - _FIRST_DERIVED)
    elif not isinstance(number, int) or not _FIRST <= number < _END or 19000 <= number < 20000:
        raise ValueError(
            f'settings "{name}": a field number is from {_FIRST} to {_END - 1}, without 19000 to 19999; it is not {number}'
        )
    message = "".join(word.capitalize() for word in name[: -len("_param")].split("_")) + "Parameter"
    schema = descriptor_pb2.FileDescriptorProto(
        name=f"registered/{name}.proto", package="caffe", dependency=[caffe_pb2.DESCRIPTOR.name]
    )
    _add_fields(schema.message_type.add(name=message), fields, f".caffe.{message}", name)
    field = descriptor_pb2.FieldDescriptorProto
    schema.extension.add(
        name=name, number=number, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE, type_name=f".caffe.{message}",
        extendee=".caffe.LayerParameter",
    )  # fmt: skip
    return schema


def _add_fields(message, fields, full_name, where):
    if not isinstance(fields, Mapping) or not fields:
        raise TypeError(f'settings "{where}" are given as a dict of fields, name -> type or (type, default), not as {fields!r}')
    for number, (name, kind) in enumerate(fields.items(), 1):
        place = f"{where}.{name}"
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValueError(f'settings "{where}": {name!r} is no name of a field')
        if kind is None:
            continue
        kind, *default = kind if isinstance(kind, tuple) else (kind,)
        repeated = isinstance(kind, list)
        if len(default) > 1 or (repeated and (len(kind) != 1 or default)):
            raise TypeError(f"{place} is given as a type, as (type, default) or as [type], not as {fields[name]!r}")
        field = message.field.add(name=name, number=number, label=3 if repeated else 1)
        _set_type(message, field, kind[0] if repeated else kind, full_name, place)
        if default:
            field.default_value = _default(kind, default[0], place)


def _set_type(message, field, kind, full_name, place):
    if isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        values = message.enum_type.add(name=kind.__name__)
        for value in kind:
            values.value.add(name=value.name, number=value.value)
        field.type, field.type_name = field.TYPE_ENUM, f"{full_name}.{kind.__name__}"
    elif isinstance(kind, type) and kind in _KINDS:
        field.type = getattr(field, f"TYPE_{_KINDS[kind]}")
    elif isinstance(kind, str) and kind in caffe_pb2.DESCRIPTOR.message_types_by_name:
        field.type, field.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
    elif isinstance(kind, Mapping):
        inner = "".join(word.capitalize() for word in field.name.split("_"))
        field.type, field.type_name = field.TYPE_MESSAGE, f"{full_name}.{inner}"
        _add_fields(message.nested_type.add(name=inner), kind, field.type_name, place)
    else:
        raise TypeError(
            f"{place}: {kind!r} is no type of a field; there are bool, int, float, str, an enum.IntEnum, the name of a message "
            'of caffe.proto such as "FillerParameter", a dict of fields, and a list of one of these'
        )


def _default(kind, value, place):
    """A default as descriptor.proto spells it."""
    if isinstance(kind, (str, Mapping)):
        raise TypeError(f"{place}: a message has no default: its fields have theirs")
    try:
        if issubclass(kind, enum.IntEnum):
            return kind(value).name
        if kind is bool and not isinstance(value, (bool, int)) or kind is str and not isinstance(value, str):
            raise ValueError
        value = kind(value)
    except (TypeError, ValueError):
        raise TypeError(f"{place}: the default {value!r} is no {kind.__name__}") from None
    return str(value).lower() if kind is bool else value if kind is str else repr(value)
