"""The local Google Cloud as the engine sees it: what it makes, what it refuses, and in whose words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localcloud.clouds import LOCAL_CLOUDS
from localcloud.gcp import emulator
from localcloud.gcp.inventory import Inventory
from localcloud.gcp.kind import AGENTS, Kind
from localcloud.gcp.kinds import KINDS
from localcloud.gcp.plugin import GcpBackend
from localcloud.gcp.schema import SCHEMA
from localcloud.provider import Resource
from localcloud.server import home as local_home
from localcloud.values import UNKNOWN
from tests.unit.localcloud.conftest import Made, Provider, refused

PROJECT = "fusion-local"
REGION = "us-central1"
NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ROUTER = "gcp:compute/router:Router"
NAT = "gcp:compute/routerNat:RouterNat"
FIREWALL = "gcp:compute/firewall:Firewall"
CLUSTER = "gcp:container/cluster:Cluster"
POOL = "gcp:container/nodePool:NodePool"
RING = "gcp:kms/keyRing:KeyRing"
KEY = "gcp:kms/cryptoKey:CryptoKey"
KEY_GRANT = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
ACCOUNT = "gcp:serviceaccount/account:Account"
BUCKET = "gcp:storage/bucket:Bucket"
GRANT = "gcp:projects/iAMMember:IAMMember"
CHANNEL = "gcp:monitoring/notificationChannel:NotificationChannel"


class Gcp(Provider):
    def __init__(self, **config: Any) -> None:
        super().__init__(GcpBackend(), project=PROJECT, region=REGION, **config)


@pytest.fixture
def gcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gcp]:
    """A project of the test's own."""
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))
    running = Gcp()
    yield running
    running.kill()


def network(gcp: Gcp) -> Made:
    return gcp.create(NETWORK, {"name": "net", "autoCreateSubnetworks": False}, "net")


def subnetwork(gcp: Gcp, made: Made, **more: Any) -> Made:
    ranges = [
        {"rangeName": "pods", "ipCidrRange": "10.8.0.0/14"},
        {"rangeName": "services", "ipCidrRange": "172.20.0.0/20"},
    ]
    inputs = {"name": "nodes", "network": made.outputs["selfLink"], "ipCidrRange": "10.0.0.0/20"}
    return gcp.create(SUBNETWORK, inputs | {"secondaryIpRanges": ranges} | more, "nodes")


def cluster(gcp: Gcp, **more: Any) -> Made:
    net = network(gcp)
    nodes = subnetwork(gcp, net)
    inputs = {
        "name": "main",
        "location": REGION,
        "network": net.id,
        "subnetwork": nodes.outputs["selfLink"],
        "initialNodeCount": 1,
        "removeDefaultNodePool": True,
        "deletionProtection": False,
        "ipAllocationPolicy": {"clusterSecondaryRangeName": "pods", "servicesSecondaryRangeName": "services"},
        "workloadIdentityConfig": {"workloadPool": f"{PROJECT}.svc.id.goog"},
    }
    return gcp.create(CLUSTER, inputs | more, "main")


def pool(gcp: Gcp, name: str = "gpus", **more: Any) -> Made:
    inputs = {"name": name, "cluster": "main", "location": REGION, "initialNodeCount": 1}
    return gcp.create(POOL, inputs | more, name)


def key(gcp: Gcp, location: str = REGION, agent: str | None = "storage") -> Made:
    ring = gcp.create(RING, {"name": "ring", "location": location}, "ring")
    made = gcp.create(KEY, {"name": "key", "keyRing": ring.id, "rotationPeriod": "7776000s"}, "key")
    if agent:
        grant = {"cryptoKeyId": made.id, "role": "roles/cloudkms.cryptoKeyEncrypterDecrypter"}
        gcp.create(KEY_GRANT, grant | {"member": f"serviceAccount:{AGENTS[agent]}"}, f"grant-{agent}")
    return made


def test_ids_and_links_are_googles(gcp: Gcp) -> None:
    net = network(gcp)
    assert net.id == f"projects/{PROJECT}/global/networks/net"
    assert net.outputs["selfLink"] == f"https://www.googleapis.com/compute/v1/{net.id}"
    nodes = subnetwork(gcp, net)
    assert nodes.id == f"projects/{PROJECT}/regions/{REGION}/subnetworks/nodes"
    assert nodes.outputs["gatewayAddress"] == "10.0.0.1"
    assert nodes.outputs["region"] == REGION


def test_what_is_left_out_is_named_by_pulumi(gcp: Gcp) -> None:
    made = gcp.create(NETWORK, {"autoCreateSubnetworks": False}, "Main")
    assert made.inputs["name"] == "main-0101010"


@pytest.mark.parametrize(
    ("token", "inputs", "field", "reason"),
    [
        (NETWORK, {}, "autoCreateSubnetworks", "required"),
        (NETWORK, {"autoCreateSubnetworks": True}, "autoCreateSubnetworks", "makes no subnetworks by itself"),
        (NETWORK, {"autoCreateSubnetworks": False, "name": "Net_1"}, "name", "expected a name of the form"),
        (NETWORK, {"autoCreateSubnetworks": False, "mtu": "big"}, "mtu", "expected integer"),
        (NETWORK, {"autoCreateSubnetworks": False, "bgpBestPathSelectionMode": "STANDARD"}, "bgpBestPathSelectionMode",
         "does not carry this input"),
        (NETWORK, {"autoCreateSubnetworks": False, "colour": "red"}, "colour", "no such input"),
        (SUBNETWORK, {"network": "net", "ipCidrRange": "10.0.0.1/20"}, "ipCidrRange", "has host bits set"),
        (FIREWALL, {"network": "net", "sourceRanges": ["10.0.0.0/8"]}, "allows", "exactly one of allows, denies"),
        (FIREWALL, {"network": "net", "allows": [{"protocol": "tcp"}]}, "sourceRanges", "where direction is INGRESS"),
        (FIREWALL, {"network": "net", "allows": [{"protocol": "tcp"}], "direction": "UP"}, "direction", "expected one of"),
        (BUCKET, {"location": REGION, "labels": {"Team": "ml"}}, "labels.Team", "lower-case"),
        (BUCKET, {"location": REGION, "lifecycleRules": [{"action": {"type": "SetStorageClass"}, "condition": {}}]},
         "lifecycleRules[0].action.storageClass", "required where"),
        (ACCOUNT, {"accountId": "me"}, "accountId", "expected a name"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_named(gcp: Gcp, token: str, inputs: dict[str, Any], field: str, reason: str) -> None:
    _, failures = gcp.check(token, inputs)
    assert reason in failures[field], failures


def test_a_type_that_is_not_served_is_refused(gcp: Gcp) -> None:
    assert "does not serve this type" in refused(gcp.check, "gcp:sql/databaseInstance:DatabaseInstance", {})


def test_a_subnetwork_needs_its_network(gcp: Gcp) -> None:
    said = refused(gcp.create, SUBNETWORK, {"name": "nodes", "network": "net", "ipCidrRange": "10.0.0.0/20"}, "nodes")
    assert f"Error 404: The resource 'projects/{PROJECT}/global/networks/net' was not found" in said


def test_a_name_is_taken_once(gcp: Gcp) -> None:
    network(gcp)
    assert "already exists" in refused(gcp.create, NETWORK, {"name": "net", "autoCreateSubnetworks": False}, "other")


def test_the_identity_of_a_service_is_the_projects_and_stays_until_nobody_has_it_any_more(gcp: Gcp) -> None:
    token, inputs = "gcp:projects/serviceIdentity:ServiceIdentity", {"service": "artifactregistry.googleapis.com"}
    one, other = (gcp.create(token, inputs, name) for name in ("one", "other"))
    assert (one.id, one.outputs["email"]) == (other.id, other.outputs["email"])
    gcp.delete(one)
    assert gcp.read(other) is not None
    gcp.delete(other)
    assert LOCAL_CLOUDS["gcp"].left(REGION) == []


def test_ranges_of_a_network_do_not_overlap(gcp: Gcp) -> None:
    net = network(gcp)
    subnetwork(gcp, net)
    for taken in ("10.0.8.0/24", "10.9.0.0/24"):
        inputs = {"name": "more", "network": "net", "ipCidrRange": taken, "region": "us-east1"}
        assert "conflicts with existing subnetwork 'nodes'" in refused(gcp.create, SUBNETWORK, inputs, "more")


def test_what_is_used_stays_and_a_nat_goes_with_its_router(gcp: Gcp) -> None:
    net = network(gcp)
    router = gcp.create(ROUTER, {"name": "router", "network": "net"}, "router")
    nat = {"name": "nat", "router": "router", "natIpAllocateOption": "AUTO_ONLY"}
    made = gcp.create(NAT, nat | {"sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES"}, "nat")
    assert made.id == f"{PROJECT}/{REGION}/router/nat"
    assert f"already being used by '{router.id}'" in refused(gcp.delete, net)
    gcp.delete(router)
    assert gcp.read(made) is None
    gcp.delete(net)
    assert Inventory(local_home()).lines() == []


def test_a_cluster_checks_ranges_region_and_identity_pool(gcp: Gcp) -> None:
    made = cluster(gcp)
    assert made.outputs["clusterIpv4Cidr"] == "10.8.0.0/14"
    assert made.outputs["masterAuth"]["clusterCaCertificate"]
    base = {**made.inputs, "name": "other"}
    policy = {"clusterSecondaryRangeName": "pots", "servicesSecondaryRangeName": "services"}
    assert '"pots" not found' in refused(gcp.create, CLUSTER, base | {"ipAllocationPolicy": policy}, "a")
    assert "not in region us-east1" in refused(gcp.create, CLUSTER, base | {"location": "us-east1"}, "b")
    strange = {"workloadIdentityConfig": {"workloadPool": "mine.svc.id.goog"}}
    assert "does not match the expected value" in refused(gcp.create, CLUSTER, base | strange, "c")


def test_a_protected_cluster_stays_until_it_is_not(gcp: Gcp) -> None:
    made = cluster(gcp, deletionProtection=True)
    assert "deletion_protection" in refused(gcp.delete, made)
    gcp.update(made, made.inputs | {"deletionProtection": False})
    gcp.delete(made)


def test_workload_identity_needs_a_cluster_of_the_project(gcp: Gcp) -> None:
    account = gcp.create(ACCOUNT, {"accountId": "trainer"}, "trainer")
    grant = {"serviceAccountId": account.id, "role": "roles/iam.workloadIdentityUser"}
    grant |= {"member": f"serviceAccount:{PROJECT}.svc.id.goog[workloads/digits]"}
    token = "gcp:serviceaccount/iAMMember:IAMMember"
    assert "Identity Pool does not exist" in refused(gcp.create, token, grant, "grant")
    cluster(gcp)
    assert gcp.create(token, grant, "grant").id


def test_members_and_custom_roles_have_to_be_there(gcp: Gcp) -> None:
    token = "gcp:projects/iAMMember:IAMMember"
    nobody = {
        "project": PROJECT,
        "role": "roles/viewer",
        "member": f"serviceAccount:no@{PROJECT}.iam.gserviceaccount.com",
    }
    assert "does not exist" in refused(gcp.create, token, nobody, "a")
    strange = {"project": PROJECT, "role": f"projects/{PROJECT}/roles/mine", "member": "user:a@example.com"}
    assert "does not exist" in refused(gcp.create, token, strange, "b")


GPU = {"type": "nvidia-tesla-a100", "count": 1}
OF_MINE = {
    "consumeReservationType": "SPECIFIC_RESERVATION",
    "key": "compute.googleapis.com/reservation-name",
    "values": ["mine"],
}


def node(machine_type: str, **more: Any) -> dict[str, Any]:
    guests = more.pop("guestAccelerators", None)
    return {
        "nodeConfig": {"machineType": machine_type} | more | ({"guestAccelerators": [guests]} if guests else {}),
        "initialNodeCount": 0,
    }


def slice_of(machine_type: str, topology: str) -> dict[str, Any]:
    return node(machine_type) | {"placementPolicy": {"type": "COMPACT", "tpuTopology": topology}}


def flexible(machine_type: str, **more: Any) -> dict[str, Any]:
    """A pool of flex-start as GKE takes it."""
    own = {"flexStart": True, "reservationAffinity": {"consumeReservationType": "NO_RESERVATION"}}
    return node(machine_type, **own | more) | {
        "autoscaling": {"totalMinNodeCount": 0, "totalMaxNodeCount": 2},
        "management": {"autoRepair": False, "autoUpgrade": True},
    }


def networked(machine_type: str, zones: str = "a") -> dict[str, Any]:
    """A pool whose further networks GKE makes."""
    places = [f"{REGION}-{each}" for each in zones]
    return node(machine_type) | {"networkConfig": {"acceleratorNetworkProfile": "auto"}, "nodeLocations": places}


@pytest.mark.parametrize(
    "more",
    [
        flexible("a3-highgpu-8g", maxRunDuration="604800s"),
        flexible("ct5lp-hightpu-4t")
        | {"placementPolicy": {"type": "COMPACT", "tpuTopology": "4x4"}, "autoscaling": {"totalMaxNodeCount": 4}},
        flexible("g2-standard-8") | {"queuedProvisioning": {"enabled": True}},
        flexible("a3-ultragpu-8g") | {"placementPolicy": {"type": "COMPACT"}},
        networked("a3-megagpu-8g"),
        node("a2-highgpu-1g", reservationAffinity=OF_MINE),
        slice_of("ct5p-hightpu-4t", "4x4x12"),
    ],
)
def test_a_pool_that_gke_makes(gcp: Gcp, more: dict[str, Any]) -> None:
    _, failures = gcp.check(POOL, {"cluster": "main", "location": REGION} | more)
    assert failures == {}


def test_networks_for_accelerators_need_the_clusters_dataplane(gcp: Gcp) -> None:
    cluster(gcp)
    assert "requires a cluster with Dataplane V2" in refused(pool, gcp, **networked("a3-megagpu-8g"))


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"autoscaling": {"minNodeCount": 3, "maxNodeCount": 2}}, "autoscaling"),
        ({"nodeLocations": ["us-east1-b"]}, "nodeLocations"),
        (
            {
                "nodeConfig": {"machineType": "ct5lp-hightpu-4t"},
                "placementPolicy": {"type": "COMPACT", "tpuTopology": "4x4"},
                "initialNodeCount": 3,
            },
            "initialNodeCount",
        ),
        (
            {
                "nodeConfig": {"machineType": "a3-highgpu-8g"},
                "placementPolicy": {"type": "COMPACT", "tpuTopology": "4x4"},
            },
            "placementPolicy.tpuTopology",
        ),
        (slice_of("ct5lp-hightpu-4t", "2x8"), "placementPolicy.tpuTopology"),
        (slice_of("ct5lp-hightpu-8t", "4x4"), "placementPolicy.tpuTopology"),
        (slice_of("ct6e-standard-4t", "2x2x4"), "placementPolicy.tpuTopology"),
        (slice_of("ct5p-hightpu-4t", "4x4"), "placementPolicy.tpuTopology"),
        (slice_of("ct5p-hightpu-4t", "8x4x4"), "placementPolicy.tpuTopology"),
        (slice_of("ct5p-hightpu-4t", "2x2x8"), "placementPolicy.tpuTopology"),
        (node("a2-highgpu-2g", guestAccelerators=GPU | {"count": 4}), "nodeConfig.guestAccelerators"),
        (node("g2-standard-24", guestAccelerators={"type": "nvidia-l4", "count": 1}), "nodeConfig.guestAccelerators"),
        (node("g2-standard-4", guestAccelerators=GPU), "nodeConfig.guestAccelerators"),
        (node("ct6e-standard-4t", diskType="pd-balanced"), "nodeConfig.diskType"),
        (node("g4-standard-48", diskType="pd-ssd"), "nodeConfig.diskType"),
        (node("a2-highgpu-1g", spot=True, reservationAffinity=OF_MINE), "nodeConfig.spot"),
        (node("a2-highgpu-1g", reservationAffinity=OF_MINE | {"values": []}), "nodeConfig.reservationAffinity.values"),
        (node("a2-highgpu-1g", maxRunDuration="2h"), "nodeConfig.maxRunDuration"),
        (node("a2-highgpu-1g", maxRunDuration="604801s"), "nodeConfig.maxRunDuration"),
        (flexible("g4-standard-48"), "nodeConfig.flexStart"),
        (flexible("ct4p-hightpu-4t"), "nodeConfig.flexStart"),
        (flexible("a2-highgpu-1g", spot=True), "nodeConfig.spot"),
        (flexible("a2-highgpu-1g", reservationAffinity=None), "nodeConfig.reservationAffinity"),
        (flexible("a2-highgpu-1g") | {"management": {"autoRepair": True}}, "management.autoRepair"),
        (flexible("a2-highgpu-1g") | {"initialNodeCount": 1}, "initialNodeCount"),
        (flexible("a2-highgpu-1g") | {"autoscaling": None}, "autoscaling"),
        (flexible("a2-highgpu-1g") | {"placementPolicy": {"type": "COMPACT"}}, "placementPolicy.type"),
        (
            flexible("a2-highgpu-1g")
            | {
                "queuedProvisioning": {"enabled": True},
                "autoscaling": {"totalMinNodeCount": 1, "totalMaxNodeCount": 2},
            },
            "autoscaling",
        ),
        (networked("a3-highgpu-8g"), "networkConfig.acceleratorNetworkProfile"),
        (networked("a3-megagpu-8g", zones="ab"), "networkConfig.acceleratorNetworkProfile"),
        (
            networked("a3-megagpu-8g") | {"networkConfig": {"acceleratorNetworkProfile": "fast"}},
            "networkConfig.acceleratorNetworkProfile",
        ),
        (
            node("a3-highgpu-8g") | {"networkConfig": {"additionalNodeNetworkConfigs": [{"network": "gpu"}] * 5}},
            "networkConfig.additionalNodeNetworkConfigs",
        ),
    ],
)
def test_a_pool_that_gke_would_not_make(gcp: Gcp, more: dict[str, Any], field: str) -> None:
    _, failures = gcp.check(POOL, {"cluster": "main", "location": REGION} | more)
    assert field in failures


def test_a_log_bucket_needs_its_key_and_a_sink_its_log_bucket(gcp: Gcp) -> None:
    token, sink = "gcp:logging/projectBucketConfig:ProjectBucketConfig", "gcp:logging/projectSink:ProjectSink"
    made_key = key(gcp, agent=None)
    log = {"project": PROJECT, "location": REGION, "bucketId": "access", "retentionDays": 365}
    encrypted = log | {"cmekSettings": {"kmsKeyName": made_key.id}}
    path = f"projects/{PROJECT}/locations/{REGION}/buckets/access"
    fill = {"name": "it", "destination": f"logging.googleapis.com/{path}"}
    assert AGENTS["logging"] in refused(gcp.create, token, encrypted, "log")
    assert "was not found" in refused(gcp.create, sink, fill, "sink")
    grant = {"cryptoKeyId": made_key.id, "role": "roles/cloudkms.cryptoKeyEncrypterDecrypter"}
    gcp.create(KEY_GRANT, grant | {"member": f"serviceAccount:{AGENTS['logging']}"}, "grant")
    assert gcp.create(token, encrypted, "log").id == path
    assert gcp.create(sink, fill, "sink").id == f"projects/{PROJECT}/sinks/it"
    _, failures = gcp.check(token, encrypted | {"location": "global", "retentionDays": 4_000})
    assert set(failures) == {"retentionDays"}
    _, failures = gcp.check(token, encrypted | {"location": "global"})
    assert set(failures) == {"cmekSettings"}


def test_a_slice_of_tpus_is_all_of_its_nodes(gcp: Gcp) -> None:
    cluster(gcp)
    tpus = {"nodeConfig": {"machineType": "ct5lp-hightpu-4t"}, "nodeLocations": [f"{REGION}-a"]}
    made = pool(gcp, **tpus, placementPolicy={"type": "COMPACT", "tpuTopology": "4x4"}, initialNodeCount=4)
    assert made.outputs["nodeCount"] == 4
    assert made.outputs["nodeLocations"] == [f"{REGION}-a"]


def test_a_pool_goes_with_its_cluster(gcp: Gcp) -> None:
    made = cluster(gcp)
    gpus = pool(gcp)
    gcp.delete(made)
    assert gcp.read(gpus) is None


REPLACEMENTS: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    (NETWORK, {"name": "a"}, {"name": "b"}, ["name"]),
    (NETWORK, {"name": "a"}, {"name": "a", "routingMode": "GLOBAL"}, []),
    (SUBNETWORK, {"ipCidrRange": "10.0.0.0/20"}, {"ipCidrRange": "10.0.0.0/19"}, []),
    (SUBNETWORK, {"ipCidrRange": "10.0.0.0/20"}, {"ipCidrRange": "10.0.0.0/21"}, ["ipCidrRange"]),
    (POOL, {"nodeConfig": {"machineType": "a", "spot": True}}, {"nodeConfig": {"machineType": "a"}}, ["nodeConfig"]),
    (POOL, {"nodeConfig": {"machineType": "a"}}, {"nodeConfig": {"machineType": "a", "labels": {"b": "c"}}}, []),
    (
        POOL,
        {"nodeConfig": {"metadata": {"a": "b"}}},
        {"nodeConfig": {"metadata": {"a": "c"}}},
        ["nodeConfig"],
    ),
    (
        POOL,
        {"nodeConfig": {"guestAccelerators": [{"type": "nvidia-l4", "count": 1}]}},
        {"nodeConfig": {"guestAccelerators": [{"type": "nvidia-l4", "count": 2}]}},
        ["nodeConfig"],
    ),
    (POOL, {"autoscaling": {"maxNodeCount": 2}}, {"autoscaling": {"maxNodeCount": 3}}, []),
    (CLUSTER, {"minMasterVersion": "1.34"}, {"minMasterVersion": "1.35"}, []),
    (CLUSTER, {"datapathProvider": "LEGACY_DATAPATH"}, {"datapathProvider": "ADVANCED_DATAPATH"}, ["datapathProvider"]),
    (BUCKET, {"location": "US-CENTRAL1"}, {"location": "us-east1"}, ["location"]),
    (BUCKET, {"versioning": {"enabled": False}}, {"versioning": {"enabled": True}}, []),
]


@pytest.mark.parametrize(("token", "old", "new", "replaced"), REPLACEMENTS)
def test_update_or_replace_is_the_providers(
    token: str, old: dict[str, Any], new: dict[str, Any], replaced: list[str]
) -> None:
    change = GcpBackend().diff(Resource("urn", token, "it"), "id", old, new)
    assert change.changed
    assert change.replaced_by == replaced


SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (SUBNETWORK, {"network": "net"}, {"network": f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/global/networks/net"}),
    (FIREWALL, {"sourceRanges": ["10.0.0.0/8", "172.16.0.0/12"]}, {"sourceRanges": ["172.16.0.0/12", "10.0.0.0/8"]}),
    (POOL, {"nodeConfig": {"diskSizeGb": 100, "machineType": "a"}}, {"nodeConfig": {"machineType": "a"}}),
    (BUCKET, {"location": "us-central1"}, {"location": "US-CENTRAL1"}),
]  # fmt: skip


@pytest.mark.parametrize(("token", "old", "new"), SAME)
def test_what_means_the_same_is_no_change(token: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert not GcpBackend().diff(Resource("urn", token, "it"), "id", old, new).changed


def test_a_change_in_a_set_is_told_of_the_set_as_the_user_sees_no_order_in_it() -> None:
    old = {"network": "net", "allows": [{"protocol": "icmp"}, {"protocol": "tcp", "ports": ["80", "1000-2000"]}]}
    new = {"network": "net", "allows": [{"protocol": "icmp"}, {"protocol": "tcp", "ports": ["80", "1000-3000"]}]}
    change = GcpBackend().diff(Resource("urn", FIREWALL, "it"), "id", old, new)
    assert change.details == {"allows": "UPDATE"}
    assert (change.changed, change.replaced_by) == (["allows"], [])


def sample(expected: Any, depth: int = 0) -> Any:
    """A value of a type of the schema."""
    if isinstance(expected, list):
        inner = sample(expected[1], depth + 1)
        return [inner] if expected[0] == "list" else {"key": inner}
    if expected.startswith("#"):
        fields = SCHEMA.fields_of(expected) if depth < 5 else {}
        return {name: sample(each, depth + 1) for name, each in fields.items()}
    return {"string": "10.0.0.0/24", "boolean": True, "integer": 3, "number": 1.5}.get(expected, "any")


def with_one_unknown(value: Any) -> Iterator[Any]:
    """The value unknown, and each of its parts."""
    yield UNKNOWN
    if isinstance(value, dict):
        yield from (value | {name: part} for name, each in value.items() for part in with_one_unknown(each))
    elif isinstance(value, list):
        yield from ([part] for part in with_one_unknown(value[0]))


@pytest.mark.parametrize("kind", [each for each in KINDS.values() if each.agree], ids=lambda kind: kind.token)
def test_in_a_preview_any_value_may_be_unknown(kind: Kind) -> None:
    """As where `node_locations=cluster.node_locations`."""
    assert kind.agree
    for name in sorted(kind.carried):
        for value in with_one_unknown(sample(SCHEMA.inputs_of(kind.token)[name])):
            list(kind.agree({name: value, "location": REGION}))


@pytest.mark.parametrize(
    ("token", "inputs", "named"),
    [
        (CHANNEL, {"type": "email", "labels": UNKNOWN}, "labels"),
        (BUCKET, {"lifecycleRules": [{"action": {"type": "SetStorageClass", "storageClass": UNKNOWN},
                                      "condition": {"age": 1}}], "location": REGION}, "lifecycleRules"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_not_called_missing(gcp: Gcp, token: str, inputs: dict[str, Any], named: str) -> None:
    found, failures = gcp.check(token, inputs)
    assert not failures and named in found


def test_a_kill_between_creation_and_state_makes_nothing_twice(gcp: Gcp) -> None:
    first = network(gcp)
    again = Gcp()
    assert network(again).id == first.id
    other = again.create(NETWORK, {"name": "other", "autoCreateSubnetworks": False}, "net")
    assert Inventory(local_home()).lines() == [f"compute/network {other.id}"]
    again.kill()


def test_leftovers_of_a_stack_are_found_and_removed(gcp: Gcp) -> None:
    made = network(gcp)
    subnetwork(gcp, made)
    backend = GcpBackend()
    backend.configure({"project": PROJECT})
    removed = backend.remove_leftovers_of("test", [])
    assert [urn.rpartition("::")[2] for urn in removed] == ["nodes", "net"]
    assert Inventory(local_home()).lines() == []


def test_a_refresh_and_an_import_see_what_is_there(gcp: Gcp) -> None:
    made = network(gcp)
    found = gcp.read(made)
    assert found is not None and found.inputs == made.inputs
    imported = gcp.read(made, is_import=True)
    assert imported is not None and imported.inputs["name"] == "net"


@pytest.mark.parametrize(
    "id", ["nodes", f"{REGION}/nodes", f"{PROJECT}/{REGION}/nodes",
           f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/regions/{REGION}/subnetworks/nodes"],
)  # fmt: skip
def test_an_import_takes_each_id_that_is_documented(gcp: Gcp, id: str) -> None:
    made = subnetwork(gcp, network(gcp))
    imported = gcp.read(replace(made, id=id), is_import=True)
    assert imported is not None and imported.id == made.id
    assert gcp.read(replace(made, id=f"europe-west4/{id}"), is_import=True) is None


def test_grants_of_one_role_to_one_member_are_told_apart_by_their_conditions(gcp: Gcp) -> None:
    """And imported as pulumi-gcp documents it: what, role and member with spaces between."""
    member = gcp.create(ACCOUNT, {"accountId": "trainer"}, "trainer").outputs["member"]
    inputs = {"project": PROJECT, "role": "roles/storage.objectViewer", "member": member}
    always = gcp.create(GRANT, inputs, "always")
    for title in ("a", "b"):
        gcp.create(GRANT, inputs | {"condition": {"title": title, "expression": "true"}}, title)
    assert len([each for each in Inventory(local_home()).lines() if "iAMMember" in each]) == 3
    imported = gcp.read(replace(always, id=f"{PROJECT} {inputs['role']} {member}"), is_import=True)
    assert imported is not None and imported.id == always.id


def test_what_google_numbers_has_a_name(gcp: Gcp) -> None:
    budget = {"billingAccount": "012345-6789AB-CDEF01", "amount": {"specifiedAmount": {"units": "10"}}}
    budget_made = gcp.create("gcp:billing/budget:Budget", budget, "budget")
    assert budget_made.id == f"billingAccounts/012345-6789AB-CDEF01/budgets/{budget_made.outputs['name']}"
    channel = gcp.create(CHANNEL, {"type": "email", "labels": {"email_address": "a@example.com"}}, "channel")
    assert channel.outputs["name"] == channel.id


def test_a_preview_knows_what_is_declared(gcp: Gcp) -> None:
    made = gcp.create(NETWORK, {"name": "net", "autoCreateSubnetworks": False}, preview=True)
    assert made.id == ""
    assert made.outputs["name"] == "net"
    assert Inventory(local_home()).lines() == []


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gcp]:
    """A project with the bucket server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(tmp_path_factory.mktemp("gcs")))
        running = Gcp(defaultLabels={"stack": "test"})
        yield running
        running.kill()
        emulator.stop()


def test_a_bucket_is_on_the_emulator_and_not_deleted_with_objects(storage: Gcp) -> None:
    made = storage.create(BUCKET, {"name": "fusion-objects", "location": REGION, "labels": {"team": "ml"}}, "bucket")
    assert made.outputs["url"] == "gs://fusion-objects"
    assert made.outputs["effectiveLabels"] == {"team": "ml", "stack": "test", "goog-pulumi-provisioned": "true"}
    assert emulator.buckets() == ["fusion-objects"]
    put("fusion-objects", "a/b.txt", b"hello")
    emulator.kill()
    assert emulator.has_objects("fusion-objects")
    assert "containing objects without `force_destroy`" in refused(storage.delete, made)
    forced = made.inputs | {"forceDestroy": True}
    storage.update(made, forced)
    storage.delete(made)
    assert emulator.buckets() == []


def test_a_bucket_s_key_is_in_its_region_and_open_to_the_service(storage: Gcp) -> None:
    far = key(storage, "us-east1", agent=None)
    inputs = {"name": "fusion-keys", "location": REGION, "encryption": {"defaultKmsKeyName": far.id}}
    assert "is in location us-east1" in refused(storage.create, BUCKET, inputs, "far")
    ring = storage.create(RING, {"name": "near", "location": REGION}, "near")
    near = storage.create(KEY, {"name": "key", "keyRing": ring.id}, "near-key")
    inputs["encryption"] = {"defaultKmsKeyName": near.id}
    assert "Permission denied on Cloud KMS key" in refused(storage.create, BUCKET, inputs, "near")
    grant = {"cryptoKeyId": near.id, "role": "roles/cloudkms.cryptoKeyEncrypterDecrypter"}
    storage.create(KEY_GRANT, grant | {"member": f"serviceAccount:{AGENTS['storage']}"}, "grant")
    storage.delete(storage.create(BUCKET, inputs, "near"))


ROUND = """
from workloads import storage
data = bytes(range(256)) * 70_000  # more than one part
storage.write_durably("gs://fusion-round/a/large.bin", data)
storage.write("gs://fusion-round/a/small.bin", b"small")
assert storage.read("gs://fusion-round/a/large.bin") == data
assert storage.read_range("gs://fusion-round/a/large.bin", 300, 303) == data[300:303]
assert storage.size("gs://fusion-round/a/small.bin") == 5
assert storage.names("gs://fusion-round/a") == ["large.bin", "small.bin"]
assert storage.read_or_none("gs://fusion-round/b") is None
storage.remove("gs://fusion-round/a")
assert storage.names("gs://fusion-round/a") == []
"""


def test_workloads_read_and_write_a_bucket_through_gcsfs(storage: Gcp) -> None:
    made = storage.create(BUCKET, {"name": "fusion-round", "location": REGION}, "round")
    environment = LOCAL_CLOUDS["gcp"].environment()
    done = subprocess.run([sys.executable, "-c", ROUND], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "storage/bucket fusion-round" in LOCAL_CLOUDS["gcp"].left(REGION)
    storage.delete(made)


def test_a_key_ring_s_name_is_taken_for_ever(gcp: Gcp) -> None:
    ring = gcp.create(RING, {"name": "ring", "location": REGION}, "ring")
    gcp.delete(ring)
    assert Inventory(local_home()).lines() == []
    assert "keeps its name for ever" in refused(gcp.create, RING, {"name": "ring", "location": REGION}, "ring")


def put(bucket: str, name: str, data: bytes) -> None:
    import urllib.request

    address = f"{emulator.ensure()}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}"
    urllib.request.urlopen(urllib.request.Request(address, data=data, method="POST")).close()
