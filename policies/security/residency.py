"""Guardrails on where data is, and on data that is confidential."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from policies.guardrail import guardrail, stack_guardrail
from policies.resource import Props, Resource
from policies.security.buckets import AWS_BUCKETS, bucket_names
from policies.update import Update

PROVIDERS = ("pulumi:providers:aws", "pulumi:providers:gcp")
REPLICAS: dict[str, tuple[tuple[str, ...], ...]] = {
    "aws:dynamodb/table:Table": (("replicas", "regionName"),),
    "aws:dynamodb/globalTable:GlobalTable": (("replicas", "regionName"),),
    "aws:dynamodb/tableReplica:TableReplica": (("region",),),
    "aws:secretsmanager/secret:Secret": (("replicas", "region"),),
    "aws:ecr/replicationConfiguration:ReplicationConfiguration": (
        ("replicationConfiguration", "rules", "destinations", "region"),
    ),
    "gcp:storage/bucket:Bucket": (("customPlacementConfig", "dataLocations"),),
    "gcp:secretmanager/secret:Secret": (("replication", "userManaged", "replicas", "location"),),
}
GLOBAL = (
    "aws:iam/",
    "aws:route53/",
    "aws:cloudfront/",
    "aws:budgets/",
    "aws:organizations/",
    "gcp:projects/",
    "gcp:serviceaccount/",
)
CONFIDENTIAL = "confidential"
DATA_CLASS = "data-class"
ACCESS_LOGS = ("aws:s3/bucketLogging:BucketLogging", "aws:s3/bucketLoggingV2:BucketLoggingV2")
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
LOGGED = ("bucket", "targetBucket")
"""The bucket whose log it is, and the one that keeps it."""
GCP_BUCKET = "gcp:storage/bucket:Bucket"


@guardrail("data-residency", settings=("regions_allowed",), unknown="judged in up")
def data_residency(resource: Resource, update: Update) -> Iterator[str]:
    """Everything of the stack, replicas included, is in the regions that are allowed for its data."""
    allowed = update.settings.regions_allowed
    if allowed is None or resource.type.startswith(GLOBAL):
        return
    for where in sorted({*_places(resource)}):
        if not _is_allowed(where, allowed):
            yield f"it is in {where}; allowed are {', '.join(allowed)}"
    if resource.type.startswith("aws:") and not (resource.region or resource.props.has("region")):
        yield f"its region is not said, so the environment decides it; set aws:region, to one of {', '.join(allowed)}"


def _places(resource: Resource) -> Iterator[str]:
    """Where it is by its own words, by its provider or the stack, and where its copies are."""
    props, package = resource.props, resource.type.partition(":")[0]
    if resource.type in PROVIDERS:
        yield from (str(props.get(key)) for key in ("region", "zone") if props.has(key))
        return
    if package not in ("aws", "gcp"):
        return
    own = [str(props.get(key)) for key in ("region", "location", "zone", "availabilityZone") if props.has(key)]
    yield from own or ([resource.region] if resource.region else [])
    for path in REPLICAS.get(resource.type, ()):
        yield from _at(props, path)


def _at(props: Props, path: tuple[str, ...]) -> Iterator[str]:
    if len(path) == 1:
        found = props.get(path[0], default=[])
        yield from (str(each) for each in (found if isinstance(found, list) else [found]))
    else:
        for block in props.each(path[0]):
            yield from _at(block, path[1:])


def _is_allowed(where: str, allowed: Sequence[str]) -> bool:
    """A zone is in its region: `us-east-1a`, `europe-west4-b`; a multi-region is allowed only by its own name."""
    place = where.lower()
    return any(re.fullmatch(rf"{re.escape(region.lower())}(-?[a-f])?", place) for region in allowed)


@stack_guardrail("confidential-data", settings=("data_class",))
def confidential_data(resources: Sequence[Resource], update: Update) -> Iterator[str]:
    """Confidential data has access logs, and is reached through private endpoints only."""
    everywhere = update.settings.data_class == CONFIDENTIAL
    confidential = [
        each for each in resources if each.type in (*AWS_BUCKETS, GCP_BUCKET) and (everywhere or _is_confidential(each))
    ]
    logs = [each for each in resources if each.type in ACCESS_LOGS]
    about = {urn for each in logs for field in LOGGED for urn in each.references.get(field, ())}
    about |= {name for each in logs for name in bucket_names(each, *LOGGED)}
    for bucket in confidential:
        named = {bucket.urn, *bucket_names(bucket)}
        if not bucket.props.has("logging") and not named & about:
            yield f"bucket {bucket.name} is confidential and keeps no access log; add one (BucketLogging, or logging)"
    in_aws = any(each.type in AWS_BUCKETS for each in confidential)
    if in_aws and not any(each.type == ENDPOINT and _serves_s3(each) for each in resources):
        yield "confidential data is in S3 and the stack has no VPC endpoint of S3; add one"


def _is_confidential(bucket: Resource) -> bool:
    tags = bucket.props.part("labels" if bucket.type == GCP_BUCKET else "tags").value
    return isinstance(tags, dict) and str(tags.get(DATA_CLASS, "")).lower() == CONFIDENTIAL


def _serves_s3(endpoint: Resource) -> bool:
    service = endpoint.props.part("serviceName")
    return service.is_unknown() or str(service.value or "").endswith((".s3", ".s3express"))


GUARDRAILS = [data_residency, confidential_data]
