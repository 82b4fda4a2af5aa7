"""Ways round the monthly limit that lead nowhere, each a resource of one program; what the limit has room for is made."""

from __future__ import annotations

from tests.engine.conftest import PACK, Engine, record
from tests.engine.test_guardrails.programs import broken

MAKES = """
    import pulumi
    INSTANCE, GROUP = "aws:ec2/instance:Instance", "aws:autoscaling/group:Group"

    def made(kind, name, inputs, **options):
        return pulumi.CustomResource(kind, name, inputs, pulumi.ResourceOptions(**options))

    def instance(name, kind="p5.48xlarge", **options):
        return made(INSTANCE, name, {"instanceType": kind, "ami": "ami-1"}, **options)
"""
DEPLOYED = MAKES + '    instance("kept"), instance("grown", "m6i.large"), instance("old", "t3.nano")\n'
ATTEMPTS = (
    MAKES
    + """
    instance("kept", "m6i.large", ignore_changes=["instanceType"])
    instance("grown", delete_before_replace=True, replace_on_changes=["*"])
    instance("aliased", aliases=[pulumi.Alias(name="another")])
    instance("renamed", aliases=[pulumi.Alias(name="old")])
    instance("protected", protect=True)
    instance("retained", retain_on_delete=True)
    instance("imitating-local-plan", additional_secret_outputs=["instanceType"])
    instance("changed-later", "t3.nano", transforms=[
        lambda args: pulumi.ResourceTransformResult(args.props | {"instanceType": "p5.48xlarge"}, args.opts)])
    instance("secret", pulumi.Output.secret("p5.48xlarge"))

    scaling = {"minSize": 0, "maxSize": 2}
    before = []
    for number in range(4):  # $146.40 each: the limit has room for three
        nodes = {"instanceTypes": ["m6i.large"], "diskSize": 20, "scalingConfig": scaling}
        before = [made("aws:eks/nodeGroup:NodeGroup", f"loop-{number}", nodes, depends_on=before)]

    class Pool(pulumi.ComponentResource):
        def __init__(self):
            super().__init__("fusion:aws:AcceleratorPool", "pool", {"nodes": {"max": 0}})
    instance("in-a-component-that-imitates", parent=Pool())

    other = pulumi.StackReference(f"organization/fusion/{pulumi.get_stack()}").get_output("instance-type")
    instance("of-another-stack", other)
    tagged = made("pulumi:providers:aws", "tagged", {"region": "us-east-1", "defaultTags": "{}"})

    template = made("aws:ec2/launchTemplate:LaunchTemplate", "template", {"name": "own", "instanceType": "p5.48xlarge"})
    cheap = made("aws:ec2/launchTemplate:LaunchTemplate", "cheap", {"name": "cheap", "instanceType": "m6i.large"})
    after = [template, cheap]
    made(GROUP, "group-by-id", {"minSize": 0, "maxSize": 9, "launchTemplate": {"id": template.id}}, depends_on=after)
    made(GROUP, "group-by-name", {"minSize": 0, "maxSize": 9, "launchTemplate": {"name": "own"}}, depends_on=after)
    made(GROUP, "group-of-elsewhere", {"minSize": 0, "maxSize": 1, "launchTemplate": {"name": "foreign"}})
    configuration = made("aws:ec2/launchConfiguration:LaunchConfiguration", "configuration", {"name": "c", "instanceType": "p5.48xlarge"})
    made(GROUP, "group-of-a-configuration", {"minSize": 0, "maxSize": 1, "launchConfiguration": "c"}, depends_on=[configuration])
    made(INSTANCE, "instance-of-a-template", {"launchTemplate": {"name": "own"}}, depends_on=after)
    spot = {"targetCapacity": 500, "launchSpecifications": [{"instanceType": "m6i.large"}]}
    made("aws:ec2/spotFleetRequest:SpotFleetRequest", "spot-fleet", spot)
    made("aws:autoscaling/schedule:Schedule", "schedule", {"autoscalingGroupName": "eks-loop", "maxSize": 1000})
    for name, kind in OTHERS.items():
        made(kind, name, {"maxCapacity": 1000, "spec": {"limits": {"cpu": "100000"}}})
    instance("within-the-limit", "t3.nano")

    claim = {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    store = made("kubernetes:apps/v1:StatefulSet", "store", {"metadata": {"name": "s"}, "spec": {"volumeClaimTemplates": [claim]}})
    scaled = {"scaleTargetRef": {"kind": "StatefulSet", "name": "s"}, "maxReplicas": 10_000}
    made("kubernetes:autoscaling/v2:HorizontalPodAutoscaler", "disks-of-replicas", {"spec": scaled}, depends_on=[store])
    disks = {"blockDeviceMappings": [{"ebs": {"volumeSize": "10Ti"}}]}
    node_class = made("kubernetes:karpenter.k8s.aws/v1:EC2NodeClass", "class", {"metadata": {"name": "own"}, "spec": disks})
    bought = [{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["t3.nano"]}]
    template = {"spec": {"nodeClassRef": {"name": "own"}, "requirements": bought}}
    nodes = {"spec": {"limits": {"cpu": "2"}, "template": template}}
    made("kubernetes:karpenter.sh/v1:NodePool", "disks-of-nodes", nodes, depends_on=[node_class])
"""
)
OTHERS = {
    "application-auto-scaling": "aws:appautoscaling/target:Target",
    "fargate": "aws:eks/fargateProfile:FargateProfile",
    "sage-maker": "aws:sagemaker/endpoint:Endpoint",
    "notebook": "aws:sagemaker/notebookInstance:NotebookInstance",
    "batch": "aws:batch/computeEnvironment:ComputeEnvironment",
    "map-reduce": "aws:emr/cluster:Cluster",
    "database": "aws:rds/instance:Instance",
    "karpenter": "kubernetes:karpenter.sh/v1:NodePool",
    "workbench": "gcp:workbench/instance:Instance",
    "queued-tpu": "gcp:tpu/v2QueuedResource:V2QueuedResource",
    "another-cloud": "digitalocean:index/droplet:Droplet",
    "dynamic-provider": "pulumi-python:dynamic:Resource",
}
REFUSED = {
    *(
        "renamed",
        "protected",
        "retained",
        "imitating-local-plan",
        "changed-later",
        "secret",
        "group-of-a-configuration",
        "disks-of-replicas",
        "disks-of-nodes",
    ),
    *("kept", "grown", "aliased", "loop-3", "in-a-component-that-imitates", "of-another-stack", "group-by-id"),
    *("group-by-name", "group-of-elsewhere", "instance-of-a-template", "spot-fleet", "schedule", *OTHERS),
}
OF_COST = {"monthly-cost-limit", "priced-types", "nothing-hidden"}
SECURITY_ONLY = ("encryption-with-customer-keys", "imdsv2", "no-public-nodes", "launch-templates-seen")


def test_no_way_round_the_monthly_limit_is_open(small: Engine) -> None:
    record(small, "aws", "gcp", "kubernetes", "digitalocean", "pulumi-python")
    small.configure(
        guardrails={
            "monthly_cost_limit_usd": 450,
            "levels": dict.fromkeys(SECURITY_ONLY, "disabled"),
        }
    )
    small.program(DEPLOYED)
    small.up()
    assert small.recorded() == ["grown", "kept", "old"]
    small.program(f"OTHERS = {OTHERS!r}\n" + ATTEMPTS.replace("\n    ", "\n").strip())
    printed = small.run("up", "--yes", status=None, **PACK)
    found = broken(printed)
    assert {name for name, guardrails in found.items() if guardrails & OF_COST} == REFUSED, printed
    assert small.recorded() == ["grown", "kept", "old"]


SPLIT = (
    MAKES
    + """
    before = []
    for region in ("us-east-1", "us-west-2"):
        provider = pulumi.ProviderResource("aws", f"of-{region}", {"region": region})
        for number in range(2):
            name = f"{region}-{number}"
            nodes = {"instanceTypes": ["g5.xlarge"], "diskSize": 20, "scalingConfig": {"minSize": 0, "maxSize": 1}}
            options = {"provider": provider, "depends_on": before}
            before = [made("aws:eks/nodeGroup:NodeGroup", name, nodes, **options)]
"""
)
ONE_NODE_USD = 735.98
"""Of g5.xlarge at $1.006 an hour, with 20 GiB of gp3 at $0.08: both regions have these prices."""


def test_small_pools_of_several_providers_are_stopped_by_their_sum(small: Engine) -> None:
    record(small, "aws")
    levels = dict.fromkeys(SECURITY_ONLY, "disabled")
    small.configure(guardrails={"monthly_cost_limit_usd": round(4 * ONE_NODE_USD - 0.01, 2), "levels": levels})
    small.program(SPLIT)
    printed = small.up(status=None, **PACK)
    assert broken(printed) == {"us-west-2-1": {"monthly-cost-limit"}}
    assert "$0.01 over the limit of $2,943.91" in " ".join(printed.split())
    assert small.recorded() == ["us-east-1-0", "us-east-1-1", "us-west-2-0"]
    small.configure(guardrails={"monthly_cost_limit_usd": round(4 * ONE_NODE_USD, 2), "levels": levels})
    small.up(**PACK)
    assert len(small.recorded()) == 4


OF_VOLUMES = """
    import pulumi, pulumi_aws as aws

    for name, size in {volumes}:
        options = pulumi.ResourceOptions(retain_on_delete=name == "kept")
        aws.ebs.Volume(name, size=size, availability_zone="us-east-1a", encrypted=True,
            kms_key_id=SAFE["root_block_device"]["kms_key_id"], opts=options)
"""


def test_what_is_kept_without_a_preview_is_told(small: Engine) -> None:
    small.configure(guardrails={"monthly_cost_limit_usd": 100})
    small.program(OF_VOLUMES.format(volumes='[("kept", 100)]'))
    small.up(**PACK)
    small.program(OF_VOLUMES.format(volumes='[("kept", 100), ("new", 800)]'))
    small.up(**PACK)
    small.program(OF_VOLUMES.format(volumes='[("new", 800)]'))
    told = " ".join(small.up(status=None, **PACK).split())
    assert "kept (aws:ebs/volume:Volume) costs up to $10.00 a month and has left the stack and stays" in told
    assert len(small.exists()) == 2
