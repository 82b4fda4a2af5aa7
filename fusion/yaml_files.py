"""YAML as people write it: read at the speed of libyaml, and refused where it can't be what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fusion.errors import FusionError

DEEPEST, MOST = 50, 100_000
"""Levels, and values with those that an alias repeats: a stack has a dozen and some thousands."""
TOO_DEEP = f"its values are nested without end or too deeply; expected at most {DEEPEST} levels"


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # a base that is found at run time
    """Ten times faster where PyYAML was built with libyaml, as its wheels are; refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As of its base; of two equal keys YAML's would silently drop the first."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, f"found the key {key.value} twice", key.start_mark
                )
            seen.add(str(key.value))
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def read_yaml(path: Path) -> Any:
    """What a file holds.

    Raises:
        FusionError: it can't be read, or is no YAML, or nested without end; names the file and what is wrong.
    """
    try:
        return loaded_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FusionError(f"{path}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise FusionError(f"{path}: not YAML: {error}") from None


def loaded_yaml(text: str) -> Any:
    """What a text holds.

    Raises:
        ValueError: it is no YAML, or nested without end.
    """
    try:
        document = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    for number, depth in enumerate(_depths(document)):
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
        if number > MOST:
            raise ValueError(f"its aliases repeat too much; expected at most {MOST:,} values")
    return document


def _depths(document: Any) -> Iterator[int]:
    """How deep each value stands, an aliased one each time."""
    waiting = [(document, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting.extend((each, depth + 1) for each in inner)
