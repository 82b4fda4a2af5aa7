"""Guardrails on the metadata service of nodes, from which a forged request could read their identity."""

from __future__ import annotations

from collections.abc import Iterator

from policies.guardrail import guardrail
from policies.resource import Props, Resource
from policies.update import Update

SPOT_FLEET = "aws:ec2/spotFleetRequest:SpotFleetRequest"
NODE_CLASSES = tuple(f"kubernetes:karpenter.k8s.aws/{version}:EC2NodeClass" for version in ("v1", "v1beta1"))
HOP_LIMIT_MAX = 2
"""One for the node and one for a container on it (Amazon EC2 user guide, "Configure instance metadata options")."""


@guardrail(
    "imdsv2",
    "aws:ec2/instance:Instance",
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ec2/launchConfiguration:LaunchConfiguration",
    "aws:sagemaker/notebookInstance:NotebookInstance",
    SPOT_FLEET,
    *NODE_CLASSES,
)
def imdsv2(resource: Resource, _: Update) -> Iterator[str]:
    """The metadata of a node is read with a session token only (IMDSv2)."""
    props = resource.props
    if resource.type.endswith(":NotebookInstance"):
        version = props.get("instanceMetadataServiceConfiguration", "minimumInstanceMetadataServiceVersion")
        if str(version) != "2":
            yield "instanceMetadataServiceConfiguration.minimumInstanceMetadataServiceVersion is not 2; set it"
        return
    if resource.type == SPOT_FLEET:
        if props.has("launchSpecifications"):
            yield "launchSpecifications can't ask for IMDSv2; use launchTemplateConfigs"
    elif resource.type in NODE_CLASSES:
        yield from _options(props.part("spec", "metadataOptions"), token="required")
    else:
        yield from _options(props.part("metadataOptions"), token="optional")


def _options(options: Props, token: str) -> Iterator[str]:
    """Args: token: what `httpTokens` is where nothing is said."""
    if options.get("httpEndpoint") == "disabled":
        return
    if options.get("httpTokens", default=token) != "required":
        yield "metadataOptions.httpTokens is not required, so a forged request can read the node's role; set it"
    hops = options.get("httpPutResponseHopLimit", default=1)
    if hops not in range(1, HOP_LIMIT_MAX + 1):
        yield f"metadataOptions.httpPutResponseHopLimit is {hops}; use {HOP_LIMIT_MAX} at most"


GUARDRAILS = [imdsv2]
