"""What is deployed already and Pulumi's state does not tell: how many nodes the autoscaler has made of a pool."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, slots=True)
class NodeGroupSize:
    """Nodes of a node group: the autoscaler's bounds, and what it has decided."""

    least: int
    desired: int
    most: int

    def within(self, least: int, most: int) -> int:
        """The decided size, moved as little as new bounds ask for; EKS refuses bounds that leave it out."""
        return min(max(self.desired, least), most)


def size_of(cluster: str, node_group: str) -> NodeGroupSize | None:
    """Of a node group by its name; None where there is none yet, or where it can't be read, which is warned of."""
    try:
        if cluster not in (aws.eks.get_clusters().names or ()):
            return None
        if node_group not in (aws.eks.get_node_groups(cluster_name=cluster).names or ()):
            return None
        (scaling,) = aws.eks.get_node_group(cluster_name=cluster, node_group_name=node_group).scaling_configs
    except Exception as error:  # the SDK raises what the provider answered as Exception itself
        reason = " ".join(str(error).split())
        pulumi.log.warn(f"the size of node group {node_group} can't be read and is left to the state: {reason}")
        return None
    return NodeGroupSize(scaling.min_size, scaling.desired_size, scaling.max_size)
