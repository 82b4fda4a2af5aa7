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

CLUSTER = "gcp:container/cluster:Cluster"
NODE_POOL = "gcp:container/nodePool:NodePool"
CLUSTER_ID = "projects/{project}/locations/{location}/clusters/{name}"
GKE = "https://container.googleapis.com/v1/"
ZONES = "abc"
"""Where a regional cluster has nodes unless it says: most regions have these zones ("Regions and zones")."""
TPU_MACHINE = re.compile(r"(ct[a-z0-9]+|tpu[a-z0-9]+)-[a-z]+-(\d+)t")
"""`ct6e-standard-4t`: the number of chips of a node ("Plan TPUs in GKE")."""
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
        for zone in inputs.get(name) or ():
            if isinstance(location, str) and isinstance(zone, str) and region_of(zone) != region_of(location):
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
    private = inputs.get("privateClusterConfig") or {}
    if private.get("enablePrivateEndpoint") and inputs.get("masterAuthorizedNetworksConfig") is None:
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
    scaling = inputs.get("autoscaling") or {}
    for low, high in (("minNodeCount", "maxNodeCount"), ("totalMinNodeCount", "totalMaxNodeCount")):
        least, most = scaling.get(low, 0), scaling.get(high)
        if isinstance(most, int) and isinstance(least, int) and least > most:
            yield "autoscaling", f"{low} {least} is more than {high} {most}"
    if scaling.get("maxNodeCount") is not None and scaling.get("totalMaxNodeCount") is not None:
        yield "autoscaling", "expected limits by zone or totals, not both"
    if inputs.get("nodeCount") is not None and inputs.get("autoscaling"):
        yield "nodeCount", "expected none where autoscaling is set; use initialNodeCount"
    yield from _tpu_agrees(inputs)


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
    if chips % each:
        yield "placementPolicy.tpuTopology", f"{topology}: its {chips} chips are no multiple of the {each} of {machine}"
        return
    nodes = chips // each
    for path in ("nodeCount", "initialNodeCount", "autoscaling.maxNodeCount", "autoscaling.totalMaxNodeCount"):
        count = one(inputs, path)
        if nodes > 1 and isinstance(count, int) and count not in (0, nodes):
            yield path, f"{count}: a slice of {topology} on {machine} is {nodes} nodes, all of them or none"


def _pool_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    location = inputs["location"]
    cluster = world.find(CLUSTER_ID.format(**{**inputs, "name": inputs["cluster"].rpartition("/")[2]}))
    for key in at(inputs, "nodeConfig.bootDiskKmsKey"):
        needs_key(world, key, AGENTS["compute"], region_of(location), "disks.create")
    for account in at(inputs, "nodeConfig.serviceAccount"):
        if not _is_account(world, account):
            raise RefusedError(400, f'Service account "{account}" does not exist', "badRequest")
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
            "enableIntranodeVisibility enableShieldedNodes enterpriseConfig gatewayApiConfig initialNodeCount "
            "ipAllocationPolicy location loggingConfig maintenancePolicy masterAuth "
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
