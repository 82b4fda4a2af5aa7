"""A GKE cluster: private nodes and endpoint, secrets under its own key, Dataplane V2, Workload Identity."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.cluster import Cluster, ClusterArgs, cluster_facts, kubeconfig_of
from infra.errors import require
from infra.gcp.gpudirect import GpuNetwork, make_network
from infra.gcp.keys import agent, make_key
from infra.gcp.labels import as_labels
from infra.gcp.machines import BALANCED
from infra.gcp.network import PODS, SERVICES, GcpNetwork
from infra.gcp.nodes import CLUSTER_NAME_MAX, NODE_POOL_NAME_MAX, node_config
from infra.names import short_name

NODE_ROLES = ("roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader")
"""What a kubelet needs ("Harden your cluster's security", GKE), and pulling the images."""
LOGS = ["SYSTEM_COMPONENTS", "WORKLOADS", "APISERVER", "SCHEDULER", "CONTROLLER_MANAGER"]
ADMINISTRATOR_ROLE = "roles/container.admin"


class GcpCluster(Cluster):
    """A GKE cluster with the nodes that it needs before any workload.

    Makes: two CryptoKeys (secrets, disks) with their KeyRings and grants, an Account for the nodes with its roles, the
    Cluster, a NodePool for system pods, and the administrators' grants.

    Attributes:
        project: the project's id.
        disk_key: id of the key of the nodes' disks.
        node_account: email of the nodes' service account.
        network: where it is.

    Example:
        >>> cluster = GcpCluster("prod-cluster", args, network)
    """

    def __init__(
        self, name: str, args: ClusterArgs, network: GcpNetwork, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        check(args)
        super().__init__("fusion:gcp:Cluster", name, cluster_facts("gcp", args), opts)
        self.args = args
        self.network = network
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        project = gcp.organizations.get_project_output(opts=pulumi.InvokeOptions(parent=self))
        self.project = project.project_id
        engine = {"gke": agent("container-engine-robot", project.number)}
        disks = {"compute": agent("compute-system", project.number)}
        secrets_key = make_key(f"{name}-secrets", args.region, engine, parent=self, tags=args.tags)
        self.disk_key = make_key(f"{name}-disks", args.region, disks, parent=self, tags=args.tags)
        self.node_account = self._make_node_account()
        cluster = self._make_cluster(secrets_key)
        self.cluster_name = cluster.name
        self.endpoint = pulumi.Output.concat("https://", cluster.endpoint)
        self.pod_environment = {}
        self._gpu_networks: tuple[GpuNetwork, ...] = ()
        self.kubeconfig = pulumi.Output.all(
            cluster.name, self.endpoint, cluster.master_auth.cluster_ca_certificate
        ).apply(lambda values: kubeconfig(*values, kubernetes_version=args.kubernetes_version))
        self._make_system_pool()
        self.register_outputs({"cluster_name": self.cluster_name, "endpoint": self.endpoint})

    def gpu_networks(self, count: int) -> tuple[GpuNetwork, ...]:
        """Of as many further interfaces of nodes: pools share them, and the first that needs one makes it."""
        own = self.network.args
        for index in range(len(self._gpu_networks) + 1, count + 1):
            made = make_network(self._name, index, own.region, (own.cidr, own.service_cidr), self._child)
            self._gpu_networks = (*self._gpu_networks, made)
            self.objects = [*self.objects, *made.objects()]
        return self._gpu_networks[:count]

    def _make_node_account(self) -> pulumi.Output[str]:
        account = gcp.serviceaccount.Account(
            f"{self._name}-nodes", account_id=short_name(f"{self._name}-nodes", 30), opts=self._child
        )
        grants = [
            gcp.projects.IAMMember(
                f"{self._name}-nodes-{role.rpartition('.')[2].lower()}",
                project=self.project,
                role=role,
                member=account.member,
                opts=self._child,
            )
            for role in NODE_ROLES
        ]
        for index, member in enumerate(self.args.administrators):
            gcp.projects.IAMMember(
                f"{self._name}-administrator-{index}",
                project=self.project,
                role=ADMINISTRATOR_ROLE,
                member=member,
                opts=self._child,
            )
        return pulumi.Output.all(account.email, *(grant.id for grant in grants)).apply(lambda known: str(known[0]))

    def _make_cluster(self, secrets_key: pulumi.Output[str]) -> gcp.container.Cluster:
        args = self.args
        return gcp.container.Cluster(
            self._name,
            name=short_name(self._name, CLUSTER_NAME_MAX),
            location=args.region,
            node_locations=list(self.network.args.zones),
            network=self.network.network_id,
            subnetwork=self.network.subnet_id,
            initial_node_count=1,
            remove_default_node_pool=True,
            deletion_protection=False,
            min_master_version=args.kubernetes_version,
            release_channel=gcp.container.ClusterReleaseChannelArgs(channel="REGULAR"),
            datapath_provider="ADVANCED_DATAPATH",
            # For pools with GPUDirect, of which a cluster knows nothing when it is made.
            enable_multi_networking=True,
            enable_shielded_nodes=True,
            ip_allocation_policy=gcp.container.ClusterIpAllocationPolicyArgs(
                cluster_secondary_range_name=PODS, services_secondary_range_name=SERVICES
            ),
            private_cluster_config=gcp.container.ClusterPrivateClusterConfigArgs(
                enable_private_nodes=True, enable_private_endpoint=not args.public_access_cidrs
            ),
            master_authorized_networks_config=gcp.container.ClusterMasterAuthorizedNetworksConfigArgs(
                cidr_blocks=[
                    gcp.container.ClusterMasterAuthorizedNetworksConfigCidrBlockArgs(cidr_block=each)
                    for each in args.public_access_cidrs
                ]
            ),
            workload_identity_config=gcp.container.ClusterWorkloadIdentityConfigArgs(
                workload_pool=pulumi.Output.concat(self.project, ".svc.id.goog")
            ),
            addons_config=_addons(args),
            database_encryption=gcp.container.ClusterDatabaseEncryptionArgs(state="ENCRYPTED", key_name=secrets_key),
            logging_config=gcp.container.ClusterLoggingConfigArgs(enable_components=LOGS),
            master_auth=gcp.container.ClusterMasterAuthArgs(
                client_certificate_config=gcp.container.ClusterMasterAuthClientCertificateConfigArgs(
                    issue_client_certificate=False
                )
            ),
            node_config=gcp.container.ClusterNodeConfigArgs(
                boot_disk_kms_key=self.disk_key, service_account=self.node_account
            ),
            resource_labels=as_labels(args.tags),
            # The pool that GKE makes first and removes leaves its config in the state.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["nodeConfig"]),
        )

    def _make_system_pool(self) -> None:
        system = self.args.system_pool
        zones = list(self.network.args.zones)[: system.nodes]
        gcp.container.NodePool(
            f"{self._name}-system",
            name=short_name(f"{self._name}-system", NODE_POOL_NAME_MAX),
            cluster=self.cluster_name,
            location=self.args.region,
            node_locations=zones,
            node_count=system.nodes // len(zones),
            node_config=node_config(
                system.instance_type,
                disk_gib=system.disk_gib,
                disk_type=BALANCED,
                key=self.disk_key,
                service_account=self.node_account,
                tags=self.args.tags,
            ),
            opts=self._child,
        )


def _addons(args: ClusterArgs) -> gcp.container.ClusterAddonsConfigArgs | None:
    """What GKE installs besides what it always does."""
    if not args.mounts_buckets:
        return None
    fuse = gcp.container.ClusterAddonsConfigGcsFuseCsiDriverConfigArgs(enabled=True)
    return gcp.container.ClusterAddonsConfigArgs(gcs_fuse_csi_driver_config=fuse)


def check(args: ClusterArgs) -> None:
    """Refuse what Google Cloud can't build, before anything is registered.

    Raises:
        ArgumentError: names what and the way out.
    """
    require(
        "." not in args.system_pool.instance_type,
        f"system_pool.instance_type {args.system_pool.instance_type} is no machine type of Google Cloud; "
        "use one such as e2-standard-2.",
    )
    require(
        not args.addon_versions,
        f"addon_versions ({', '.join(args.addon_versions)}): GKE keeps its add-ons' versions by itself; leave it out.",
    )
    for member in args.administrators:
        require(
            member.partition(":")[0] in ("user", "group", "serviceAccount"),
            f"administrators: {member!r} is no member of IAM; write one such as group:ml-platform@example.com.",
        )


def kubeconfig(name: str, endpoint: str, certificate_authority: str, *, kubernetes_version: str) -> str:
    """A kubeconfig whose user is whoever `gcloud` is logged in as when it is used; it holds no credential.

    Its cluster carries its version in an extension, for those who check objects without reaching it.
    """
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "gke-gcloud-auth-plugin",
        "provideClusterInfo": True,
        "interactiveMode": "Never",
    }
    return kubeconfig_of(name, endpoint, certificate_authority, command, kubernetes_version)
