"""The bucket on Google Cloud: what is kept for how long, and who is told to have read it."""

import pulumi
import pytest

from infra.gcp.object_store import GcpObjectStore
from infra.object_store import ObjectStoreArgs
from tests.unit.infra.cloud import whole
from tests.unit.infra.conftest import refusal
from tools.cloud_args import Echo

REGION = "us-central1"


def made(**changes):
    """By type, the inputs of what a bucket's component makes."""
    mocks = Echo()
    pulumi.runtime.set_mocks(mocks, project="fusion", stack="prod", preview=False)
    pulumi.runtime.test(lambda: GcpObjectStore("prod", ObjectStoreArgs(region=REGION, **changes)) and None)()
    found = {}
    for each in mocks.registered:
        found.setdefault(each.typ, []).append(whole(each.inputs))
    return found


def test_what_is_deleted_can_be_brought_back_for_as_long_as_is_said():
    (bucket,) = made(soft_delete_days=30)["gcp:storage/bucket:Bucket"]
    assert bucket["softDeletePolicy"] == {"retentionDurationSeconds": 30 * 86_400}
    assert bucket["versioning"] == {"enabled": True}
    assert "retentionPolicy" not in bucket


def test_objects_that_nobody_may_change_have_no_earlier_versions_as_cloud_storage_takes_one_of_the_two():
    (bucket,) = made(retention_days=90)["gcp:storage/bucket:Bucket"]
    assert bucket["retentionPolicy"] == {"retentionPeriod": str(90 * 86_400), "isLocked": False}
    assert bucket["versioning"] == {"enabled": False}


def test_each_read_and_write_is_recorded_for_a_year_under_the_buckets_own_key():
    found = made(access_log=True)
    (audit,) = found["gcp:projects/iAMAuditConfig:IAMAuditConfig"]
    assert audit["service"] == "storage.googleapis.com"
    assert audit["auditLogConfigs"] == [{"logType": "DATA_READ"}, {"logType": "DATA_WRITE"}]
    (log,) = found["gcp:logging/projectBucketConfig:ProjectBucketConfig"]
    assert (log["location"], log["retentionDays"]) == (REGION, 365)
    assert log["cmekSettings"] == {"kmsKeyName": "prod-id"}
    (sink,) = found["gcp:logging/projectSink:ProjectSink"]
    assert sink["destination"] == "logging.googleapis.com/prod-access-id"
    assert 'resource.labels.bucket_name="prod"' in sink["filter"]
    assert len(found["gcp:kms/cryptoKey:CryptoKey"]) == 1
    members = {each["member"] for each in found["gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"]}
    assert members == {"serviceAccount:storage@example.com", "serviceAccount:logging@example.com"}


def test_without_an_access_log_the_project_is_left_alone():
    assert not any("audit" in kind.lower() or "logging" in kind for kind in made())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"soft_delete_days": 3}, "soft_delete_days 3: use 0, or 7 to 90"),
        ({"soft_delete_days": 91}, "use 0, or 7 to 90"),
        ({"retention_days": 0}, "retention_days 0: use 1 to 36500"),
    ],
)
def test_days_that_google_does_not_take_are_refused(changes, says):
    assert says in refusal(ObjectStoreArgs, region=REGION, **changes)
