"""Clusters and node pools of GKE. Nothing runs on them; what GKE checks when it is asked is checked here."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from localcloud import capacity
from localcloud.gcp.inventory import Record
from localcloud.gcp.kind import (
    AGENTS,
    Kind,
    Reference,
    RefusedError,
    World,
    at,
    between,
    matching,
    number_of,
    one,
    one_of,
    region_of,
    words,
)
from localcloud.gcp.kinds.compute import NETWORK, SUBNETWORK, public_address
from localcloud.gcp.kinds.keys import KEY, needs_key
from localcloud.provider import Properties
from localcloud.values import Unknown, has_unknown

CLUSTER = "gcp:container/cluster:Cluster"
NODE_POOL = "gcp:container/nodePool:NodePool"
CLUSTER_ID = "projects/{project}/locations/{location}/clusters/{name}"
GKE = "https://container.googleapis.com/v1/"
ZONES = "abc"
"""Where a regional cluster has nodes unless it says: most regions have these zones ("Regions and zones")."""
TPU_MACHINE = re.compile(r"(ct[a-z0-9]+|tpu[a-z0-9]+)-[a-z]+-(\d+)t")
"""`ct6e-standard-4t`: the number of chips of a node ("Plan TPUs in GKE")."""
FLEX_START_S_MAX = 7 * 24 * 3_600
NOT_FLEX_START = ("a4x-", "g4-", "n1-", "ct3", "ct4")
"""Machine types that are not sold so ("About Flex-start VMs", Compute Engine; "Flex-start", GKE)."""
COMPACT_FLEX_START = ("a3-ultragpu-", "a4-", "h4d-")
"""Of those that are, the ones that are then placed compactly too (Cluster Toolkit, "DWS Flex Start")."""
GPU_NETWORKS = {"a3-highgpu-8g": 4, "a3-megagpu-8g": 8}
"""Further networks of a node, by machine type ("Maximize GPU network bandwidth in Standard mode clusters", GKE)."""
FURTHER_NETWORKS_MAX = 8
FAST_NETWORKS = ("a3-megagpu-", "a3-ultragpu-", "a4-", "a4x-", "ct6e-")
"""Machine types whose further networks GKE makes ("Configure automated networking for accelerator VMs")."""
GPUS_OF_FAMILY = {
    "a2-highgpu": "nvidia-tesla-a100",
    "a2-megagpu": "nvidia-tesla-a100",
    "a2-ultragpu": "nvidia-a100-80gb",
    "a3-highgpu": "nvidia-h100-80gb",
    "a3-megagpu": "nvidia-h100-mega-80gb",
    "a3-ultragpu": "nvidia-h200-141gb",
    "a4-highgpu": "nvidia-b200",
    "g2-standard": "nvidia-l4",
}
"""The only GPU of a family ("GPU machine types", Compute Engine); N1 takes several kinds."""
GPUS_OF_SIZE = {"g2-standard": {4: 1, 8: 1, 12: 1, 16: 1, 24: 2, 32: 1, 48: 4, 96: 8}}
"""Where the machine type's last part is its vCPUs and not its GPUs."""
HYPERDISK_ONLY = ("a3-ultragpu-", "a4-", "a4x-", "g4-", "ct6e-", "c4-", "n4-")
"""They take no Persistent Disk ("About Hyperdisk", Compute Engine)."""
NODES_MAX = 1000
"""Of a node pool by zone ("Quotas and limits", GKE)."""


@cache
def _authority() -> str:
    """A certificate of an authority that nothing else uses, base64 of its PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fusion-local")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2056, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.PEM)).decode()


def _zones(location: str) -> list[str]:
    """The zones of a cluster's nodes unless it says."""
    return [location] if region_of(location) != location else [f"{location}-{each}" for each in ZONES]


def _in_region(name: str) -> Any:
    """A check of inputs: zones are of the location's region."""

    def check(inputs: Properties) -> Iterable[tuple[str, str]]:
        location = inputs.get("location")
        for zone in at(inputs, name):
            if isinstance(location, str) and region_of(zone) != region_of(location):
                yield name, f"{zone}: expected a zone of {region_of(location)}"

    return check


def _cluster_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    yield from _in_region("nodeLocations")(inputs)
    if not inputs.get("removeDefaultNodePool"):
        yield "removeDefaultNodePool", "the local cloud has no default node pools; set it to true and declare a pool"
    elif not inputs.get("initialNodeCount"):
        yield "initialNodeCount", "expected at least 1: GKE makes the pool that removeDefaultNodePool removes"
    if inputs.get("networkingMode", "VPC_NATIVE") == "VPC_NATIVE" and inputs.get("ipAllocationPolicy") is None:
        yield "ipAllocationPolicy", "required for a VPC-native cluster, and not set; the local cloud makes no ranges"
    is_private = one(inputs, "privateClusterConfig.enablePrivateEndpoint")
    if is_private and inputs.get("masterAuthorizedNetworksConfig") is None:
        yield (
            "masterAuthorizedNetworksConfig",
            "required where privateClusterConfig.enablePrivateEndpoint is true, and not set",
        )


def _cluster_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    subnetwork = _subnetwork_of(world, inputs)
    if subnetwork is not None:
        _has_ranges(subnetwork, inputs)
    pool = one(inputs, "workloadIdentityConfig.workloadPool")
    if pool and pool != f"{inputs['project']}.svc.id.goog":
        raise RefusedError(
            400,
            f"workload pool {pool} does not match the expected value {inputs['project']}.svc.id.goog",
            "badRequest",
        )
    for key in at(inputs, "databaseEncryption.keyName"):
        needs_key(world, key, AGENTS["container"], region_of(inputs["location"]), "clusters.create")
    for key in at(inputs, "nodeConfig.bootDiskKmsKey"):
        needs_key(world, key, AGENTS["compute"], region_of(inputs["location"]), "disks.create")
    if old:
        _upgrades(inputs.get("minMasterVersion"), old.get("minMasterVersion"))


def _subnetwork_of(world: World, inputs: Properties) -> Record | None:
    named = inputs.get("subnetwork")
    if not named:
        return None
    return world.find(SUBNETWORK.resolved(named, {**inputs, "region": region_of(inputs["location"])}))


def _has_ranges(subnetwork: Record, inputs: Properties) -> None:
    there = {each["rangeName"] for each in subnetwork.inputs.get("secondaryIpRanges") or ()}
    for field, what in (("clusterSecondaryRangeName", "Pod"), ("servicesSecondaryRangeName", "Services")):
        name = one(inputs, f"ipAllocationPolicy.{field}")
        if name and name not in there:
            raise RefusedError(
                400,
                f'{what} secondary range "{name}" not found in subnet "{subnetwork.inputs["name"]}"',
                "badRequest",
            )


def _upgrades(version: str | None, before: str | None) -> None:
    """A control plane goes up by one minor version at a time, and never down."""
    if not version or not before:
        return
    now, was = (int(each.split(".")[1]) for each in (version, before))
    if now - was not in (0, 1):
        raise RefusedError(
            400, f'Master cannot be upgraded to "{version}": from "{before}" only the next minor version is allowed'
        )


def _version(asked: str | None) -> str:
    """What a minor version becomes: GKE's own patch and build, which the local cloud makes up."""
    asked = asked or "1.35"
    return asked if "-gke." in asked else f"{asked}.0-gke.0" if asked.count(".") == 1 else f"{asked}-gke.0"


def _cluster(world: World, inputs: Properties) -> Properties:
    path = CLUSTER_ID.format(**inputs)
    subnetwork = _subnetwork_of(world, inputs)
    ranges = {
        each["rangeName"]: each["ipCidrRange"]
        for each in (subnetwork.inputs.get("secondaryIpRanges") or () if subnetwork else ())
    }
    policy = inputs.get("ipAllocationPolicy") or {}
    private = inputs.get("privateClusterConfig") or {}
    public = public_address(path)
    inside = _private_endpoint(private, subnetwork)
    services = ranges.get(policy.get("servicesSecondaryRangeName", ""), policy.get("servicesIpv4CidrBlock", ""))
    return {
        "selfLink": GKE + path,
        "endpoint": inside if private.get("enablePrivateEndpoint") else public,
        "masterVersion": _version(inputs.get("minMasterVersion")),
        "nodeVersion": _version(inputs.get("minMasterVersion")),
        "nodeLocations": sorted(set(_zones(inputs["location"])) - {inputs["location"]}),
        "clusterIpv4Cidr": ranges.get(policy.get("clusterSecondaryRangeName", ""), policy.get("clusterIpv4CidrBlock")),
        "servicesIpv4Cidr": services,
        "labelFingerprint": "",
        "masterAuth": {
            "clusterCaCertificate": _authority(),
            "clientCertificate": "",
            "clientKey": "",
            "clientCertificateConfig": {"issueClientCertificate": False},
        },
        "privateClusterConfig": {
            **private,
            "privateEndpoint": inside,
            "publicEndpoint": public,
        },
    }


def _private_endpoint(private: Mapping[str, Any], subnetwork: Record | None) -> str:
    """In the control plane's own range, or in the subnetwork."""
    import ipaddress

    block = private.get("masterIpv4CidrBlock") or (subnetwork.inputs["ipCidrRange"] if subnetwork else "172.16.0.0/28")
    return str(ipaddress.IPv4Network(block)[2])


def _cluster_may_go(world: World, record: Record) -> None:
    if record.inputs.get("deletionProtection", True):
        raise RefusedError(
            400,
            "Cannot destroy cluster because deletion_protection is set to true. Set it to false to proceed with "
            "cluster deletion",
        )


def _pool_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    yield from _in_region("nodeLocations")(inputs)
    maxima = []
    for low, high in (("minNodeCount", "maxNodeCount"), ("totalMinNodeCount", "totalMaxNodeCount")):
        least, most = one(inputs, f"autoscaling.{low}", 0), one(inputs, f"autoscaling.{high}")
        maxima.append(most)
        if most is not None and least > most:
            yield "autoscaling", f"{low} {least} is more than {high} {most}"
    if None not in maxima:
        yield "autoscaling", "expected limits by zone or totals, not both"
    if inputs.get("nodeCount") is not None and inputs.get("autoscaling"):
        yield "nodeCount", "expected none where autoscaling is set; use initialNodeCount"
    yield from _tpu_agrees(inputs)
    yield from _gpu_agrees(inputs)
    yield from _purchase_agrees(inputs)
    yield from _networks_agree(inputs)


def _gpu_agrees(inputs: Properties) -> Iterator[tuple[str, str]]:
    """Kind and number of the GPUs that a machine type has built in, and the disks that it takes."""
    machine = one(inputs, "nodeConfig.machineType")
    if not isinstance(machine, str):
        return
    family, _, size = machine.rpartition("-")
    kind, disk = one(inputs, "nodeConfig.guestAccelerators.type"), one(inputs, "nodeConfig.diskType")
    count = one(inputs, "nodeConfig.guestAccelerators.count")
    has = GPUS_OF_FAMILY.get(family)
    number = re.sub(r"\D", "", size)
    built_in = GPUS_OF_SIZE[family].get(int(number or 0)) if family in GPUS_OF_SIZE else int(number or 0)
    if has and kind not in (None, has):
        yield "nodeConfig.guestAccelerators", f"{kind}: {machine} has {has}"
    if has and isinstance(count, int) and count != built_in:
        yield "nodeConfig.guestAccelerators", f"{count}: {machine} has {built_in} of {has}"
    if machine.startswith(HYPERDISK_ONLY) and isinstance(disk, str) and disk.startswith("pd-"):
        yield "nodeConfig.diskType", f"{disk}: {machine} takes Hyperdisk alone, such as hyperdisk-balanced"


def _purchase_agrees(inputs: Properties) -> Iterator[tuple[str, str]]:
    """Spot, reservations, and how long nodes run."""
    consumes = one(inputs, "nodeConfig.reservationAffinity.consumeReservationType")
    if consumes == "SPECIFIC_RESERVATION":
        if not one(inputs, "nodeConfig.reservationAffinity.values"):
            yield "nodeConfig.reservationAffinity.values", "required where a reservation is named, and not set"
        if _is_spot(inputs):
            yield "nodeConfig.spot", "spot nodes can't come from a reservation; expected one of the two"
    runs = one(inputs, "nodeConfig.maxRunDuration")
    if isinstance(runs, str) and not re.fullmatch(r"\d+s", runs):
        yield "nodeConfig.maxRunDuration", f"{runs}: expected seconds such as 3600s"
    elif isinstance(runs, str) and int(runs[:-1]) > FLEX_START_S_MAX:
        yield "nodeConfig.maxRunDuration", f"{runs}: expected at most {FLEX_START_S_MAX}s, seven days"
    flexible, queued = one(inputs, "nodeConfig.flexStart") is True, one(inputs, "queuedProvisioning.enabled") is True
    if flexible or queued:
        yield from _comes_later(inputs, "flexStart" if flexible else "queuedProvisioning")
    if queued and (one(inputs, "autoscaling.minNodeCount", 0) or one(inputs, "autoscaling.totalMinNodeCount", 0)):
        yield "autoscaling", "with queuedProvisioning: expected a minimum of 0"


def _comes_later(inputs: Properties, how: str) -> Iterator[tuple[str, str]]:
    """Pools whose nodes come when there is room ("Flex-start" and "Flex-start with queued provisioning", GKE)."""
    machine = str(one(inputs, "nodeConfig.machineType", ""))
    consumes = one(inputs, "nodeConfig.reservationAffinity.consumeReservationType")
    is_compact = one(inputs, "placementPolicy.type") == "COMPACT"
    wrong = {
        "nodeConfig.flexStart": (machine.startswith(NOT_FLEX_START), f"{machine} is not sold as flex-start"),
        "nodeConfig.spot": (_is_spot(inputs), f"expected none with {how}"),
        "nodeConfig.reservationAffinity": (
            consumes != "NO_RESERVATION",
            f"with {how}: expected consumeReservationType NO_RESERVATION",
        ),
        "management.autoRepair": (one(inputs, "management.autoRepair") is not False, f"with {how}: expected false"),
        "autoscaling": (
            not inputs.get("autoscaling"),
            f"required with {how}, whose nodes come when pods wait for them",
        ),
        "initialNodeCount": (
            bool(one(inputs, "initialNodeCount", 0) or one(inputs, "nodeCount", 0)),
            f"with {how}: expected 0",
        ),
        "placementPolicy.type": (
            is_compact and not machine.startswith(COMPACT_FLEX_START) and TPU_MACHINE.fullmatch(machine) is None,
            f"COMPACT: not possible with {how} on {machine}",
        ),
    }
    yield from ((path, reason) for path, (is_wrong, reason) in wrong.items() if is_wrong)


def _is_spot(inputs: Properties) -> bool:
    return one(inputs, "nodeConfig.spot") is True or one(inputs, "nodeConfig.preemptible") is True


def _networks_agree(inputs: Properties) -> Iterator[tuple[str, str]]:
    path, machine = "networkConfig.acceleratorNetworkProfile", one(inputs, "nodeConfig.machineType")
    profile = one(inputs, path)
    further = list(at(inputs, "networkConfig.additionalNodeNetworkConfigs"))
    most = GPU_NETWORKS.get(str(machine), FURTHER_NETWORKS_MAX)
    if len(further) > most:
        yield "networkConfig.additionalNodeNetworkConfigs", f"{len(further)}: {machine} takes at most {most}"
    if profile is None:
        return
    if further:
        yield path, "GKE makes the networks; expected no additionalNodeNetworkConfigs beside it"
    if profile != "auto":
        yield path, f"{profile}: expected auto"
    if not has_unknown(inputs.get("nodeConfig")) and not (machine or "").startswith(FAST_NETWORKS):
        yield path, f"GKE makes no networks for {machine or 'its machine type'}"
    zones = inputs.get("nodeLocations") or ()
    if not isinstance(zones, Unknown) and len(zones) != 1:
        yield path, "expected one zone in nodeLocations"


def _tpu_agrees(inputs: Properties) -> Iterator[tuple[str, str]]:
    """A slice is one unit: as many nodes as its topology has chips, divided by those of a node ("Plan TPUs in GKE")."""
    machine, topology = one(inputs, "nodeConfig.machineType"), one(inputs, "placementPolicy.tpuTopology")
    if not isinstance(machine, str):
        return
    found = TPU_MACHINE.fullmatch(machine)
    if found is None:
        if topology:
            yield "placementPolicy.tpuTopology", f"{topology}: {machine} has no TPU"
        return
    if topology is None:
        return
    if not re.fullmatch(r"\d+x\d+(x\d+)?", topology):
        yield "placementPolicy.tpuTopology", f"{topology}: expected a topology such as 4x4 or 2x2x4"
        return
    chips, each = math.prod(int(side) for side in topology.split("x")), int(found[2])
    if reason := _no_such_slice(machine, topology):
        yield "placementPolicy.tpuTopology", f"{topology}: {reason}"
        return
    if chips % each:
        yield "placementPolicy.tpuTopology", f"{topology}: its {chips} chips are no multiple of the {each} of {machine}"
        return
    nodes = chips // each
    for path in ("nodeCount", "initialNodeCount", "autoscaling.maxNodeCount", "autoscaling.totalMaxNodeCount"):
        count = one(inputs, path)
        if nodes > 1 and isinstance(count, int) and count not in (0, nodes):
            yield path, f"{count}: a slice of {topology} on {machine} is {nodes} nodes, all of them or none"


FLAT = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
FLAT_SLICES = {1: ("1x1",), 4: FLAT, 8: ("2x4",)}
"""Topologies of v5e and v6e by chips of a node ("Plan TPUs in GKE", read 2026-11-27)."""
SMALL_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4")
"""Slices of v4 and v5p below a cube of 4x4x4; above it all sides are multiples of 4, in rising order (same page)."""


def _no_such_slice(machine: str, topology: str) -> str | None:
    """Why GKE makes no slice of a topology of a machine type; None where it does, or where it is not known."""
    sides, chips = [int(each) for each in topology.split("x")], int(machine.rpartition("-")[2][:-1])
    if machine.startswith(("ct5lp-", "ct6e-")):
        allowed = FLAT_SLICES.get(chips, ())
        return None if topology in allowed else f"{machine} makes slices of {', '.join(allowed) or 'none'}"
    if machine.startswith(("ct4p-", "ct5p-")):
        cubes = len(sides) == 3 and sides == sorted(sides) and not any(side % 4 for side in sides)
        is_made = topology in SMALL_CUBES or cubes
        made = (
            f"{machine} makes slices of {', '.join(SMALL_CUBES)}, and of sides that are multiples of 4 in rising order"
        )
        return None if is_made else made
    return None


def _pool_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    location = inputs["location"]
    cluster = world.find(CLUSTER_ID.format(**{**inputs, "name": inputs["cluster"].rpartition("/")[2]}))
    for key in at(inputs, "nodeConfig.bootDiskKmsKey"):
        needs_key(world, key, AGENTS["compute"], region_of(location), "disks.create")
    for account in at(inputs, "nodeConfig.serviceAccount"):
        if not _is_account(world, account):
            raise RefusedError(400, f'Service account "{account}" does not exist', "badRequest")
    has_dataplane = cluster is None or cluster.inputs.get("datapathProvider") == "ADVANCED_DATAPATH"
    if one(inputs, "networkConfig.acceleratorNetworkProfile") and not has_dataplane:
        raise RefusedError(400, "acceleratorNetworkProfile requires a cluster with Dataplane V2", "badRequest")
    is_multi = cluster is None or cluster.inputs.get("enableMultiNetworking") is True
    if one(inputs, "networkConfig.additionalNodeNetworkConfigs.network") and not (has_dataplane and is_multi):
        raise RefusedError(
            400, "Additional node networks require a cluster with multi-networking and Dataplane V2", "badRequest"
        )
    if old is None and cluster is not None:
        _has_capacity(inputs, inputs.get("nodeLocations") or cluster.assigned["nodeLocations"] or [location])


def _is_account(world: World, email: str) -> bool:
    accounts = {each.assigned["email"] for each in world.of("gcp:serviceaccount/account:Account")}
    return email == "default" or email.endswith("-compute@developer.gserviceaccount.com") or email in accounts


def _has_capacity(inputs: Properties, zones: list[str]) -> None:
    """The nodes that are made at once; the autoscaler's come later."""
    machine = one(inputs, "nodeConfig.machineType", "e2-medium")
    spot = one(inputs, "nodeConfig.spot", False) or one(inputs, "nodeConfig.preemptible", False)
    each = int(inputs.get("nodeCount") or inputs.get("initialNodeCount") or 0)
    for zone in zones if each else ():
        left = capacity.left("gcp", machine, zone, "spot" if spot else "on_demand")
        if left is not None and left < each:
            raise RefusedError(
                429,
                f"Instance creation failed: ZONE_RESOURCE_POOL_EXHAUSTED: The zone 'projects/{inputs['project']}/zones/"
                f"{zone}' does not have enough resources available to fulfill the request. (resource type:{machine})",
                "GCE_STOCKOUT",
            )


def _pool(world: World, inputs: Properties) -> Properties:
    cluster = world.find(CLUSTER_ID.format(**{**inputs, "name": inputs["cluster"].rpartition("/")[2]}))
    if cluster is None:
        return {}
    zones = inputs.get("nodeLocations") or cluster.assigned["nodeLocations"] or [inputs["location"]]
    managed = [
        f"https://www.googleapis.com/compute/v1/projects/{inputs['project']}/zones/{zone}/instanceGroupManagers/"
        f"gke-{cluster.inputs['name']}-{inputs['name']}-{number_of(zone + inputs['name'])[:8]}-grp"
        for zone in zones
    ]
    return {
        "nodeLocations": zones,
        "version": inputs.get("version") or cluster.assigned["masterVersion"],
        "managedInstanceGroupUrls": managed,
        "instanceGroupUrls": [each.replace("instanceGroupManagers", "instanceGroups") for each in managed],
        "nodeCount": inputs.get("nodeCount", inputs.get("initialNodeCount", 0)),
        "initialNodeCount": inputs.get("initialNodeCount", inputs.get("nodeCount", 0)),
        "operation": "",
    }


VERSIONS = {
    "validMasterVersions": [f"1.{minor}.0-gke.0" for minor in (35, 34, 33)],
    "validNodeVersions": [f"1.{minor}.0-gke.0" for minor in (35, 34, 33)],
    "latestMasterVersion": "1.35.0-gke.0",
    "latestNodeVersion": "1.35.0-gke.0",
    "defaultClusterVersion": "1.35.0-gke.0",
    "releaseChannelDefaultVersion": {"STABLE": "1.34.0-gke.0", "REGULAR": "1.35.0-gke.0", "RAPID": "1.35.0-gke.0"},
}
"""What `getEngineVersions` answers; patches and builds are made up."""

ZONE_OR_REGION = matching(
    r"[a-z]+-[a-z]+[0-9]+(-[a-z])?", "a region such as us-central1, or a zone such as us-central1-a"
)
VERSION = matching(r"1\.\d{2}(\.\d+)?(-gke\.\d+)?", "a version of Kubernetes such as 1.35")

KINDS = (
    Kind(
        CLUSTER,
        CLUSTER_ID,
        words(
            "addonsConfig binaryAuthorization clusterAutoscaling controlPlaneEndpointsConfig costManagementConfig "
            "databaseEncryption datapathProvider defaultMaxPodsPerNode deletionProtection description dnsConfig "
            "enableIntranodeVisibility enableMultiNetworking enableShieldedNodes enterpriseConfig "
            "gatewayApiConfig initialNodeCount ipAllocationPolicy location loggingConfig maintenancePolicy masterAuth "
            "masterAuthorizedNetworksConfig minMasterVersion monitoringConfig name network networkingMode "
            "nodeConfig nodeLocations nodePoolAutoConfig nodePoolDefaults notificationConfig privateClusterConfig "
            "project rbacBindingConfig releaseChannel removeDefaultNodePool resourceLabels secretManagerConfig "
            "securityPostureConfig subnetwork verticalPodAutoscaling workloadIdentityConfig"
        ),
        references={
            "network": NETWORK,
            "subnetwork": SUBNETWORK,
            "databaseEncryption.keyName": KEY,
            "nodeConfig.bootDiskKmsKey": KEY,
        },
        defaults={
            "deletionProtection": True,
            "networkingMode": "VPC_NATIVE",
            "enableShieldedNodes": True,
            "enableKubernetesAlpha": False,
            "defaultMaxPodsPerNode": 110,
        },
        needs=words("network subnetwork"),
        region="location",
        longest_name=40,
        checks={
            "location": ZONE_OR_REGION,
            "minMasterVersion": VERSION,
            "datapathProvider": one_of("ADVANCED_DATAPATH", "LEGACY_DATAPATH", "DATAPATH_PROVIDER_UNSPECIFIED"),
            "networkingMode": one_of("VPC_NATIVE"),
            "defaultMaxPodsPerNode": between(8, 256),
        },
        agree=_cluster_agrees,
        rules=_cluster_rules,
        assigned=_cluster,
        may_go=_cluster_may_go,
        attribution=False,
    ),
    Kind(
        NODE_POOL,
        "projects/{project}/locations/{location}/clusters/{cluster}/nodePools/{name}",
        words(
            "autoscaling cluster initialNodeCount location management maxPodsPerNode name networkConfig nodeConfig "
            "nodeCount nodeLocations placementPolicy project queuedProvisioning upgradeSettings version"
        ),
        references={
            "cluster": Reference(CLUSTER_ID, holds=False, is_whole=True),
            "placementPolicy.policyName": Reference("projects/{project}/regions/{region}/resourcePolicies/{name}"),
            "nodeConfig.bootDiskKmsKey": KEY,
            "networkConfig.additionalNodeNetworkConfigs.network": NETWORK,
            "networkConfig.additionalNodeNetworkConfigs.subnetwork": SUBNETWORK,
        },
        region="location",
        longest_name=40,
        checks={"location": ZONE_OR_REGION, "version": VERSION, "initialNodeCount": between(0, NODES_MAX)},
        agree=_pool_agrees,
        rules=_pool_rules,
        assigned=_pool,
        attribution=False,
    ),
)
