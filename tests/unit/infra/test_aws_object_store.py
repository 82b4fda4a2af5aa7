import json

import pytest

from infra.aws.object_store import AwsObjectStore
from infra.object_store import ObjectStoreArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION


@pytest.fixture(scope="module")
def cloud():
    args = ObjectStoreArgs(region=REGION, noncurrent_days=45, unfinished_upload_days=3, tags={"team": "ml"})
    with Cloud(lambda: AwsObjectStore("t-store", args)) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def bucket(cloud):
    (only,) = cloud.client("s3").list_buckets()["Buckets"]
    return {"Bucket": only["Name"]}


def test_its_name_is_ours_among_everybodys(cloud, bucket):
    assert bucket["Bucket"] == f"t-store-{cloud.account_id}-{REGION}"


def test_objects_are_encrypted_with_the_buckets_own_key(cloud, bucket):
    encryption = cloud.client("s3").get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]
    (rule,) = encryption["Rules"]
    assert rule["BucketKeyEnabled"]
    by_default = rule["ApplyServerSideEncryptionByDefault"]
    assert by_default["SSEAlgorithm"] == "aws:kms" and cloud.key_rotates(by_default["KMSMasterKeyID"])


def test_nothing_about_it_can_be_made_public(cloud, bucket):
    block = cloud.client("s3").get_public_access_block(**bucket)["PublicAccessBlockConfiguration"]
    assert all(block.values()) and len(block) == 4
    controls = cloud.client("s3").get_bucket_ownership_controls(**bucket)["OwnershipControls"]
    assert controls["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_it_is_reached_through_tls_only(cloud, bucket):
    policy = json.loads(cloud.client("s3").get_bucket_policy(**bucket)["Policy"])
    (statement,) = policy["Statement"]
    assert statement["Effect"] == "Deny" and statement["Principal"] == "*"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    arn = f"arn:aws:s3:::{bucket['Bucket']}"
    assert statement["Resource"] == [arn, f"{arn}/*"]


def test_what_is_overwritten_can_be_brought_back_for_a_while(cloud, bucket):
    assert cloud.client("s3").get_bucket_versioning(**bucket)["Status"] == "Enabled"
    rules = {rule["ID"]: rule for rule in cloud.client("s3").get_bucket_lifecycle_configuration(**bucket)["Rules"]}
    assert rules["expire-noncurrent-versions"]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 45
    assert rules["abort-unfinished-uploads"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 3
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}


def test_it_carries_the_stacks_tags(cloud, bucket):
    tags = cloud.client("s3").get_bucket_tagging(**bucket)["TagSet"]
    assert {"Key": "team", "Value": "ml"} in tags


def test_guardrails_see_its_key(cloud):
    assert cloud.facts("fusion:aws:ObjectStore")["encryption_keys"] == cloud.keys_made() == 1
