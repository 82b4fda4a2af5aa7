"""Writes the tables of `docs/clouds.md`: for each arg of the components, what it becomes on each cloud.

`python -m tools.cloud_args` registers each component twice on each cloud, once with an arg changed, without an engine:
what differs in the inputs of the clouds' own resources is what the arg becomes there.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks

from infra.accelerator_pool import AcceleratorPoolArgs, Taint
from infra.budget import BudgetArgs
from infra.build import builder_of
from infra.builder import Builder
from infra.cluster import ClusterArgs, SystemPoolArgs
from infra.errors import ArgumentError
from infra.file_cache import FileCacheArgs
from infra.kubernetes import folders
from infra.network import NetworkArgs
from infra.object_store import ObjectStoreArgs
from infra.registry import RegistryArgs
from infra.workload_identity import StoreAccess, WorkloadIdentityArgs

PAGE = Path(__file__).parents[1] / "docs" / "clouds.md"
BEGIN, END = "<!-- written by tools/cloud_args.py -->\n", "<!-- end -->\n"
CLOUDS = {"aws": "AWS", "gcp": "Google Cloud"}
Args = Any
Place = Mapping[str, Any]

PLACES: Mapping[str, Place] = {
    "aws": {"region": "us-east-1", "zones": ("us-east-1a", "us-east-1b")},
    "gcp": {"region": "us-central1", "zones": ("us-central1-a", "us-central1-b")},
}
ELSEWHERE: Mapping[str, Place] = {
    "aws": {"region": "eu-west-1", "zones": ("eu-west-1a", "eu-west-1b")},
    "gcp": {"region": "europe-west4", "zones": ("europe-west4-a", "europe-west4-b")},
}
SYSTEM = {"aws": ("m6i.large", "m6i.xlarge"), "gcp": ("e2-standard-2", "e2-standard-4")}
ADMINISTRATORS = {"aws": "arn:aws:iam::123456789012:role/ml", "gcp": "group:ml@example.com"}
L4 = {"aws": "g6.xlarge", "gcp": "g2-standard-4"}
TWO_L4 = {"aws": ("g6.12xlarge", 4.0), "gcp": ("g2-standard-24", 2.0)}
T4 = {"aws": "g4dn.xlarge", "gcp": "n1-standard-4+T4x1"}
H100 = {"aws": ("p5.48xlarge", 8.0), "gcp": ("a3-highgpu-8g", 8.0)}
DAEMON = "registry.example.com/tcpxo-daemon@sha256:" + "0" * 64
FAST_H100 = {"aws": ("p5.48xlarge", 8.0), "gcp": ("a3-megagpu-8g", 8.0)}


@dataclass(frozen=True, slots=True)
class Change:
    """One arg, or several that only go together, with other values than the base has.

    Attributes:
        component: `network` and so on, as a builder calls it.
        args: by name what is changed, given the cloud.
        base: likewise, what the change is made from, where the component's usual args don't do.
        value: after a space, where an arg has a row for each of several values.
    """

    component: str
    args: Callable[[str], Mapping[str, Any]]
    base: Callable[[str], Mapping[str, Any]] = field(default=lambda _: {})
    value: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the args that change."""
        return tuple(name for name in self.args("aws") if name != "zones" or len(self.args("aws")) == 1)


def _same(component: str, **args: Any) -> Change:
    return Change(component, lambda _: args)


def _pool_of(offer: Mapping[str, tuple[str, float]], accelerator: str) -> Callable[[str], Mapping[str, Any]]:
    return lambda cloud: {
        "instance_type": offer[cloud][0],
        "accelerator": accelerator,
        "accelerator_count": offer[cloud][1],
        "zones": PLACES[cloud]["zones"][:1],
        "nodes_max": 4,
    }


def _fpga(cloud: str) -> Mapping[str, Any]:
    f2 = {"instance_type": "f2.6xlarge", "accelerator": "VU47P", "device_resource": "xilinx.com/fpga"}
    return f2 if cloud == "aws" else {}


def _flexible(_: str) -> Mapping[str, Any]:
    return {"price_model": "flex_start"}


CHANGES = (
    Change("network", lambda cloud: ELSEWHERE[cloud]),
    Change("network", lambda cloud: {"zones": (*PLACES[cloud]["zones"], PLACES[cloud]["zones"][0][:-1] + "c")}),
    _same("network", cidr="10.8.0.0/16"),
    _same("network", service_cidr="172.24.0.0/16"),
    _same("network", nat="per_zone"),
    _same("network", flow_logs=False),
    _same("network", log_retention_days=365),
    _same("network", tags={"team": "ml"}),
    Change("cluster", lambda cloud: {"region": ELSEWHERE[cloud]["region"]}),
    _same("cluster", kubernetes_version="1.34"),
    _same("cluster", public_access_cidrs=("203.0.113.0/24",)),
    Change("cluster", lambda cloud: {"administrators": (ADMINISTRATORS[cloud],)}),
    Change(
        "cluster", lambda cloud: {"system_pool": SystemPoolArgs(instance_type=SYSTEM[cloud][1], nodes=4, disk_gib=50)}
    ),
    _same("cluster", addon_versions={"vpc-cni": "v1.20.4-eksbuild.2"}),
    _same("cluster", log_retention_days=365),
    _same("cluster", mounts_buckets=True),
    _same("cluster", tags={"team": "ml"}),
    Change("accelerator_pool", lambda cloud: {"pool": "other"}),
    Change("accelerator_pool", lambda cloud: ELSEWHERE[cloud]),
    Change("accelerator_pool", lambda cloud: {"zones": PLACES[cloud]["zones"][:1]}),
    Change(
        "accelerator_pool",
        lambda cloud: {"instance_type": T4[cloud], "accelerator": "T4"},
    ),
    Change(
        "accelerator_pool", lambda cloud: {"accelerator_count": TWO_L4[cloud][1], "instance_type": TWO_L4[cloud][0]}
    ),
    Change("accelerator_pool", lambda _: {"price_model": "spot"}, value=" spot"),
    Change("accelerator_pool", _flexible, value=" flex_start"),
    _same("accelerator_pool", nodes_min=1),
    _same("accelerator_pool", nodes_desired=2),
    _same("accelerator_pool", nodes_max=6),
    _same("accelerator_pool", image_gib=30),
    _same("accelerator_pool", disk_gib=200),
    Change(
        "accelerator_pool",
        lambda _: {"reservation_id": "cr-0123456789abcdef0"},
        lambda cloud: {"zones": PLACES[cloud]["zones"][:1]},
    ),
    Change("accelerator_pool", lambda _: {"max_run_hours": 24}, _flexible),
    Change("accelerator_pool", lambda _: {"queued": True}, _flexible),
    Change(
        "accelerator_pool",
        lambda _: {"fast_interconnect": True},
        lambda cloud: {**_pool_of(FAST_H100, "H100")(cloud), "fast_interconnect": False, "compact_placement": False},
    ),
    Change(
        "accelerator_pool",
        lambda _: {"compact_placement": True},
        lambda cloud: {**_pool_of(H100, "H100")(cloud), "compact_placement": False, "fast_interconnect": False},
    ),
    _same("accelerator_pool", vcpus=4),
    Change("accelerator_pool", lambda _: {"node_autoscaler": "karpenter"}, lambda _: {"vcpus": 4}),
    _same("accelerator_pool", labels={"team": "ml"}),
    _same("accelerator_pool", taints=(Taint(key="team", value="ml"),)),
    _same("accelerator_pool", tags={"team": "ml"}),
    _same("accelerator_pool", stands_in_for="spot"),
    Change("accelerator_pool", lambda _: {"device_resource": "xilinx.com/f2"}, _fpga),
    Change("accelerator_pool", lambda _: {"fabric_images": {"TCPXO": DAEMON}}, _pool_of(FAST_H100, "H100")),
    Change("object_store", lambda cloud: {"region": ELSEWHERE[cloud]["region"]}),
    _same("object_store", noncurrent_days=90),
    _same("object_store", soft_delete_days=30),
    _same("object_store", retention_days=90),
    _same("object_store", unfinished_upload_days=3),
    _same("object_store", delete_with_contents=True),
    _same("object_store", access_log=True),
    _same("object_store", file_cache_gib=1_200),
    _same("object_store", tags={"team": "ml"}),
    _same("file_cache", store=5_000),
    Change("file_cache", lambda cloud: {"zone": PLACES[cloud]["zones"][1]}),
    _same("file_cache", tags={"team": "ml"}),
    Change("registry", lambda cloud: {"region": ELSEWHERE[cloud]["region"]}),
    _same("registry", repositories=("training", "serving")),
    _same("registry", images_kept=10),
    _same("registry", untagged_days=7),
    _same("registry", delete_with_contents=True),
    _same("registry", tags={"team": "ml"}),
    Change("workload_identity", lambda cloud: {"region": ELSEWHERE[cloud]["region"]}),
    _same("workload_identity", namespace="other"),
    _same("workload_identity", service_account="other"),
    _same("workload_identity", access=("data/", "more/")),
    _same("workload_identity", tags={"team": "ml"}),
    _same("budget", stack="other"),
    _same("budget", limit_usd_per_month=2_000),
    _same("budget", emails=("ml@example.com", "finance@example.com")),
    _same("budget", actual_percent=50),
    _same("budget", forecast_percent=120),
    _same("budget", tags={"team": "ml"}),
)
TYPES: Mapping[str, type] = {
    "network": NetworkArgs,
    "cluster": ClusterArgs,
    "accelerator_pool": AcceleratorPoolArgs,
    "object_store": ObjectStoreArgs,
    "file_cache": FileCacheArgs,
    "registry": RegistryArgs,
    "workload_identity": WorkloadIdentityArgs,
    "budget": BudgetArgs,
}
NAMES = frozenset({"name", "namePrefix", "nodeGroupName", "accountId", "repositoryId", "description"})
"""Of resources that have other names with other args: not what an arg is for."""


class Echo(Mocks):
    """Gives every resource its inputs back, with what components read of outputs besides."""

    def __init__(self) -> None:
        self.registered: list[MockResourceArgs] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        """Keep it; its id is made of its name."""
        self.registered.append(args)
        more: dict[str, Any] = {
            "arn": f"arn:aws:x:::{args.name}",
            "name": args.name,
            "selfLink": args.name,
            "email": f"{args.name}@example.com",
            "member": f"serviceAccount:{args.name}@example.com",
            "endpoint": "192.0.2.1",
            "url": f"url-of-{args.name}",
            "registryUri": args.name,
            "repositoryUrl": args.name,
            "identities": [{"oidcs": [{"issuer": "https://issuer.example.com"}]}],
            "certificateAuthority": {"data": "AA=="},
            "masterAuth": {"clusterCaCertificate": "AA=="},
            "latestVersion": 1,
        }
        return f"{args.name}-id", {**more, **args.inputs}

    def call(self, args: MockCallArgs) -> Any:
        """The same answer to each question, with what any asks for."""
        return {
            "accountId": "123456789012",
            "partition": "aws",
            "names": [],
            "projectId": "project",
            "number": "123456789012",
            "billingAccount": "012345-6789AB-CDEF01",
            "emailAddress": "storage@example.com",
            "kmsServiceAccountId": "logging@example.com",
        }


Inputs = Counter[tuple[str, str, str]]


@functools.cache
def _usual(component: str, cloud: str) -> Args:
    """The args that changes are made from."""
    place = PLACES[cloud]
    match component:
        case "network":
            return NetworkArgs(**place)
        case "cluster":
            return ClusterArgs(region=place["region"], system_pool=SystemPoolArgs(instance_type=SYSTEM[cloud][0]))
        case "accelerator_pool":
            return AcceleratorPoolArgs(
                pool="train", instance_type=L4[cloud], accelerator="L4", accelerator_count=1, nodes_max=4, **place
            )
        case "object_store":
            return ObjectStoreArgs(region=place["region"])
        case "registry":
            return RegistryArgs(region=place["region"], repositories=("training",))
        case "budget":
            return BudgetArgs(stack="prod", limit_usd_per_month=1_000, emails=("ml@example.com",))
        case "file_cache":
            return {"store": 1_200, "zone": place["zones"][0]}
    return {"region": place["region"], "namespace": "workloads", "service_account": "digits", "access": ("data/",)}


def _build(component: str, cloud: str, changed: Mapping[str, Any]) -> None:
    """Register a component, and those that it needs."""
    builder, none = builder_of(cloud), pulumi.ResourceOptions()
    usual = _usual(component, cloud)
    if component in ("network", "object_store", "registry", "budget"):
        args = dataclasses.replace(usual, **changed)
        check: Callable[[Args], None] = getattr(builder, f"check_{component}", lambda _: None)
        check(args)
        getattr(builder, component)("prod", args, none)
        return
    if component == "cluster":
        cluster_args = dataclasses.replace(usual, **changed)
        builder.check_cluster(cluster_args)
        network = builder.network("prod-network", NetworkArgs(**PLACES[cloud]), none)
        builder.cluster("prod-cluster", cluster_args, network, none)
    elif component == "accelerator_pool":
        pool = dataclasses.replace(usual, **changed)
        builder.check_accelerator_pool(pool)
        # A copy: a cluster keeps what it made for a pool.
        builder.accelerator_pool("prod-pool", pool, copy.copy(_cluster(cloud, _is_elsewhere(changed))), none)
    elif component == "file_cache":
        _build_cache(builder, cloud, {**usual, **changed})
    elif component == "workload_identity":
        _build_identity(builder, _cluster(cloud, False), cloud, {**usual, **changed})


def _is_elsewhere(changed: Mapping[str, Any]) -> bool:
    return {"region", "zones"} <= changed.keys()


@functools.cache
def _cluster(cloud: str, elsewhere: bool) -> Any:
    """What pools and identities are made in, registered before them: no part of what they become."""
    place, builder, none = (ELSEWHERE if elsewhere else PLACES)[cloud], builder_of(cloud), pulumi.ResourceOptions()
    made: list[Any] = []

    def build() -> None:
        network = builder.network("prod-network", NetworkArgs(**place), none)
        made.append(builder.cluster("prod-cluster", _usual("cluster", cloud), network, none))

    _register(build)
    return made[0]


def _register(build: Callable[[], None]) -> Echo:
    mocks = Echo()
    pulumi.runtime.set_mocks(mocks, project="fusion", stack="prod", preview=False)
    pulumi.runtime.test(build)()
    return mocks


def _build_cache(builder: Builder[Any, Any], cloud: str, given: Mapping[str, Any]) -> None:
    """Of a store with a cache of so many GiB, and of a folder that pods mount."""
    none = pulumi.ResourceOptions()
    stored = dataclasses.replace(_usual("object_store", cloud), file_cache_gib=given["store"])
    store = builder.object_store("prod-store", stored, none)
    network = builder.network("prod-network", NetworkArgs(**PLACES[cloud]), none)
    cache = builder.file_cache("prod-cache", FileCacheArgs(**{**given, "store": store}), network, none)
    folder, labels = cache.folder("data/digits/"), {"app.kubernetes.io/name": "digits"}
    folders.make_claim("prod-digits-data", folder, "digits", "workloads", labels, none)


def _build_identity(builder: Builder[Any, Any], cluster: Any, cloud: str, given: Mapping[str, Any]) -> None:
    store = builder.object_store("prod-store", _usual("object_store", cloud), pulumi.ResourceOptions())
    access = (StoreAccess(store=store, read=given["access"], write=("runs/digits/",)),)
    args = WorkloadIdentityArgs(**{**given, "access": access})
    builder.workload_identity("prod-digits", args, cluster, pulumi.ResourceOptions())


def registered(component: str, cloud: str, changed: Mapping[str, Any]) -> Inputs:
    """Each value of the inputs of the cloud's and Kubernetes' own resources, by type and path."""
    if component in ("accelerator_pool", "workload_identity"):
        _cluster(cloud, component == "accelerator_pool" and _is_elsewhere(changed))
    mocks = _register(lambda: _build(component, cloud, changed))
    found: Inputs = Counter()
    for each in mocks.registered:
        if not each.typ.startswith(("fusion:", "pulumi:")):
            found[each.typ, "", ""] += 1
            found.update((each.typ, path, value) for path, value in _leaves(each.inputs))
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            if path or name not in NAMES:
                yield from _leaves(each, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each, path)
    elif value is not None:
        yield path, str(value)


@functools.cache
def _base(component: str, cloud: str, base: Callable[[str], Mapping[str, Any]]) -> Inputs:
    return registered(component, cloud, base(cloud))


def becomes(change: Change, cloud: str) -> str:
    """What differs on a cloud where an arg is changed: types and paths, or why it is refused."""
    base = change.base(cloud)
    try:
        before = _base(change.component, cloud, change.base)
        after = registered(change.component, cloud, {**base, **change.args(cloud)})
    except ArgumentError as error:
        return f"refused: {str(error).partition(': ')[2] or error}"
    counts = {kind: after[kind, "", ""] - before[kind, "", ""] for kind, path, _ in before | after if not path}
    parts = [f"`{kind}` {count:+d}" for kind, count in sorted(counts.items()) if count]
    by_kind: dict[str, set[str]] = {}
    for kind, path, _ in (before - after) + (after - before):
        if path and not counts[kind]:
            by_kind.setdefault(kind, set()).add(_shortened(path))
    parts += [f"`{kind}` {', '.join(sorted(paths))}" for kind, paths in sorted(by_kind.items())]
    return "; ".join(parts) or "—"


def _shortened(path: str) -> str:
    """Keys of tags and labels are the user's: where they are is said, and not which."""
    head, _, rest = path.partition(".")
    if head in ("tags", "labels", "resourceLabels", "userLabels", "metadata"):
        return head
    return f"{head}.{rest.partition('.')[0]}" if rest else head


def tables() -> str:
    """The tables, by component."""
    parts: list[str] = []
    for component, kind in TYPES.items():
        rows = [
            f"| `{'`, `'.join(each.names)}`{each.value} | {' | '.join(becomes(each, cloud) for cloud in CLOUDS)} |"
            for each in CHANGES
            if each.component == component
        ]
        head = f"| arg of `{kind.__name__}` | {' | '.join(CLOUDS.values())} |\n|---|---|---|"
        parts.append("\n".join([head, *rows]) + "\n")
    return "\n".join(parts)


def page(text: str) -> str:
    """The page with its tables anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE}\n")
