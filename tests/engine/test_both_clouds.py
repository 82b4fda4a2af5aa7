"""The same stack on both clouds, as the engine previews it: equal security, equal capacity, and the bill of its plan."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from planner.catalog import load
from planner.cost import Quantity, Tariff
from planner.plan import Plan
from policies.plan import PLAN_TYPE
from policies.pricing import Place, Registered, quantities
from policies.resource import Props, Resource, read
from tests.engine.conftest import DIGITS, PACK, ROOT, Engine, make_engine

PLACES: Mapping[str, Mapping[str, str]] = {
    "aws": {"aws:region": "us-east-1", "aws:profile": "fusion-local"},
    "gcp": {"gcp:region": "us-central1", "gcp:project": "fusion-local"},
}
L4 = {"accelerator": "L4", "accelerators": 1, "vcpus": 3, "memory_gib": 12}
STACK: dict[str, Any] = {
    "workloads": [
        DIGITS | {"needs": L4, "nodes": {"min": 0, "desired": 2, "max": 4}, "disk_gib": 120},
        {
            "kind": "inference",
            "name": "classify",
            "image": DIGITS["image"],
            "needs": L4,
            "replicas": {"min": 2, "desired": 2, "max": 3},
        },
    ],
    "guardrails": {"monthly_cost_limit_usd": 9_000, "budget_required": True},
    "budget_alarms": {"emails": ["ml-platform@example.com"]},
    "object_store": {"noncurrent_days": 45},
    "tags": {"team": "ml"},
}
BY_USE = {"object_store_gib", "registry_gib", "nat_gb", "logs_gb", "egress_gb"}
"""What no resource tells: the stack's `expected_usage`."""


@dataclass(frozen=True)
class Built:
    """What the engine would create on a cloud."""

    cloud: str
    resources: list[dict[str, Any]]
    plan: Plan

    def of(self, kind: str) -> list[Props]:
        """Inputs of all resources of a type."""
        return [read(each["inputs"]) for each in self.resources if each["type"] == kind]

    def one(self, kind: str) -> Props:
        """Inputs of the only resource of a type."""
        (found,) = self.of(kind)
        return found

    def pools(self) -> list[Props]:
        """Those of the workloads, the spot one first."""
        aws, gcp = "aws:eks/nodeGroup:NodeGroup", "gcp:container/nodePool:NodePool"
        label = ("labels",) if self.cloud == "aws" else ("nodeConfig", "labels")
        names = {each.name for each in self.plan.pools}
        found = [
            each
            for each in self.of(aws if self.cloud == "aws" else gcp)
            if each.get(*label, "fusion.dev/pool") in names
        ]
        return sorted(found, key=lambda each: str(each.get(*label, "fusion.dev/price-model")), reverse=True)


@pytest.fixture(scope="module", params=PLACES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    cloud = str(request.param)
    engine = make_engine(tmp_path_factory.mktemp(cloud) / "project", str(ROOT / "infra"))
    engine.config = {"kubernetes:renderYamlToDirectory": str(engine.manifests)}
    engine.configure(**PLACES[cloud], cloud=cloud, **STACK)
    steps = json.loads(previewed(engine))["steps"]
    resources = [each["newState"] for each in steps if each["op"] == "create"]
    (plan,) = (each["inputs"] for each in resources if each["type"] == PLAN_TYPE)
    yield Built(cloud, resources, Plan.from_props(plan))
    engine.kill_server()


def previewed(engine: Engine) -> str:
    """The preview's JSON, which follows what the plugins said."""
    said = engine.preview("--json", **PACK)
    return said[said.index("{\n") :]


def test_the_monthly_price_of_the_plan_is_the_sum_of_what_is_provisioned(built: Built) -> None:
    catalog, registered, place = load(), Registered(), Place(built.plan.cloud, built.plan.region)
    provisioned: dict[Tariff, Quantity] = {}
    for each in built.resources:
        name = each["urn"].rpartition("::")[2]
        resource = Resource(
            each["type"], name, read(each.get("inputs", {})), each["urn"], built.plan.region, each.get("parent", "")
        )
        registered.take(resource)
        for tariff, amount in quantities(resource, catalog, place, registered).items():
            provisioned[tariff] = provisioned.get(tariff, Quantity.fixed(0)) + amount
    planned: dict[Tariff, Quantity] = {}
    for item in built.plan.items:
        if item.tariff.item not in BY_USE:
            planned[item.tariff] = planned.get(item.tariff, Quantity.fixed(0)) + item.quantity
    assert provisioned == planned


def test_nodes_are_as_many_and_as_large_as_planned_and_bought_as_planned(built: Built) -> None:
    for node_pool, planned in zip(
        built.pools(), sorted(built.plan.pools, key=lambda each: each.price_model, reverse=True), strict=True
    ):
        if built.cloud == "aws":
            scaling = node_pool.part("scalingConfig")
            bounds = [scaling.get(each) for each in ("minSize", "desiredSize", "maxSize")]
            kind, spot = node_pool.get("instanceTypes")[0], node_pool.get("capacityType") == "SPOT"
            zones = len(node_pool.value["subnetIds"])  # their ids are not known before the update
        else:
            scaling, zones = node_pool.part("autoscaling"), len(node_pool.get("nodeLocations"))
            first = node_pool.get("initialNodeCount") * zones
            bounds = [scaling.get("totalMinNodeCount"), first, scaling.get("totalMaxNodeCount")]
            kind, spot = node_pool.get("nodeConfig", "machineType"), bool(node_pool.get("nodeConfig", "spot"))
        assert bounds == [planned.nodes_min, planned.nodes_expected, planned.nodes_max]
        assert (kind, spot, zones) == (planned.instance_type, planned.price_model == "spot", len(planned.zones))
    assert {len(each.zones) for each in built.plan.pools} == {1, 2}  # nodes that train together are in one zone


def test_disks_are_encrypted_with_the_stacks_own_key_and_as_large_as_asked_for(built: Built) -> None:
    if built.cloud == "aws":
        disks = [each.part("blockDeviceMappings", "ebs") for each in built.of("aws:ec2/launchTemplate:LaunchTemplate")]
        assert all(str(each.get("encrypted")).lower() == "true" and each.has("kmsKeyId") for each in disks)
        sizes = [each.get("volumeSize") for each in disks]
    else:
        nodes = [each.part("nodeConfig") for each in built.of("gcp:container/nodePool:NodePool")]
        assert all(each.has("bootDiskKmsKey") for each in nodes)
        sizes = [each.get("diskSizeGb") for each in nodes]
    assert sorted(sizes) == [30, 100, 120]


def test_pods_can_not_take_the_nodes_own_rights(built: Built) -> None:
    if built.cloud == "aws":
        options = [each.part("metadataOptions") for each in built.of("aws:ec2/launchTemplate:LaunchTemplate")]
        assert {(each.get("httpTokens"), each.get("httpPutResponseHopLimit")) for each in options} == {("required", 1)}
    else:
        nodes = [each.part("nodeConfig") for each in built.of("gcp:container/nodePool:NodePool")]
        assert {each.get("workloadMetadataConfig", "mode") for each in nodes} == {"GKE_METADATA"}
        assert {each.get("metadata", "disable-legacy-endpoints") for each in nodes} == {"true"}


def test_the_cluster_is_reached_from_inside_alone_logs_all_and_encrypts_its_secrets(built: Built) -> None:
    if built.cloud == "aws":
        cluster = built.one("aws:eks/cluster:Cluster")
        assert cluster.get("vpcConfig", "endpointPublicAccess") is False
        assert cluster.has("encryptionConfig", "provider", "keyArn")
        assert set(cluster.get("enabledClusterLogTypes")) >= {"api", "audit", "scheduler", "controllerManager"}
    else:
        cluster = built.one("gcp:container/cluster:Cluster")
        assert cluster.get("privateClusterConfig", "enablePrivateEndpoint") is True
        assert cluster.get("privateClusterConfig", "enablePrivateNodes") is True
        assert cluster.get("databaseEncryption", "state") == "ENCRYPTED"
        assert {"APISERVER", "SCHEDULER", "CONTROLLER_MANAGER"} <= set(cluster.get("loggingConfig", "enableComponents"))
    assert built.plan.platform.kubernetes_version == cluster.get(
        "version" if built.cloud == "aws" else "minMasterVersion"
    )


def test_no_address_of_the_network_can_be_reached_from_outside_and_traffic_is_logged(built: Built) -> None:
    if built.cloud == "aws":
        assert not any(each.get("mapPublicIpOnLaunch", default=False) for each in built.of("aws:ec2/subnet:Subnet"))
        assert len(built.of("aws:ec2/flowLog:FlowLog")) == 1
    else:
        (rule,) = built.of("gcp:compute/firewall:Firewall")
        assert all(each.startswith("10.") for each in rule.get("sourceRanges"))
        subnet = built.one("gcp:compute/subnetwork:Subnetwork")
        assert subnet.get("privateIpGoogleAccess") is True
        assert subnet.has("logConfig")


def test_the_bucket_is_private_encrypted_and_keeps_what_is_overwritten_as_long(built: Built) -> None:
    if built.cloud == "aws":
        block = built.one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
        assert all(block.get(each) for each in ("blockPublicAcls", "blockPublicPolicy", "restrictPublicBuckets"))
        versions = built.one("aws:s3/bucketVersioning:BucketVersioning")
        assert versions.get("versioningConfiguration", "status") == "Enabled"
        encryption = built.one("aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration")
        assert encryption.has("rules", "applyServerSideEncryptionByDefault", "kmsMasterKeyId")
        lifecycle = built.one("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration")
        days = [
            each.get("noncurrentVersionExpiration", "noncurrentDays")
            for each in lifecycle.each("rules")
            if each.has("noncurrentVersionExpiration")
        ]
    else:
        bucket = built.one("gcp:storage/bucket:Bucket")
        assert bucket.get("publicAccessPrevention") == "enforced"
        assert bucket.get("uniformBucketLevelAccess") is True
        assert bucket.get("versioning", "enabled") is True
        assert bucket.has("encryption", "defaultKmsKeyName")
        conditions = [each.part("condition") for each in bucket.each("lifecycleRules")]
        days = [each.get("daysSinceNoncurrentTime") for each in conditions if each.has("daysSinceNoncurrentTime")]
    assert days == [45]


def test_every_key_turns_and_there_are_as_many_as_are_planned(built: Built) -> None:
    if built.cloud == "aws":
        keys = built.of("aws:kms/key:Key")
        assert all(each.get("enableKeyRotation") for each in keys)
    else:
        keys = built.of("gcp:kms/cryptoKey:CryptoKey")
        assert {each.get("rotationPeriod") for each in keys} == {"7776000s"}
    assert len(keys) == built.plan.platform.encryption_keys


def test_images_are_scanned_encrypted_and_their_tags_stay(built: Built) -> None:
    if built.cloud == "aws":
        repositories = built.of("aws:ecr/repository:Repository")
        assert {each.get("imageTagMutability") for each in repositories} == {"IMMUTABLE"}
        assert all(each.get("imageScanningConfiguration", "scanOnPush") for each in repositories)
        assert all(each.has("encryptionConfigurations", "kmsKey") for each in repositories)
    else:
        repositories = built.of("gcp:artifactregistry/repository:Repository")
        assert all(each.get("dockerConfig", "immutableTags") for each in repositories)
        assert all(each.has("vulnerabilityScanningConfig", "enablementConfig") for each in repositories)
        assert all(each.has("kmsKeyName") for each in repositories)
    assert len(repositories) == 2


def test_the_same_people_are_told_at_the_same_sums(built: Built) -> None:
    if built.cloud == "aws":
        budget = built.one("aws:budgets/budget:Budget")
        alarms = {(each.get("notificationType"), each.get("threshold")) for each in budget.each("notifications")}
        assert alarms == {("ACTUAL", 80), ("FORECASTED", 100)}
        assert float(budget.get("limitAmount")) == 9_000
        told = budget.get("notifications")[0]["subscriberEmailAddresses"]
    else:
        budget = built.one("gcp:billing/budget:Budget")
        alarms = {(each.get("spendBasis"), each.get("thresholdPercent")) for each in budget.each("thresholdRules")}
        assert alarms == {("CURRENT_SPEND", 0.8), ("FORECASTED_SPEND", 1)}
        assert budget.get("amount", "specifiedAmount", "units") == "9000"
        channels = built.of("gcp:monitoring/notificationChannel:NotificationChannel")
        told = [each.get("labels", "email_address") for each in channels]
    assert told == ["ml-platform@example.com"]


def test_kubernetes_gets_the_same_objects(built: Built) -> None:
    kinds = Counter(each["type"].rpartition(":")[2] for each in built.resources if "kubernetes:" in each["type"])
    assert {kind: count for kind, count in kinds.items() if kind[0].isupper()} == KINDS
    (job,) = (each for each in built.of("kubernetes:batch/v1:Job"))
    pod = job.part("spec", "template", "spec")
    limits = pod.part("containers").get("resources", "limits")
    assert (limits["nvidia.com/gpu"], limits["cpu"], limits["memory"]) == ("1", "3", "12Gi")
    assert pod.get("nodeSelector", "fusion.dev/pool") == next(
        each.name for each in built.plan.pools if each.price_model == "spot"
    )
    assert {each["key"] for each in pod.get("tolerations")} == {"nvidia.com/gpu"}


KINDS = {
    **dict.fromkeys(("Namespace", "ResourceQuota", "LimitRange", "PriorityClass", "ConfigMap", "Job"), 1),
    **dict.fromkeys(("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"), 1),
    "ServiceAccount": 2,
    "Service": 2,
    "NetworkPolicy": 4,
    **dict.fromkeys(("Policies", "TrainingJob", "InferenceService"), 1),
}
"""Fusion's own components of them included."""
