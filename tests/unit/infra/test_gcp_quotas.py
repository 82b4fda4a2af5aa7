"""Quotas of Google Cloud as the Cloud Quotas API answers, and what the guardrail makes of them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import pulumi
import pytest

from infra.gcp.quotas import with_quotas
from planner.catalog import load
from planner.guardrails.rules import check_plan
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan, PlanRequest
from planner.plan import plan as planned_of
from planner.quotas import gcp_quotas, is_of
from planner.workloads import ExpectedUsage
from tests.unit.planner.test_plan import SHAPE, job

ON_GCP = dataclasses.replace(SHAPE, system_instance_type="e2-standard-4", system_nodes=2)
REGION = "us-central1"
Rows = list[tuple[dict[str, str], str]]
CPUS, L4, ALL = "CPUS-per-project-region", "NVIDIA-L4-GPUS-per-project-region", "GPUS-ALL-REGIONS-per-project"
SPOT_L4, FAMILIES = f"PREEMPTIBLE-{L4}", "GPUS-PER-GPU-FAMILY-per-project-region"


def planned(instance_type: str, nodes: int, price_model: str = "on_demand") -> Plan:
    needs = {"accelerators": 1, "instance_type": instance_type}
    work = job(needs=needs, nodes={"max": nodes}, price_model=price_model)
    return planned_of(PlanRequest("test", "gcp", REGION, ON_GCP, (work,), ExpectedUsage()), load())


@pytest.fixture
def cloud_quotas() -> Iterator[dict[str, Rows]]:
    """What the API has by quota id: entries with their dimensions and value, as `quotaInfos` answers them."""
    answers: dict[str, Rows] = {}

    class Mocks(pulumi.runtime.Mocks):
        def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
            if args.token.endswith(":getClientConfig"):
                return {"project": "team", "region": REGION, "zone": "", "accessToken": "", "id": "team"}
            asked: Mapping[str, Any] = args.args
            assert (asked["parent"], asked["service"]) == ("projects/team", "compute.googleapis.com")
            if asked["quotaId"] not in answers:
                return {}, [("quotaId", f"quota {asked['quotaId']} not found")]
            places = ["global"] if asked["quotaId"] == ALL else [REGION, "europe-west4"]
            return {
                "dimensionsInfos": [
                    {"dimensions": dimensions, "details": [{"value": value}], "applicableLocations": places}
                    for dimensions, value in answers[asked["quotaId"]]
                ]
            }

        def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> Any:
            raise AssertionError(args.name)

    pulumi.runtime.set_mocks(Mocks())
    yield answers


def said(plan: Plan) -> list[str]:
    found = check_plan(with_quotas(plan, load()), GuardrailSettings(), load())
    return [f"{each.guardrail}: {each.message}" for each in found if each.guardrail.startswith("quotas")]


def test_missing_gpus_are_counted_and_where_to_ask_is_said(cloud_quotas: dict[str, Rows]) -> None:
    cloud_quotas |= {CPUS: [({}, "24")], L4: [({}, "1"), ({"region": REGION}, "8")], ALL: [({}, "16")]}
    assert said(planned("g2-standard-4", 8)) == []
    (told,) = said(planned("g2-standard-4", 9))
    assert "the plan takes up to 9 accelerators" in told
    assert "8 are granted: 1 are missing. Ask for 9 at https://console.cloud.google.com/iam-admin/quotas" in told
    assert f"(quota {L4}, region us-central1)" in told
    cloud_quotas[ALL] = [({}, "0")]
    (told,) = said(planned("g2-standard-4", 8))
    assert f"quota {ALL} in gcp us-central1: the plan takes up to 8" in told
    cloud_quotas |= {CPUS: [({}, "7")], ALL: [({}, "-1")]}
    (told,) = said(planned("g2-standard-4", 8))
    assert f"quota {CPUS} in gcp us-central1: the plan takes up to 8 vcpus (system nodes 8), 7 are granted" in told


def test_new_gpus_are_counted_by_their_family(cloud_quotas: dict[str, Rows]) -> None:
    here = {"region": REGION}
    cloud_quotas |= {CPUS: [({}, "24")], ALL: [({}, "-1")]}
    cloud_quotas[FAMILIES] = [
        ({}, "0"),
        ({"gpu_family": "NVIDIA_H100"} | here, "16"),
        ({"gpu_family": "NVIDIA_H200"}, "99"),
    ]
    assert said(planned("a3-highgpu-8g", 2)) == []
    (told,) = said(planned("a3-highgpu-8g", 3))
    assert "the plan takes up to 24 accelerators" in told
    assert "8 are missing. Ask for 24 at" in told and f"quota {FAMILIES}, gpu_family=NVIDIA_H100" in told


def test_spot_takes_of_its_own_quota_or_of_the_others_where_none_is_set(cloud_quotas: dict[str, Rows]) -> None:
    cloud_quotas |= {CPUS: [({}, "24")], ALL: [({}, "-1")], L4: [({}, "2")], SPOT_L4: [({}, "4")]}
    assert said(planned("g2-standard-4", 4, "spot")) == []
    assert f"quota {SPOT_L4} in" in said(planned("g2-standard-4", 5, "spot"))[0]
    cloud_quotas[SPOT_L4] = [({}, "")]
    assert f"quota {L4} in" in said(planned("g2-standard-4", 3, "spot"))[0]
    assert said(planned("g2-standard-4", 2, "spot")) == []


def test_chips_of_tpus_are_counted(cloud_quotas: dict[str, Rows]) -> None:
    cloud_quotas |= {CPUS: [({}, "24")], "TPU-LITE-PODSLICE-V5-per-project-region": [({}, "8")]}
    assert said(planned("tpu-v5e-8chip", 1)) == []
    assert "8 are missing" in said(planned("tpu-v5e-8chip", 2))[0]


def test_what_can_not_be_read_is_said_and_hides_nothing_else(cloud_quotas: dict[str, Rows]) -> None:
    cloud_quotas |= {CPUS: [({}, "4")], ALL: [({}, "-1")]}
    of_cpus, unread = said(planned("g2-standard-4", 1))
    assert "4 are missing" in of_cpus
    assert "the quotas of gcp us-central1 can't be read" in unread
    assert f"{L4}: " in unread and "not found" in unread and "cloudquotas.quotas.get" in unread
    plan = planned("tpu-v5e-8chip", 1)
    seventh = dataclasses.replace(plan.pools[0], accelerator="TPU7x")
    assert "no quota of TPU7x on demand is known" in said(dataclasses.replace(plan, pools=(seventh,)))[-1]


def test_every_gpu_of_the_catalog_is_of_a_quota_of_its_region() -> None:
    counted = [each for each in gcp_quotas() if each.unit == "accelerators" and each.price_model == "on_demand"]
    machines = [
        each for each in load().find(cloud="gcp") if each.accelerator and not each.accelerator.startswith("TPU")
    ]
    without = {
        each.accelerator
        for each in machines
        if not any(
            quota.accelerator in (None, each.accelerator) and is_of(quota.granted("r", 0, None), each.instance_type)
            for quota in counted
        )
    }
    assert without == set()
