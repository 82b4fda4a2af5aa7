"""A managed node group of one offer, with its image, disk, network adapters, placement and way of buying."""

from __future__ import annotations

import re
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.accelerator_pool import (
    POOL_LABEL,
    AcceleratorPool,
    AcceleratorPoolArgs,
    Taint,
    node_labels,
    pool_facts,
)
from infra.aws.cluster import AwsCluster
from infra.aws.deployed import size_of
from infra.aws.instance_shapes import InstanceShape, shape_of
from infra.aws.nodes import (
    LAUNCH_TEMPLATE_NAME_MAX,
    NODE_GROUP_NAME_MAX,
    latest,
    metadata_options,
    root_disk,
    tagged,
)
from infra.errors import require
from infra.names import short_name, versioned_name

CAPACITY_TYPES = {"on_demand": "ON_DEMAND", "spot": "SPOT", "capacity_block": "CAPACITY_BLOCK"}
TAINT_EFFECTS = {"NoSchedule": "NO_SCHEDULE", "PreferNoSchedule": "PREFER_NO_SCHEDULE", "NoExecute": "NO_EXECUTE"}
DEVICE_RESOURCES = {"nvidia": "nvidia.com/gpu", "neuron": "aws.amazon.com/neuron"}
"""What the vendor's device plugin calls its chips; also the key of the taint that keeps other pods off them."""
EFA_RESOURCE = "vpc.amazonaws.com/efa"
RESERVATION_ID = r"cr-[0-9a-f]{8}([0-9a-f]{9})?"


class AwsAcceleratorPool(AcceleratorPool):
    """A managed node group, and the launch template that makes its nodes.

    Where Karpenter makes the nodes above `nodes_min`, the node group has those up to it, and there is none without.

    Makes: LaunchTemplate and NodeGroup; with the fast interconnect a SecurityGroup that lets the nodes' adapters
    talk to each other; with compact placement a PlacementGroup.

    Attributes:
        node_pool_name: of Karpenter's NodePool, where it has one.
        interconnect_group_id: that SecurityGroup; None without the fast interconnect.

    Example:
        >>> args = AcceleratorPoolArgs(
        ...     pool="train", region="us-east-1", zones=("us-east-1a",), instance_type="p5.48xlarge",
        ...     accelerator="H100", accelerator_count=8, nodes_max=4, disk_gib=500,
        ... )
        >>> pool = AwsAcceleratorPool("prod-train", args, cluster)
    """

    def __init__(
        self, name: str, args: AcceleratorPoolArgs, cluster: AwsCluster, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        check(args)
        super().__init__("fusion:aws:AcceleratorPool", name, facts(args), opts)
        self.args = args
        self._name = name
        self._cluster = cluster
        self._shape = shape_of(args.instance_type)
        self._child = pulumi.ResourceOptions(parent=self)
        self.device_resource = DEVICE_RESOURCES.get(self._shape.accelerator_vendor) or args.device_resource
        self.interconnects_per_node = self._shape.efa_interfaces_max if has_efa(args) else 0
        self.interconnect_resource = EFA_RESOURCE if self.interconnects_per_node else None
        self.node_selector = {POOL_LABEL: args.pool}
        self.taints = self._all_taints()
        self.node_pool_name = name
        self.interconnect_group_id = self._make_interconnect_group().id if has_efa(args) else None
        if args.nodes_beyond and not args.nodes_min:
            self.pool_name = pulumi.Output.from_input(name)
        else:
            self.pool_name = self._make_node_group(self._make_launch_template()).node_group_name
        self.register_outputs({"pool_name": self.pool_name})

    def _all_taints(self) -> tuple[Taint, ...]:
        own = (Taint(key=self.device_resource, value="present"),) if self.device_resource else ()
        return (*own, *self.args.taints)

    def _make_launch_template(self) -> aws.ec2.LaunchTemplate:
        args = self.args
        return aws.ec2.LaunchTemplate(
            self._name,
            name=short_name(self._name, LAUNCH_TEMPLATE_NAME_MAX),
            update_default_version=True,
            block_device_mappings=root_disk(args.disk_gib, self._cluster.disk_key_arn),
            metadata_options=metadata_options(),
            network_interfaces=self._network_interfaces(),
            placement=self._placement(),
            tag_specifications=tagged(self._name, args.tags),
            tags=args.tags,
            opts=self._child,
            **bought_in_template(args),
        )

    def _network_interfaces(self) -> list[aws.ec2.LaunchTemplateNetworkInterfaceArgs] | None:
        """None leaves it to EKS: one interface with the cluster's security group."""
        if self.interconnect_group_id is None:
            return None
        groups = [self._cluster.security_group_id, self.interconnect_group_id]
        return [
            aws.ec2.LaunchTemplateNetworkInterfaceArgs(
                network_card_index=card,
                device_index=device,
                interface_type=kind,
                security_groups=groups,
                delete_on_termination="true",
            )
            for card, device, kind in interface_layout(self._shape)
        ]

    def _make_interconnect_group(self) -> aws.ec2.SecurityGroup:
        """EFA bypasses the operating system, and is let through only by rules that name the group itself, both ways."""
        group = aws.ec2.SecurityGroup(
            f"{self._name}-interconnect",
            name=short_name(f"{self._name}-interconnect", 255),
            description="Collectives between the nodes of one pool",
            vpc_id=self._cluster.network.network_id,
            tags={**self.args.tags, "Name": f"{self._name}-interconnect"},
            opts=self._child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{self._name}-interconnect-in",
            security_group_id=group.id,
            referenced_security_group_id=group.id,
            ip_protocol="-1",
            description="From the pool's other nodes",
            opts=self._child,
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{self._name}-interconnect-out",
            security_group_id=group.id,
            referenced_security_group_id=group.id,
            ip_protocol="-1",
            description="To the pool's other nodes",
            opts=self._child,
        )
        return group

    def _placement(self) -> aws.ec2.LaunchTemplatePlacementArgs | None:
        if not is_compact(self.args):
            return None
        group = aws.ec2.PlacementGroup(
            self._name, name=self._name, strategy="cluster", tags=self.args.tags, opts=self._child
        )
        return aws.ec2.LaunchTemplatePlacementArgs(group_name=group.name)

    def _make_node_group(self, template: aws.ec2.LaunchTemplate) -> aws.eks.NodeGroup:
        args, bought = self.args, bought_in_group(self.args)
        most = args.nodes_max - args.nodes_beyond
        subnets = self._cluster.network.private_subnet_ids
        name = versioned_name(self._name, NODE_GROUP_NAME_MAX, args.instance_type, bought["capacity_type"], *args.zones)
        size = size_of(self._cluster.known_name, name)
        moved = size is not None and (size.least, size.most) != (args.nodes_min, most)
        desired = size.within(args.nodes_min, most) if size else min(args.nodes_at_creation, most)
        return aws.eks.NodeGroup(
            self._name,
            node_group_name=name,
            cluster_name=self._cluster.cluster_name,
            node_role_arn=self._cluster.node_role_arn,
            subnet_ids=[subnets[zone] for zone in args.zones],
            launch_template=latest(template),
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=args.nodes_min, desired_size=desired, max_size=most
            ),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            labels=node_labels(args),
            taints=[
                aws.eks.NodeGroupTaintArgs(key=taint.key, value=taint.value, effect=TAINT_EFFECTS[taint.effect])
                for taint in self.taints
            ],
            tags=args.tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[self._cluster],  # its add-ons make a node ready
                # The size is the autoscaler's once the pool exists. But EKS takes it together with the bounds: to
                # ignore it when they move would set it back to the state's, which new bounds may not even allow.
                ignore_changes=None if moved else ["scalingConfig.desiredSize"],
            ),
            **bought,
        )


def bought_in_template(args: AcceleratorPoolArgs) -> dict[str, Any]:
    """What a pool's launch template says of how its nodes are had.

    EKS wants a Capacity Block's instance type here, and every other one in the node group ("Create a managed node group
    with Capacity Blocks for ML").
    """
    found: dict[str, Any] = {}
    if args.price_model == "capacity_block":
        found["instance_type"] = args.instance_type
        found["instance_market_options"] = {"market_type": "capacity-block"}
    if args.reservation_id:
        target = {"capacity_reservation_id": args.reservation_id}
        found["capacity_reservation_specification"] = {"capacity_reservation_target": target}
    return found


def bought_in_group(args: AcceleratorPoolArgs) -> dict[str, Any]:
    """What a pool's node group says of its nodes and of how they are had."""
    types = {} if args.price_model == "capacity_block" else {"instance_types": [args.instance_type]}
    shape = shape_of(args.instance_type)
    return {"ami_type": shape.ami_type, "capacity_type": CAPACITY_TYPES[args.price_model], **types}


def check(args: AcceleratorPoolArgs) -> None:
    """Refuse what AWS can't build, before anything is registered.

    Raises:
        ArgumentError: names what and the way out.
    """
    kind = shape_of(args.instance_type)
    pool = f"pool {args.pool}: {args.instance_type}"
    require(
        bool(kind.ami_type),
        f"{pool} has accelerators ({kind.accelerator_vendor}) that no EKS image is documented to drive; "
        "choose an instance type with NVIDIA, Trainium or Inferentia chips that the EKS guide lists, or F2.",
    )
    require(
        (kind.accelerator_vendor == "none") == (args.accelerator is None),
        f"{pool} has {'no accelerator' if kind.accelerator_vendor == 'none' else 'accelerators'}, but accelerator is "
        f"{args.accelerator}; take instance_type and accelerator from the same offer.",
    )
    require(
        (kind.accelerator_vendor == "fpga") == (args.device_resource is not None),
        f"{pool} has FPGAs, which no vendor's device plugin has a name for; set device_resource (fusion:cluster "
        "device_plugins.fpga_resource) to what your own calls them."
        if args.device_resource is None
        else f"{pool} has no FPGAs, and device_resource {args.device_resource} is what those are called; leave it out.",
    )
    require(
        not args.fast_interconnect or kind.efa_interfaces_max > 0,
        f"{pool} has no EFA; choose an instance type that has, or leave fast_interconnect out.",
    )
    require(
        not args.compact_placement or kind.cluster_placement_group,
        f"{pool} can't be in a cluster placement group; choose another instance type, or leave compact_placement out.",
    )
    require(
        args.price_model != "flex_start",
        f"{pool}: AWS sells nothing as flex_start; use price_model spot, or capacity_block with a block of yours.",
    )
    require(
        args.reservation_id is None or re.fullmatch(RESERVATION_ID, args.reservation_id) is not None,
        f"{pool}: reservation_id {args.reservation_id} is no id of a capacity reservation; write one such as "
        "cr-0123456789abcdef0, which a Capacity Block has too.",
    )
    require(
        args.price_model != "capacity_block" or kind.capacity_block,
        f"{pool} is not sold as Capacity Blocks; use price_model on_demand with a capacity reservation, or spot.",
    )
    require(
        not args.nodes_beyond or args.vcpus > 0,
        f"{pool}: vcpus {args.vcpus:g}; name those of a node, by which Karpenter's limit counts.",
    )
    require(
        not (args.nodes_beyond and args.compact_placement),
        f"{pool}: Karpenter puts no nodes into a placement group; leave compact_placement out, or set nodes_min to "
        "nodes_max.",
    )


def has_efa(args: AcceleratorPoolArgs) -> bool:
    """Whether the pool's nodes get EFA: as told, else where several nodes of a type with EFA can be close together."""
    if args.fast_interconnect is not None:
        return args.fast_interconnect
    return args.nodes_max > 1 and len(args.zones) == 1 and shape_of(args.instance_type).efa_interfaces_max > 0


def is_compact(args: AcceleratorPoolArgs) -> bool:
    """Whether the pool gets a placement group: as told, else where EFA makes it worth it and nothing forbids it."""
    if args.compact_placement is not None:
        return args.compact_placement
    possible = len(args.zones) == 1 and args.reservation_id is None and not args.nodes_beyond
    return has_efa(args) and possible and shape_of(args.instance_type).cluster_placement_group


def interface_layout(kind: InstanceShape) -> list[tuple[int, int, str]]:
    """Network card, device index and type of each interface of a node with EFA.

    The primary interface carries IP; beside it comes one EFA-only interface for each card that has EFA. These take
    no IP address of the subnet. On `p6-b300` card 0 has no EFA, which shows in one card more than there are adapters.
    Source: EC2 user guide, "Maximize network bandwidth on Amazon EC2 instances with multiple network cards".
    """
    first = kind.network_cards - kind.efa_interfaces_max
    cards = range(first, kind.network_cards)
    return [(0, 0, "interface"), *((card, 1 if card == 0 else 0, "efa-only") for card in cards)]


def facts(args: AcceleratorPoolArgs) -> dict[str, object]:
    """What guardrails judge a pool by; plain values, known in every preview."""
    return pool_facts("aws", args) | {"efa": has_efa(args), "placement_group": is_compact(args)}
