"""What a plan takes of a cloud's quotas, to the vCPU, and where the rest is to be asked for."""

import dataclasses
import re

import pytest

from planner.catalog import load
from planner.catalog.instances import FAMILIES, table
from planner.guardrails.rules import check_plan
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan
from planner.quotas import aws_quotas, aws_quotas_of, is_of, named, taken
from planner.workloads import Quota
from tests.unit.planner.test_plan import job, planned

A10G = {"accelerators": 1, "instance_type": "g5.xlarge"}
G_SPOT, G, STANDARD, LUSTRE = "L-3819A6DF", "L-DB2E81BA", "L-1216C47A", "L-8F1B9C74"


def granted(code: str, vcpus: int, region: str = "us-east-1") -> Quota:
    return next(each for each in aws_quotas() if each.code == code).granted(region, vcpus)


def with_quotas(plan: Plan, *quotas: Quota) -> Plan:
    return dataclasses.replace(plan, quotas=quotas)


def said(plan: Plan) -> list[str]:
    return [f"{each.level} {each.guardrail}: {each.message}" for each in check_plan(plan, GuardrailSettings(), load())]


def test_every_instance_type_of_aws_is_of_one_quota_a_price_model_at_most() -> None:
    types = [
        f"{row['family']}.{size}" for row in table(FAMILIES) if row["cloud"] == "aws" for size in row["sizes"].split()
    ]
    by_model = {
        model: {
            each: [q.code for q in aws_quotas() if q.price_model == model and is_of(q.granted("r", 0), each)]
            for each in types
        }
        for model in ("on_demand", "spot")
    }
    for of in by_model.values():
        assert {each: codes for each, codes in of.items() if len(codes) > 1} == {}
    without = {each.partition(".")[0] for each, codes in by_model["on_demand"].items() if not codes}
    first_generation = {"cc1", "cc2", "cg1", "cr1", "hi1", "hs1"}
    assert all(each.startswith("mac") for each in without - first_generation), without  # Macs are dedicated hosts


@pytest.mark.parametrize(
    ("instance_type", "on_demand", "spot"),
    [
        ("m6i.large", STANDARD, "L-34B43A08"),
        ("g5.xlarge", G, G_SPOT),
        ("gr6.4xlarge", G, G_SPOT),
        ("p5.48xlarge", "L-417A185B", "L-7212CCBC"),
        ("dl1.24xlarge", "L-6E869C2A", "L-85EED4F7"),
        ("trn1.32xlarge", "L-2C3B7624", "L-6B0D517C"),
        ("inf2.xlarge", "L-1945791B", "L-B5D1601B"),
        ("f2.6xlarge", "L-74FC7D96", "L-88CF9481"),
    ],
)
def test_an_instance_type_is_counted_by_its_family(instance_type: str, on_demand: str, spot: str) -> None:
    found = {each.price_model: each.code for each in aws_quotas() if is_of(each.granted("r", 0), instance_type)}
    assert found == {"on_demand": on_demand, "spot": spot}


def test_a_plan_takes_from_the_quotas_of_its_pools_and_of_its_system_nodes() -> None:
    plan = planned(job(needs=A10G, price_model="spot", nodes={"max": 3}), job("other", needs=A10G, nodes={"max": 2}))
    assert {each.code for each in aws_quotas_of(plan, load())} == {STANDARD, G, G_SPOT}
    (spot,) = taken(granted(G_SPOT, 0), plan, load())
    assert (spot.part, spot.each, spot.total) == ("pool g5-xlarge-spot", 4, 12)
    (system,) = taken(granted(STANDARD, 0), plan, load())
    assert (system.part, system.total) == ("system nodes", 4)


def test_what_is_granted_to_the_last_vcpu_passes_and_one_less_tells_what_is_missing_and_where_to_ask() -> None:
    plan = planned(job(needs=A10G, nodes={"max": 5}))
    assert said(with_quotas(plan, granted(G, 20), granted(STANDARD, 4))) == []
    (message,) = said(with_quotas(plan, granted(G, 19), granted(STANDARD, 4)))
    assert message.startswith(f"mandatory quotas: quota {G} (Running On-Demand G and VT instances) in aws us-east-1: ")
    assert "takes up to 20 vcpus (pool g5-xlarge-on-demand 20), 19 are granted: 1 are missing" in message
    assert f"--service-code ec2 --quota-code {G} --desired-value 20 --region us-east-1" in message
    assert "lower the maximum of pool g5-xlarge-on-demand (digits) to 4" in message


def test_the_maximum_that_is_named_fits_and_where_none_would_a_workload_has_to_go() -> None:
    plan = planned(job(needs=A10G, nodes={"max": 5}))
    (message,) = said(with_quotas(plan, granted(G, 11)))
    left = int(re.findall(r"\(digits\) to (\d+)", message)[0])
    assert said(with_quotas(planned(job(needs=A10G, nodes={"max": left})), granted(G, 11))) == []
    assert said(with_quotas(planned(job(needs=A10G, nodes={"max": left + 1})), granted(G, 11))) != []
    assert "remove a workload" in said(with_quotas(plan, granted(G, 0)))[0]
    (message,) = said(with_quotas(plan, granted(STANDARD, 2)))
    assert "2 are missing" in message and "make the system nodes fewer or smaller" in message
    assert "remove a workload" not in message


def test_a_file_system_takes_of_its_own_quota_and_is_made_smaller_where_that_is_too_small() -> None:
    plan = planned(job(needs=A10G))
    plan = dataclasses.replace(plan, platform=dataclasses.replace(plan.platform, file_cache_gib=4_800))
    assert LUSTRE in {each.code for each in aws_quotas_of(plan, load())}
    assert said(with_quotas(plan, granted(LUSTRE, 4_800))) == []
    (message,) = said(with_quotas(plan, granted(LUSTRE, 4_799)))
    assert "takes up to 4,800 GiB (file cache 4800), 4,799 are granted: 1 are missing" in message
    assert f"--service-code fsx --quota-code {LUSTRE} --desired-value 4800" in message
    assert message.endswith("or lower fusion:object_store file_cache_gib")
    assert LUSTRE not in {each.code for each in aws_quotas_of(planned(job(needs=A10G)), load())}


def test_a_quota_of_another_region_or_price_model_is_none_of_the_plans() -> None:
    plan = planned(job(needs=A10G, nodes={"max": 5}))
    assert said(with_quotas(plan, granted(G, 0, "us-west-2"), granted(G_SPOT, 0))) == []


def test_google_cloud_counts_accelerators() -> None:
    plan = dataclasses.replace(planned(job(needs=A10G, nodes={"max": 5})))
    counted = Quota(cloud="aws", region="us-east-1", accelerator="A10G", accelerators=4, code="NVIDIA_A10G_GPUS")
    assert (
        "takes up to 5 accelerators (pool g5-xlarge-on-demand 5), 4 are granted" in said(with_quotas(plan, counted))[0]
    )


def test_quotas_that_could_not_be_read_are_said_and_stop_the_update_only_where_that_is_set() -> None:
    plan = dataclasses.replace(planned(job(needs=A10G)), quotas_unread="AccessDenied: not authorized")
    (message,) = said(plan)
    assert message.startswith("advisory quotas-read: the quotas of aws us-east-1 can't be read")
    assert "AccessDenied: not authorized." in message
    strict = GuardrailSettings(levels={"quotas-read": "mandatory"})
    assert [each.level for each in check_plan(plan, strict, load())] == ["mandatory"]


def test_the_registered_plan_keeps_its_quotas() -> None:
    plan = with_quotas(planned(job(needs=A10G)), granted(G, 20))
    again = Plan.from_props(plan.as_props())
    assert again.quotas == plan.quotas
    assert again.quotas_unread is None


def test_what_others_use_of_a_quota_is_missing_too_and_is_said() -> None:
    plan = planned(job(needs=A10G, nodes={"max": 5}))
    used = granted(G, 24).model_copy(update={"in_use": 4})
    assert said(with_quotas(plan, used)) == []
    (message,) = said(with_quotas(plan, used.model_copy(update={"in_use": 5})))
    assert "24 are granted and 5 are in use by others than this stack: 1 are missing" in message
    assert "--desired-value 25" in message


def test_nodes_that_a_cloud_has_not_are_no_quota_that_can_be_raised() -> None:
    gone = Quota(cloud="aws", region="us-east-1", instance_types=("p5.48xlarge",), price_model="on_demand", nodes=0)
    assert named(gone) == "number of on demand p5.48xlarge nodes in aws us-east-1 that can be had"
