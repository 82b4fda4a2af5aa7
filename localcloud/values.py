"""Property values between Pulumi's wire form (protobuf structs) and plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

UNKNOWN_ON_THE_WIRE: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SIGNATURE_KEY: Final = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE: Final = "1b47061264138c4ac30d75fd1eb44270"


class Unknown:
    """A value that the engine does not know before the update."""

    def __repr__(self) -> str:
        return "<known after the update>"


UNKNOWN: Final = Unknown()


def from_struct(struct: Struct) -> dict[str, Any]:
    """Plain values; numbers without a fraction are ints; secrets are unwrapped (the engine keeps track of them)."""
    return {name: _from_value(value) for name, value in struct.fields.items()}


def _from_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return UNKNOWN if value.string_value == UNKNOWN_ON_THE_WIRE else value.string_value
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_from_value(each) for each in value.list_value.values]
        case "struct_value":
            plain = from_struct(value.struct_value)
            return plain["value"] if plain.get(SIGNATURE_KEY) == SECRET_SIGNATURE else plain
    return None


def to_struct(values: Mapping[str, Any]) -> Struct:
    """The wire form; properties that are None are left out."""
    return Struct(fields={name: _to_value(value) for name, value in values.items() if value is not None})


def _to_value(value: Any) -> Value:
    match value:
        case None:
            return Value(null_value=NULL_VALUE)
        case Unknown():
            return Value(string_value=UNKNOWN_ON_THE_WIRE)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=float(value))
        case str():
            return Value(string_value=value)
        case list() | tuple():
            return Value(list_value=ListValue(values=[_to_value(each) for each in value]))
        case Mapping():
            return Value(struct_value=to_struct(value))
    return Value(string_value=str(value))


def has_unknown(value: Any) -> bool:
    """Whether a value is unknown, or holds something that is."""
    if isinstance(value, Mapping):
        return any(has_unknown(each) for each in value.values())
    if isinstance(value, list | tuple):
        return any(has_unknown(each) for each in value)
    return isinstance(value, Unknown)
