"""Who builds each component on Google Cloud."""

from infra.builder import Builder
from infra.gcp import (
    accelerator_pool,
    budget,
    cluster,
    file_cache,
    network,
    object_store,
    quotas,
    registry,
    workload_identity,
)

BUILDER = Builder(
    network=network.GcpNetwork,
    cluster=cluster.GcpCluster,
    accelerator_pool=accelerator_pool.GcpAcceleratorPool,
    object_store=object_store.GcpObjectStore,
    file_cache=lambda name, args, _, opts: file_cache.GcpFileCache(name, args, opts),
    registry=registry.GcpRegistry,
    workload_identity=workload_identity.GcpWorkloadIdentity,
    budget=budget.GcpBudget,
    check_network=network.check,
    check_cluster=cluster.check,
    check_accelerator_pool=accelerator_pool.check,
    check_object_store=lambda _: None,
    check_budget=budget.check,
    hosts_per_node=accelerator_pool.hosts_per_node,
    with_quotas=quotas.with_quotas,
)
