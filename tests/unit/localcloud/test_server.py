"""The server of the local AWS: one for everybody, and the same after a crash."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud import server
from localcloud.aws.api import Aws
from localcloud.aws.inventory import inventory


def everything(aws: Aws) -> dict[str, Any]:
    """What boto3 says of all that the test made, times included."""
    clusters = aws.call("eks", "list_clusters")["clusters"]
    keys = aws.call("kms", "list_keys")["Keys"]
    return {
        "vpcs": aws.call("ec2", "describe_vpcs")["Vpcs"],
        "subnets": aws.call("ec2", "describe_subnets")["Subnets"],
        "groups": aws.call("ec2", "describe_security_groups")["SecurityGroups"],
        "placements": aws.call("ec2", "describe_placement_groups")["PlacementGroups"],
        "roles": aws.call("iam", "list_roles")["Roles"],
        "keys": [aws.call("kms", "describe_key", KeyId=key["KeyId"])["KeyMetadata"] for key in keys],
        "clusters": [aws.call("eks", "describe_cluster", name=name)["cluster"] for name in clusters],
        "entries": [aws.call("eks", "list_access_entries", clusterName=name)["accessEntries"] for name in clusters],
    }


def test_a_person_looks_in_with_boto3_alone(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(server.home() / "aws.config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    aws.call("s3", "create_bucket", Bucket="seen-from-outside")
    buckets = boto3.Session(profile_name="fusion-local").client("s3").list_buckets()["Buckets"]
    assert "seen-from-outside" in [each["Name"] for each in buckets]


def test_a_crash_changes_nothing_that_boto3_can_see(aws: Aws) -> None:
    aws.call("ec2", "describe_vpcs")  # moto makes the default network when it is first looked for
    vpc = aws.call("ec2", "create_vpc", CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = aws.call("ec2", "create_subnet", VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    aws.call("ec2", "create_placement_group", GroupName="near", Strategy="cluster")
    aws.call("kms", "list_keys")
    aws.call("kms", "create_key")
    role = aws.call("iam", "create_role", RoleName="nodes", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    aws.call("eks", "create_cluster", name="one", roleArn=role, resourcesVpcConfig={"subnetIds": [subnet]})
    aws.call("eks", "create_access_entry", clusterName="one", principalArn=role)
    before = everything(aws)
    server.kill()
    assert everything(Aws(server.ensure(), aws.region)) == before


def test_a_request_that_was_not_written_whole_was_never_served(aws: Aws, home: Path) -> None:
    before = inventory(server.ensure())
    server.kill()
    with (home / "localcloud/requests.jsonl").open("a") as log:
        log.write('{"time": "2026-')
    assert inventory(server.ensure()) == before


def fill(aws: Aws, log: Path) -> bytes:
    """Put objects of 5 MB until a snapshot takes the log's place; the log as it was before."""
    for number in range(20):
        before = log.read_bytes()
        aws.call("s3", "put_object", Bucket="checkpoints", Key=str(number), Body=bytes([number]) * 5_000_000)
        if log.stat().st_size < len(before):
            return before
    raise AssertionError(f"{log} has grown to {log.stat().st_size} bytes")


def test_a_long_log_is_replaced_by_a_snapshot_and_nothing_is_lost(aws: Aws, home: Path) -> None:
    log = home / "localcloud/requests.jsonl"
    aws.call("s3", "create_bucket", Bucket="checkpoints")
    aws.call("sqs", "create_queue", QueueName="runs")
    aws.call("ecr", "create_repository", repositoryName="images")
    aws.call("dynamodb", "list_tables")
    key = aws.call("kms", "create_key", KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    sign = {"KeyId": key, "Message": b"plan", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}
    fill(aws, log)
    vpc = aws.call("ec2", "create_vpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    before, signed = everything(aws), aws.call("kms", "sign", **sign)["Signature"]

    server.kill()
    later = Aws(server.ensure(), aws.region)
    assert everything(later) == before
    assert later.call("kms", "sign", **sign)["Signature"] == signed
    assert later.call("s3", "get_object", Bucket="checkpoints", Key="1")["Body"].read() == bytes([1]) * 5_000_000
    assert later.call("sqs", "list_queues")["QueueUrls"]
    subnet = later.call("ec2", "create_subnet", VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    assert subnet not in {each["SubnetId"] for each in before["subnets"]}


def test_a_kill_between_snapshot_and_emptied_log_serves_nothing_twice(aws: Aws, home: Path) -> None:
    log = home / "localcloud/requests.jsonl"
    unshortened = fill(aws, log)
    before = everything(aws)
    server.kill()
    log.write_bytes(unshortened + log.read_bytes())
    (home / "localcloud/snapshot.new").write_bytes(b"cut off")
    assert everything(Aws(server.ensure(), aws.region)) == before


def test_a_snapshot_of_another_moto_is_put_aside_and_said(home: Path) -> None:
    server.kill()
    folder = home / "localcloud"
    (folder / server.SNAPSHOT).write_bytes(pickle.dumps("moto 4.0.0"))
    assert inventory(server.ensure()) == []
    assert "written with moto 4.0.0" in (folder / "server.log").read_text()


def test_processes_that_need_it_at_once_start_one(home: Path) -> None:
    server.kill()
    script = "from localcloud import server; print(server.ensure())"

    def ensure(_: int) -> str:
        return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ensure, range(4)))) == 1


def test_stopped_it_is_empty_when_it_starts_again(home: Path) -> None:
    server.stop()
    assert server.endpoint() is None
    assert inventory(server.ensure()) == []
