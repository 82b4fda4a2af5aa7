"""What becomes of each resource: created, updated, replaced, deleted; what changes of it and what is lost with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fusion.review.events import Kind, Preview, State, Step
from fusion.review.secrets import SECRET, hidden_as_in, holds_marked, without_secrets
from fusion.review.stateful import held_by
from policies.plan import PLAN_TYPE

ORDER: tuple[Kind, ...] = ("delete", "replace", "update", "create", "import", "read")
"""Of what a reader must see: first what is gone, last what is new."""
PATH = re.compile(r"""\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|([^.\["]+)""")
VALUE_LENGTH = 120
FORCING_SHOWN = 3
STACK_TYPE = "pulumi:pulumi:Stack"


@dataclass(frozen=True, slots=True)
class PropertyChange:
    """One property, as it was and as it will be; None where it is not set."""

    path: str
    before: str | None
    after: str | None
    forces_replacement: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one resource."""

    kind: Kind
    urn: str
    type: str
    name: str
    properties: tuple[PropertyChange, ...]
    holds: str | None
    """What a resource of its type holds; None where nothing is lost with it."""
    is_kept: bool
    """It leaves the stack and stays in the cloud (`retain_on_delete`)."""
    is_protected: bool
    """Pulumi refuses to delete it."""

    @property
    def forced_by(self) -> tuple[str, ...]:
        """The first paths that force a replacement."""
        return tuple(each.path for each in self.properties if each.forces_replacement)[:FORCING_SHOWN]

    @property
    def loses(self) -> str | None:
        """What is lost by this change; None for nothing."""
        return self.holds if self.kind in ("delete", "replace") and not self.is_kept else None


def changes(preview: Preview) -> tuple[Change, ...]:
    """All resources that do not stay as they are; in an order that does not depend on the engine's."""
    return _ordered(_change(each) for each in preview.steps if each.kind != "same" and not _is_engines(each))


def drift(preview: Preview) -> tuple[Change, ...]:
    """What a refresh found changed or gone in the cloud."""
    return _ordered(_change(each) for each in preview.drift)


def _ordered(found: Iterable[Change]) -> tuple[Change, ...]:
    return tuple(sorted(found, key=lambda each: (ORDER.index(each.kind), each.loses is None, each.type, each.urn)))


def _is_engines(step: Step) -> bool:
    """The stack itself, and providers that nobody declared."""
    return step.type == STACK_TYPE or (step.type.startswith("pulumi:providers:") and step.name.startswith("default"))


def _change(step: Step) -> Change:
    state = step.old or step.new
    return Change(
        kind=step.kind,
        urn=step.urn,
        type=step.type,
        name=step.name,
        properties=tuple(_properties(step)),
        holds=held_by(step.type),
        is_kept=bool(state and state.retain_on_delete),
        is_protected=bool(state and state.protect),
    )


def _properties(step: Step) -> Iterator[PropertyChange]:
    """Nothing for what is new or gone as a whole, nor for the plan, whose change is the bill's.

    Of components the engine tells no difference; theirs is found in their inputs.
    """
    if step.kind not in ("update", "replace") or step.type == PLAN_TYPE or step.old is None or step.new is None:
        return
    before, after = _clean(step.old.inputs, step.type), _clean(step.new.inputs, step.type)
    differing = (key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    paths = dict(step.changed) or dict.fromkeys(differing, "update")
    for key in step.replace_keys:
        if not any(_parts(path)[:1] == (key,) for path in paths):
            paths[key] = "update-replace"
    # Providers copy what they are given, as tags into tagsAll, and the copy loses the mark of a secret.
    may_tell = not holds_marked(step.old.inputs) and not holds_marked(step.new.inputs)
    outputs = _clean(step.old.outputs, step.type) if may_tell else dict.fromkeys(step.old.outputs, SECRET)
    for path in sorted(paths):
        old, new = _at(before, path), _at(after, path)
        if old is None:
            old = _at(outputs, path)  # told by the provider and not by the program
        old, new = hidden_as_in(old, new), hidden_as_in(new, old)
        forces = paths[path].endswith("replace") or _parts(path)[0] in step.replace_keys
        yield PropertyChange(path, _said(old), _said(new), forces)


def _clean(values: Mapping[str, Any], resource_type: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = without_secrets(values, resource_type)
    return found


def _parts(path: str) -> tuple[str | int, ...]:
    """`spec.containers[0]["a.b"]` in its parts."""
    return tuple(int(index) if index else quoted or name for quoted, index, name in PATH.findall(path)) or (path,)


def _at(values: Any, path: str) -> Any:
    for part in _parts(path):
        if isinstance(values, Mapping):
            values = values.get(str(part))
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        elif isinstance(values, str):
            return values  # a secret, a document, or not known yet: as a whole
        else:
            return None
    return values


def _said(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    text = " ".join(text.split())
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 1]}…"


def states(preview: Preview, *, after: bool) -> Iterator[tuple[Step, State]]:
    """The resources of the stack as it was, or as it will be."""
    for step in preview.steps:
        state = step.new if after else step.old
        if state is not None and step.kind != "read":
            yield step, state
