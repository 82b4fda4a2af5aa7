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
TRAIL = "aws:cloudtrail/trail:Trail"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
LOGGED = ("bucket", "targetBucket")
"""The bucket whose log it is, and the one that keeps it."""
OBJECTS = "AWS::S3::Object"
EVERY_BUCKET = "every bucket"
EVERY_OBJECT = re.compile(r"arn:[^:]*:s3(?::::(?P<bucket>[^/:*]*)/?)?")
"""Of what a trail records: all objects of a bucket, or of all buckets."""
GCP_BUCKET = "gcp:storage/bucket:Bucket"
AUDIT_CONFIG = "gcp:projects/iAMAuditConfig:IAMAuditConfig"
AUDITED = ("storage.googleapis.com", "allServices")
EVERY_GCP_BUCKET = "every bucket of Google Cloud"


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
    about = {each for resource in resources for each in _logged(resource)}
    for bucket in confidential:
        every = EVERY_GCP_BUCKET if bucket.type == GCP_BUCKET else EVERY_BUCKET
        named = {every, bucket.urn, *bucket_names(bucket)}
        if not bucket.props.has("logging") and not named & about:
            yield (
                f"bucket {bucket.name} is confidential and keeps no access log; add one (a Trail that records the data "
                "events of its objects, BucketLogging, logging, or an IAMAuditConfig of storage.googleapis.com with "
                "DATA_READ and DATA_WRITE). Fusion's own bucket has one where "
                "fusion:guardrails data_class is confidential"
            )
    in_aws = any(each.type in AWS_BUCKETS for each in confidential)
    if in_aws and not any(each.type == ENDPOINT and _serves_s3(each) for each in resources):
        yield "confidential data is in S3 and the stack has no VPC endpoint of S3; add one"


def _logged(resource: Resource) -> Iterator[str]:
    """The buckets, by URN or name, of which a resource is the access log, and the one that keeps that log."""
    if resource.type in ACCESS_LOGS:
        yield from (urn for field in LOGGED for urn in resource.references.get(field, ()))
        yield from bucket_names(resource, *LOGGED)
    elif resource.type == AUDIT_CONFIG and resource.props.get("service") in AUDITED:
        logs = list(resource.props.each("auditLogConfigs"))
        whole = {each.get("logType") for each in logs if not each.get("exemptedMembers", default=[])}
        if whole >= {"DATA_READ", "DATA_WRITE"}:
            yield EVERY_GCP_BUCKET
    elif resource.type == TRAIL and resource.props.get("enableLogging", default=True):
        yield from resource.references.get("s3BucketName", ())
        yield from bucket_names(resource, "s3BucketName")
        for field, recorded in (("eventSelectors", _recorded), ("advancedEventSelectors", _recorded_by_fields)):
            for selector in resource.props.each(field):
                for arn in recorded(selector):
                    yield from resource.references.get(field, ()) if arn.is_unknown() else _buckets(str(arn.value))


def _recorded(selector: Props) -> Iterator[Props]:
    """ARNs of what a selector of a trail records whole, reads and writes."""
    if selector.get("readWriteType", default="All") == "All":
        for data in selector.each("dataResources"):
            if data.get("type") == OBJECTS:
                yield from data.each("values")


def _recorded_by_fields(selector: Props) -> Iterator[Props]:
    """The same of an advanced selector; one that asks for more than what the event is about records less than all."""
    fields = {str(each.get("field")): each for each in selector.each("fieldSelectors")}
    asked = {name: [str(value.value) for value in each.each("equals")] for name, each in fields.items()}
    if asked.get("eventCategory") != ["Data"] or asked.get("resources.type") != [OBJECTS]:
        return
    if fields.keys() == {"eventCategory", "resources.type"}:
        yield Props("arn:aws:s3")
    elif fields.keys() == {"eventCategory", "resources.type", "resources.ARN"}:
        yield from fields["resources.ARN"].each("startsWiths")


def _buckets(arn: str) -> Iterator[str]:
    if found := EVERY_OBJECT.fullmatch(arn):
        yield found["bucket"] or EVERY_BUCKET


def _is_confidential(bucket: Resource) -> bool:
    tags = bucket.props.part("labels" if bucket.type == GCP_BUCKET else "tags").value
    return isinstance(tags, dict) and str(tags.get(DATA_CLASS, "")).lower() == CONFIDENTIAL


def _serves_s3(endpoint: Resource) -> bool:
    service = endpoint.props.part("serviceName")
    return service.is_unknown() or str(service.value or "").endswith((".s3", ".s3express"))


GUARDRAILS = [data_residency, confidential_data]
