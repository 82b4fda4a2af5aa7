"""What all types of EC2 share: tags at creation and later, deletion by the id alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.aws.api import (
    Aws,
    to_tag_list,
)
from localcloud.provider import Properties


def tag(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    """Tags of any EC2 resource, by its id."""
    if tags:
        aws.call("ec2", "create_tags", Resources=[id], Tags=to_tag_list(tags))
    if removed:
        aws.call("ec2", "delete_tags", Resources=[id], Tags=[{"Key": key} for key in removed])


def tag_specification(kind: str, inputs: Properties) -> list[dict[str, Any]] | None:
    """The tags that EC2 shall give to what it makes, of that kind."""
    tags = inputs.get("tagsAll") or inputs.get("tags")
    return [{"ResourceType": kind, "Tags": to_tag_list(tags)}] if tags else None


def delete_by(operation: str, argument: str, aws: Aws, id: str, inputs: Properties) -> None:
    """Delete what that operation knows by its id alone; gone already is well."""
    aws.gone("ec2", operation, **{argument: id})
