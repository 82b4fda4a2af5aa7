import json

import pytest

from infra.aws.registry import AwsRegistry
from infra.registry import RegistryArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION


@pytest.fixture(scope="module")
def cloud():
    args = RegistryArgs(region=REGION, repositories=("training", "team/serving"), images_kept=9, untagged_days=2)
    with Cloud(lambda: AwsRegistry("t-registry", args)) as deployed:
        yield deployed


@pytest.fixture(params=["t-registry/training", "t-registry/team/serving"])
def repository(cloud, request):
    (found,) = cloud.client("ecr").describe_repositories(repositoryNames=[request.param])["repositories"]
    return found


def test_images_are_scanned_when_pushed_and_a_tag_means_one_image(repository):
    assert repository["imageScanningConfiguration"]["scanOnPush"]
    assert repository["imageTagMutability"] == "IMMUTABLE"


def test_images_are_encrypted_with_the_registrys_own_key(cloud, repository):
    encryption = repository["encryptionConfiguration"]
    assert encryption["encryptionType"] == "KMS" and cloud.key_rotates(encryption["kmsKey"])


def test_old_images_go(cloud, repository):
    text = cloud.client("ecr").get_lifecycle_policy(repositoryName=repository["repositoryName"])["lifecyclePolicyText"]
    counts = {rule["selection"]["tagStatus"]: rule["selection"]["countNumber"] for rule in json.loads(text)["rules"]}
    assert counts == {"untagged": 2, "any": 9}


def test_all_repositories_share_one_key(cloud):
    assert cloud.facts("fusion:aws:Registry")["encryption_keys"] == cloud.keys_made() == 1
