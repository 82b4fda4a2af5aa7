"""What the YAML configs of training and serving share: how a file is read, and how what is wrong in it is said."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from workloads.storage import EXPECTED, SCHEMES


class ConfigError(ValueError):
    """The config is wrong; one line for each wrong value, with file, field, value and what was expected."""


def _url(value: str) -> str:
    try:
        expanded = Template(value).substitute(os.environ)
    except KeyError as unset:
        raise ValueError(f"the environment variable {unset.args[0]} is not set") from None
    except ValueError:
        raise ValueError("expected a $ only as in ${FUSION_BUCKET_URL}") from None
    scheme, _, place = expanded.partition("://")
    if scheme not in SCHEMES or not place:
        raise ValueError(EXPECTED)
    if scheme == "file" and not place.startswith("/"):
        raise ValueError("expected file:// and an absolute path, such as file:///data/digits")
    return expanded.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]
"""A URL of one of `SCHEMES`; environment variables as in `${FUSION_BUCKET_URL}/data` are filled in."""


class Section(BaseModel):
    """Base of every section: unknown fields are errors, values don't change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """pydantic takes it for 1."""
        kind = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, bool) and {int, float} & {kind, *get_args(kind)}:
            raise ValueError("expected a number")
        return value


Config = TypeVar("Config", bound=Section)


def load_yaml(path: Path, kind: type[Config], *, expected: str) -> Config:
    """Read a YAML file and check it whole.

    Args:
        path: of the file.
        kind: what it holds.
        expected: its usual name and some of its fields, for the message about a file that is something else.

    Raises:
        ConfigError: one line for each wrong value.
    """
    try:
        document = yaml.load(path.read_text(), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); expected {expected}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply; expected {expected}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # PyYAML lets those of `2001-99-99` and `!!map [1]` out
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")
        raise ConfigError(f"{path}: is not YAML: {reason}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected {expected}, got {shown(document)}")
    return checked(document, kind, source=str(path))


class _Loader(yaml.SafeLoader):
    """YAML's own rule, which PyYAML lets pass: a mapping has each key once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def checked(document: Mapping[str, Any], kind: type[Config], *, source: str) -> Config:
    """Check what a source, such as a file, holds.

    Raises:
        ConfigError: one line for each wrong value.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(problem, source) for problem in error.errors())) from None


def _sentence(problem: Mapping[str, Any], source: str) -> str:
    field = " ".join(".".join(str(part) for part in problem["loc"]).split())
    if not field:
        return f"{source}: {str(problem['msg']).removeprefix('Value error, ')}"
    match problem["type"]:
        case "missing":
            return f"{source}: {field}: not set, and it has no default"
        case "extra_forbidden":
            return f"{source}: {field}: unknown field; remove it or check its spelling"
        case "model_type" | "dict_type":
            return f"{source}: {field}: got {shown(problem['input'])}; expected fields and their values"
        case "path_type":
            return f"{source}: {field}: got {shown(problem['input'])}; expected a folder's path"
    reason = str(problem["msg"]).removeprefix("Value error, ")
    return f"{source}: {field}: got {shown(problem['input'])}; {reason[0].lower()}{reason[1:]}"


def shown(value: object) -> str:
    """The beginning of a value from a config, for a message about it."""
    text = json.dumps(_outline(value, levels=3), default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _outline(value: object, levels: int) -> object:
    """The beginning of a value: by its aliases, YAML can hold endless ones and such as fill the memory."""
    if not isinstance(value, dict | list):
        return value
    if not levels:
        return "..."
    if isinstance(value, list):
        return [_outline(each, levels - 1) for each in value[:8]]
    return {str(name): _outline(each, levels - 1) for name, each in itertools.islice(value.items(), 8)}
