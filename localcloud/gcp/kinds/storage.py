"""Buckets: their objects are the emulator's, their settings are kept here."""

from __future__ import annotations

from collections.abc import Iterable

from localcloud.gcp import emulator
from localcloud.gcp.inventory import PROJECT_NUMBER, Record
from localcloud.gcp.kind import AGENTS, CREATED, Kind, Reference, RefusedError, World, at, matching, one, one_of, words
from localcloud.gcp.kinds.keys import KEY, needs_key
from localcloud.provider import Properties
from localcloud.values import Unknown

BUCKET = "gcp:storage/bucket:Bucket"
API = "https://www.googleapis.com/storage/v1/b/"
CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
RETENTION_MAX_S = 90 * 24 * 3_600
"""Of soft-deleted objects ("Soft delete", Cloud Storage)."""


def _agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    seconds = one(inputs, "softDeletePolicy.retentionDurationSeconds")
    if isinstance(seconds, int) and seconds and not 7 * 24 * 3_600 <= seconds <= RETENTION_MAX_S:
        yield "softDeletePolicy.retentionDurationSeconds", f"{seconds}: expected 0, or 604800 (7 days) to 7776000 (90)"
    if inputs.get("retentionPolicy") and one(inputs, "versioning.enabled") is True:
        yield "retentionPolicy", "a bucket with a retention policy can't keep versions; expected one of the two"
    hierarchical = one(inputs, "hierarchicalNamespace.enabled") is True
    if hierarchical and not inputs.get("uniformBucketLevelAccess"):
        yield "hierarchicalNamespace", "required with it: uniformBucketLevelAccess true"
    if hierarchical and one(inputs, "versioning.enabled") is True:
        yield "hierarchicalNamespace", "a bucket with folders can't keep versions; expected one of the two"
    rules = inputs.get("lifecycleRules") or ()
    for index, rule in enumerate(() if isinstance(rules, Unknown) else rules):
        kind = one(rule, "action.type")
        if kind == "SetStorageClass" and not one(rule, "action.storageClass"):
            yield (
                f"lifecycleRules[{index}].action.storageClass",
                "required where action.type is SetStorageClass, and not set",
            )


def _rules(world: World, inputs: Properties, old: Properties | None) -> None:
    for key in at(inputs, "encryption.defaultKmsKeyName"):
        needs_key(world, key, AGENTS["storage"], inputs["location"].lower(), "buckets.insert")
    for name in at(inputs, "logging.logBucket"):
        if world.find(name) is None:
            raise RefusedError(400, f"The specified log bucket {name} does not exist.", "invalid")


def _assigned(world: World, inputs: Properties) -> Properties:
    return {
        "selfLink": API + inputs["name"],
        "url": f"gs://{inputs['name']}",
        "projectNumber": int(PROJECT_NUMBER),
        "location": inputs["location"].upper(),
        "timeCreated": CREATED,
        "updated": CREATED,
    }


def _may_go(world: World, record: Record) -> None:
    name = record.inputs["name"]
    if emulator.has_objects(name) and not record.inputs.get("forceDestroy"):
        raise RefusedError(
            409,
            f"Error trying to delete bucket {name} containing objects without `force_destroy` set to true",
            "conflict",
        )


KINDS = (
    Kind(
        BUCKET,
        "{name}",
        words(
            "autoclass cors encryption forceDestroy hierarchicalNamespace labels lifecycleRules location logging name "
            "project publicAccessPrevention retentionPolicy rpo softDeletePolicy storageClass uniformBucketLevelAccess "
            "versioning"
        ),
        references={"encryption.defaultKmsKeyName": KEY, "logging.logBucket": Reference("{name}", in_region=False)},
        defaults={
            "storageClass": "STANDARD",
            "forceDestroy": False,
            "uniformBucketLevelAccess": False,
            "publicAccessPrevention": "inherited",
        },
        name_form=r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
        checks={
            "location": matching(r"[A-Za-z]+(-[A-Za-z]+[0-9]+)?", "a location such as US-CENTRAL1 or EU"),
            "storageClass": one_of(*CLASSES),
            "publicAccessPrevention": one_of("inherited", "enforced"),
        },
        agree=_agrees,
        rules=_rules,
        assigned=_assigned,
        may_go=_may_go,
        forms={"location": str.upper},
    ),
    Kind(
        "gcp:storage/managedFolder:ManagedFolder",
        "{bucket}/{name}",
        words("bucket forceDestroy name"),
        references={"bucket": Reference("{name}", holds=False, is_whole=True, in_region=False)},
        name_form=r"([^/]+/)+",
        longest_name=1024,
        rules=lambda world, inputs, old: _is_uniform(world, inputs["bucket"]),
        assigned=lambda world, inputs: {
            "selfLink": f"{API}{inputs['bucket']}/managedFolders/{inputs['name']}",
            "createTime": CREATED,
            "updateTime": CREATED,
            "metageneration": "1",
        },
        attribution=False,
    ),
)


def _is_uniform(world: World, bucket: str) -> None:
    found = world.find(bucket)
    if found is not None and not found.inputs.get("uniformBucketLevelAccess"):
        raise RefusedError(
            400, "Managed folders require uniform bucket-level access to be enabled on the bucket.", "invalid"
        )
