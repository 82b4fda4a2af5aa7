"""What a cloud must be able to build; one of these for each cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import pulumi

from infra.accelerator_pool import AcceleratorPool, AcceleratorPoolArgs
from infra.budget import Budget, BudgetArgs
from infra.cluster import Cluster, ClusterArgs
from infra.file_cache import FileCache, FileCacheArgs
from infra.names import KubernetesTarget
from infra.network import Network, NetworkArgs
from infra.node_autoscaler import NodeAutoscaler
from infra.object_store import ObjectStore, ObjectStoreArgs
from infra.registry import Registry, RegistryArgs
from infra.workload_identity import WorkloadIdentity, WorkloadIdentityArgs
from planner.catalog import Catalog
from planner.plan import Plan

OwnNetwork = TypeVar("OwnNetwork", bound=Network)
OwnCluster = TypeVar("OwnCluster", bound=Cluster)
Options = pulumi.ResourceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder(Generic[OwnNetwork, OwnCluster]):
    """A cloud's components, each made from a name, args and options, and its checks of args.

    Attributes:
        check_network and the others: raise ArgumentError for what the cloud can't build.
        hosts_per_node: machines of a node of a pool, which come and go as one; several only of a slice of TPUs.
        with_quotas: a plan with the quotas that it takes from, as the cloud grants them now, or why they can't be read.
        node_autoscaler: from name, cluster, tags and where its objects go; None where the cloud's node pools scale by
            themselves.
    """

    network: Callable[[str, NetworkArgs, Options], OwnNetwork]
    cluster: Callable[[str, ClusterArgs, OwnNetwork, Options], OwnCluster]
    accelerator_pool: Callable[[str, AcceleratorPoolArgs, OwnCluster, Options], AcceleratorPool]
    object_store: Callable[[str, ObjectStoreArgs, Options], ObjectStore]
    file_cache: Callable[[str, FileCacheArgs, OwnNetwork, Options], FileCache]
    registry: Callable[[str, RegistryArgs, Options], Registry]
    workload_identity: Callable[[str, WorkloadIdentityArgs, OwnCluster, Options], WorkloadIdentity]
    budget: Callable[[str, BudgetArgs, Options], Budget]
    check_network: Callable[[NetworkArgs], None]
    check_cluster: Callable[[ClusterArgs], None]
    check_accelerator_pool: Callable[[AcceleratorPoolArgs], None]
    check_object_store: Callable[[ObjectStoreArgs], None]
    check_budget: Callable[[BudgetArgs], None]
    hosts_per_node: Callable[[AcceleratorPoolArgs], int]
    with_quotas: Callable[[Plan, Catalog], Plan]
    node_autoscaler: (
        Callable[[str, OwnCluster, Mapping[str, str], KubernetesTarget, Options], NodeAutoscaler] | None
    ) = None
