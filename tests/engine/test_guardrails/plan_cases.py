"""For each guardrail on the plan, on cost and on capacity: programs that it alone refuses, and programs that all let pass.

The refused and the passing of a guardrail lie on two sides of an edge where there is one. A program that registers a plan
makes a queue after it, as a stack makes its resources after its plan.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from planner.catalog import load
from planner.cost import HOURS_PER_MONTH
from planner.guardrails.rules import check_plan
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan, PlanRequest, plan
from planner.quotas import aws_quotas
from planner.repredict import runs
from planner.workloads import AnyWorkload, ExpectedUsage
from policies.cost import KARPENTER_POOL, NODE_GROUP
from tests.engine.test_guardrails.programs import Made, Program, Programs, registered
from tests.engine.test_guardrails.security_cases import (
    GCP_KEY,
    KEY,
    TEAM,
    gcp_instance,
    instance,
    kubernetes,
    launch_template,
    volume,
)
from tests.unit.planner.test_latency_guardrails import chat, classify, edited, train
from tests.unit.planner.test_plan import SHAPE, job, planned, service

G5 = {"accelerators": 1, "instance_type": "g5.xlarge"}
IMAGENET = {"profile": "resnet-50", "samples": 1_281_167}
STEPS = -(-IMAGENET["samples"] * 12 // 64)
"""Of twelve epochs in batches of 64."""
G5_HOURLY_USD = load().offer("aws", "us-east-1", "g5.xlarge").price_usd_per_hour or 0.0
G_QUOTA = "L-DB2E81BA"
QUEUE = Made("aws:sqs/queue:Queue", {"kmsMasterKeyId": KEY})


def of(found: Plan, **settings: Any) -> Program:
    """A program that registers a plan and makes a queue after it."""
    return Program({"plan": registered(found), "after": QUEUE}, settings)


def alone(made: Made, **settings: Any) -> Program:
    """A program of one resource that no plan knows."""
    return Program({"alone": made}, settings)


def planned_in(region: str, system_instance_type: str) -> Plan:
    """A plan of a platform without workloads, whose system nodes are of another type than it was planned for."""
    shape = dataclasses.replace(SHAPE, zones=(f"{region}a", f"{region}b"))
    found = plan(PlanRequest("test", "aws", region, shape, (), ExpectedUsage()), load())
    return dataclasses.replace(found, platform=dataclasses.replace(shape, system_instance_type=system_instance_type))


def declaring(found: Plan, workload: AnyWorkload) -> Plan:
    """The plan with another workload declared than it was planned for, as an edited one has."""
    return dataclasses.replace(found, workloads=(workload,))


def tpus(chips: int) -> Plan:
    """A plan of one pool of a slice of TPUs."""
    found = planned(job(needs=G5))
    pool = dataclasses.replace(
        found.pools[0], accelerator="TPUv5e", accelerators_per_node=chips, instance_type=f"tpu-TPUv5e-{chips}chip"
    )
    platform = dataclasses.replace(found.platform, system_instance_type="e2-standard-4")
    return dataclasses.replace(
        found, cloud="gcp", region="us-central1", platform=platform, pools=(pool,), workloads=(), predictions=()
    )


def on_spot(checkpoint_every_steps: int) -> Plan:
    """A training run of `STEPS` on a spot node."""
    training = {"checkpoint_every_steps": checkpoint_every_steps, "epochs": 12, "batch_size": 64}
    nodes = {"min": 0, "max": 1}
    return planned(job(needs=G5, price_model="spot", nodes=nodes, training=training, target=IMAGENET))


def granted(vcpus: int) -> Plan:
    """A plan that takes 20 vCPUs of accelerator nodes, where as many are granted."""
    quota = next(each for each in aws_quotas() if each.code == G_QUOTA).granted("us-east-1", vcpus)
    return dataclasses.replace(planned(job(needs=G5, nodes={"max": 5})), quotas=(quota,))


def unread(reason: str | None) -> Plan:
    """A plan of which the quotas could not be read, for a reason."""
    return dataclasses.replace(planned(job(needs=G5)), quotas_unread=reason)


def longest_prompt() -> int:
    """The tokens that a language model takes in on its device, and not one more."""
    low, high = 500, 120_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if "memory-fit" in broken_by(prompted(middle)) else (middle, high)
    return low


def prompted(tokens: int) -> Plan:
    """A plan of a language model that is asked with so many tokens."""
    asked = {"model": "llama-3.1-8b", "output_tokens": 100, "concurrency": 1}
    few, many = (service("chat", needs=G5, target=asked | {"input_tokens": each}) for each in (500, tokens))
    return declaring(planned(few), many)


def needing(gib: float) -> Plan:
    """A plan on accelerators of 22.35 GiB, of a workload that asks for so much."""
    return declaring(planned(job(needs=G5)), job(needs=G5 | {"accelerator_memory_gib": gib}))


def broken_by(found: Plan, **settings: Any) -> set[str]:
    return {each.guardrail for each in check_plan(found, GuardrailSettings.model_validate(settings), load())}


def best_interval() -> int:
    """The steps between checkpoints that Young's and Daly's optimum asks for, as the guardrail names them."""
    (message,) = [
        each.message
        for each in check_plan(on_spot(10), GuardrailSettings(), load())
        if each.guardrail == "checkpoint-interval"
    ]
    return int(message.rpartition(": ")[2])


def share_of(found: Plan, component: str, bound: str) -> float:
    """What a part of a plan costs a month."""
    return sum(getattr(each.monthly_usd, bound) for each in found.items if each.component == component)


def karpenter_after_a_plan_on_spot(*capacity: str) -> Program:
    """Nodes that Karpenter buys as it is told after a plan of nodes on spot."""
    asked = {
        "node.kubernetes.io/instance-type": [ON_SPOT.pools[0].instance_type],
        "karpenter.sh/capacity-type": capacity,
    }
    requirements = [{"key": key, "operator": "In", "values": list(values)} for key, values in asked.items()]
    template = {"metadata": {"labels": OF_ITS_POOL}, "spec": {"requirements": requirements}}
    pool = kubernetes(KARPENTER_POOL, metadata={"name": "nodes"}, spec={"template": template})
    return Program({"plan": registered(ON_SPOT), "nodes": pool})


def after_a_plan_on_spot(instance_type: str, capacity: str, labels: dict[str, str] | None = None) -> Program:
    """Nodes that a program makes after a plan of nodes on spot."""
    nodes = {
        "clusterName": "nodes",
        "nodeRoleArn": "arn:aws:iam::123456789012:role/nodes",
        "subnetIds": ["subnet-1"],
        "instanceTypes": [instance_type],
        "capacityType": capacity,
        "scalingConfig": {"minSize": 0, "desiredSize": 0, "maxSize": 1},
        "launchTemplate": {"name": "nodes", "version": "$Latest"},
        "labels": labels or {},
    }
    of_nodes = launch_template(name="nodes")
    return Program({"plan": registered(ON_SPOT), "nodes": Made(NODE_GROUP, nodes), "template": of_nodes})


ON_SPOT = planned(job(needs=G5, price_model="spot"))
OF_ITS_POOL = {"fusion.dev/pool": ON_SPOT.pools[0].name}


def grown(instance_type: str, percent: float) -> Program:
    """A machine of 8 GiB that was a m6i.large, in a stack that may cost so much more than it does."""
    settings = {"monthly_cost_increase_max_percent": percent}
    return Program({"alone": instance(instanceType=instance_type)}, settings, deployed={"alone": instance()})


def left_behind(*names: str, **changed: Made) -> Program:
    """Of a stack that keeps what leaves it, what is declared still, under a limit of cost."""
    resources = {each: KEPT[each] for each in names} | changed
    return Program(resources, {"monthly_cost_limit_usd": 10_000}, deployed=KEPT)


KEPT = {
    "data": dataclasses.replace(volume(size=100), retained=True),
    "machine": dataclasses.replace(instance(), retained=True),
    "free": dataclasses.replace(Made("aws:ec2/vpc:Vpc", {"cidrBlock": "10.0.0.0/16", "tags": TEAM}), retained=True),
}


def held(setting: str, *subjects: tuple[Plan | Made, float], below: float = 0.01) -> Programs:
    """Each subject costs its limit, so that it passes with it and is refused with one that is less by a cent."""

    def program(subject: Plan | Made, limit: float) -> Program:
        return of(subject, **{setting: limit}) if isinstance(subject, Plan) else alone(subject, **{setting: limit})

    return Programs(
        refused=tuple(program(subject, round(limit - below, 9)) for subject, limit in subjects),
        passing=tuple(program(subject, limit) for subject, limit in subjects),
    )


def _of_one_plan() -> dict[str, Programs]:
    promised, less = registered(ON_SPOT), registered(planned(job(needs=G5)))
    return {
        "one-plan": Programs(
            refused=(
                Program({"plan": promised, "second": less, "after": QUEUE}),
                Program({"plan": promised, "same": promised, "after": QUEUE}),
            ),
            passing=(of(ON_SPOT), Program({"plan": less, "after": QUEUE})),
        ),
    }


def _cost_programs() -> dict[str, Programs]:
    search = service("search", needs=G5, replicas={"min": 1, "max": 2})
    found = planned(job(needs=G5, nodes={"min": 0, "desired": 1, "max": 1}), search, service("chat", needs=G5))
    pool = f"pool {found.pools[0].name}"
    disk_usd = load().service_price("aws", "us-east-1", "block_storage_gib").price_usd
    machine_usd = round((load().offer("aws", "us-east-1", "m6i.large").price_usd_per_hour or 0) * 730 + 8 * disk_usd, 2)
    return {
        "monthly-cost-limit": held(
            "monthly_cost_limit_usd",
            (found, round(found.monthly_usd.max, 2)),
            (instance(), machine_usd),
        ),
        "expected-monthly-cost": held(
            "expected_monthly_cost_limit_usd",
            (found, round(found.monthly_usd.expected, 2)),
            (instance(), machine_usd),
        ),
        "monthly-cost-increase": Programs(
            refused=(grown("m6i.xlarge", 99), grown("g5.xlarge", 100)),
            passing=(grown("m6i.xlarge", 100), grown("m6i.large", 0)),
        ),
        "nothing-left-behind": Programs(
            refused=(left_behind("data", "free"), left_behind()),
            passing=(left_behind("data", "machine"), left_behind("data", machine=instance())),
        ),
        "pool-hourly-limit": held(
            "pool_hourly_limit_usd",
            (found, round(4 * G5_HOURLY_USD, 4)),
            (instance(instanceType="g5.xlarge"), G5_HOURLY_USD),
            below=0.0001,
        ),
        "workload-cost-limit": Programs(
            refused=(
                of(found, workload_cost_limits_usd={"chat": round(share_of(found, pool, "max") / 4, 2) - 0.01}),
                of(found, workload_cost_limits_usd={"misspelt": 10**6}),
            ),
            passing=(
                of(found, workload_cost_limits_usd={"chat": round(share_of(found, pool, "max") / 4, 2)}),
                of(found, workload_cost_limits_usd={"digits": 10**6}),
            ),
        ),
        "priced-types": Programs(
            refused=(
                alone(Made("gcp:vertex/aiEndpoint:AiEndpoint", {"location": "us-central1"}), monthly_cost_limit_usd=1),
                alone(
                    kubernetes("kubernetes:karpenter.sh/v1:NodeClaim", spec={}),
                    expected_monthly_cost_limit_usd=1,
                ),
            ),
            passing=(
                alone(
                    Made("gcp:vertex/aiEndpoint:AiEndpoint", {"location": "us-central1"}),
                    monthly_cost_limit_usd=1,
                    unpriced_types_exempt=["gcp:vertex/*"],
                ),
                alone(QUEUE, monthly_cost_limit_usd=0.01),
            ),
        ),
    }


def _unit_cost_programs() -> dict[str, Programs]:
    asked = {"profile": "resnet-50", "requests_per_s": 10}
    served = [
        planned(service("classify", needs=G5, replicas={"min": least, "max": 4}, target=asked)) for least in (1, 2)
    ]
    requests = 10 * 3600 * HOURS_PER_MONTH
    trained = [planned(job(needs=G5, target=IMAGENET, training={"epochs": epochs})) for epochs in (1, 12)]
    run_usd = [each.predictions[0].run_usd for each in trained]
    return {
        "request-cost-limit": held(
            "usd_per_1000_requests_max",
            *((each, share_of(each, f"pool {each.pools[0].name}", "expected") / requests * 1001) for each in served),
            below=0.0002,
        ),
        "training-run-limit": held(
            "training_run_usd_max",
            *((each, usd.value * 1.0001) for each, usd in zip(trained, run_usd, strict=True) if usd),
        ),
    }


def _latency_programs() -> dict[str, Programs]:
    p95, peak, hours = classify().predictions[0].p95_ms, CROWDED.predictions[0].peak, train().predictions[0].run_hours
    ttft, tpot = chat(requests_per_s=0.5).predictions[0].ttft_ms, chat(requests_per_s=0.5).predictions[0].tpot_ms
    assert p95 and peak and peak.p50_ms and hours and ttft and tpot
    (run,) = runs(classify(), load())
    used = 500 / run.bears_at_most_per_s()
    ready_s = 30 + 60 + 120  # the autoscaler's look, the service's start and the node's
    edge_s = ready_s * 1500 / (run.bears_at_most_per_s() - 500)
    climb: dict[str, Any] = {"replicas": {"min": 1, "max": 4}, "peak_requests_per_s": 2000, "startup_seconds": 60}
    talked = chat(requests_per_s=0.5, ttft_ms_max=ttft.value * 1.01, tpot_ms_max=tpot.value * 1.01)
    few = classify({"min": 2, "max": 2})
    return {
        "latency-slo": Programs(
            refused=(of(classify(p95_ms_max=p95.value * 0.999)), of(crowded(p50_ms_max=peak.p50_ms.value * 0.99))),
            passing=(of(classify(p95_ms_max=p95.value)), of(crowded(p50_ms_max=peak.p50_ms.value * 1.001))),
        ),
        "token-latency": Programs(
            refused=(of(edited(talked, peak_requests_per_s=100)), of(edited(talked, tpot_ms_max=tpot.value * 0.99))),
            passing=(of(talked), of(edited(talked, tpot_ms_max=tpot.value * 1.001))),
        ),
        "utilisation-headroom": Programs(
            refused=(
                of(classify(), utilisation_max=used - 0.001),
                of(edited(classify(), peak_requests_per_s=0.95 * run.bears_at_most_per_s()), utilisation_max=0.9),
            ),
            passing=(
                of(classify(), utilisation_max=used + 0.001),
                of(edited(classify(), peak_requests_per_s=0.89 * run.bears_at_most_per_s()), utilisation_max=0.9),
            ),
        ),
        "cold-start": Programs(
            refused=(
                of(classify(peak_ramp_s=edge_s * 0.99, **climb)),
                of(classify(peak_ramp_s=edge_s * 1.01, **climb), node_startup_seconds=130),
            ),
            passing=(
                of(classify(peak_ramp_s=edge_s * 1.01, **climb)),
                of(classify(peak_ramp_s=edge_s * 1.08, **climb), node_startup_seconds=130),
            ),
        ),
        "training-deadline": Programs(
            refused=(
                of(declaring(train(), job(needs=G5, target=IMAGENET | {"hours_max": hours.value * 0.999}))),
                of(train(hours_max=hours.value * 1.001), latency_margin="high"),
            ),
            passing=(
                of(train(hours_max=hours.value * 1.001)),
                of(train(hours_max=hours.high * 1.001), latency_margin="high"),
            ),
        ),
        "minimum-replicas": Programs(
            refused=(of(few, service_replicas_min=3), of(few, service_zones_min=3)),
            passing=(of(few, service_replicas_min=2), of(few, service_zones_min=2)),
        ),
    }


def crowded(**target: Any) -> Plan:
    """A service at a peak that its two replicas just bear."""
    return classify({"min": 1, "max": 2}, peak_requests_per_s=1800, **target)


CROWDED = crowded()


def _capacity_programs() -> dict[str, Programs]:
    tokens, best = longest_prompt(), best_interval()
    on_demand = job(needs=G5, target=IMAGENET, training={"checkpoint_every_steps": STEPS})
    return {
        "memory-fit": Programs(
            refused=(of(prompted(tokens + 1)), of(needing(22.5))),
            passing=(of(prompted(tokens)), of(needing(22.3))),
        ),
        "quotas": Programs(refused=(of(granted(19)), of(granted(0))), passing=(of(granted(20)), of(granted(21)))),
        "quotas-read": Programs(
            refused=(
                of(unread("AccessDenied: not authorized"), levels={"quotas-read": "mandatory"}),
                of(unread("the endpoint can't be reached"), levels={"quotas-read": "mandatory"}),
            ),
            passing=(of(unread(None), levels={"quotas-read": "mandatory"}), of(unread("AccessDenied"))),
        ),
        "spot-checkpoints": Programs(
            refused=(of(on_spot(STEPS)), of(on_spot(STEPS * 10))),
            passing=(of(on_spot(STEPS - 1), checkpoint_factor_max=4), of(planned(on_demand))),
        ),
        "checkpoint-interval": Programs(
            refused=(of(on_spot(best * 3 + 1)), of(on_spot(best // 3 - 1))),
            passing=(of(on_spot(best * 3)), of(on_spot(best // 3 + 1))),
        ),
        "instance-types": Programs(
            refused=(alone(instance(instanceType="g5.3xlarge")), alone(gcp_instance(machineType="a3-highgpu-9g"))),
            passing=(alone(instance(instanceType="g5.2xlarge")), alone(gcp_instance(machineType="g2-standard-8"))),
        ),
        "sold-in-region": Programs(
            refused=(
                of(planned_in("eu-central-1", "p5.48xlarge")),
                alone(gcp_instance(zone="us-west2-a", machineType="a3-highgpu-8g")),
            ),
            passing=(
                of(planned_in("us-east-1", "p5.48xlarge")),
                alone(gcp_instance(zone="us-central1-a", machineType="a3-highgpu-8g")),
            ),
        ),
        "tpu-topology": Programs(
            refused=(of(tpus(12)), alone(tpu_pool("2x2x4", nodes=5))),
            passing=(of(tpus(8)), alone(tpu_pool("2x2x4", nodes=4))),
        ),
        "spot-as-planned": Programs(
            refused=(
                after_a_plan_on_spot("g5.xlarge", "ON_DEMAND", OF_ITS_POOL),
                after_a_plan_on_spot("g5.xlarge", "ON_DEMAND"),
                karpenter_after_a_plan_on_spot("spot", "on-demand"),
            ),
            passing=(
                after_a_plan_on_spot("g5.xlarge", "SPOT", OF_ITS_POOL),
                after_a_plan_on_spot("m6i.large", "ON_DEMAND"),
                karpenter_after_a_plan_on_spot("spot"),
            ),
        ),
    }


def tpu_pool(topology: str, nodes: int) -> Made:
    """A node pool of GKE that is one slice of TPUs."""
    config = {"machineType": "ct5p-hightpu-4t", "bootDiskKmsKey": GCP_KEY, "resourceLabels": TEAM}
    inputs = {"cluster": "c", "location": "us-east5", "nodeCount": nodes, "networkConfig": {"enablePrivateNodes": True}}
    return Made(
        "gcp:container/nodePool:NodePool",
        inputs | {"nodeConfig": config, "placementPolicy": {"type": "COMPACT", "tpuTopology": topology}},
    )


PLAN_CASES: dict[str, Programs] = (
    _of_one_plan() | _cost_programs() | _unit_cost_programs() | _latency_programs() | _capacity_programs()
)
