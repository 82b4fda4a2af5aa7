"""The AWS resource types that the local cloud serves, by their pulumi-aws token."""

from localcloud.aws.api import ResourceType
from localcloud.aws.resources import ec2, eks, identity, services, storage

RESOURCE_TYPES: dict[str, ResourceType] = {
    each.token: each for each in (*ec2.TYPES, *eks.TYPES, *identity.TYPES, *services.TYPES, *storage.TYPES)
}
