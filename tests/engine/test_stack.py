"""The whole life of a stack on the real engine: built, unchanged, changed, replaced, drifted, imported, destroyed."""

import os
import re
import subprocess
import time
from pathlib import Path

import boto3
import pytest

from localcloud.aws.api import CREDENTIALS
from tests.engine.conftest import DIGITS, ROOT, Engine, kill_group
from tools import setup


def client(engine: Engine, service: str):
    return boto3.client(service, endpoint_url=engine.ensure(), region_name="us-east-1", **CREDENTIALS)


def pools(engine: Engine) -> list[str]:
    """The node groups of accelerators in the cluster."""
    groups = client(engine, "eks").list_nodegroups(clusterName="local-cluster")["nodegroups"]
    return [name for name in groups if "pool" in name]


def test_a_stack_is_built_kept_changed_and_destroyed_to_nothing(platform: Engine) -> None:
    platform.up()
    assert any(line.startswith("eks local-cluster/local-pool-") for line in platform.exists())
    assert sorted(path.name for path in platform.manifests.rglob("*.yaml"))

    again = platform.up()
    assert "unchanged" in again
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))

    changed = DIGITS | {"nodes": {"min": 0, "desired": 1, "max": 3}}
    platform.configure(workloads=[changed])
    assert "updated" in platform.up()
    (pool,) = pools(platform)
    group = client(platform, "eks").describe_nodegroup(clusterName="local-cluster", nodegroupName=pool)["nodegroup"]
    assert group["scalingConfig"]["maxSize"] == 3

    platform.configure(
        workloads=[changed | {"needs": {"instance_type": "g5.2xlarge", "accelerators": 1, "memory_gib": 12}}]
    )
    platform.up()
    (pool,) = pools(platform)
    assert "g5-2xlarge" in pool

    platform.destroy()
    assert platform.exists() == []
    assert not list(platform.manifests.rglob("*.yaml"))


def test_new_bounds_of_a_pool_take_the_size_that_the_autoscaler_has_made_and_move_it_no_further_than_they_must(
    platform: Engine,
) -> None:
    def scaling() -> dict[str, int]:
        (pool,) = pools(platform)
        group = client(platform, "eks").describe_nodegroup(clusterName="local-cluster", nodegroupName=pool)
        found: dict[str, int] = group["nodegroup"]["scalingConfig"]
        return found

    def bound(least: int, most: int) -> None:
        platform.configure(workloads=[DIGITS | {"nodes": {"min": least, "desired": max(1, least), "max": most}}])

    platform.configure(guardrails={"monthly_cost_limit_usd": 5000})
    platform.up()
    bound(2, 4)
    assert "error" not in platform.preview()
    platform.up()
    assert scaling() == {"minSize": 2, "desiredSize": 2, "maxSize": 4}

    (pool,) = pools(platform)
    scaled = {"minSize": 2, "desiredSize": 4, "maxSize": 4}
    client(platform, "eks").update_nodegroup_config(
        clusterName="local-cluster", nodegroupName=pool, scalingConfig=scaled
    )
    assert "unchanged" in platform.up()  # the size is the autoscaler's
    assert scaling() == scaled
    bound(1, 5)
    platform.up()
    assert scaling() == {"minSize": 1, "desiredSize": 4, "maxSize": 5}
    bound(0, 3)
    platform.up()
    assert scaling() == {"minSize": 0, "desiredSize": 3, "maxSize": 3}
    assert "updated" not in platform.up()


NETWORK = """
    import pulumi
    import pulumi_aws as aws
    vpc = aws.ec2.Vpc("net", cidr_block="10.0.0.0/16", tags={"team": "ml"})
    subnet = aws.ec2.Subnet("one", vpc_id=vpc.id, cidr_block="10.0.1.0/24", availability_zone="us-east-1a")
    pulumi.export("vpc", vpc.id)
    pulumi.export("subnet", subnet.id)
"""


def test_what_cannot_be_planned_or_built_is_refused_with_the_stacks_file(platform: Engine) -> None:
    file = f"stacks/{platform.stack_file.name}"
    platform.configure(network={"zones": ["us-east-1a", "eu-west-1b"]})
    printed = platform.up(status=None)
    assert f"{file}: fusion:network: got" in printed
    assert "zones: eu-west-1b is not a zone of region us-east-1" in printed
    everybody = [f"engineer-{number}@example.com" for number in range(11)]
    platform.configure(network={}, budget_alarms={"emails": everybody})
    assert f"{file}: emails (engineer-0@example.com, " in platform.up(status=None)
    platform.configure(
        budget_alarms={"emails": everybody[:1]},
        workloads=[DIGITS | {"needs": {"accelerator": "Gaudi1", "accelerators": 8}}],
    )
    assert f"{file}: workload digits: needs.accelerator Gaudi1 is sold in" in platform.up(status=None)
    assert platform.exists() == []


def test_an_input_that_cannot_change_replaces_the_resource_and_what_depends_on_it(small: Engine) -> None:
    small.program(NETWORK)
    small.up()
    before = small.outputs()
    small.program(NETWORK.replace("10.0.1.0/24", "10.0.2.0/24"))
    small.up()
    after = small.outputs()
    assert before["vpc"] == after["vpc"]
    assert before["subnet"] != after["subnet"]
    assert f"ec2 {before['subnet']}" not in small.exists()


def test_a_refresh_finds_what_was_changed_behind_pulumis_back(small: Engine) -> None:
    small.program(NETWORK)
    small.up()
    ids = small.outputs()
    ec2 = client(small, "ec2")
    ec2.create_tags(Resources=[ids["vpc"]], Tags=[{"Key": "team", "Value": "somebody else"}])
    ec2.delete_subnet(SubnetId=ids["subnet"])
    small.refresh()
    assert "updated" in small.up()
    tags = ec2.describe_vpcs(VpcIds=[ids["vpc"]])["Vpcs"][0]["Tags"]
    assert {"Key": "team", "Value": "ml"} in tags
    assert small.outputs()["subnet"] != ids["subnet"]


def test_an_existing_resource_is_imported_and_then_unchanged(small: Engine) -> None:
    vpc = client(small, "ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    small.program(f"""
        import pulumi
        import pulumi_aws as aws
        aws.ec2.Vpc("found", cidr_block="10.9.0.0/16", opts=pulumi.ResourceOptions(import_={vpc!r}))
    """)
    assert "imported" in small.up()
    assert "2 unchanged" in small.up()


def test_a_target_is_the_only_one_that_changes(small: Engine) -> None:
    small.program(NETWORK)
    small.up()
    small.program(NETWORK.replace('"ml"', '"other"').replace("10.0.1.0/24", "10.0.3.0/24"))
    before = small.outputs()["subnet"]
    small.up("--target", "urn:pulumi:local::fusion::aws:ec2/vpc:Vpc::net")
    assert f"ec2 {before}" in small.exists()


def test_the_state_survives_a_crash_of_the_server(small: Engine) -> None:
    small.program(NETWORK)
    small.up()
    before = small.exists()
    small.kill_server()
    assert small.exists() == before
    assert "3 unchanged" in small.up("--refresh")


def test_a_wrong_input_is_refused_with_its_name_before_anything_is_made(small: Engine) -> None:
    small.program("""
        import pulumi_aws as aws
        aws.ec2.Vpc("net", cidr_block="10.0.0.0/99")
    """)
    printed = small.up(status=None)
    assert "cidrBlock" in printed
    assert "expected a CIDR block" in printed
    assert small.exists() == []


def test_a_type_that_the_local_cloud_lacks_fails_and_never_pretends(small: Engine) -> None:
    small.program("""
        import pulumi_aws as aws
        aws.rds.SubnetGroup("group", subnet_ids=["subnet-1"])
    """)
    assert "the local cloud does not serve this type" in small.up(status=None)


def test_an_error_in_the_middle_of_the_program_is_followed_by_a_run_that_converges(small: Engine) -> None:
    small.program(f"{NETWORK}\n    raise ValueError('half way')\n")
    small.up(status=None)
    small.program(NETWORK)
    small.up()
    assert len([line for line in small.exists() if "vpc-" in line]) == 1


def test_a_program_killed_at_any_moment_leaves_nothing_orphaned_and_nothing_twice(small: Engine) -> None:
    small.program(NETWORK)
    for moment in range(6):
        process = small.start("up", "--yes", "--skip-preview")
        time.sleep(1.0 + 0.35 * moment)
        kill_group(process)
        small.run("cancel", "--yes", status=0)
        small.up()
        in_state = {each["id"] for each in small.state() if each.get("id") and each["type"].startswith("aws:")}
        vpcs = {line.removeprefix("ec2 ") for line in small.exists() if line.startswith(("ec2 vpc-", "ec2 subnet-"))}
        assert vpcs == in_state
        small.destroy()
        assert small.exists() == []


BEFORE_THE_CLUSTER = """
    import json
    import pulumi_aws as aws
    import pulumi_kubernetes as k8s
    import pulumi
    vpc = aws.ec2.Vpc("net", cidr_block="10.0.0.0/16")
    provider = k8s.Provider("later", kubeconfig=vpc.id.apply(lambda id: json.dumps({"clusters": []})))
    k8s.core.v1.Service(
        "web", metadata={"name": "web"}, spec={"ports": [{"port": 80}]}, opts=pulumi.ResourceOptions(provider=provider)
    )
"""


def test_objects_are_checked_in_a_first_preview_before_there_is_a_cluster(small: Engine) -> None:
    small.program(BEFORE_THE_CLUSTER.replace('"ports"', '"port"'))
    assert "unknown field port" in small.preview(status=None)
    small.program(BEFORE_THE_CLUSTER)
    small.preview()
    small.up()
    assert "unchanged" in small.up()
    small.destroy()


@pytest.mark.parametrize("passphrase", ["", "my own"])
def test_first_use_of_the_local_stack_leaves_a_checkout_clean_whatever_the_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passphrase: str
) -> None:
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "FUSION", tmp_path / ".fusion")
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", passphrase)
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / ".fusion/home"))

    def run(*command: str | Path, **more: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "stacks").mkdir()
    for name in (".gitattributes", ".gitignore", "Pulumi.yaml", "stacks/Pulumi.local.yaml"):
        (tmp_path / name).write_text(re.sub(r"^encryptionsalt:.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE))
    run("git", "init", "--quiet")
    run("git", "add", ".")
    run("git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "--message", "all")
    own = tmp_path / "stacks/Pulumi.own.yaml"  # which its user has not added to git yet
    own.write_text((tmp_path / "stacks/Pulumi.local.yaml").read_text())
    (tmp_path / ".fusion/bin").mkdir(parents=True)
    (tmp_path / ".fusion/bin/pulumi").symlink_to(ROOT / ".fusion/bin/pulumi")
    (tmp_path / ".fusion/state").mkdir()

    setup.make_local_stacks()
    setup.keep_salt_out_of_git()
    backend = f"file://{tmp_path}/.fusion/state?metadata=skip"
    run(tmp_path / ".fusion/bin/pulumi", "config", "--stack", "local", PULUMI_BACKEND_URL=backend)
    assert "encryptionsalt" in (tmp_path / "stacks/Pulumi.local.yaml").read_text()
    assert run("git", "status", "--porcelain") == "?? stacks/Pulumi.own.yaml\n"
