"""Buckets of Cloud Logging and the sinks that fill them; no log is kept."""

from __future__ import annotations

from collections.abc import Iterable

from localcloud.gcp.kind import (
    AGENTS,
    CREATED,
    Kind,
    RefusedError,
    World,
    at,
    between,
    matching,
    missing,
    one,
    words,
)
from localcloud.gcp.kinds.keys import KEY, needs_key
from localcloud.provider import Properties

BUCKET = "gcp:logging/projectBucketConfig:ProjectBucketConfig"
BUCKET_ID = "projects/{project}/locations/{location}/buckets/{bucketId}"
SERVICE = "logging.googleapis.com/"
RETENTION_DAYS_MAX = 3_650
"""Of a log bucket ("Configure log buckets", Cloud Logging)."""
DESTINATION = r"(logging|storage|pubsub|bigquery)\.googleapis\.com/\S+"


def _bucket_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    if one(inputs, "cmekSettings.kmsKeyName") and inputs.get("location") == "global":
        yield "cmekSettings", "a log bucket under a key has a region; expected one in location"


def _bucket_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    for key in at(inputs, "cmekSettings.kmsKeyName"):
        needs_key(world, key, AGENTS["logging"], inputs["location"], "buckets.create")
    if old and old.get("locked") and inputs.get("retentionDays") != old.get("retentionDays"):
        raise RefusedError(400, "The retention period of a locked bucket can't be changed.", "failedPrecondition")


def _sink_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    """What a sink of this project fills must be there, as far as it is of this project."""
    destination = inputs["destination"]
    path = destination.removeprefix(SERVICE)
    if destination.startswith(f"{SERVICE}projects/{world.project}/") and world.find(path) is None:
        raise missing(path)


KINDS = (
    Kind(
        BUCKET,
        BUCKET_ID,
        words("bucketId cmekSettings description enableAnalytics location locked project retentionDays"),
        references={"cmekSettings.kmsKeyName": KEY},
        defaults={"retentionDays": 30, "locked": False},
        name=None,
        checks={
            "bucketId": matching(r"[A-Za-z0-9_.-]{1,100}", "letters, digits, and _ . -"),
            "retentionDays": between(0, RETENTION_DAYS_MAX),
            "location": matching(r"global|[a-z]+-[a-z]+[0-9]+", "a region such as us-central1, or global"),
        },
        agree=_bucket_agrees,
        rules=_bucket_rules,
        assigned=lambda world, inputs: {
            "name": BUCKET_ID.format(**inputs),
            "lifecycleState": "ACTIVE",
            "createTime": CREATED,
            "updateTime": CREATED,
        },
        attribution=False,
    ),
    Kind(
        "gcp:logging/projectSink:ProjectSink",
        "projects/{project}/sinks/{name}",
        words("description destination disabled exclusions filter name project uniqueWriterIdentity"),
        defaults={"uniqueWriterIdentity": True, "disabled": False},
        longest_name=100,
        name_form=r"[A-Za-z0-9_.-]{1,100}",
        checks={"destination": matching(DESTINATION, "such as logging.googleapis.com/projects/…/buckets/…")},
        rules=_sink_rules,
        assigned=lambda world, inputs: {"writerIdentity": f"serviceAccount:{AGENTS['logging']}"},
        attribution=False,
    ),
)
