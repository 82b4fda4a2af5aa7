"""A resource as a guardrail sees it: its declared inputs, with what is not known yet and what is secret marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import struct_pb2

from policies.marks import SECRET_SIGNATURE, SIGNATURE_KEY, UNKNOWN

Path = tuple[str | int, ...]
WHOLE_BELOW = 2.0**53
"""Above it a float no longer tells each integer from the next."""


class NotKnown(Exception):
    """A value that decides a guardrail is an output of something that does not exist yet; raised in a preview only."""

    def __init__(self, path: Path) -> None:
        super().__init__(said(path))


def said(path: Path) -> str:
    """A path as people write it: `spec.containers[0].image`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def is_unknown(value: object) -> bool:
    """Whether a value is one of the engine's marks for what is not known before the update."""
    return isinstance(value, str) and value in UNKNOWN


@dataclass(frozen=True, slots=True)
class Props:
    """Inputs, or a part of them.

    A list of one is read like its element, since providers write blocks that occur once either way.

    Attributes:
        value: plain values; what is not known yet is one of the engine's marks.
        path: where this part is in the inputs.
        secrets: paths of the values that the program marked as secret.
    """

    value: Any
    path: Path = ()
    secrets: frozenset[Path] = frozenset()

    def get(self, *path: str, default: Any = None) -> Any:
        """The plain value at a path; `default` where nothing is set.

        Raises:
            NotKnown: it, or a part of it, is not known before the update.
        """
        part = self.part(*path)
        part.require_known()
        return default if part.value is None else part.value

    def has(self, *path: str) -> bool:
        """Whether something is set there; what is not known yet is set."""
        return self.part(*path).value not in (None, "", [], {})

    def part(self, *path: str) -> Props:
        """The part at a path, whatever is known of it; its value is None where nothing is set."""
        part = self
        for key in path:
            if isinstance(part.value, list):
                part = part.inside(0) if part.value else Props(None, part.path)
            if part.is_unknown():
                return part
            part = part.inside(key) if isinstance(part.value, dict) else Props(None, (*part.path, key))
        return part

    def each(self, *path: str) -> Iterator[Props]:
        """The elements of a list, or the single block in its place.

        Raises:
            NotKnown: the list itself is not known before the update.
        """
        part = self.part(*path)
        if part.is_unknown():
            raise NotKnown(part.path)
        if isinstance(part.value, list):
            yield from (part.inside(index) for index in range(len(part.value)))
        elif part.value is not None:
            yield part

    def every(self, *path: str) -> Iterator[Props]:
        """What is at a path, in each element of the lists on the way.

        Raises:
            NotKnown: one of these lists is not known before the update.
        """
        if not path:
            yield from self.each()
            return
        for block in self.each(path[0]):
            yield from block.every(*path[1:])

    def is_unknown(self) -> bool:
        """Whether nothing of it is known before the update."""
        return is_unknown(self.value)

    def is_secret(self) -> bool:
        """Whether the program marked this value, or one that it is part of, as secret."""
        return any(self.path[:length] in self.secrets for length in range(len(self.path) + 1))

    def require_known(self) -> None:
        """Raises NotKnown where this, or a part of it, is not known before the update."""
        if (unknown := _first_unknown(self.value, self.path)) is not None:
            raise NotKnown(unknown)

    def inside(self, key: str | int) -> Props:
        """One field of a block, or one element of a list."""
        value = self.value[key] if isinstance(key, int) else self.value.get(key)
        return Props(value, (*self.path, key), self.secrets)


def _first_unknown(value: Any, path: Path) -> Path | None:
    if isinstance(value, dict):
        inside: Iterator[tuple[str | int, Any]] = iter(value.items())
    elif isinstance(value, list | tuple):
        inside = iter(enumerate(value))
    else:
        return path if is_unknown(value) else None
    found = (_first_unknown(each, (*path, key)) for key, each in inside)
    return next((each for each in found if each is not None), None)


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One resource of the update, of a component or not; the same only as itself, to remember what was read of it.

    Attributes:
        type: such as `aws:ec2/instance:Instance`.
        name: its name in the program.
        props: its inputs.
        urn: unique in the stack.
        region: where it will be: its own, its provider's, else the stack's.
        parent: URN of the component that it is part of.
        references: for guardrails of the stack, by input the URNs of the resources whose outputs it is made of.
        is_custom: a provider makes it; a component is made of other resources.
        aliases: URNs that it had before.
        is_declared: the program declares it; else `--target` or `--exclude` leaves it in the stack as it is.
    """

    type: str
    name: str
    props: Props
    urn: str = ""
    region: str = ""
    parent: str = ""
    references: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    is_custom: bool = False
    aliases: tuple[str, ...] = ()
    is_declared: bool = True

    @property
    def key(self) -> str:
        """A resource once, each item of a list of objects by itself."""
        return f"{self.urn}{self.props.path or ''}"


def read(inputs: struct_pb2.Struct | Mapping[str, Any]) -> Props:
    """Inputs as the engine sends them, or as a state has them, with the marks of secrets taken off and remembered.

    In one pass over the messages: `json_format` is slower and refuses infinity.
    """
    struct = inputs if isinstance(inputs, struct_pb2.Struct) else struct_of(inputs)
    secrets: set[Path] = set()
    return Props(_plain_struct(struct, (), secrets), (), frozenset(secrets))


def struct_of(values: Mapping[str, Any]) -> struct_pb2.Struct:
    """Values of JSON as the engine sends them."""
    struct = struct_pb2.Struct()
    struct.update(dict(values))
    return struct


def _plain_struct(struct: struct_pb2.Struct, path: Path, secrets: set[Path]) -> Any:
    fields = struct.fields
    if SIGNATURE_KEY in fields and fields[SIGNATURE_KEY].string_value == SECRET_SIGNATURE:
        secrets.add(path)
        return _plain_value(fields["value"], path, secrets) if "value" in fields else None
    return {key: _plain_value(each, (*path, key), secrets) for key, each in fields.items()}


def _plain_value(value: struct_pb2.Value, path: Path, secrets: set[Path]) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "struct_value":
            return _plain_struct(value.struct_value, path, secrets)
        case "list_value":
            values = value.list_value.values
            return [_plain_value(each, (*path, index), secrets) for index, each in enumerate(values)]
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
    return None


def _number(value: float) -> float:
    """Whole ones as people wrote them: the engine knows no integers."""
    return int(value) if value.is_integer() and abs(value) < WHOLE_BELOW else value
