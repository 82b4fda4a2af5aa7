"""A program on the local Google Cloud through the real engine; its bucket is read and written through Google's clients."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from localcloud.clouds import LOCAL_CLOUDS
from localcloud.gcp import emulator
from tests.engine.conftest import PACK, ROOT, Engine, kill_group

GCP = LOCAL_CLOUDS["gcp"]
PROGRAM = """
    import pulumi
    import pulumi_gcp as gcp

    region = "us-central1"
    network = gcp.compute.Network("net", auto_create_subnetworks=False)
    nodes = gcp.compute.Subnetwork(
        "nodes", network=network.id, ip_cidr_range="10.0.0.0/20", private_ip_google_access=True,
        secondary_ip_ranges=[
            {"range_name": "pods", "ip_cidr_range": "10.8.0.0/14"},
            {"range_name": "services", "ip_cidr_range": "172.20.0.0/20"},
        ],
    )
    router = gcp.compute.Router("router", network=network.id)
    gcp.compute.RouterNat(
        "nat", router=router.name, nat_ip_allocate_option="AUTO_ONLY",
        source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
    )
    ring = gcp.kms.KeyRing("ring", location=region)
    key = gcp.kms.CryptoKey("key", key_ring=ring.id, rotation_period="7776000s")
    agent = gcp.storage.get_project_service_account()
    grant = gcp.kms.CryptoKeyIAMMember(
        "grant", crypto_key_id=key.id, role="roles/cloudkms.cryptoKeyEncrypterDecrypter",
        member=f"serviceAccount:{agent.email_address}",
    )
    store = gcp.storage.Bucket(
        "store", location=region, force_destroy=True, uniform_bucket_level_access=True,
        encryption={"default_kms_key_name": key.id}, opts=pulumi.ResourceOptions(depends_on=[grant]),
    )
    cluster = gcp.container.Cluster(
        "main", location=region, network=network.id, subnetwork=nodes.id, initial_node_count=1,
        remove_default_node_pool=True, deletion_protection=False,
        ip_allocation_policy={"cluster_secondary_range_name": "pods", "services_secondary_range_name": "services"},
        workload_identity_config={"workload_pool": "fusion-local.svc.id.goog"},
    )
    gcp.container.NodePool(
        "slice", cluster=cluster.name, location=region, node_locations=["us-central1-a"], initial_node_count=4,
        node_config={"machine_type": MACHINE}, placement_policy={"type": "COMPACT", "tpu_topology": "4x4"},
    )
    account = gcp.serviceaccount.Account("trainer", account_id="trainer")
    gcp.serviceaccount.IAMMember(
        "trainer", service_account_id=account.name, role="roles/iam.workloadIdentityUser",
        member="serviceAccount:fusion-local.svc.id.goog[workloads/digits]",
        opts=pulumi.ResourceOptions(depends_on=[cluster]),
    )
    gcp.storage.BucketIAMMember(
        "reader", bucket=store.name, role="roles/storage.objectUser", member=account.member,
        condition={"title": "data", "expression": "resource.name.startsWith('projects/_/buckets/x/objects/data/')"},
    )
    pulumi.export("url", store.url)
    pulumi.export("cluster", cluster.endpoint)
"""
COMPONENTS = """
    import pulumi
    from infra.accelerator_pool import AcceleratorPoolArgs
    from infra.cluster import ClusterArgs, SystemPoolArgs
    from infra.gcp.accelerator_pool import GcpAcceleratorPool
    from infra.gcp.cluster import GcpCluster
    from infra.gcp.network import GcpNetwork
    from infra.gcp.object_store import GcpObjectStore
    from infra.gcp.registry import GcpRegistry
    from infra.gcp.workload_identity import GcpWorkloadIdentity
    from infra.network import NetworkArgs
    from infra.object_store import ObjectStoreArgs
    from infra.registry import RegistryArgs
    from infra.workload_identity import StoreAccess, WorkloadIdentityArgs

    region, zones = "us-central1", ("us-central1-a", "us-central1-b")
    tags = {"fusion:stack": "t"}
    network = GcpNetwork("t-network", NetworkArgs(region=region, zones=zones, tags=tags))
    system = SystemPoolArgs(instance_type="e2-standard-2")
    cluster = GcpCluster("t-cluster", ClusterArgs(region=region, system_pool=system, tags=tags), network)
    pools = {
        "l4": ("g2-standard-8", "L4", 1),
        "t4": ("n1-standard-8+T4x2", "T4", 2),
        "slices": ("tpu-v5e-16chip", "TPUv5e", 16),
    }
    for pool, (instance_type, accelerator, count) in pools.items():
        args = AcceleratorPoolArgs(
            pool=pool, region=region, zones=zones, instance_type=instance_type, accelerator=accelerator,
            accelerator_count=count, nodes_max=2, nodes_min=1, price_model="spot", tags=tags,
        )
        pulumi.export(pool, GcpAcceleratorPool(f"t-pool-{pool}", args, cluster).pool_name)
    store = GcpObjectStore("t-store", ObjectStoreArgs(region=region, delete_with_contents=True, tags=tags))
    registry = GcpRegistry("t-registry", RegistryArgs(region=region, repositories=("training",), tags=tags))
    access = StoreAccess(store=store, read=("data/",), write=("runs/digits/",))
    identity = WorkloadIdentityArgs(
        region=region, namespace="workloads", service_account="digits", access=(access,), tags=tags
    )
    GcpWorkloadIdentity("t-digits", identity, cluster)
    pulumi.export("url", store.bucket_url)
    pulumi.export("kubeconfig", cluster.kubeconfig)
    pulumi.export("repositories", registry.repository_urls)
"""


@pytest.fixture
def gcp(small: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A stack on the local Google Cloud."""
    small.config = {}
    small.configure(**{"gcp:project": "fusion-local", "gcp:region": "us-central1"})
    monkeypatch.setenv("FUSION_HOME", small.environment["FUSION_HOME"])
    yield small
    GCP.stop()


def test_a_platform_comes_up_its_bucket_is_used_and_it_goes_down_to_nothing(gcp: Engine) -> None:
    gcp.program(PROGRAM.replace("MACHINE", '"ct5lp-hightpu-4t"'))
    gcp.up()
    url = str(gcp.outputs()["url"])
    digits = [sys.executable, "-m", "workloads.data.digits", "--url", f"{url}/data/digits"]
    subprocess.run(digits, cwd=ROOT, env=GCP.environment(), check=True, capture_output=True)
    assert emulator.has_objects(url.removeprefix("gs://"))

    gcp.program(PROGRAM.replace("MACHINE", '"ct5lp-hightpu-8t"'))
    said = gcp.preview(status=None)
    assert "4x4: ct5lp-hightpu-8t makes slices of 2x4" in said

    gcp.destroy()
    assert GCP.left("us-central1") == []


def test_what_a_kill_left_is_gone_on_with_by_the_next_update(gcp: Engine) -> None:
    program = """
        import pulumi_gcp as gcp
        network = gcp.compute.Network("net", auto_create_subnetworks=False)
        gcp.compute.Router("router", network=network.id, region="us-central1")
    """
    gcp.program(program)
    process = gcp.start("up", "--yes", "--skip-preview")
    while not any("network" in line for line in GCP.left("us-central1")):
        assert process.poll() is None
    kill_group(process)
    gcp.run("cancel", "--yes")
    gcp.up()
    assert [line.split()[0] for line in GCP.left("us-central1")] == ["compute/network", "compute/router"]
    gcp.destroy()
    assert GCP.left("us-central1") == []


def test_the_components_come_up_as_google_cloud_checks_them_and_go_down_to_nothing(gcp: Engine) -> None:
    gcp.configure(**{"kubernetes:renderYamlToDirectory": "rendered"})
    gcp.program(COMPONENTS)
    gcp.up()
    made = gcp.outputs()
    assert len(str(made["slices"]).split(", ")) == 2
    assert str(made["url"]).startswith("gs://t-store-")
    assert "gke-gcloud-auth-plugin" in str(made["kubeconfig"])
    assert "us-central1-docker.pkg.dev/fusion-local/t-registry-training" in str(made["repositories"])

    gcp.destroy()
    assert GCP.left("us-central1") == []


QUOTAS = """
    import dataclasses
    from infra.gcp.quotas import with_quotas
    from infra.plan_resource import PlanResource
    from planner.catalog import load
    from tests.unit.infra.test_gcp_quotas import planned
    PlanResource("plan", with_quotas(planned("a3-highgpu-8g", NODES), load()))
"""


def test_quotas_are_read_before_the_update_and_what_is_missing_stops_it(gcp: Engine) -> None:
    gcp.program(QUOTAS.replace("NODES", "9"))
    printed = " ".join(gcp.preview(status=None, **PACK).split())
    assert "[mandatory] quotas" in printed
    assert "takes up to 72 accelerators" in printed
    assert "64 are granted: 8 are missing. Ask for 72 at https://console.cloud.google.com/iam-admin/quotas" in printed
    gcp.program(QUOTAS.replace("NODES", "8"))
    assert "quotas" not in gcp.preview(**PACK)
