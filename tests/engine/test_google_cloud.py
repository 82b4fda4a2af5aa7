"""This checkout's own program with `fusion:cloud: gcp`: GPUs and slices of TPUs, judged by every guardrail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fusion.commands.up import provision
from fusion.stack import Stack
from localcloud import capacity
from localcloud.clouds import LOCAL_CLOUDS
from tests.engine.conftest import DIGITS, PACK, Engine

GCP = LOCAL_CLOUDS["gcp"]
REGION = "us-central1"


def job(name: str, accelerator: str, count: int, **more: Any) -> dict[str, Any]:
    needs = {"accelerator": accelerator, "accelerators": count, "vcpus": 3, "memory_gib": 12}
    return DIGITS | {"name": name, "needs": needs} | more


@pytest.fixture
def google(platform: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The platform's stack on the local Google Cloud, with its guardrails."""
    for key in ("aws:region", "aws:profile"):
        del platform.config[key]
    platform.environment |= PACK
    monkeypatch.setenv("FUSION_HOME", platform.environment["FUSION_HOME"])
    platform.configure(
        **{"gcp:project": "fusion-local", "gcp:region": REGION},
        cloud="gcp",
        workloads=[job("digits", "L4", 1)],
    )
    yield platform
    GCP.stop()


def node_pools(engine: Engine) -> dict[str, dict[str, Any]]:
    """Inputs of the pools by name, without that of the system's nodes."""
    kind = "gcp:container/nodePool:NodePool"
    found = {each["inputs"]["name"]: each["inputs"] for each in engine.state() if each["type"] == kind}
    return {name: inputs for name, inputs in found.items() if "-pool-" in name}


def rendered(engine: Engine, kind: str) -> dict[str, Any]:
    objects = [yaml.safe_load(path.read_text()) for path in engine.manifests.rglob("*.yaml")]
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def test_gpus_and_slices_come_up_within_the_guardrails_stay_as_they_are_and_go_down_to_nothing(google: Engine) -> None:
    google.configure(
        workloads=[
            job("digits", "L4", 1),
            job("slice", "TPUv5e", 16, nodes={"min": 0, "desired": 1, "max": 1}),
        ],
        guardrails={"monthly_cost_limit_usd": 15_000, "budget_required": True},
    )
    google.up()
    pools = node_pools(google)
    assert {each["nodeConfig"]["machineType"] for each in pools.values()} == {"g2-standard-4", "ct5lp-hightpu-4t"}
    (gpus,) = (each for each in pools.values() if each["nodeConfig"]["machineType"] == "g2-standard-4")
    assert (gpus["nodeLocations"], gpus["placementPolicy"]) == ([f"{REGION}-a"], {"type": "COMPACT"})
    (hosts,) = (each for each in pools.values() if each is not gpus)
    assert (hosts["initialNodeCount"], hosts["placementPolicy"]["tpuTopology"]) == (4, "4x4")
    spec = rendered(google, "Job")["slice"]["spec"]
    assert (spec["completions"], spec["parallelism"]) == (4, 4)
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["google.com/tpu"] == "4"
    together = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert [each["topologyKey"] for each in together] == ["cloud.google.com/gke-nodepool"]

    again = google.up()
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))
    google.destroy()
    assert GCP.left(REGION) == []
    assert not list(google.manifests.rglob("*.yaml"))


def test_confidential_data_has_an_access_log_that_its_plan_foresaw_and_that_outlives_the_stack(google: Engine) -> None:
    google.configure(guardrails={"monthly_cost_limit_usd": 3_000, "data_class": "confidential"})
    google.up()
    there = GCP.left(REGION)
    (log,) = (each for each in there if each.startswith("logging/projectBucketConfig "))
    (sink,) = (each["inputs"] for each in google.state() if each["type"] == "gcp:logging/projectSink:ProjectSink")
    (bucket,) = (each["inputs"] for each in google.state() if each["type"] == "gcp:storage/bucket:Bucket")
    assert sink["destination"] == f"logging.googleapis.com/{log.partition(' ')[2]}"
    assert f'bucket_name="{bucket["name"]}"' in sink["filter"]
    (plan,) = (each["inputs"] for each in google.state() if each["type"] == "fusion:platform:Plan")
    assert plan["platform"]["encryption_keys"] == len([each for each in there if each.startswith("kms/cryptoKey ")])
    google.destroy()
    assert GCP.left(REGION) == ["projects/iAMAuditConfig fusion-local/audit_config/storage.googleapis.com"]


def test_a_stack_of_either_cloud_goes_where_it_is_cheaper_and_stays_where_it_is_deployed(google: Engine) -> None:
    google.configure(**{"aws:region": "us-east-1", "aws:profile": "fusion-local"}, cloud="auto")
    said = google.up()
    assert f"fusion:cloud auto: on gcp {REGION} for $" in said
    assert google.outputs()["cloud"] == "gcp"
    google.configure(workloads=[job("digits", "A10G", 1)])  # which Google Cloud has not
    said = google.preview(status=None)
    assert "the stack stays on gcp, where it is deployed, until it is destroyed" in said
    google.destroy()
    assert "fusion:aws:Cluster" in google.preview()


def test_where_offers_are_sold_out_the_next_plan_is_taken_the_user_told_and_the_next_update_changes_nothing(
    google: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (google.environment | {"PULUMI_OPTION_SKIP_PREVIEW": "true"}).items():
        monkeypatch.setenv(name, value)
    one = {"nodes": {"min": 0, "desired": 1, "max": 1}}
    later = {"needs": {"instance_type": "a2-highgpu-8g", "accelerators": 8}, "price_model": "flex_start"}
    google.configure(
        workloads=[
            job("digits", "L4", 1),
            job("slice", "TPUv5e", 16, price_model="any", **one),
            DIGITS | {"name": "later"} | later | one,
        ],
        guardrails={"monthly_cost_limit_usd": 60_000},
    )
    for machine in ("g2-standard-4:{}:spot", "ct5lp-hightpu-4t:{}:spot", "a2-highgpu-8g:{}"):
        capacity.set_left(f"gcp:{machine.format(REGION)}", 0)
    provision(Stack(google.stack, google.folder), tmp_path / "log")
    said = capsys.readouterr().out
    assert f"gcp {REGION} had no capacity of g2-standard-4 spot" in said
    assert f"gcp {REGION} had no capacity of tpu-v5e-16chip spot" in said
    assert "(ZONE_RESOURCE_POOL_EXHAUSTED)" in said
    machines = {each["nodeConfig"]["machineType"]: each for each in node_pools(google).values()}
    assert machines.keys() >= {"ct5lp-hightpu-4t", "a2-highgpu-8g"} and "g2-standard-4" not in machines
    assert not machines["ct5lp-hightpu-4t"]["nodeConfig"]["spot"]
    assert machines["a2-highgpu-8g"]["initialNodeCount"] == 0, "nodes of flex-start come when there is room"
    (others,) = (each["nodeConfig"] for name, each in machines.items() if name[:3] not in ("ct5", "a2-"))
    assert others["guestAccelerators"][0]["type"] == "nvidia-l4"
    assert len([line for line in GCP.left(REGION) if line.startswith("container/nodePool")]) == 4

    again = google.up()
    assert again.count("plans leave it out until") >= 2
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))
