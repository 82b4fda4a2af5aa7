"""Kueue's objects: what there is to queue for (flavors, from the plan's pools), and who may have how much of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.accelerator_pool import Taint
from infra.errors import require
from infra.kubernetes.objects import make_object
from infra.kubernetes.pods import binary, check_name, thousandths
from planner.workloads import Priority

API = "kueue.x-k8s.io/v1beta1"
TOPOLOGY_API = "kueue.x-k8s.io/v1alpha1"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
TOPOLOGY_ANNOTATION = "kueue.x-k8s.io/podset-preferred-topology"
PROVISIONING_CONTROLLER = "kueue.x-k8s.io/provisioning-request"
"""Of Kueue itself: asks the cluster's autoscaler for all nodes of a job at once ("Provisioning Admission Check
Controller", Kueue)."""
FLAVORS_MAX = 16
"""Of one resource group. Source: `ResourceGroup.flavors`, kueue v0.10 clusterqueue_types.go."""

NAME_MAX = 253
"""Of objects, and of what refers to them."""
PRIORITIES: Mapping[Priority, int] = {"low": -100, "normal": 0, "high": 100}


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What pods can have of some nodes, after the system's own share.

    Attributes:
        cpus, memory_gib, disk_gib: of all nodes together.
        devices: accelerators and network adapters by resource, such as `nvidia.com/gpu`.
    """

    cpus: float
    memory_gib: float
    disk_gib: float
    devices: Mapping[str, int] = field(default_factory=dict)

    def minus(self, other: Amounts) -> Amounts:
        """What is left when others have taken theirs; never less than nothing."""
        return Amounts(
            cpus=max(self.cpus - other.cpus, 0),
            memory_gib=max(self.memory_gib - other.memory_gib, 0),
            disk_gib=max(self.disk_gib - other.disk_gib, 0),
            devices={name: max(count - other.devices.get(name, 0), 0) for name, count in self.devices.items()},
        )

    def times(self, count: int) -> Amounts:
        """Of so many nodes."""
        devices = {name: each * count for name, each in self.devices.items()}
        return Amounts(
            cpus=self.cpus * count, memory_gib=self.memory_gib * count, disk_gib=self.disk_gib * count, devices=devices
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """How the nodes of a flavor are asked for, all that a job needs or none.

    Attributes:
        class_name: of the cluster's autoscaler, such as `queued-provisioning.gke.io`.
        resources: what the nodes are for; pods that ask for none of these start without.
        parameters: that the class takes.
    """

    class_name: str
    resources: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorArgs:
    """One way to get nodes: a pool of the plan, bought one way.

    Attributes:
        name: of the ResourceFlavor; it has no namespace, so no other stack of the cluster may have it.
        node_labels: what tells its nodes from others; Kueue adds them to the node selector of what it admits.
        taints: of its nodes; a job that does not tolerate them never gets this flavor.
        amounts: what the pool has at its maximum.
        is_topology_aware: whether the nodes carry the labels of the topology's levels.
        provisioning: how its nodes are asked for; None where they come as pods wait for them.
    """

    name: str
    node_labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    amounts: Amounts
    is_topology_aware: bool = False
    provisioning: Provisioning | None = None

    def __post_init__(self) -> None:
        check_name("flavor", self.name, NAME_MAX)
        require(bool(self.node_labels), f"flavor {self.name}: no node_labels; name one that only its nodes have.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorsArgs:
    """All flavors of a cluster, and how close nodes are told apart.

    Attributes:
        stack: what the names of priority classes begin with.
        flavors: in the order in which jobs try them: spot before its stand-in on demand.
        topology_levels: node labels from the widest to the narrowest, such as a rack's and a host's; empty for none.
    """

    stack: str
    flavors: tuple[FlavorArgs, ...]
    topology_levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(
            1 <= len(self.flavors) <= FLAVORS_MAX,
            f"queueing: {len(self.flavors)} pools for training; Kueue takes 1 to {FLAVORS_MAX} flavors in one queue.",
        )
        asked_for = [each.name for each in self.flavors if each.provisioning]
        require(
            not (asked_for and self.topology_levels),
            f"queueing: the nodes of {', '.join(asked_for)} come when a job asks for them, and Kueue v0.10 places no "
            "such job by topology; leave topology_levels out, or queued.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueArgs:
    """A team's queue: what is its own, what it may borrow and lend, and whom it may put out.

    Attributes:
        name: of the LocalQueue in the namespace; the ClusterQueue's has the cohort before it.
        namespace: the only one whose jobs it takes.
        cohort: the stack; queues of one cohort borrow from each other.
        quotas: what is its own, by flavor, in the order in which jobs try them.
        weight: of its share in what is borrowed, where Kueue's fair sharing is on.
        borrows: whether it may use what others of the cohort leave.
        lends: whether others may use what it leaves; it gets it back by preemption.
        preempts: whether a job of higher priority puts out one of lower priority in this queue.
        asked_for: flavors whose nodes are asked for, each by the AdmissionCheck of its name.
    """

    name: str
    namespace: str
    cohort: str
    quotas: Mapping[str, Amounts]
    weight: float = 1
    borrows: bool = True
    lends: bool = True
    preempts: bool = True
    asked_for: tuple[str, ...] = ()

    @property
    def cluster_queue_name(self) -> str:
        """A ClusterQueue has no namespace: two stacks of one cluster may each have a queue of one name."""
        return f"{self.cohort}-{self.name}"

    def __post_init__(self) -> None:
        check_name("queue", self.name)
        check_name("namespace", self.namespace, 63)
        require(
            1 <= len(self.quotas) <= FLAVORS_MAX,
            f"queue {self.name}: {len(self.quotas)} flavors; use 1 to {FLAVORS_MAX}.",
        )
        require(self.weight >= 0, f"queue {self.name}: weight {self.weight:g}; use 0 or more.")


class Flavors(pulumi.ComponentResource):
    """What there is to queue for.

    Makes: a ResourceFlavor by pool, WorkloadPriorityClasses `<stack>-low`, `-normal` and `-high`, with levels a
    Topology, and for a flavor whose nodes are asked for an AdmissionCheck with its ProvisioningRequestConfig.

    Example:
        >>> args = FlavorsArgs(stack="prod", flavors=(flavor,))
        >>> Flavors("prod-flavors", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: FlavorsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:Flavors", name, {"flavors": [each.name for each in args.flavors]}, opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        after: list[pulumi.Resource] = []
        if args.topology_levels:
            levels = [{"nodeLabel": label} for label in args.topology_levels]
            after.append(make_object(f"{name}-topology", _object("Topology", name, {"levels": levels}), child))
        after_topology = pulumi.ResourceOptions(parent=self, depends_on=after)
        for flavor in args.flavors:
            topology = {"topologyName": name} if args.topology_levels and flavor.is_topology_aware else {}
            spec = {
                "nodeLabels": dict(flavor.node_labels),
                "nodeTaints": [{"key": each.key, "value": each.value, "effect": each.effect} for each in flavor.taints],
                **topology,
            }
            make_object(f"{name}-{flavor.name}", _object("ResourceFlavor", flavor.name, spec), after_topology)
            if flavor.provisioning:
                self._ask_for_nodes(f"{name}-{flavor.name}", flavor.name, flavor.provisioning, child)
        for priority, value in PRIORITIES.items():
            metadata = _metadata(priority_class(args.stack, priority))
            document = {"apiVersion": API, "kind": "WorkloadPriorityClass", "metadata": metadata}
            make_object(f"{name}-priority-{priority}", {**document, "value": value}, child)
        self.register_outputs({})

    def _ask_for_nodes(self, name: str, flavor: str, provisioning: Provisioning, opts: pulumi.ResourceOptions) -> None:
        kind = "ProvisioningRequestConfig"
        config = {
            "provisioningClassName": provisioning.class_name,
            "managedResources": list(provisioning.resources),
            **({"parameters": dict(provisioning.parameters)} if provisioning.parameters else {}),
        }
        made = make_object(f"{name}-config", _object(kind, flavor, config), opts)
        parameters = {"apiGroup": API.partition("/")[0], "kind": kind, "name": flavor}
        check = {"controllerName": PROVISIONING_CONTROLLER, "parameters": parameters}
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[made]))
        make_object(f"{name}-check", _object("AdmissionCheck", flavor, check), after)


class Queue(pulumi.ComponentResource):
    """One team's queue.

    Makes: ClusterQueue and LocalQueue.

    Attributes:
        queue_name: what a job names in its label `kueue.x-k8s.io/queue-name`.

    Example:
        >>> args = QueueArgs(name="research", namespace="workloads", cohort="prod", quotas={"train": amounts})
        >>> Queue("prod-queue-research", args, pulumi.ResourceOptions(depends_on=[flavors]))
    """

    def __init__(self, name: str, args: QueueArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:Queue", name, facts(args), opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        shared = make_object(
            f"{name}-cluster", _object("ClusterQueue", args.cluster_queue_name, _cluster_queue(args)), child
        )
        local = {
            "apiVersion": API,
            "kind": "LocalQueue",
            "metadata": {**_metadata(args.name), "namespace": args.namespace},
            "spec": {"clusterQueue": args.cluster_queue_name},
        }
        make_object(f"{name}-local", local, pulumi.ResourceOptions(parent=self, depends_on=[shared]))
        self.queue_name = args.name
        self.register_outputs({"queue_name": self.queue_name})


def priority_class(stack: str, priority: Priority) -> str:
    """Name of a stack's WorkloadPriorityClass, which has no namespace."""
    return f"{stack}-{priority}"


def shares_of(total: Amounts, shares: Sequence[float]) -> list[Amounts]:
    """A pool cut into shares of whole devices; together they are never more than the pool, nor less than the shares.

    Cut at the cumulated shares, rounded down: two halves of three devices are one and two.
    """
    ends = [sum(shares[: index + 1]) for index in range(len(shares))]
    cuts = [{name: math.floor(count * end + 1e-9) for name, count in total.devices.items()} for end in (0, *ends)]
    return [
        Amounts(
            cpus=total.cpus * share,
            memory_gib=total.memory_gib * share,
            disk_gib=total.disk_gib * share,
            devices={name: above[name] - below[name] for name in total.devices},
        )
        for share, below, above in zip(shares, cuts[:-1], cuts[1:], strict=True)
    ]


def facts(args: QueueArgs) -> dict[str, object]:
    """What guardrails judge a queue by; plain values, known in every preview."""
    return {
        "queue": args.name,
        "namespace": args.namespace,
        "devices": {flavor: dict(each.devices) for flavor, each in args.quotas.items()},
    }


def _cluster_queue(args: QueueArgs) -> dict[str, Any]:
    resources = list(dict.fromkeys(name for each in args.quotas.values() for name in _quantities(each)))
    flavors = [
        {"name": flavor, "resources": [_quota(args, name, _quantities(each)) for name in resources]}
        for flavor, each in args.quotas.items()
    ]
    checks = [{"name": each, "onFlavors": [each]} for each in args.asked_for]
    return {
        **({"admissionChecksStrategy": {"admissionChecks": checks}} if checks else {}),
        "cohort": args.cohort,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": args.namespace}},
        # A large job waits for its nodes without holding up the small ones that fit beside it.
        "queueingStrategy": "BestEffortFIFO",
        "resourceGroups": [{"coveredResources": resources, "flavors": flavors}],
        # The next flavor, such as on demand after spot, comes before waiting for what others have.
        "flavorFungibility": {"whenCanBorrow": "TryNextFlavor", "whenCanPreempt": "TryNextFlavor"},
        "preemption": {
            "withinClusterQueue": "LowerPriority" if args.preempts else "Never",
            "reclaimWithinCohort": "Any" if args.lends else "Never",
            "borrowWithinCohort": {"policy": "Never"},
        },
        "fairSharing": {"weight": thousandths(args.weight)},
    }


def _quota(args: QueueArgs, name: str, quantities: Mapping[str, str]) -> dict[str, str]:
    borrowing = {} if args.borrows else {"borrowingLimit": "0"}
    lending = {} if args.lends else {"lendingLimit": "0"}
    return {"name": name, "nominalQuota": quantities.get(name, "0"), **borrowing, **lending}


def _quantities(amounts: Amounts) -> dict[str, str]:
    """As Kubernetes writes them; all that a pod of a training job asks for, for Kueue admits nothing else."""
    return {
        "cpu": thousandths(amounts.cpus),
        "memory": binary(amounts.memory_gib),
        "ephemeral-storage": binary(amounts.disk_gib),
        **{name: str(count) for name, count in sorted(amounts.devices.items())},
    }


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    api = TOPOLOGY_API if kind == "Topology" else API
    return {"apiVersion": api, "kind": kind, "metadata": _metadata(name), "spec": dict(spec)}


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "labels": {"app.kubernetes.io/managed-by": "fusion"}}
