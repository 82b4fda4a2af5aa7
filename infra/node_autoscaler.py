"""Who adds nodes to a cluster's pools and takes them away, where the cloud's own node pools don't."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import pulumi

from infra.accelerator_pool import AcceleratorPool


class NodeAutoscaler(pulumi.ComponentResource, ABC):
    """What an autoscaler in the cluster needs of the cloud, whichever it is.

    Attributes:
        identity: what must be there before the autoscaler's pods start, or they start without rights.
    """

    identity: pulumi.Resource

    @abstractmethod
    def make_pools(self, pools: Mapping[str, AcceleratorPool], after: Sequence[pulumi.Resource]) -> None:
        """Let it grow the pools that may grow, each to the plan's maximum.

        Args:
            pools: all of the stack's, by name.
            after: what its objects wait for, such as their definitions.
        """
