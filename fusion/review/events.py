"""A preview as Pulumi wrote it down: its event log, or the document of `pulumi preview --json`.

The event log (`--event-log FILE`, which the CLI offers with `PULUMI_DEBUG_COMMANDS=true`; with
`PULUMI_ENABLE_STREAMING_JSON_PREVIEW=true` `--json` prints the same) is the fuller of the two: it has what the
policies said, which of them passed, and the resources that stay as they are. Both have secrets blinded by the engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fusion.errors import FusionError
from fusion.review.secrets import without_credentials

Kind = Literal["delete", "replace", "update", "create", "import", "read", "same"]
KINDS: Mapping[str, Kind] = {
    "delete": "delete",
    "replace": "replace",
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "import-replacement": "replace",
    "update": "update",
    "create": "create",
    "import": "import",
    "read": "read",
    "read-replacement": "read",
    "same": "same",
}
"""Pulumi's operations as a reader tells them apart; those that change nothing for the reader are left out."""
EVENTS = re.compile(r"[a-zA-Z]+Event")
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|<\{%[^%]*%\}>")
"""Of terminals, and the engine's own marks."""
CLOSING = ("preview failed", "update failed")
FROM_PATH = re.compile(r"using pulumi-\S+ from \$PATH")
DIGEST_FIELDS = {"config", "steps", "diagnostics", "duration", "changeSummary", "maybeCorrupt"}


@dataclass(frozen=True, slots=True)
class State:
    """A resource before or after a step."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    provider: str = ""
    parent: str = ""
    protect: bool = False
    retain_on_delete: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one resource."""

    kind: Kind
    urn: str
    type: str
    old: State | None
    new: State | None
    replace_keys: tuple[str, ...] = ()
    """Inputs that force a replacement."""
    changed: Mapping[str, str] = field(default_factory=dict)
    """Paths of properties with how they change: add, update, delete; `…-replace` where that forces a replacement."""

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.rpartition("::")[2]


@dataclass(frozen=True, slots=True)
class PolicyViolation:
    """What a policy said of a resource, or of the stack where `urn` is empty."""

    pack: str
    policy: str
    level: str
    message: str
    urn: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """An error or a warning of the program, of a provider or of the engine."""

    severity: Literal["error", "warning"]
    message: str
    urn: str


@dataclass(frozen=True, slots=True)
class Preview:
    """Everything that one file says of a preview.

    Attributes:
        stack, project: empty where no resource was registered.
        config: the stack's config; what is encrypted in the stack's file stands as `[secret]`.
        steps: by resource, in the order of the engine.
        drift: what a refresh found changed or gone.
        passed: by resource (empty for the stack as a whole), the policies that passed there.
        judges: whether a policy pack judged anything.
        has_policies: whether a file of this kind says what policies found.
        has_all: whether resources that stay as they are would be in it.
        ended: whether the preview came to its end, well or not.
        failed: whether it ended with an error.
    """

    stack: str = ""
    project: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    drift: tuple[Step, ...] = ()
    violations: tuple[PolicyViolation, ...] = ()
    passed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    judges: bool = False
    diagnostics: tuple[Diagnostic, ...] = ()
    has_policies: bool = True
    has_all: bool = True
    ended: bool = True
    failed: bool = False

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """What went wrong; the engine's closing words, which follow a mandatory violation too, say nothing more."""
        return tuple(each for each in self.diagnostics if each.severity == "error" and each.message not in CLOSING)

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """Without those of how plugins are found."""
        found = (each for each in self.diagnostics if each.severity == "warning")
        return tuple(each for each in found if not FROM_PATH.match(each.message))

    @property
    def is_whole(self) -> bool:
        """Whether every resource of the program was seen; a violation alone does not end a preview early."""
        has_violation = any(each.level != "advisory" for each in self.violations)
        return self.ended and not self.errors and (not self.failed or has_violation)


def read(path: Path) -> Preview:
    """The preview that a file holds.

    Raises:
        FusionError: it can't be read, is cut off, or is something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FusionError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FusionError(f"{path}: is not text; {_EXPECTED}") from None
    if not text.strip():
        raise FusionError(f"{path}: is empty; {_EXPECTED}")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    try:
        if isinstance(document, dict) and document.keys() <= DIGEST_FIELDS and document.keys() & {"steps", "config"}:
            return _of_digest(document)
        if document is not None and not (isinstance(document, dict) and "sequence" in document):
            raise FusionError(f"{path}: is JSON of something else; {_EXPECTED}")
        return _of_log(list(_events(path, text)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FusionError(f"{path}: is damaged ({type(error).__name__}: {error}); {_EXPECTED}") from None


_EXPECTED = "expected the event log of a preview, or what `pulumi preview --json` printed"


def _events(path: Path, text: str) -> Iterator[dict[str, Any]]:
    lines = text.removesuffix("\n").split("\n")  # not of the other ends of lines, which a JSON text may hold
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            if number > 1 and number == len(lines):
                raise FusionError(f"{path}: is cut off in line {number}; write it again") from None
            opened = text.lstrip()[:1] == "{" and number == 1
            what = "is cut off or no JSON" if opened else "is no JSON"
            raise FusionError(f"{path}: line {number} {what}; {_EXPECTED}") from None
        if not isinstance(event, dict) or "sequence" not in event or not any(map(EVENTS.fullmatch, event)):
            raise FusionError(f"{path}: line {number} is no event of Pulumi's engine; {_EXPECTED}")
        yield event


def _of_log(events: Iterable[Mapping[str, Any]]) -> Preview:
    log = _Log()
    for each in events:
        log.take(each)
    return log.preview()


@dataclass
class _Log:
    """What the events of a log add up to."""

    config: Mapping[str, str] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    drift: dict[str, Step] = field(default_factory=dict)
    refreshing: set[str] = field(default_factory=set)
    violations: list[PolicyViolation] = field(default_factory=list)
    passed: dict[str, set[str]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    ended: bool = False
    failed: bool = False

    def take(self, event: Mapping[str, Any]) -> None:
        """One event; kinds that say nothing of a preview's result are passed over."""
        match event:
            case {"preludeEvent": found}:
                self.config = _config(found)
            case {"resourcePreEvent": {"metadata": found}} | {"resOutputsEvent": {"metadata": found}}:
                self._take_step(found, is_result="resOutputsEvent" in event)
            case {"policyEvent": found}:
                self.violations.append(_violation(found))
            case {"policyAnalyzeSummaryEvent": found} | {"policyAnalyzeStackSummaryEvent": found}:
                self.passed.setdefault(_text(found, "resourceUrn"), set()).update(_texts(found, "passed"))
            case {"diagnosticEvent": found}:
                self.diagnostics += _diagnostic(found)
            case {"errorEvent": {"error": str(error)}}:
                self.diagnostics.append(Diagnostic("error", plain(error), ""))
            case {"summaryEvent": found}:
                self.ended = True
                self.failed = _text(found, "result") not in ("", "succeeded")
            case {"cancelEvent": _}:
                self.ended = True

    def _take_step(self, found: Mapping[str, Any], is_result: bool) -> None:
        """What is done to a resource is told before; what a refresh of it found, after."""
        urn, operation = _text(found, "urn"), _text(found, "op")
        if operation == "refresh":
            self.refreshing.add(urn)
        elif not is_result:
            _take(self.steps, _step(found))
        elif urn in self.refreshing and urn not in self.steps and operation in ("update", "delete"):
            _take(self.drift, _step(found))

    def preview(self) -> Preview:
        """All of it, each thing said once."""
        stack, project = _names([*self.steps, *self.drift, *self.refreshing])
        return Preview(
            stack=stack,
            project=project,
            config=self.config,
            steps=tuple(self.steps.values()),
            drift=tuple(self.drift.values()),
            violations=tuple(dict.fromkeys(self.violations)),
            passed={urn: frozenset(names) for urn, names in self.passed.items()},
            judges=bool(self.passed),
            diagnostics=tuple(dict.fromkeys(self.diagnostics)),
            ended=self.ended,
            failed=self.failed or any(each.severity == "error" for each in self.diagnostics),
        )


def _of_digest(document: Mapping[str, Any]) -> Preview:
    steps: dict[str, Step] = {}
    for each in document.get("steps") or ():
        _take(steps, _digest_step(each))
    diagnostics = [found for each in document.get("diagnostics") or () for found in _diagnostic(each)]
    stack, project = _names(steps)
    return Preview(
        stack=stack,
        project=project,
        config=_config(document),
        steps=tuple(steps.values()),
        diagnostics=tuple(dict.fromkeys(diagnostics)),
        has_policies=False,
        has_all=any(each.kind == "same" and each.type != "pulumi:pulumi:Stack" for each in steps.values()),
        failed=any(each.severity == "error" for each in diagnostics),
    )


def _take(steps: dict[str, Step], step: Step | None) -> None:
    """Join the steps of one resource: a replacement is a deletion, a creation and the replacement that holds them."""
    if step is None:
        return
    earlier = steps.get(step.urn)
    if earlier is None:
        steps[step.urn] = step
    elif "replace" in (earlier.kind, step.kind) or {earlier.kind, step.kind} == {"delete", "create"}:
        steps[step.urn] = Step(
            "replace",
            step.urn,
            step.type,
            earlier.old or step.old,
            step.new or earlier.new,
            earlier.replace_keys or step.replace_keys,
            {**earlier.changed, **step.changed},
        )
    elif earlier.kind in ("same", "read"):
        steps[step.urn] = step


def _step(found: Mapping[str, Any]) -> Step | None:
    kind = KINDS.get(_text(found, "op"))
    if kind is None:
        return None
    changed = {path: _text(each, "diffKind") for path, each in _mapping(found, "detailedDiff").items()}
    return Step(
        kind,
        _urn(found),
        _text(found, "type"),
        _state(found.get("old")),
        _state(found.get("new")) if kind != "delete" else None,
        _texts(found, "keys"),
        changed or dict.fromkeys(_texts(found, "diffs"), "update"),
    )


def _digest_step(found: Mapping[str, Any]) -> Step | None:
    kind = KINDS.get(_text(found, "op"))
    if kind is None:
        return None
    changed = {path: _text(each, "kind") for path, each in _mapping(found, "detailedDiff").items()}
    urn = _urn(found)
    return Step(
        kind,
        urn,
        urn.split("::")[2].rpartition("$")[2],
        _state(found.get("oldState")),
        _state(found.get("newState")) if kind != "delete" else None,
        _texts(found, "replaceReasons"),
        changed or dict.fromkeys(_texts(found, "diffReasons"), "update"),
    )


def _state(found: Mapping[str, Any] | None) -> State | None:
    if not found:
        return None
    return State(
        inputs=_mapping(found, "inputs"),
        outputs=_mapping(found, "outputs"),
        provider=_text(found, "provider"),
        parent=_text(found, "parent"),
        protect=bool(found.get("protect")),
        retain_on_delete=bool(found.get("retainOnDelete")),
    )


def _violation(found: Mapping[str, Any]) -> PolicyViolation:
    return PolicyViolation(
        _text(found, "policyPackName"),
        _text(found, "policyName"),
        _text(found, "enforcementLevel") or "mandatory",
        plain(_text(found, "message")),
        _text(found, "resourceUrn"),
    )


def _diagnostic(found: Mapping[str, Any]) -> list[Diagnostic]:
    severity = found.get("severity")
    if severity not in ("error", "warning") or found.get("ephemeral"):
        return []
    said = plain(_text(found, "message"))
    said = said.removeprefix(plain(_text(found, "prefix"))).removeprefix(f"{severity}:").strip()
    return [Diagnostic(severity, said, _text(found, "urn"))] if said else []


def _config(found: Mapping[str, Any]) -> Mapping[str, str]:
    config = _mapping(found, "config")
    return {key: _text(config, key) for key in config}


def _urn(found: Mapping[str, Any]) -> str:
    urn = _text(found, "urn")
    if urn.count("::") < 3:
        raise ValueError(f"urn is {urn!r}")
    return urn


def _text(found: Mapping[str, Any], key: str) -> str:
    """Empty where it is not set; raises TypeError where it is no text."""
    value = found.get(key)
    if not isinstance(value, str | None):
        raise TypeError(f"{key} is {value!r}")
    return value or ""


def _texts(found: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Empty where it is not set; raises TypeError where it is no list of texts."""
    value = found.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{key} is {value!r}")
    return tuple(value)


def _mapping(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Empty where it is not set; raises TypeError where it has no keys."""
    value = found.get(key) or {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{key} is {value!r}")
    return value


def _names(urns: Iterable[str]) -> tuple[str, str]:
    """Stack and project, as every URN names them."""
    for urn in urns:
        head, _, rest = urn.partition("::")
        if head.startswith("urn:pulumi:"):
            return head.removeprefix("urn:pulumi:"), rest.partition("::")[0]
    return "", ""


def plain(text: str) -> str:
    """Without colours, without space around, and without what has the form of a credential."""
    return without_credentials(COLOURS.sub("", text)).strip()
