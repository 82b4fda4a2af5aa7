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


@pytest.fixture(scope="module")
def confidential():
    args = ObjectStoreArgs(region=REGION, access_log=True, tags={"team": "ml"})
    with Cloud(lambda: AwsObjectStore("t-store", args)) as deployed:
        yield deployed


@pytest.fixture(scope="module")
def trail(confidential):
    (only,) = confidential.client("cloudtrail").describe_trails()["trailList"]
    return only


def test_each_read_and_write_of_an_object_of_a_confidential_bucket_is_recorded(confidential, trail):
    client = confidential.client("cloudtrail")
    (selector,) = client.get_event_selectors(TrailName=trail["TrailARN"])["AdvancedEventSelectors"]
    data = f"arn:aws:s3:::t-store-{confidential.account_id}-{REGION}/"
    assert {each["Field"]: each.get("Equals", each.get("StartsWith")) for each in selector["FieldSelectors"]} == {
        "eventCategory": ["Data"],
        "resources.type": ["AWS::S3::Object"],
        "resources.ARN": [data],
    }
    assert client.get_trail_status(Name=trail["TrailARN"])["IsLogging"]
    assert trail["LogFileValidationEnabled"]


def test_the_record_is_in_a_closed_bucket_under_a_key_of_its_own_that_only_its_trail_writes_to(confidential, trail):
    s3, log = confidential.client("s3"), {"Bucket": trail["S3BucketName"]}
    assert all(s3.get_public_access_block(**log)["PublicAccessBlockConfiguration"].values())
    (rule,) = s3.get_bucket_encryption(**log)["ServerSideEncryptionConfiguration"]["Rules"]
    key = rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    assert key == trail["KmsKeyId"] and confidential.keys_made() == 2
    _owner, service = confidential.key_policy(key)["Statement"]
    by_this_trail = {"aws:SourceArn": trail["TrailARN"]}
    assert service["Condition"] == {"StringEquals": by_this_trail}
    tls, look, write = json.loads(s3.get_bucket_policy(**log)["Policy"])["Statement"]
    assert tls["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert look["Condition"] == {"StringEquals": by_this_trail}
    assert write["Resource"] == f"arn:aws:s3:::{log['Bucket']}/AWSLogs/{confidential.account_id}/*"
    assert write["Condition"]["StringEquals"] == by_this_trail | {"s3:x-amz-acl": "bucket-owner-full-control"}


def test_the_record_is_kept_for_a_year_with_what_is_overwritten(confidential, trail):
    s3, log = confidential.client("s3"), {"Bucket": trail["S3BucketName"]}
    assert s3.get_bucket_versioning(**log)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_lifecycle_configuration(**log)["Rules"]
    assert rule["Expiration"]["Days"] == rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 365
    assert confidential.facts("fusion:aws:ObjectStore")["access_log"] is True
