"""The reference of all guardrails, from what they say of themselves: `python -m policies.reference`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.guardrails.settings import GuardrailSettings, schema_of
from policies import guardrails
from policies.guardrail import Guardrail
from policies.plan import PLAN_TYPE
from policies.testing import Declared, judge

PAGE = Path(__file__).parents[1] / "docs" / "guardrails-reference.md"
SHOWN_TYPES = 6


@dataclass(frozen=True)
class Example:
    """A resource that breaks a guardrail, and the settings under which it does."""

    type: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def _container(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1.0", **fields}]}}


POD = "kubernetes:core/v1:Pod"
INSTANCE = "aws:ec2/instance:Instance"
BUCKET = "aws:s3/bucket:Bucket"
EVERYBODY = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
PUBLIC = {"policy": json.dumps({"Statement": [EVERYBODY]})}
EXAMPLES: Mapping[str, Example | None] = {
    "monthly-cost-limit": Example(INSTANCE, {"instanceType": "p5.48xlarge"}, {"monthly_cost_limit_usd": 1000}),
    "monthly-cost-increase": None,  # it takes a deployed stack
    "expected-monthly-cost": Example(
        INSTANCE, {"instanceType": "p5.48xlarge"}, {"expected_monthly_cost_limit_usd": 1000}
    ),
    "pool-hourly-limit": Example(INSTANCE, {"instanceType": "p5.48xlarge"}, {"pool_hourly_limit_usd": 20}),
    "spot-as-planned": None,
    "priced-types": Example("aws:rds/instance:Instance", {}, {"monthly_cost_limit_usd": 1000}),
    "nothing-left-behind": None,  # it takes a deployed stack
    "minimum-replicas": Example(
        "kubernetes:apps/v1:Deployment",
        {
            "metadata": {"name": "chat", "labels": {"app.kubernetes.io/component": "inference"}},
            "spec": {"replicas": 1},
        },
        {"service_replicas_min": 2},
    ),
    "instance-types": Example(INSTANCE, {"instanceType": "p5.49xlarge"}),
    "sold-in-region": Example(INSTANCE, {"instanceType": "p5.48xlarge", "region": "eu-central-1"}),
    "tpu-topology": Example("gcp:tpu/v2Vm:V2Vm", {"acceleratorType": "v5litepod-3", "zone": "us-west4-a"}),
    "nothing-hidden": Example("aws:cloudformation/stack:Stack"),
    "launch-templates-seen": Example(INSTANCE, {"launchTemplate": {"id": "lt-0abc", "version": "$Latest"}}),
    "encryption-with-customer-keys": Example("aws:ebs/volume:Volume", {"encrypted": True}),
    "buckets-have-customer-keys": Example(BUCKET),
    "tls-only": Example("aws:lb/listener:Listener", {"protocol": "HTTP"}),
    "buckets-tls-only": Example("aws:s3/bucketPolicy:BucketPolicy", {"bucket": "data", "policy": "{}"}),
    "buckets-have-policies": Example(BUCKET),
    "no-public-bucket": Example("aws:s3/bucketPolicy:BucketPolicy", PUBLIC),
    "private-cluster-endpoint": Example("aws:eks/cluster:Cluster"),
    "no-public-nodes": Example(INSTANCE, {"associatePublicIpAddress": True}),
    "no-open-node-ports": Example(
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        {"cidrIpv6": "::/0", "ipProtocol": "tcp", "fromPort": 22, "toPort": 22},
    ),
    "no-wildcard-permissions": Example("aws:iam/policy:Policy", PUBLIC),
    "no-administrators": Example("gcp:projects/iAMMember:IAMMember", {"role": "roles/editor"}),
    "no-strangers": Example("aws:iam/role:Role", {"assumeRolePolicy": PUBLIC["policy"]}),
    "imdsv2": Example("aws:ec2/launchTemplate:LaunchTemplate"),
    "volumes-not-of-the-node": Example("kubernetes:core/v1:PersistentVolume", {"spec": {"hostPath": {"path": "/"}}}),
    "helm-charts-are-rendered": Example("kubernetes:helm.sh/v3:Release"),
    "pods-not-root": Example(POD, _container()),
    "pods-read-only-root": Example(POD, _container()),
    "pods-no-privilege-escalation": Example(POD, _container()),
    "pods-seccomp": Example(POD, _container()),
    "pods-limits": Example(POD, _container()),
    "pods-no-host-access": Example(POD, {"spec": {"containers": [], "hostNetwork": True}}),
    "images-by-digest": Example(POD, _container()),
    "image-registries": Example(POD, _container(), {"image_registries_allowed": ["registry.example.com/team"]}),
    "no-plain-secrets": Example(POD, _container(env=[{"name": "DB_PASSWORD", "value": "correct-horse"}])),
    "secrets-are-marked": Example("kubernetes:core/v1:Secret", {"stringData": {"password": "correct-horse"}}),
    "data-residency": Example(INSTANCE, {"region": "us-east-1"}, {"regions_allowed": ["eu-central-1"]}),
    "confidential-data": Example(BUCKET, {"tags": {"data-class": "confidential"}}),
    "required-tags": Example("aws:ec2/vpc:Vpc", {}, {"tags_required": ["team"]}),
    "budget-with-alarms": Example(BUCKET, {}, {"budget_required": True}),
}
"""For each guardrail that judges more than the plan; None where no resource breaks it by itself."""


def page() -> str:
    """The whole reference, as Markdown."""
    rules = guardrails()
    lines = [
        "# Reference of the guardrails",
        "",
        "Written by `python -m policies.reference` from the guardrails themselves. [Guardrails](guardrails.md) says "
        "how levels and settings are set, and how to write one of your own. Settings stand under `fusion:guardrails` "
        "in the stack's file, or under the guardrail's name in a pack's config; where both set one, the "
        "stricter holds.",
    ]
    for each in rules:
        lines += ["", f"## {each.name}", "", *_section(each)]
    return "\n".join(lines) + "\n"


def _section(guardrail: Guardrail) -> Iterator[str]:
    yield f"{guardrail.description} Level: {guardrail.level}."
    yield ""
    yield f"- Judges {_judged(guardrail)}."
    yield f"- A value that is not known in a preview {_unknown(guardrail)}."
    for name in guardrail.settings:
        default = GuardrailSettings.model_fields[name].get_default(call_default_factory=True)
        shown = "no default" if default is None else f"default `{json.dumps(default)}`"
        yield f"- `{name}` ({shown}): {schema_of((name,))[name]['description']}."
    if (guardrail.types != {PLAN_TYPE} or guardrail.judge_stack) and (example := EXAMPLES[guardrail.name]):
        yield f"- A violation: *{_violation(guardrail, example)}*"


def _judged(guardrail: Guardrail) -> str:
    if guardrail.judge_stack is not None:
        plan = "the plan, before anything exists, and then " if guardrail.types == {PLAN_TYPE} else ""
        return f"{plan}the stack as a whole, after its resources: in the preview before anything exists"
    types = sorted(guardrail.types)
    if not types:
        return "every resource"
    if types == [PLAN_TYPE]:
        return "the plan, before anything else is registered, and in the program as well where no pack is loaded"
    more = f" and {len(types) - SHOWN_TYPES} more types" if len(types) > SHOWN_TYPES else ""
    return ", ".join(f"`{each}`" for each in types[:SHOWN_TYPES]) + more


def _unknown(guardrail: Guardrail) -> str:
    return {"refused": "is refused: give a plain one", "judged in up": "is judged in the update"}[guardrail.unknown]


def _violation(guardrail: Guardrail, example: Example) -> str:
    declared = Declared(example.type, example.inputs, name="data")
    return judge(guardrail, declared, **example.settings)[0].replace("*", r"\*")


if __name__ == "__main__":
    PAGE.write_text(page())
