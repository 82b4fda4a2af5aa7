"""Who builds each component on AWS."""

from infra.aws import (
    accelerator_pool,
    budget,
    cluster,
    file_cache,
    karpenter,
    network,
    object_store,
    quotas,
    registry,
    workload_identity,
)
from infra.builder import Builder

BUILDER = Builder(
    network=network.AwsNetwork,
    cluster=cluster.AwsCluster,
    accelerator_pool=accelerator_pool.AwsAcceleratorPool,
    object_store=object_store.AwsObjectStore,
    file_cache=file_cache.AwsFileCache,
    registry=registry.AwsRegistry,
    workload_identity=workload_identity.AwsWorkloadIdentity,
    budget=budget.AwsBudget,
    node_autoscaler=karpenter.AwsKarpenter,
    check_network=network.check,
    check_cluster=cluster.check,
    check_accelerator_pool=accelerator_pool.check,
    check_object_store=object_store.check,
    check_budget=budget.check,
    hosts_per_node=lambda _: 1,
    with_quotas=quotas.with_quotas,
)
