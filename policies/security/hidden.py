"""Guardrails on what no guardrail would see: what makes other resources, and machines of templates from elsewhere."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from policies.guardrail import guardrail, stack_guardrail
from policies.resource import Props, Resource
from policies.update import Update

PACKAGES = frozenset({"aws", "gcp", "kubernetes"})
"""Whose types the guardrails know."""
HARMLESS = (
    *("pulumi:*", "fusion:*", "random:*", "tls:*", "time:*", "null:*", "std:*", "archive:*", "cloudinit:*"),
    *("docker:index/image:*", "docker:index/registryImage:*", "docker-build:*"),
)
"""What makes values, files and images alone; where an image runs, it is judged."""
UNKNOWN_TYPES = "it is of a provider whose types the guardrails don't know"
BRIDGED = "it is of a provider of Terraform under this package's name, whose types the guardrails don't know"
HIDING: Mapping[str, str] = {
    "aws:cloudformation/*": "a template of CloudFormation makes its resources",
    "aws:cloudcontrol/*": "Cloud Control makes whatever its desiredState says",
    "aws:servicecatalog/provisionedProduct:*": "a product of Service Catalog makes its resources",
    "aws:serverlessrepository/*": "a template of CloudFormation makes its resources",
    "aws:amplify/*": "Amplify makes its resources",
    "gcp:deploymentmanager/*": "a template of Deployment Manager makes its resources",
    "gcp:infrastructuremanager/*": "a configuration of Terraform makes its resources",
    "command:*": "a command does whatever it says",
    "pulumi-python:dynamic*": "a dynamic provider does whatever its program says",
    "pulumi-nodejs:dynamic*": "a dynamic provider does whatever its program says",
    "terraform:*": "a module of Terraform makes its resources",
    "aws:index/*": BRIDGED,
    "gcp:index/*": BRIDGED,
    "kubernetes:index/*": BRIDGED,
}
"""By type, with wildcards: why nothing judges what it makes."""

LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
STARTS_FROM: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "aws:ec2/instance:Instance": (("launchTemplate",),),
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": (("launchTemplate",),),
    "aws:ec2/fleet:Fleet": (("launchTemplateConfigs", "launchTemplateSpecification"),),
    "aws:ec2/spotFleetRequest:SpotFleetRequest": (("launchTemplateConfigs", "launchTemplateSpecification"),),
    "aws:autoscaling/group:Group": (
        ("launchTemplate",),
        ("mixedInstancesPolicy", "launchTemplate", "launchTemplateSpecification"),
        ("mixedInstancesPolicy", "launchTemplate", "overrides", "launchTemplateSpecification"),
    ),
    "aws:eks/nodeGroup:NodeGroup": (("launchTemplate",),),
    "aws:batch/computeEnvironment:ComputeEnvironment": (("computeResources", "launchTemplate"),),
}
"""Where a type names the launch template of its machines."""
NAMES, IDS = ("name", "launchTemplateName"), ("id", "launchTemplateId")


@guardrail("nothing-hidden", settings=("hiding_types_exempt",))
def nothing_hidden(resource: Resource, update: Update) -> Iterator[str]:
    """Everything is declared as a resource of its own, so that the guardrails see it."""
    why = _unseen(resource.type, resource.is_custom)
    if why is not None and not _is_one_of(resource.type, update.settings.hiding_types_exempt):
        yield (
            f"{why}, so no guardrail sees what is made; declare it as resources of pulumi_aws, pulumi_gcp or "
            f"pulumi_kubernetes, or name {resource.type} in fusion:guardrails hiding_types_exempt"
        )


@functools.cache
def _unseen(resource_type: str, is_custom: bool) -> str | None:
    """Why nothing judges what a type makes; None where it is judged. A component is made of resources, which are."""
    why = next((why for kind, why in HIDING.items() if fnmatch.fnmatchcase(resource_type, kind)), None)
    if why is None and is_custom and resource_type.partition(":")[0] not in PACKAGES:
        return None if _is_one_of(resource_type, HARMLESS) else UNKNOWN_TYPES
    return why


def _is_one_of(resource_type: str, kinds: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(resource_type, each) for each in kinds)


@stack_guardrail("launch-templates-seen")
def launch_templates_seen(resources: Sequence[Resource], _: Update) -> Iterator[str]:
    """Machines start from launch templates of this stack as they are declared now, which the guardrails judge."""
    templates = [each for each in resources if each.type == LAUNCH_TEMPLATE]
    for resource in resources:
        for path in STARTS_FROM.get(resource.type, ()):
            references = resource.references.get(path[0], ())
            elsewhere = _from_elsewhere(_unknown_ids(resource, path[0]), references, templates)
            for named in resource.props.every(*path):
                own = _named(named, references, templates)
                if not own or (elsewhere and _is_unknown(named)):
                    yield (
                        f"{resource.name} starts from the launch template {_shown(named, elsewhere)}, which is not of "
                        "this stack, so no guardrail sees what it starts; declare the template here, and name it by "
                        "the name that it has"
                    )
                for template in own:
                    yield from _stale(resource, named.part("version"), template)


def _unknown_ids(resource: Resource, input: str) -> int:
    """How many launch templates an input names that are not known yet."""
    paths = [each for each in STARTS_FROM[resource.type] if each[0] == input]
    return sum(_is_unknown(named) for path in paths for named in resource.props.every(*path))


def _from_elsewhere(unknown_ids: int, references: Sequence[str], templates: Sequence[Resource]) -> str:
    """Of an input, what may give an id of a template that is not the stack's; empty where nothing does.

    The engine tells what an input as a whole is made of, not each id in it. A template that is none of the stack's
    resources is only read. Where fewer of the stack's templates are there than ids, one comes from what else is there.
    """
    own = {each.urn for each in templates}
    others = [each for each in references if each not in own]
    found = [each for each in others if f"::{LAUNCH_TEMPLATE}::" in each]
    if len(own.intersection(references)) < unknown_ids:
        found = others
    return ", ".join(each.rpartition("::")[2] for each in found)


def _named(named: Props, references: Sequence[str], templates: Sequence[Resource]) -> list[Resource]:
    """The stack's templates that may be the one that is named: by its name or id, else by what the input is made of.

    A name or an id that is known decides alone: an input that lists several templates is made of the outputs of all.
    """
    name, id = _known(named, *NAMES), _known(named, *IDS)
    if name is not None:
        return [each for each in templates if each.props.part("name").value == name]
    if id is not None:
        return [each for each in templates if str(each.props.part("arn").value).endswith(f"/{id}")]
    return [each for each in templates if each.urn in references]


def _known(part: Props, *keys: str) -> object:
    """The first plain value under the keys; None where none is set or known."""
    found = (part.part(key) for key in keys)
    return next((each.value for each in found if not each.is_unknown() and each.value), None)


def _is_unknown(named: Props) -> bool:
    return named.value is not None and _known(named, *NAMES, *IDS) is None


def _shown(named: Props, elsewhere: str) -> str:
    known = _known(named, *NAMES, *IDS)
    return str(known or (f"that {elsewhere} names" if elsewhere else "of another stack"))


def _stale(resource: Resource, version: Props, template: Resource) -> Iterator[str]:
    """A version from before the one that is declared: it may hold anything."""
    latest = template.props.part("latestVersion").value
    asked = "$Default" if version.value is None else version.value
    if version.is_unknown() or asked == "$Latest":
        return
    if asked == "$Default":
        is_latest = template.props.part("defaultVersion").value == latest
    else:
        is_latest = latest is not None and _number(asked) == _number(latest)
    if not is_latest:
        yield (
            f"{resource.name} starts version {asked} of the launch template {template.name}, which may differ from the "
            "one that is declared now; set version to $Latest, or to the template's latestVersion"
        )


def _number(version: object) -> str:
    """A version as text, whether it came as text or as a number."""
    return f"{version:g}" if isinstance(version, int | float) else str(version)


GUARDRAILS = [nothing_hidden, launch_templates_seen]
