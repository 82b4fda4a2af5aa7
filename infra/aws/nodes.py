"""What every node of a cluster has, system node or accelerator: an encrypted disk and a closed metadata service."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi_aws as aws
from pulumi import Input

METADATA_HOP_LIMIT = 1
"""An answer of the metadata service may travel one hop: it reaches the node, and no pod behind the node's bridge can
take on the node's role. Pods get credentials from EKS Pod Identity, so none needs the second hop."""
NODE_GROUP_NAME_MAX = 63
ROLE_NAME_MAX = 64
LAUNCH_TEMPLATE_NAME_MAX = 128


def metadata_options() -> aws.ec2.LaunchTemplateMetadataOptionsArgs:
    """IMDSv2 only, for the node and not for its pods."""
    return aws.ec2.LaunchTemplateMetadataOptionsArgs(
        http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=METADATA_HOP_LIMIT
    )


def root_disk(disk_gib: int, key_arn: Input[str]) -> list[aws.ec2.LaunchTemplateBlockDeviceMappingArgs]:
    """An encrypted gp3 root disk; `/dev/xvda` is where Amazon Linux 2023 boots from."""
    ebs = aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
        volume_type="gp3", volume_size=disk_gib, encrypted="true", kms_key_id=key_arn, delete_on_termination="true"
    )
    return [aws.ec2.LaunchTemplateBlockDeviceMappingArgs(device_name="/dev/xvda", ebs=ebs)]


def tagged(name: str, tags: Mapping[str, str]) -> list[aws.ec2.LaunchTemplateTagSpecificationArgs]:
    """The stack's tags on what a launch makes: EKS does not hand a node group's tags down."""
    own = {**tags, "Name": name}
    return [aws.ec2.LaunchTemplateTagSpecificationArgs(resource_type=made, tags=own) for made in ("instance", "volume")]


def latest(template: aws.ec2.LaunchTemplate) -> aws.eks.NodeGroupLaunchTemplateArgs:
    """The template's newest version: a change of it rolls the nodes.

    By its name, which a preview knows, so that the guardrails price the nodes by this template and no other.
    """
    return aws.eks.NodeGroupLaunchTemplateArgs(name=template.name, version=template.latest_version.apply(str))
