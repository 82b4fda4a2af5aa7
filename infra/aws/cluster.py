"""An EKS cluster: private endpoint, secrets under its own key, all control-plane logs, pod identity, core add-ons."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infra.aws.account import account_of
from infra.aws.instance_shapes import shape_of
from infra.aws.keys import make_key
from infra.aws.logs import check_retention, make_log_group
from infra.aws.nodes import (
    LAUNCH_TEMPLATE_NAME_MAX,
    NODE_GROUP_NAME_MAX,
    ROLE_NAME_MAX,
    latest,
    metadata_options,
    root_disk,
    tagged,
)
from infra.aws.policies import KEY_USE, allow, document, key_for_disks, key_for_logs, pod_trust, service_trust
from infra.cluster import Cluster, ClusterArgs, cluster_facts, kubeconfig_of
from infra.errors import require
from infra.names import short_name, versioned_name
from infra.network import Network

CONTROL_PLANE_LOGS = ("api", "audit", "authenticator", "controllerManager", "scheduler")
BEFORE_NODES = ("eks-pod-identity-agent", "vpc-cni", "kube-proxy")
"""Add-ons that a node needs to become ready; they are DaemonSets and wait for nodes themselves."""
AFTER_NODES = ("coredns", "aws-ebs-csi-driver")
"""Add-ons with Deployments: EKS calls them healthy once their pods run, so nodes come first."""
BUCKET_DRIVER = "aws-fsx-csi-driver"
"""Of FSx for Lustre, where buckets are mounted. It mounts file systems that are there, for which it needs no rights in
AWS ("Deploy the FSx for Lustre driver", EKS, asks for some to make file systems)."""
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
"""What the kubelet needs. The rights of the network and storage drivers are given to their pods, not to every node."""
ADDON_IDENTITIES = {
    "vpc-cni": ("aws-node", "AmazonEKS_CNI_Policy"),
    "aws-ebs-csi-driver": ("ebs-csi-controller-sa", "service-role/AmazonEBSCSIDriverPolicy"),
}
"""By add-on, its service account in kube-system and the managed policy that its documentation asks for."""
ADMINISTRATOR_POLICY = "AmazonEKSClusterAdminPolicy"


class AwsCluster(Cluster):
    """An EKS cluster with the nodes and add-ons that it needs before any workload.

    Makes: a Key for secrets and logs and one for disks, the LogGroup of the control plane, Roles for cluster, nodes
    and add-ons, the Cluster, an OpenIdConnectProvider, AccessEntries of the administrators, a LaunchTemplate and
    NodeGroup for system pods, and five Addons, or six with that of buckets.

    Attributes:
        known_name: its name, as a plain value.
        cluster_arn: for conditions in trust policies.
        node_role_arn: what every node of the cluster is.
        disk_key_arn: key of every node's disk.
        security_group_id: the group that EKS puts on control plane and nodes.
        oidc_provider_arn: for tools that still authenticate pods through OIDC.

    Example:
        >>> cluster = AwsCluster("prod-cluster", ClusterArgs(region="us-east-1"), network)
        >>> provider = kubernetes.Provider("prod", kubeconfig=cluster.kubeconfig)
    """

    def __init__(
        self, name: str, args: ClusterArgs, network: Network, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        check(args)
        super().__init__("fusion:aws:Cluster", name, cluster_facts("aws", args), opts)
        self.args = args
        self.network = network
        self.pod_environment = {"AWS_REGION": args.region}
        self._name = self.known_name = name
        self._child = pulumi.ResourceOptions(parent=self)
        self._account = account_of(self)
        self._make_keys()
        self._cluster = self._make_cluster()
        self.cluster_name = self._cluster.name
        self.cluster_arn = self._cluster.arn
        self.endpoint = self._cluster.endpoint
        self.security_group_id = self._cluster.vpc_config.cluster_security_group_id
        self.kubeconfig = self._kubeconfig()
        self.oidc_provider_arn = self._make_oidc_provider()
        self._admit_administrators()
        self.node_role_arn = self._make_node_role()
        identities = self._make_addon_identities()
        before = [self._make_addon(addon, identities) for addon in BEFORE_NODES]
        nodes = self._make_system_nodes(before)
        for addon in (*AFTER_NODES, *((BUCKET_DRIVER,) if args.mounts_buckets else ())):
            self._make_addon(addon, [*identities, nodes])
        self.register_outputs(
            {"cluster_name": self.cluster_name, "endpoint": self.endpoint, "kubeconfig": self.kubeconfig}
        )

    def _make_keys(self) -> None:
        region, self._log_group_name = self.args.region, f"/aws/eks/{self._name}/cluster"
        key = make_key(
            self._name,
            f"Secrets and control-plane logs of {self._name}",
            self._account,
            parent=self,
            tags=self.args.tags,
            statements=lambda partition, account: [key_for_logs(partition, region, account, self._log_group_name)],
        )
        self._key_arn = key.arn
        disk_key = make_key(
            f"{self._name}-disks",
            f"Disks of the nodes of {self._name}",
            self._account,
            parent=self,
            tags=self.args.tags,
            statements=lambda partition, account: key_for_disks(partition, region, account),
        )
        self.disk_key_arn = disk_key.arn

    def _make_cluster(self) -> aws.eks.Cluster:
        # EKS would make the log group itself, without key or retention; ours must exist first.
        logs = make_log_group(
            f"{self._name}-logs",
            self._log_group_name,
            days=self.args.log_retention_days,
            key_arn=self._key_arn,
            parent=self,
            tags=self.args.tags,
        )
        role, rights = self._make_cluster_role()
        public_cidrs = list(self.args.public_access_cidrs)
        return aws.eks.Cluster(
            self._name,
            name=self._name,
            version=self.args.kubernetes_version,
            role_arn=role.arn,
            vpc_config=aws.eks.ClusterVpcConfigArgs(
                subnet_ids=list(self.network.private_subnet_ids.values()),
                endpoint_private_access=True,
                endpoint_public_access=bool(public_cidrs),
                public_access_cidrs=public_cidrs or None,
            ),
            kubernetes_network_config=aws.eks.ClusterKubernetesNetworkConfigArgs(
                service_ipv4_cidr=self.network.args.service_cidr
            ),
            access_config=aws.eks.ClusterAccessConfigArgs(
                authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
            ),
            encryption_config=aws.eks.ClusterEncryptionConfigArgs(
                provider=aws.eks.ClusterEncryptionConfigProviderArgs(key_arn=self._key_arn), resources=["secrets"]
            ),
            enabled_cluster_log_types=list(CONTROL_PLANE_LOGS),
            bootstrap_self_managed_addons=False,  # the add-ons below are EKS's own, and updated by it
            tags=self.args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[logs, *rights]),
        )

    def _make_cluster_role(self) -> tuple[aws.iam.Role, list[pulumi.Resource]]:
        """The control plane's role, and the rights that it must have before the cluster exists."""
        role = self._role("control-plane", service_trust("eks.amazonaws.com"))
        attachment = self._attach("control-plane", role, "AmazonEKSClusterPolicy")
        use_of_key = (*KEY_USE, "kms:CreateGrant", "kms:ListGrants")
        policy = aws.iam.RolePolicy(
            f"{self._name}-secrets",
            name="encrypt-secrets",
            role=role.name,
            policy=self._key_arn.apply(lambda arn: document([allow("SecretsKey", use_of_key, arn)])),
            opts=self._child,
        )
        return role, [attachment, policy]

    def _kubeconfig(self) -> pulumi.Output[str]:
        cluster = self._cluster
        return pulumi.Output.all(cluster.name, cluster.endpoint, cluster.certificate_authority.data).apply(
            lambda values: kubeconfig(*values, region=self.args.region, kubernetes_version=self.args.kubernetes_version)
        )

    def _make_oidc_provider(self) -> pulumi.Output[str]:
        provider = aws.iam.OpenIdConnectProvider(
            f"{self._name}-oidc",
            url=self._cluster.identities[0].oidcs[0].issuer,
            client_id_lists=["sts.amazonaws.com"],
            tags=self.args.tags,
            opts=self._child,
        )
        return provider.arn

    def _admit_administrators(self) -> None:
        scope = aws.eks.AccessPolicyAssociationAccessScopeArgs(type="cluster")
        for index, principal in enumerate(self.args.administrators):
            entry = aws.eks.AccessEntry(
                f"{self._name}-administrator-{index}",
                cluster_name=self.cluster_name,
                principal_arn=principal,
                tags=self.args.tags,
                opts=self._child,
            )
            policy = pulumi.Output.concat(
                "arn:", self._account.partition, ":eks::aws:cluster-access-policy/", ADMINISTRATOR_POLICY
            )
            aws.eks.AccessPolicyAssociation(
                f"{self._name}-administrator-{index}",
                cluster_name=self.cluster_name,
                principal_arn=entry.principal_arn,
                policy_arn=policy,
                access_scope=scope,
                opts=self._child,
            )

    def _make_node_role(self) -> pulumi.Output[str]:
        """The nodes' role; its ARN is known once its rights are there, so no node starts without them."""
        role = self._role("node", service_trust("ec2.amazonaws.com"))
        attachments = [self._attach(f"node-{index}", role, policy) for index, policy in enumerate(NODE_POLICIES)]
        return pulumi.Output.all(role.arn, *(attachment.id for attachment in attachments)).apply(lambda ids: ids[0])

    def _make_addon_identities(self) -> list[pulumi.Resource]:
        """Pod identity for the add-ons that call AWS, made before their pods so that these start with credentials."""
        made: list[pulumi.Resource] = []
        for addon, (service_account, policy) in ADDON_IDENTITIES.items():
            role = self._role(addon, self._trust_in_pods_of(service_account))
            made.append(self._attach(addon, role, policy))
            made.append(
                aws.eks.PodIdentityAssociation(
                    f"{self._name}-{addon}",
                    cluster_name=self.cluster_name,
                    namespace="kube-system",
                    service_account=service_account,
                    role_arn=role.arn,
                    tags=self.args.tags,
                    opts=self._child,
                )
            )
            if addon == "aws-ebs-csi-driver":
                made.append(self._let_use_disk_key(role))
        return made

    def _trust_in_pods_of(self, service_account: str) -> pulumi.Output[str]:
        return self.cluster_arn.apply(lambda arn: pod_trust(arn, "kube-system", service_account))

    def _let_use_disk_key(self, role: aws.iam.Role) -> aws.iam.RolePolicy:
        return aws.iam.RolePolicy(
            f"{self._name}-volumes",
            name="encrypt-volumes",
            role=role.name,
            policy=self.disk_key_arn.apply(lambda arn: document([allow("Disks", (*KEY_USE, "kms:CreateGrant"), arn)])),
            opts=self._child,
        )

    def _make_addon(self, addon: str, after: list[pulumi.Resource]) -> aws.eks.Addon:
        return aws.eks.Addon(
            f"{self._name}-{addon}",
            cluster_name=self.cluster_name,
            addon_name=addon,
            addon_version=self.args.addon_versions.get(addon),
            resolve_conflicts_on_create="OVERWRITE",
            resolve_conflicts_on_update="OVERWRITE",
            tags=self.args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )

    def _make_system_nodes(self, after: list[aws.eks.Addon]) -> aws.eks.NodeGroup:
        pool, name = self.args.system_pool, f"{self._name}-system"
        template = aws.ec2.LaunchTemplate(
            name,
            name=short_name(name, LAUNCH_TEMPLATE_NAME_MAX),
            update_default_version=True,
            block_device_mappings=root_disk(pool.disk_gib, self.disk_key_arn),
            metadata_options=metadata_options(),
            tag_specifications=tagged(name, self.args.tags),
            tags=self.args.tags,
            opts=self._child,
        )
        return aws.eks.NodeGroup(
            name,
            node_group_name=versioned_name(name, NODE_GROUP_NAME_MAX, pool.instance_type, *self.network.args.zones),
            cluster_name=self.cluster_name,
            node_role_arn=self.node_role_arn,
            subnet_ids=list(self.network.private_subnet_ids.values()),
            ami_type=shape_of(pool.instance_type).ami_type,
            capacity_type="ON_DEMAND",
            instance_types=[pool.instance_type],
            launch_template=latest(template),
            scaling_config=aws.eks.NodeGroupScalingConfigArgs(
                min_size=pool.nodes, desired_size=pool.nodes, max_size=pool.nodes
            ),
            update_config=aws.eks.NodeGroupUpdateConfigArgs(max_unavailable=1),
            labels={"fusion.dev/pool": "system"},
            tags=self.args.tags,
            # The network too: a node that starts before its route through NAT never joins.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.network, *after]),
        )

    def _role(self, role: str, trust: pulumi.Input[str]) -> aws.iam.Role:
        return aws.iam.Role(
            f"{self._name}-{role}",
            name=short_name(f"{self._name}-{role}", ROLE_NAME_MAX),
            assume_role_policy=trust,
            tags=self.args.tags,
            opts=self._child,
        )

    def _attach(self, name: str, role: aws.iam.Role, policy: str) -> aws.iam.RolePolicyAttachment:
        return aws.iam.RolePolicyAttachment(
            f"{self._name}-{name}",
            role=role.name,
            policy_arn=self._account.managed_policy(policy),
            opts=self._child,
        )


def check(args: ClusterArgs) -> None:
    """Refuse what EKS can't build.

    Raises:
        ArgumentError: names what and the way out.
    """
    check_retention(args.log_retention_days)
    kind = shape_of(args.system_pool.instance_type)
    require(
        kind.accelerator_vendor == "none",
        f"system_pool.instance_type {kind.instance_type} has accelerators that the cluster's own pods would leave "
        "idle; use a CPU instance type such as m6i.large.",
    )
    known = (*BEFORE_NODES, *AFTER_NODES, *((BUCKET_DRIVER,) if args.mounts_buckets else ()))
    for addon in args.addon_versions:
        require(addon in known, f"addon_versions: {addon} is not installed here; name one of {', '.join(known)}.")


def kubeconfig(name: str, endpoint: str, certificate_authority: str, *, region: str, kubernetes_version: str) -> str:
    """A kubeconfig whose user is whoever `aws` is configured as when it is used; it holds no credential.

    Its cluster carries its version in an extension, for those who check objects without reaching it.
    """
    command: Mapping[str, object] = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "aws",
        "args": ["eks", "get-token", "--cluster-name", name, "--region", region, "--output", "json"],
        "interactiveMode": "Never",
    }
    return kubeconfig_of(name, endpoint, certificate_authority, command, kubernetes_version)
