"""The monthly limit on the real engine: what breaks it creates nothing, and there is no way round."""

import json
from pathlib import Path

import yaml

from infra import config
from infra.config import StackConfig
from infra.planning import plan_stack
from planner.catalog import load
from tests.engine.conftest import DIGITS, PACK, Engine, record

STRAY = """
    import pulumi_aws as aws
    aws.ec2.Instance("stray", **SAFE, instance_type="p5.48xlarge")
"""


def test_a_plan_over_the_limit_creates_nothing_with_the_pack_and_without_it(platform: Engine) -> None:
    platform.configure(workloads=[DIGITS | {"nodes": {"min": 0, "max": 20}}])
    for environment in ({}, PACK):
        printed = platform.up(status=None, **environment)
        assert "over the limit of $1,500.00" in printed
        assert "lower the maximum of pool g5-xlarge-spot (digits) from 20 to" in printed
        assert platform.exists() == []
        assert not list(platform.manifests.rglob("*.yaml"))
        quotas_were_read_by = "pulumi:providers:aws"  # which is in the state, and nowhere else
        assert {each["type"] for each in platform.state()} <= {"pulumi:pulumi:Stack", quotas_were_read_by}
    assert "[mandatory]  monthly-cost-limit" in platform.preview(status=None, **PACK)
    without_the_pack = platform.preview(status=None)
    assert "over the limit" in without_the_pack
    assert "only the plan is judged" in without_the_pack


def test_the_pack_alone_stops_a_plan_that_its_own_limit_forbids(platform: Engine) -> None:
    limits = platform.folder / "limits.json"
    limits.write_text(json.dumps({"monthly-cost-limit": {"monthly_cost_limit_usd": 500}}))
    pack = PACK["PULUMI_OPTION_POLICY_PACK"]
    printed = platform.up("--policy-pack", pack, "--policy-pack-config", str(limits), status=None)
    assert "over the limit of $500.00" in printed
    assert platform.exists() == []


def test_a_resource_outside_the_plan_that_would_pass_the_limit_is_refused(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program(STRAY)
    assert "over the limit of $1,000.00" in small.up(status=None, **PACK)
    assert small.exists() == []


def test_a_resource_within_the_limit_is_created(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program(STRAY.replace("p5.48xlarge", "m6i.large"))
    small.up(**PACK)
    assert any(line.startswith("ec2 i-") for line in small.exists())


def test_many_small_resources_are_stopped_by_their_sum(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 250})
    small.program("""
        import pulumi
        import pulumi_aws as aws
        before = []
        for number in range(6):
            made = aws.ec2.Instance(
                f"small-{number}", **SAFE, instance_type="m6i.large",
                opts=pulumi.ResourceOptions(depends_on=before),
            )
            before = [made]
    """)
    assert "over the limit of $250.00" in small.up(status=None, **PACK)
    assert len([line for line in small.exists() if line.startswith("ec2 i-")]) == 3


def test_a_transform_that_changes_the_instance_type_later_is_judged_by_what_it_makes(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program("""
        import pulumi
        import pulumi_aws as aws
        def dearer(args):
            return pulumi.ResourceTransformResult(args.props | {"instanceType": "p5.48xlarge"}, args.opts)
        pulumi.runtime.register_resource_transform(dearer)
        aws.ec2.Instance("innocent", **SAFE, instance_type="m6i.large")
    """)
    assert "over the limit" in small.up(status=None, **PACK)
    assert small.exists() == []


def test_a_price_that_depends_on_what_is_not_known_is_refused_in_preview_and_up(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 1000})
    small.program("""
        import pulumi_aws as aws
        vpc = aws.ec2.Vpc("net", cidr_block="10.0.0.0/16")
        aws.ec2.Instance("unknown", **SAFE, instance_type=vpc.id.apply(lambda _: "p5.48xlarge"))
    """)
    assert "its cost can't be known" in small.preview(status=None, **PACK)


def test_a_wrong_config_is_one_error_a_value_before_anything_exists(platform: Engine) -> None:
    platform.configure(workloads=[DIGITS | {"nodes": {"min": 3, "max": 1}}], guardrails={"monthly_cost_limit_usd": -1})
    printed = platform.up(status=None)
    assert "stacks/Pulumi.local.yaml: fusion:workloads[0].nodes: " in printed
    assert "stacks/Pulumi.local.yaml: fusion:guardrails.monthly_cost_limit_usd: got -1" in printed
    assert "Traceback" not in printed
    assert platform.exists() == []


def test_the_committed_local_stack_is_within_its_guardrails(platform: Engine) -> None:
    committed = yaml.safe_load((Path(__file__).parents[3] / "stacks/Pulumi.local.yaml").read_text())["config"]
    platform.configure(**committed)
    assert "error" not in platform.preview(**PACK).lower()


def test_the_expected_load_has_a_limit_of_its_own(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 100_000, "expected_monthly_cost_limit_usd": 1000})
    small.program(STRAY)
    assert "at the expected load" in small.up(status=None, **PACK)
    assert small.exists() == []
    small.program(STRAY.replace("p5.48xlarge", "m6i.large"))
    small.up(**PACK)
    assert any(line.startswith("ec2 i-") for line in small.exists())


CLASSIFY = {
    "kind": "inference",
    "name": "classify",
    "image": "registry.example.com/serving@sha256:" + "0" * 64,
    "needs": {"accelerator": "A10G", "accelerators": 1, "vcpus": 3, "memory_gib": 12},
    "replicas": {"min": 1, "max": 2},
    "target": {"profile": "resnet-50", "requests_per_s": 20},
}
TRAIN = DIGITS | {"price_model": "on_demand", "target": {"profile": "fusionnet-8", "samples": 1_000_000_000}}


def limits_of(engine: Engine) -> dict[str, object]:
    """What the stack costs by each measure that has a limit, as its plan predicts it."""
    plan = plan_stack(load_config(engine), engine.stack, load())
    hourly = {each.name: each.price_usd_per_hour * each.nodes_max for each in plan.pools}
    train, classify = plan.prediction_of("digits"), plan.prediction_of("classify")
    assert train is not None and train.run_usd is not None and classify is not None
    return {
        "expected_monthly_cost_limit_usd": round(plan.monthly_usd.expected, 2),
        "pool_hourly_limit_usd": round(max(hourly.values()), 4),
        "training_run_usd_max": train.run_usd.value * 1.0001,
        "usd_per_1000_requests_max": 0.02,
        "workload_cost_limits_usd": {"classify": 2000},
    }


def load_config(engine: Engine) -> StackConfig:
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in engine.config.items()}
    return config.load(values, stack=engine.stack, stack_file="stacks/Pulumi.local.yaml")


PLAN_LIMITS = (
    "expected-monthly-cost",
    "pool-hourly-limit",
    "training-run-limit",
    "request-cost-limit",
    "workload-cost-limit",
)


def test_each_limit_on_the_plan_stops_at_its_edge_and_lets_pass_what_keeps_it(platform: Engine) -> None:
    guardrails = {"monthly_cost_limit_usd": 5000, "levels": {"images-by-digest": "disabled"}}
    platform.configure(workloads=[TRAIN, CLASSIFY], guardrails=guardrails)
    kept = limits_of(platform)
    broken = {
        name: {"classify": 20}
        if isinstance(limit, dict)
        else limit * 0.99
        if name != "usd_per_1000_requests_max"
        else 1e-6
        for name, limit in kept.items()
    }
    platform.configure(guardrails=guardrails | broken)
    for environment in ({}, PACK):
        printed = platform.up(status=None, **environment)
        assert platform.exists() == []
        assert [name for name in PLAN_LIMITS if name not in printed] == []
    platform.configure(guardrails=guardrails | kept)
    platform.up(**PACK)
    assert any(line.startswith("eks local-cluster/local-pool-") for line in platform.exists())


MACHINES = """
    import pulumi
    import pulumi_aws as aws
    one = aws.ec2.Instance("one", **SAFE, instance_type="g5.xlarge")
    aws.ec2.Instance("two", **SAFE, instance_type="m6i.large", opts=pulumi.ResourceOptions(depends_on=[one]))
"""


def test_machines_beside_the_plan_keep_the_hourly_and_the_expected_limit(small: Engine) -> None:
    small.program(MACHINES)
    small.configure(guardrails={"pool_hourly_limit_usd": 1, "expected_monthly_cost_limit_usd": 70})
    printed = small.up(status=None, **PACK)
    assert "one (aws:ec2/instance:Instance) costs $1.01 an hour with all its machines, $0.01 over" in printed
    assert "over the limit of $70.00 (fusion:guardrails expected_monthly_cost_limit_usd)" in printed
    assert small.exists() == []
    small.configure(guardrails={"pool_hourly_limit_usd": 1.01, "expected_monthly_cost_limit_usd": 810})
    small.up(**PACK)
    assert len([line for line in small.exists() if line.startswith("ec2 i-")]) == 2


def test_a_type_of_unknown_price_stops_the_update_unless_it_is_listed(small: Engine) -> None:
    record(small, "aws")
    small.configure(guardrails={"monthly_cost_limit_usd": 100})
    small.program("""
        import pulumi
        broker = pulumi.CustomResource("aws:mq/broker:Broker", "broker", {"brokerName": "x", "encryptionOptions": {"kmsKeyId": "k"}})
        after = pulumi.ResourceOptions(depends_on=[broker])
        pulumi.CustomResource("aws:sagemaker/endpoint:Endpoint", "endpoint", {"endpointConfigName": "x"}, after)
    """)
    assert "what a aws:mq/broker:Broker costs is not known" in small.up(status=None, **PACK)
    assert "what a aws:sagemaker/endpoint:Endpoint costs is not known" in small.preview(status=None, **PACK)
    assert small.recorded() == []
    small.configure(
        guardrails={"monthly_cost_limit_usd": 100, "unpriced_types_exempt": ["aws:sagemaker/*", "aws:mq/broker:Broker"]}
    )
    small.up(**PACK)
    assert small.recorded() == ["broker", "endpoint"]


FROM_TEMPLATES = """
    import pulumi, pulumi_aws as aws
    KEY = SAFE["root_block_device"]["kms_key_id"]
    def template(name, size, /, **inputs):
        ebs = {"volume_size": size, "volume_type": "gp3", "encrypted": "true", "kms_key_id": KEY}
        mapped = [{"device_name": "/dev/xvda", "ebs": ebs}]
        return aws.ec2.LaunchTemplate(
            name, block_device_mappings=mapped, metadata_options={"http_tokens": "required"}, **inputs)
"""
GROUPS = (
    FROM_TEMPLATES
    + """
    own = template("own", 100, name="own", instance_type="m6i.large")
    template("other", 100, name="other", instance_type="p5.48xlarge")
    aws.autoscaling.Group(
        "group", min_size=0, desired_capacity=1, max_size=MOST, launch_template={"name": own.name, "version": "$Latest"})
    after = pulumi.ResourceOptions(depends_on=[own])
    aws.ec2.Instance("one", launch_template={"name": "own", "version": "$Latest"}, opts=after)
"""
)


def test_a_group_is_judged_by_the_machines_that_its_launch_template_starts_at_its_maximum(small: Engine) -> None:
    record(small, "aws")
    machine = load().offer("aws", "us-east-1", "m6i.large").price_usd_per_hour * 730
    each = machine + 100 * load().service_price("aws", "us-east-1", "block_storage_gib").price_usd
    levels = {"imdsv2": "disabled", "encryption-with-customer-keys": "disabled"}  # these ask it of each instance
    small.configure(guardrails={"monthly_cost_limit_usd": round(5 * each, 2), "levels": levels})
    small.program(GROUPS.replace("MOST", "5"))
    for printed in (small.preview(status=None, **PACK), small.up(status=None, **PACK)):
        assert f"would take the stack to ${6 * each:,.2f} at the autoscaler's maximum" in printed
    small.program(GROUPS.replace("MOST", "4"))
    small.destroy()
    small.up(**PACK)
    assert small.recorded() == ["group", "one", "other", "own"]


NODES_OF_A_TEMPLATE = (
    FROM_TEMPLATES
    + """
    class Pool(pulumi.ComponentResource):
        def __init__(self):
            super().__init__("fusion:aws:AcceleratorPool", "pool")
    pool = Pool()
    small, large = template("small", 20), template("large", 10_000)
    for name, given in (("by-name", {"name": small.name}), ("by-id", {"id": small.id})):
        aws.eks.NodeGroup(
            name, cluster_name="none", node_role_arn=SAFE["root_block_device"]["kms_key_id"], subnet_ids=["subnet-1"],
            instance_types=["m6i.large"], scaling_config={"min_size": 0, "desired_size": 0, "max_size": 1},
            launch_template=given | {"version": "$Latest"}, opts=pulumi.ResourceOptions(parent=pool))
"""
)


def test_the_name_of_a_launch_template_is_known_in_a_preview_and_prices_its_nodes(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 200})
    small.program(NODES_OF_A_TEMPLATE)
    printed = small.preview(status=None, **PACK)
    assert "by-name (aws:eks/nodeGroup:NodeGroup)" not in printed
    assert "by-id (aws:eks/nodeGroup:NodeGroup) costs up to $870" in printed
    assert "name it by the template's name rather than its id" in " ".join(printed.split())


ON_DEMAND = """
    import pulumi, pulumi_aws as aws
    from infra.plan_resource import PlanResource
    from planner.catalog import load
    from tests.unit.planner.test_plan import job, planned
    plan = planned(job(needs={"instance_type": "g5.xlarge", "accelerators": 1}, price_model="spot"))
    first = pulumi.ResourceOptions(depends_on=[PlanResource("plan", plan)])
    role = aws.iam.Role("nodes", assume_role_policy="{}", opts=first)
    for name, labels in (("labelled", {"fusion.dev/pool": plan.pools[0].name}), ("bare", {})):
        aws.eks.NodeGroup(
            name, cluster_name="none", node_role_arn=role.arn, subnet_ids=["subnet-1"], instance_types=["g5.xlarge"],
            capacity_type=CAPACITY, labels=labels, scaling_config={"min_size": 0, "desired_size": 0, "max_size": 1},
            opts=first,
        )
"""


def test_a_node_group_on_demand_where_the_plan_says_spot_is_refused(small: Engine) -> None:
    small.program(ON_DEMAND.replace("CAPACITY", '"ON_DEMAND"'))
    printed = small.preview(status=None, **PACK)
    for name in ("labelled", "bare"):
        assert f"{name}: pool g5-xlarge-spot (digits) is planned on spot" in printed
    assert small.exists() == []
    small.program(ON_DEMAND.replace("CAPACITY", '"SPOT"'))
    assert "is planned on spot" not in small.preview(status=None, **PACK)
