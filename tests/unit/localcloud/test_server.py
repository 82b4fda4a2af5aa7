"""The server of the local AWS: one for everybody, and the same after a crash."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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
