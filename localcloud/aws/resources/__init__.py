"""The AWS resource types that the local cloud serves, by their pulumi-aws token."""

from localcloud.aws.api import ResourceType
from localcloud.aws.resources import budgets, dns, ec2, eks, file_systems, identity, services, storage, trails, vpc

RESOURCE_TYPES: dict[str, ResourceType] = {
    each.token: each
    for module in (budgets, dns, ec2, eks, file_systems, identity, services, storage, trails, vpc)
    for each in module.TYPES
}
