"""Service Quotas of the local cloud, as boto3 and as the provider's function see them."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.aws.api import Aws
from localcloud.aws.plugin import AwsBackend
from localcloud.aws.quotas import GRANTED_VCPUS, NAMES
from localcloud.provider import ProviderError
from planner.quotas import aws_quotas

G, P = "L-DB2E81BA", "L-417A185B"


def quota(aws: Aws, code: str = G, service: str = "ec2") -> dict[str, Any]:
    found: dict[str, Any] = aws.call("service-quotas", "get_service_quota", ServiceCode=service, QuotaCode=code)[
        "Quota"
    ]
    return found


def test_the_quotas_that_the_planner_knows_are_those_that_are_served() -> None:
    assert {each.code: each.name for each in aws_quotas()} == NAMES


def test_more_is_granted_when_it_is_asked_for_and_not_less(aws: Aws) -> None:
    assert quota(aws)["Value"] == GRANTED_VCPUS
    ask = {"ServiceCode": "ec2", "QuotaCode": G}
    aws.call("service-quotas", "request_service_quota_increase", **ask, DesiredValue=GRANTED_VCPUS + 1)
    assert quota(aws)["Value"] == GRANTED_VCPUS + 1
    with pytest.raises(ClientError, match="must be greater than 2049"):
        aws.call("service-quotas", "request_service_quota_increase", **ask, DesiredValue=GRANTED_VCPUS)
    listed = aws.call("service-quotas", "list_service_quotas", ServiceCode="ec2")["Quotas"]
    assert {each["QuotaCode"]: each["Value"] for each in listed}[G] == GRANTED_VCPUS + 1


def test_an_unknown_quota_is_none_and_those_of_other_services_are_motos(aws: Aws) -> None:
    with pytest.raises(ClientError, match="ec2 has no quota L-00000000"):
        quota(aws, "L-00000000")
    with pytest.raises(ClientError, match="fsx has no quota"):
        quota(aws, G, "fsx")
    assert quota(aws, "L-F678F1CE", "vpc")["QuotaName"] == "VPCs per Region"
    assert quota(aws, "L-8F1B9C74", "fsx")["Value"] == 100_800


def test_a_program_reads_a_quota_by_its_code(aws: Aws) -> None:
    backend = AwsBackend(aws.endpoint)
    args = {"serviceCode": "ec2", "quotaCode": P}
    answer = backend.invoke("aws:servicequotas/getServiceQuota:getServiceQuota", args)
    assert (answer["quotaName"], answer["value"], answer["region"]) == (NAMES[P], GRANTED_VCPUS, "us-east-1")
    with pytest.raises(ProviderError, match="has no quota L-00000000"):
        backend.invoke("aws:servicequotas/getServiceQuota:getServiceQuota", args | {"quotaCode": "L-00000000"})


def test_a_program_finds_running_instances_by_type_and_tag(aws: Aws) -> None:
    backend = AwsBackend(aws.endpoint)
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "fusion:stack", "Value": "prod"}]}]
    launch = {"ImageId": "ami-12c6146b", "MinCount": 1, "MaxCount": 1}
    one, two, stopped = (
        aws.call("ec2", "run_instances", **launch, InstanceType=kind, **more)["Instances"][0]["InstanceId"]
        for kind, more in (("g5.xlarge", {}), ("g5.xlarge", {"TagSpecifications": tags}), ("g5.xlarge", {}))
    )
    aws.call("ec2", "stop_instances", InstanceIds=[stopped])

    def ids(**filters: str) -> set[str]:
        asked = [{"name": name.replace("_", "-"), "values": [value]} for name, value in filters.items()]
        return set(backend.invoke("aws:ec2/getInstances:getInstances", {"filters": asked})["ids"])

    assert ids(instance_type="g5.xlarge") == {one, two}
    assert ids(instance_type="g5.xlarge", **{"tag:fusion:stack": "prod"}) == {two}
    assert ids(instance_type="p5.48xlarge") == set()
    spot = aws.call(
        "ec2", "run_instances", **launch, InstanceType="g5.xlarge", InstanceMarketOptions={"MarketType": "spot"}
    )["Instances"][0]["InstanceId"]
    assert ids(instance_type="g5.xlarge", instance_lifecycle="spot") == {spot}
