"""Nodes that Karpenter adds and removes: its rights and warnings on AWS, and for each pool its class and NodePool.

The controller itself is the cluster's (`fusion:cluster: manifests`). It runs in kube-system as the service account
`karpenter`, and both its cluster and its interruption queue have the cluster's name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.accelerator_pool import AcceleratorPool, AcceleratorPoolArgs, node_labels
from infra.aws.accelerator_pool import AwsAcceleratorPool
from infra.aws.account import account_of
from infra.aws.cluster import AwsCluster
from infra.aws.keys import make_key
from infra.aws.nodes import METADATA_HOP_LIMIT, ROLE_NAME_MAX
from infra.aws.policies import KEY_USE, Statement, allow, document, pod_trust
from infra.kubernetes.objects import make_object
from infra.names import KubernetesTarget, short_name
from infra.node_autoscaler import NodeAutoscaler
from infra.purchase import RUNGS, rung_of

NAMESPACE, SERVICE_ACCOUNT = "kube-system", "karpenter"
IMAGE = "al2023@latest"
"""EKS's own image of Amazon Linux 2023, with the drivers of NVIDIA or Neuron where an instance type has such chips."""
EMPTY_FOR = "5m"
"""A node without pods goes after that time: shorter than it takes to start one, a restarted run would wait anew."""
KEPT_TO_THE_END = {"nodes": "0", "reasons": ["Drifted"]}
"""A node is not replaced for a newer image; it goes when it is empty, or when AWS takes it back."""
QUEUE_NAME_MAX = 80
RULE_NAME_MAX = 64
EVENTS: Mapping[str, Mapping[str, list[str]]] = {
    "health": {"source": ["aws.health"], "detail-type": ["AWS Health Event"]},
    "spot": {"source": ["aws.ec2"], "detail-type": ["EC2 Spot Instance Interruption Warning"]},
    "rebalance": {"source": ["aws.ec2"], "detail-type": ["EC2 Instance Rebalance Recommendation"]},
    "state": {"source": ["aws.ec2"], "detail-type": ["EC2 Instance State-change Notification"]},
    "reservation": {"source": ["aws.ec2"], "detail-type": ["EC2 Capacity Reservation Instance Interruption Warning"]},
}
"""What Karpenter reads from its queue. Source: Karpenter v1.8, "Interruption", and its CloudFormation template."""
READS = (
    "ec2:DescribeCapacityReservations",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
)
LAUNCHES = ("ec2:CreateFleet", "ec2:RunInstances")
CREATES = (*LAUNCHES, "ec2:CreateLaunchTemplate")
NODE_POOL_TAG, CLUSTER_TAG = "karpenter.sh/nodepool", "eks:eks-cluster-name"


@dataclass(frozen=True, slots=True)
class NodeClass:
    """Kind of the object in which a Karpenter's provider reads what machines of a pool are."""

    group: str
    version: str
    kind: str


EC2 = NodeClass("karpenter.k8s.aws", "v1", "EC2NodeClass")
KWOK = NodeClass("karpenter.kwok.sh", "v1alpha1", "KWOKNodeClass")


class AwsKarpenter(NodeAutoscaler):
    """What Karpenter needs to give the pools their nodes, and no more than the plan's maximum of each.

    Makes: a Key and the interruption Queue with the EventRules and EventTargets that fill it, Role, RolePolicy and
    PodIdentityAssociation of the controller, an InstanceProfile for nodes, and by pool that may grow an EC2NodeClass
    and a NodePool. On the control plane of this machine the class is a KWOKNodeClass: its Karpenter makes nodes that
    are no machines.

    Example:
        >>> opts = pulumi.ResourceOptions(providers=[on_cluster])
        >>> karpenter = AwsKarpenter("prod-karpenter", cluster, tags, "cloud", opts)
        >>> karpenter.make_pools(pools, after=[its_definitions])
    """

    def __init__(
        self,
        name: str,
        cluster: AwsCluster,
        tags: Mapping[str, str],
        kubernetes: KubernetesTarget = "cloud",
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__("fusion:aws:Karpenter", name, {"cluster": cluster.known_name}, opts)
        self._name, self._cluster, self._tags = name, cluster, dict(tags)
        self._node_class = KWOK if kubernetes == "cluster" else EC2
        self._child = pulumi.ResourceOptions(parent=self)
        self._account = account_of(self)
        key = self._make_key()
        queue = self._make_queue(key)
        self.identity = self._make_role(queue, key)
        profile = aws.iam.InstanceProfile(
            f"{name}-nodes",
            name=short_name(f"{cluster.known_name}-nodes", ROLE_NAME_MAX),
            role=cluster.node_role_arn.apply(lambda arn: arn.rpartition("/")[2]),
            tags=self._tags,
            opts=self._child,
        )
        self._profile_name = profile.name
        self.register_outputs({"queue_name": queue.name})

    def make_pools(self, pools: Mapping[str, AcceleratorPool], after: Sequence[pulumi.Resource]) -> None:
        """An EC2NodeClass and a NodePool for each pool of AWS that may grow."""
        opts = pulumi.ResourceOptions(parent=self, depends_on=[self.identity, *after])
        for pool in pools.values():
            if isinstance(pool, AwsAcceleratorPool) and pool.args.nodes_beyond:
                self._make_pool(pool, opts)

    def _make_key(self) -> aws.kms.Key:
        return make_key(
            f"{self._name}-interruptions",
            f"What AWS takes back of {self._cluster.known_name}",
            self._account,
            parent=self,
            tags=self._tags,
            statements=lambda partition, account: [events_may_use_key(account)],
        )

    def _make_queue(self, key: aws.kms.Key) -> aws.sqs.Queue:
        """Events come from services of AWS, of this account; Karpenter must hear of a spot node within two minutes."""
        cluster_name = self._cluster.known_name
        name = short_name(cluster_name, QUEUE_NAME_MAX)
        region = self._cluster.args.region
        owner = pulumi.Output.all(self._account.partition, self._account.id)
        queue = aws.sqs.Queue(
            f"{self._name}-interruptions",
            name=name,
            message_retention_seconds=300,
            kms_master_key_id=key.arn,
            policy=owner.apply(lambda of: queue_policy(f"arn:{of[0]}:sqs:{region}:{of[1]}:{name}", of[1])),
            tags=self._tags,
            opts=self._child,
        )
        for event, pattern in EVENTS.items():
            rule = aws.cloudwatch.EventRule(
                f"{self._name}-{event}",
                name=short_name(f"{self._name}-{event}", RULE_NAME_MAX),
                description=f"Karpenter of {cluster_name}: {pattern['detail-type'][0]}",
                event_pattern=json.dumps(pattern, sort_keys=True),
                tags=self._tags,
                opts=self._child,
            )
            aws.cloudwatch.EventTarget(
                f"{self._name}-{event}", rule=rule.name, target_id="interruptions", arn=queue.arn, opts=self._child
            )
        return queue

    def _make_role(self, queue: aws.sqs.Queue, key: aws.kms.Key) -> aws.eks.PodIdentityAssociation:
        cluster = self._cluster
        role = aws.iam.Role(
            self._name,
            name=short_name(self._name, ROLE_NAME_MAX),
            assume_role_policy=cluster.cluster_arn.apply(lambda arn: pod_trust(arn, NAMESPACE, SERVICE_ACCOUNT)),
            tags=self._tags,
            opts=self._child,
        )
        known = pulumi.Output.all(cluster.cluster_arn, queue.arn, key.arn, cluster.node_role_arn, cluster.disk_key_arn)
        policy = aws.iam.RolePolicy(
            self._name,
            name="nodes",
            role=role.name,
            policy=known.apply(lambda arns: document(rights(*arns))),
            opts=self._child,
        )
        return aws.eks.PodIdentityAssociation(
            self._name,
            cluster_name=cluster.cluster_name,
            namespace=NAMESPACE,
            service_account=SERVICE_ACCOUNT,
            role_arn=role.arn,
            tags=self._tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )

    def _make_pool(self, pool: AwsAcceleratorPool, opts: pulumi.ResourceOptions) -> None:
        cluster, name = self._cluster, pool.node_pool_name
        subnets = cluster.network.private_subnet_ids
        groups = [cluster.security_group_id, *([pool.interconnect_group_id] if pool.interconnect_group_id else [])]
        disk = {
            "volumeType": "gp3",
            "volumeSize": f"{pool.args.disk_gib}Gi",
            "encrypted": True,
            "kmsKeyID": cluster.disk_key_arn,
            "deleteOnTermination": True,
        }
        spec = {
            "amiSelectorTerms": [{"alias": IMAGE}],
            "instanceProfile": self._profile_name,
            "subnetSelectorTerms": [{"id": subnets[zone]} for zone in pool.args.zones],
            "securityGroupSelectorTerms": [{"id": group} for group in groups],
            "blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": disk}],
            "metadataOptions": {
                "httpEndpoint": "enabled",
                "httpTokens": "required",
                "httpPutResponseHopLimit": METADATA_HOP_LIMIT,
            },
            "tags": {**self._tags, **pool.args.tags},
            **reserved(pool.args),
        }
        kind = self._node_class
        described = _object(f"{kind.group}/{kind.version}", kind.kind, name, spec if kind is EC2 else {})
        made = make_object(f"{name}-class", described, opts)
        after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[made]))
        make_object(f"{name}-pool", _object("karpenter.sh/v1", "NodePool", name, node_pool(pool, kind)), after)


def node_pool(pool: AwsAcceleratorPool, node_class: NodeClass) -> dict[str, Any]:
    """Spec of a NodePool: one instance type, bought one way, and no more nodes than the plan has beyond the minimum.

    The limits are of resources, for Karpenter counts nodes only after it has asked for them. As all nodes are alike, so
    many CPUs are exactly so many nodes.
    """
    args = pool.args
    rung = rung_of(args.price_model, args.reservation_id)
    requirements = {
        "node.kubernetes.io/instance-type": args.instance_type,
        "karpenter.sh/capacity-type": rung.karpenter,
    }
    devices = math.ceil(args.accelerator_count) * args.nodes_beyond
    return {
        "weight": 100 - RUNGS.index(rung) - (50 if args.stands_in_for else 0),
        "limits": {
            "cpu": f"{args.vcpus * args.nodes_beyond:g}",
            **({pool.device_resource: str(devices)} if pool.device_resource else {}),
        },
        # A run is never moved to save or renew a node: it would restart from its checkpoint. On spot the nodes say so,
        # and not the pods: what AWS takes back is to be drained, and of pods that say so Karpenter drains none.
        # Elsewhere replicas are moved, or a service at its minimum would keep these nodes while the node group is idle.
        "disruption": {
            "consolidationPolicy": "WhenEmpty" if args.is_taken_back else "WhenEmptyOrUnderutilized",
            "consolidateAfter": EMPTY_FOR,
            "budgets": [{"nodes": "10%"}, *([KEPT_TO_THE_END] if args.is_taken_back else [])],
        },
        "template": {
            "metadata": {"labels": node_labels(args)},
            "spec": {
                "nodeClassRef": {"group": node_class.group, "kind": node_class.kind, "name": pool.node_pool_name},
                "expireAfter": "Never",
                "taints": [{"key": each.key, "value": each.value, "effect": each.effect} for each in pool.taints],
                "requirements": [
                    *({"key": key, "operator": "In", "values": [value]} for key, value in requirements.items()),
                    {"key": "topology.kubernetes.io/zone", "operator": "In", "values": list(args.zones)},
                ],
            },
        },
    }


def reserved(args: AcceleratorPoolArgs) -> dict[str, Any]:
    """Where the nodes come from a reservation of one's own."""
    return {"capacityReservationSelectorTerms": [{"id": args.reservation_id}]} if args.reservation_id else {}


def events_may_use_key(account: str) -> Statement:
    """EventBridge encrypts what it sends to the queue. Source: SQS developer guide, "Key management"."""
    return allow(
        "Events",
        ["kms:Decrypt", "kms:GenerateDataKey"],
        "*",
        Principal={"Service": "events.amazonaws.com"},
        Condition={"StringEquals": {"aws:SourceAccount": account}},
    )


def queue_policy(queue_arn: str, account: str) -> str:
    """Who may send: EventBridge for this account, and nobody without TLS."""
    return document(
        [
            allow(
                "Events",
                ["sqs:SendMessage"],
                queue_arn,
                Principal={"Service": "events.amazonaws.com"},
                Condition={"StringEquals": {"aws:SourceAccount": account}},
            ),
            {
                "Sid": "OnlyTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": ["sqs:*"],
                "Resource": queue_arn,
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            },
        ]
    )


def rights(
    cluster_arn: str, queue_arn: str, queue_key_arn: str, node_role_arn: str, disk_key_arn: str
) -> Iterator[Statement]:
    """What the controller may do, as its documentation has it, but for instance profiles: it makes none.

    What it makes carries the tags of this cluster, and it changes and ends nothing else.
    Source: Karpenter v1.8, "CloudFormation", KarpenterControllerPolicy.
    """
    _, partition, _, region, account, resource = cluster_arn.split(":", 5)
    cluster = resource.partition("/")[2]
    owned = f"kubernetes.io/cluster/{cluster}"

    def ec2(*kinds: str, of: str = "*") -> list[str]:
        return [f"arn:{partition}:ec2:{region}:{of}:{kind}/*" for kind in kinds]

    made = ec2("fleet", "instance", "launch-template", "network-interface", "spot-instances-request", "volume")
    in_request = {
        "StringEquals": {f"aws:RequestTag/{owned}": "owned", f"aws:RequestTag/{CLUSTER_TAG}": cluster},
        "StringLike": {f"aws:RequestTag/{NODE_POOL_TAG}": "*"},
    }
    on_resource = {
        "StringEquals": {f"aws:ResourceTag/{owned}": "owned"},
        "StringLike": {f"aws:ResourceTag/{NODE_POOL_TAG}": "*"},
    }
    here = {"StringEquals": {"aws:RequestedRegion": region}}
    created_with = {**in_request["StringEquals"], "ec2:CreateAction": [each.removeprefix("ec2:") for each in CREATES]}
    later = {
        **on_resource,
        "StringEqualsIfExists": {f"aws:RequestTag/{CLUSTER_TAG}": cluster},
        "ForAllValues:StringEquals": {"aws:TagKeys": [CLUSTER_TAG, "karpenter.sh/nodeclaim", "Name"]},
    }
    through_ec2 = {"StringEquals": {"kms:ViaService": f"ec2.{region}.amazonaws.com"}}
    yield allow("LaunchFrom", LAUNCHES, ec2("capacity-reservation", "image", "security-group", "snapshot", "subnet"))
    yield allow("LaunchByTemplate", LAUNCHES, ec2("launch-template"), Condition=on_resource)
    yield allow("Create", CREATES, made, Condition=in_request)
    yield allow("TagAtCreation", ["ec2:CreateTags"], made, Condition={**in_request, "StringEquals": created_with})
    yield allow("TagLater", ["ec2:CreateTags"], ec2("instance"), Condition=later)
    yield allow(
        "End",
        ["ec2:DeleteLaunchTemplate", "ec2:TerminateInstances"],
        ec2("instance", "launch-template"),
        Condition=on_resource,
    )
    yield allow("Read", READS, "*", Condition=here)
    yield allow("Images", ["ssm:GetParameter"], f"arn:{partition}:ssm:{region}::parameter/aws/service/*")
    yield allow("Prices", ["pricing:GetProducts"], "*")
    yield allow("Interruptions", ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"], queue_arn)
    yield allow("QueueKey", ["kms:Decrypt"], queue_key_arn)
    yield allow(
        "NodeRole",
        ["iam:PassRole"],
        node_role_arn,
        Condition={"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    )
    yield allow("NodeProfile", ["iam:GetInstanceProfile"], f"arn:{partition}:iam::{account}:instance-profile/*")
    yield allow("Endpoint", ["eks:DescribeCluster"], cluster_arn)
    yield allow("Disks", (*KEY_USE, "kms:CreateGrant"), disk_key_arn, Condition=through_ec2)


def _object(api: str, kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "fusion"}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": dict(spec)}
