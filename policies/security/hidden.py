"""Guardrails on what makes other things: resources that no guardrail sees, since no program declares them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Resource
from policies.update import Update

UNKNOWN_TYPES = "it is of a provider whose types the guardrails don't know"
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
    "aws-native:*": UNKNOWN_TYPES,
    "google-native:*": UNKNOWN_TYPES,
    "azure*": UNKNOWN_TYPES,
}
"""By type, with wildcards: why nothing judges what it makes."""


@guardrail("nothing-hidden", settings=("hiding_types_exempt",))
def nothing_hidden(resource: Resource, update: Update) -> Iterator[str]:
    """Everything is declared as a resource of its own, so that the guardrails see it."""
    why = next((why for kind, why in HIDING.items() if fnmatch.fnmatchcase(resource.type, kind)), None)
    exempt = any(fnmatch.fnmatchcase(resource.type, each) for each in update.settings.hiding_types_exempt)
    if why is not None and not exempt:
        yield (
            f"{why}, so no guardrail sees what is made; declare it as resources of pulumi_aws, pulumi_gcp or "
            f"pulumi_kubernetes, or name {resource.type} in fusion:guardrails hiding_types_exempt"
        )


GUARDRAILS = [nothing_hidden]
