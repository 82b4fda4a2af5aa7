"""What a guardrail is: a documented function from a resource to sentences, and where it applies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from localcloud.messages import analyzer_pb2
from planner.guardrails.settings import Level, schema_of
from policies.resource import Resource
from policies.update import Update

Judge = Callable[[Resource, Update], Iterable[str]]
JudgeStack = Callable[[Sequence[Resource], Update], Iterable[str]]
Unknown = Literal["refused", "judged in up"]
EVERY_TYPE: frozenset[str] = frozenset()
LEVELS: dict[Level, analyzer_pb2.EnforcementLevel.ValueType] = {
    "mandatory": analyzer_pb2.MANDATORY,
    "advisory": analyzer_pb2.ADVISORY,
    "disabled": analyzer_pb2.DISABLED,
}


@dataclass(frozen=True, slots=True)
class Guardrail:
    """One rule of the pack; made by the decorators `guardrail` and `stack_guardrail`.

    Attributes:
        name: such as `imdsv2`; the key of its level in `fusion:guardrails` `levels`.
        description: what holds where it passes, one sentence.
        types: the types of resources that it judges; `EVERY_TYPE` for all.
        judge: yields one sentence for each violation: what is wrong, by how much, and what would pass.
        settings: the fields of `planner.guardrails.GuardrailSettings` that it reads.
        level: how hard it is enforced unless the stack or the pack's config says otherwise.
        unknown: what a preview does when a value that decides is an output of something that does not exist yet.
            `refused`: a violation that asks for a plain value, for choices that a program can write down (instance
            types, flags). `judged in up`: nothing in the preview, for what is made of outputs by nature (policies with
            ARNs, images of a registry that the stack creates); the update judges it before the resource is created.
        judge_stack: for what only the whole stack shows; judged after every resource. With a `judge` as well, that
            says of the `types` what they show before anything is created.
    """

    name: str
    description: str
    types: frozenset[str]
    settings: tuple[str, ...]
    level: Level
    unknown: Unknown
    judge: Judge | None = None
    judge_stack: JudgeStack | None = None

    def info(self) -> analyzer_pb2.PolicyInfo:
        """What the engine lists and configures; judging is the analyzer's (`policies.analyzer`)."""
        of_stack, of_resource = analyzer_pb2.POLICY_TYPE_STACK, analyzer_pb2.POLICY_TYPE_RESOURCE
        info = analyzer_pb2.PolicyInfo(
            name=self.name,
            description=self.description,
            enforcementLevel=LEVELS[self.level],
            policy_type=of_resource if self.judge_stack is None else of_stack,
        )
        if self.settings:
            info.configSchema.properties.update(schema_of(self.settings))
        return info


def guardrail(
    name: str,
    *types: str,
    settings: tuple[str, ...] = (),
    level: Level = "mandatory",
    unknown: Unknown = "refused",
) -> Callable[[Judge], Guardrail]:
    """Make a function the guardrail of some types of resources, or of all; its docstring's first line describes it.

    Example:
        >>> @guardrail("imdsv2", "aws:ec2/instance:Instance")
        ... def instances_ask_for_a_token(resource, update):
        ...     '''The metadata of an instance is read with a session token only (IMDSv2).'''
        ...     if resource.props.get("metadataOptions", "httpTokens") != "required":
        ...         yield "metadataOptions.httpTokens is not required, so a forged request can read its role; set it"
    """

    def made(judge: Judge) -> Guardrail:
        return Guardrail(name, _description(judge), frozenset(types), settings, level, unknown, judge=judge)

    return made


def stack_guardrail(
    name: str,
    *types: str,
    judge: Judge | None = None,
    settings: tuple[str, ...] = (),
    level: Level = "mandatory",
    unknown: Unknown = "judged in up",
) -> Callable[[JudgeStack], Guardrail]:
    """Make a function the guardrail of the stack as a whole, for what no single resource shows.

    The engine asks it after every resource: in a preview before anything exists, with `--skip-preview` too late to
    stop a creation. So use it only for what is missing, or said by several resources together; what resources of some
    types say before that, such as the registered plan, is for `judge` and stops the update there.
    """

    def made(judge_stack: JudgeStack) -> Guardrail:
        return Guardrail(
            name, _description(judge_stack), frozenset(types), settings, level, unknown, judge, judge_stack
        )

    return made


def _description(judge: Judge | JudgeStack) -> str:
    if not judge.__doc__:
        raise TypeError(
            f"{judge.__qualname__} has no docstring; its first line is shown to whoever breaks the guardrail"
        )
    return judge.__doc__.strip().splitlines()[0]
