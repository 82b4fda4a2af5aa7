"""Guardrails on what the internet can reach: buckets, cluster endpoints, nodes and their ports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Props, Resource
from policies.security.documents import WrongDocument, statements
from policies.security.google import grants_to_everybody
from policies.security.ranges import open_to
from policies.update import Update

WEB_PORTS = frozenset({80, 443})
"""What a load balancer may offer to everybody; a node offers nothing."""
PUBLIC_ACLS = frozenset(
    {"public-read", "public-read-write", "authenticated-read"} | {"publicread", "publicreadwrite", "authenticatedread"}
)
"""Of S3, and of Cloud Storage."""
PUBLIC_GROUPS = ("AllUsers", "AuthenticatedUsers")
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


def _public_acl(props: Props) -> Iterator[str]:
    acl = str(props.get("acl") or props.get("predefinedAcl")).lower()
    if acl in PUBLIC_ACLS:
        yield f"acl {acl} opens it to everybody; remove it"
    grants = [*props.each("grants"), *props.each("accessControlPolicy", "grants")]
    for grant in grants:
        uri = str(grant.get("uri") or grant.get("grantee", "uri") or "")
        if uri.endswith(PUBLIC_GROUPS):
            yield f"a grant opens it to the group {uri.rpartition('/')[2]}; remove it"


def _access_block(props: Props) -> Iterator[str]:
    if off := [name for name in BLOCKS if props.get(name) is not True]:
        yield f"it leaves {', '.join(off)} off, which lets a bucket become public; set all four to true"


def _bucket_policy(props: Props) -> Iterator[str]:
    try:
        for statement in statements(props.part("policy")):
            if statement.is_public and not statement.is_bounded:
                allowed = ", ".join(statement.actions)
                yield f"policy: {statement.name} allows everybody {allowed}; name the principals"
    except WrongDocument as error:
        yield f"policy can't be read: {error}"


def _access_point(props: Props) -> Iterator[str]:
    yield from _bucket_policy(props)
    if props.has("publicAccessBlockConfiguration"):
        yield from _access_block(props.part("publicAccessBlockConfiguration"))


def _bucket(props: Props) -> Iterator[str]:
    yield from _public_acl(props)
    yield from _bucket_policy(props)


def _gcp_bucket(props: Props) -> Iterator[str]:
    if props.get("publicAccessPrevention") != "enforced":
        yield "publicAccessPrevention is not enforced, so a grant can make it public; set it to enforced"
    if props.get("uniformBucketLevelAccess") is not True:
        yield "uniformBucketLevelAccess is off, so single objects can be made public by ACLs; set it to true"


def _gcp_acl(props: Props) -> Iterator[str]:
    yield from _public_acl(props)
    yield from grants_to_everybody(props)


BUCKETS: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:s3/bucket:Bucket": _bucket,
    "aws:s3/bucketV2:BucketV2": _bucket,
    "aws:s3/bucketAcl:BucketAcl": _public_acl,
    "aws:s3/bucketAclV2:BucketAclV2": _public_acl,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _access_block,
    "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock": _access_block,
    "aws:s3/bucketObject:BucketObject": _public_acl,
    "aws:s3/bucketObjectv2:BucketObjectv2": _public_acl,
    "aws:s3/objectCopy:ObjectCopy": _public_acl,
    "aws:s3/bucketPolicy:BucketPolicy": _bucket_policy,
    "aws:s3/accessPoint:AccessPoint": _access_point,
    "aws:s3control/accessPointPolicy:AccessPointPolicy": _bucket_policy,
    "gcp:storage/bucket:Bucket": _gcp_bucket,
    "gcp:storage/bucketIAMMember:BucketIAMMember": grants_to_everybody,
    "gcp:storage/bucketIAMBinding:BucketIAMBinding": grants_to_everybody,
    "gcp:storage/bucketIAMPolicy:BucketIAMPolicy": grants_to_everybody,
    "gcp:storage/managedFolderIamMember:ManagedFolderIamMember": grants_to_everybody,
    "gcp:storage/managedFolderIamBinding:ManagedFolderIamBinding": grants_to_everybody,
    "gcp:storage/managedFolderIamPolicy:ManagedFolderIamPolicy": grants_to_everybody,
    "gcp:storage/bucketACL:BucketACL": _gcp_acl,
    "gcp:storage/objectACL:ObjectACL": _gcp_acl,
    "gcp:storage/defaultObjectACL:DefaultObjectACL": _gcp_acl,
    "gcp:storage/bucketObject:BucketObject": _public_acl,
    "gcp:storage/bucketAccessControl:BucketAccessControl": grants_to_everybody,
    "gcp:storage/defaultObjectAccessControl:DefaultObjectAccessControl": grants_to_everybody,
    "gcp:storage/objectAccessControl:ObjectAccessControl": grants_to_everybody,
}


@guardrail("no-public-bucket", *BUCKETS, unknown="judged in up")
def no_public_bucket(resource: Resource, _: Update) -> Iterator[str]:
    """No bucket can be read or written by everybody."""
    yield from BUCKETS[resource.type](resource.props)


@guardrail("private-cluster-endpoint", "aws:eks/cluster:Cluster", "gcp:container/cluster:Cluster")
def private_cluster_endpoint(resource: Resource, _: Update) -> Iterator[str]:
    """The endpoint of a cluster is private, or open to named ranges only."""
    props = resource.props
    if resource.type == "aws:eks/cluster:Cluster":
        if props.get("vpcConfig", "endpointPublicAccess", default=True) is False:
            return
        if everybody := open_to(_texts(props.part("vpcConfig"), "publicAccessCidrs") or ["0.0.0.0/0"]):
            yield (
                f"its endpoint is open to {', '.join(everybody)}; set vpcConfig.endpointPublicAccess to false, or "
                "publicAccessCidrs to your own ranges"
            )
        return
    is_private = props.get("privateClusterConfig", "enablePrivateEndpoint") is True
    by_name_only = props.get("controlPlaneEndpointsConfig", "ipEndpointsConfig", "enabled") is False
    if is_private or by_name_only:
        return
    named = props.part("masterAuthorizedNetworksConfig")
    if named.value is None:
        yield (
            "its endpoint is open to everybody; set privateClusterConfig.enablePrivateEndpoint, or "
            "masterAuthorizedNetworksConfig to your own ranges"
        )
    for each in open_to(str(block.get("cidrBlock")) for block in named.each("cidrBlocks")):
        yield f"masterAuthorizedNetworksConfig opens its endpoint to {each}; name your own ranges"
    if named.get("gcpPublicCidrsAccessEnabled") is True:
        yield "gcpPublicCidrsAccessEnabled opens its endpoint to every customer of Google Cloud; set it to false"


def _aws_node(props: Props) -> Iterator[str]:
    blocks = [props, *props.each("networkInterfaces")]
    if any(str(each.get("associatePublicIpAddress", default=False)).lower() == "true" for each in blocks):
        yield "associatePublicIpAddress gives it a public address; set it to false and reach it through the network"


def _instance(props: Props) -> Iterator[str]:
    yield from _aws_node(props)
    is_placed = any(props.has(each) for each in PLACES)
    if not is_placed and props.get("associatePublicIpAddress", default=True) is not False:
        yield (
            "without a subnet it starts in the default VPC, which gives it a public address; name a subnet, or set "
            "associatePublicIpAddress to false"
        )


def _fleet(props: Props) -> Iterator[str]:
    for each in props.each("launchSpecifications"):
        yield from _aws_node(each)


def _container_service(props: Props) -> Iterator[str]:
    if props.get("networkConfiguration", "assignPublicIp", default=False) is not False:
        yield "networkConfiguration.assignPublicIp gives its tasks public addresses; set it to false"


def _notebook(props: Props) -> Iterator[str]:
    if props.get("directInternetAccess", default="Enabled") != "Disabled":
        yield "directInternetAccess is not Disabled; set it, and give it a subnet"


def _subnet(props: Props) -> Iterator[str]:
    if props.get("mapPublicIpOnLaunch", default=False) is not False:
        yield (
            "mapPublicIpOnLaunch gives every node in it a public address; set it to false: gateways and load "
            "balancers need none"
        )


def _default_subnet(props: Props) -> Iterator[str]:
    if props.get("mapPublicIpOnLaunch", default=True) is not False:
        yield "a default subnet gives every node in it a public address; set mapPublicIpOnLaunch to false"


def _address(props: Props) -> Iterator[str]:
    if props.has("instance") or props.has("instanceId"):
        yield "it gives a node a public address; reach it through the network, or through a load balancer"


def _database(props: Props) -> Iterator[str]:
    if props.get("publiclyAccessible", default=False) is not False:
        yield "publiclyAccessible gives it a public address; set it to false"


def _workbench(props: Props) -> Iterator[str]:
    if props.get("gceSetup", "disablePublicIp", default=False) is not True:
        yield "gceSetup.disablePublicIp is not true, so it has a public address; set it"


def _dataproc(props: Props) -> Iterator[str]:
    if props.get("clusterConfig", "gceClusterConfig", "internalIpOnly") is not True:
        yield "clusterConfig.gceClusterConfig.internalIpOnly is not true, so its nodes have public addresses; set it"


def _alloydb(props: Props) -> Iterator[str]:
    if props.get("networkConfig", "enablePublicIp", default=False) is not False:
        yield "networkConfig.enablePublicIp gives it a public address; set it to false"


def _looker(props: Props) -> Iterator[str]:
    if props.get("publicIpEnabled", default=False) is not False:
        yield "publicIpEnabled gives it a public address; set it to false"


def _sql(props: Props) -> Iterator[str]:
    if props.get("settings", "ipConfiguration", "ipv4Enabled", default=True) is not False:
        yield "settings.ipConfiguration.ipv4Enabled is not false, so it has a public address; set it to false"


def _gke_cluster(props: Props) -> Iterator[str]:
    """Pools take over what their cluster says, so it must say so even where it has no pool of its own."""
    if props.get("privateClusterConfig", "enablePrivateNodes") is not True:
        yield "its nodes have public addresses; set privateClusterConfig.enablePrivateNodes to true"
    for pool in props.each("nodePools"):
        yield from _gke_pool(pool)


def _gke_pool(props: Props) -> Iterator[str]:
    if props.get("networkConfig", "enablePrivateNodes", default=True) is not True:
        yield "networkConfig.enablePrivateNodes is false, so its nodes have public addresses; set it to true"


def _node_class(props: Props) -> Iterator[str]:
    if props.get("spec", "associatePublicIPAddress", default=False) is not False:
        yield "spec.associatePublicIPAddress gives its nodes public addresses; set it to false"


def _tpu(props: Props) -> Iterator[str]:
    networks = [*props.each("networkConfig"), *props.each("networkConfigs")]
    if any(each.get("enableExternalIps") is True for each in networks):
        yield "enableExternalIps gives it a public address; set it to false"


def _queued_tpu(props: Props) -> Iterator[str]:
    for each in props.each("tpu", "nodeSpec"):
        yield from _tpu(each.part("node"))


def _gcp_node(props: Props) -> Iterator[str]:
    for index, each in enumerate(props.each("networkInterfaces")):
        # an empty block asks for an address of the moment
        if any(True for name in GCP_ADDRESSES for _ in each.each(name)):
            yield f"networkInterfaces[{index}].accessConfigs gives it a public address; remove it and use Cloud NAT"


PLACES = ("subnetId", "networkInterfaces", "primaryNetworkInterface", "launchTemplate")
GCP_ADDRESSES = ("accessConfigs", "ipv6AccessConfigs")
NODES: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:ec2/instance:Instance": _instance,
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": _instance,
    "aws:ec2/launchTemplate:LaunchTemplate": _aws_node,
    "aws:ec2/launchConfiguration:LaunchConfiguration": _aws_node,
    "aws:ec2/spotFleetRequest:SpotFleetRequest": _fleet,
    "aws:ecs/service:Service": _container_service,
    "aws:ec2/subnet:Subnet": _subnet,
    "aws:ec2/defaultSubnet:DefaultSubnet": _default_subnet,
    "aws:ec2/eip:Eip": _address,
    "aws:ec2/eipAssociation:EipAssociation": _address,
    **dict.fromkeys(
        (
            "aws:dms/instanceProfile:InstanceProfile",
            "aws:dms/replicationInstance:ReplicationInstance",
            "aws:lightsail/database:Database",
            "aws:m2/environment:Environment",
            "aws:mq/broker:Broker",
            "aws:neptune/clusterInstance:ClusterInstance",
            "aws:rds/cluster:Cluster",
            "aws:rds/clusterInstance:ClusterInstance",
            "aws:rds/instance:Instance",
            "aws:rds/shardGroup:ShardGroup",
            "aws:redshift/cluster:Cluster",
            "aws:redshiftserverless/workgroup:Workgroup",
            "aws:timestreaminfluxdb/dbCluster:DbCluster",
            "aws:timestreaminfluxdb/dbInstance:DbInstance",
        ),
        _database,
    ),
    "aws:sagemaker/notebookInstance:NotebookInstance": _notebook,
    "gcp:compute/instance:Instance": _gcp_node,
    "gcp:compute/instanceTemplate:InstanceTemplate": _gcp_node,
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": _gcp_node,
    "gcp:compute/instanceFromTemplate:InstanceFromTemplate": _gcp_node,
    "gcp:container/cluster:Cluster": _gke_cluster,
    "gcp:container/nodePool:NodePool": _gke_pool,
    "gcp:compute/instanceFromMachineImage:InstanceFromMachineImage": _gcp_node,
    "gcp:alloydb/instance:Instance": _alloydb,
    "gcp:dataproc/cluster:Cluster": _dataproc,
    "gcp:looker/instance:Instance": _looker,
    "gcp:workbench/instance:Instance": _workbench,
    "gcp:sql/databaseInstance:DatabaseInstance": _sql,
    "gcp:tpu/v2Vm:V2Vm": _tpu,
    "gcp:tpu/v2QueuedResource:V2QueuedResource": _queued_tpu,
    "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass": _node_class,
    "kubernetes:karpenter.k8s.aws/v1beta1:EC2NodeClass": _node_class,
}


@guardrail("no-public-nodes", *NODES)
def no_public_nodes(resource: Resource, _: Update) -> Iterator[str]:
    """No node and no database has a public address."""
    yield from NODES[resource.type](resource.props)


def _remote_access(props: Props) -> Iterator[str]:
    if props.has("remoteAccess", "ec2SshKey") and not props.has("remoteAccess", "sourceSecurityGroupIds"):
        yield (
            "remoteAccess without sourceSecurityGroupIds opens port 22 of every node to 0.0.0.0/0; name the groups, or "
            "remove it"
        )


def _prefix_list(props: Props) -> Iterator[str]:
    """A security group that names the list is as open as its widest entry."""
    entries = [props, *props.each("entries")]
    for each in open_to(str(entry.get("cidr")) for entry in entries if entry.has("cidr")):
        yield f"the list holds {each}, so what names it is open to everybody; name your own ranges"


def _group(props: Props) -> Iterator[str]:
    for rule in props.each("ingress"):
        yield from _rule(rule)


def _separate_rule(props: Props) -> Iterator[str]:
    if str(props.get("type", default="ingress")).lower() != "egress":
        yield from _rule(props)


def _rule(rule: Props) -> Iterator[str]:
    everybody = open_to(_cidrs(rule))
    if everybody and not _is_web(rule) and not _is_control(rule):
        yield (
            f"{_ports(rule)} is open to {', '.join(everybody)}; name your own ranges, or the security group of the "
            "load balancer"
        )


def _firewall(props: Props) -> Iterator[str]:
    is_egress = str(props.get("direction", default="INGRESS")).upper() == "EGRESS"
    if is_egress or props.get("disabled") is True or not props.has("allows"):
        return
    is_restricted = props.has("sourceTags") or props.has("sourceServiceAccounts")
    ranges = _texts(props, "sourceRanges") or ([] if is_restricted else ["0.0.0.0/0"])
    if everybody := open_to(ranges):
        yield f"the firewall lets {', '.join(everybody)} in; set sourceRanges to your own"


def _firewall_policy_rule(props: Props) -> Iterator[str]:
    is_egress = str(props.get("direction", default="INGRESS")).upper() == "EGRESS"
    if is_egress or props.get("disabled") is True or str(props.get("action")).lower() in ("deny", "goto_next"):
        return
    match = props.part("match")
    ranges = _texts(match, "srcIpRanges")
    if everybody := open_to(ranges):
        yield f"the rule lets {', '.join(everybody)} in; set match.srcIpRanges to your own"


def _open_service(props: Props) -> Iterator[str]:
    kind = props.get("spec", "type", default="ClusterIP")
    if props.has("spec", "externalIPs"):
        yield "spec.externalIPs opens its ports on addresses of nodes; remove it"
    if kind == "NodePort":
        yield "a NodePort opens a port of every node; use ClusterIP with a Gateway or Ingress"
    if kind != "LoadBalancer":
        return
    notes = props.part("metadata", "annotations")
    notes.require_known()
    said = notes.value if isinstance(notes.value, Mapping) else {}
    is_internal = (
        said.get("service.beta.kubernetes.io/aws-load-balancer-scheme") == "internal"
        or str(said.get("service.beta.kubernetes.io/aws-load-balancer-internal", "")).lower() in ("true", "0.0.0.0/0")
        or said.get("networking.gke.io/load-balancer-type") == "Internal"
        or said.get("cloud.google.com/load-balancer-type") == "Internal"
    )
    ranges = _texts(props.part("spec"), "loadBalancerSourceRanges")
    ranges += [each for each in str(said.get(SOURCE_RANGES, "")).split(",") if each]
    if not is_internal and (not ranges or open_to(ranges)):
        yield (
            "a LoadBalancer without loadBalancerSourceRanges is open to everybody; name your ranges, make it internal, "
            "or use a Gateway or Ingress with TLS"
        )


def _cidrs(rule: Props) -> list[str]:
    names = ("cidrBlocks", "ipv6CidrBlocks", "cidrIpv4", "cidrIpv6")
    return [each for name in names for each in _texts(rule, name)]


def _is_web(rule: Props) -> bool:
    low, high, protocol = _range(rule)
    return protocol == "tcp" and low == high and low in WEB_PORTS


def _range(rule: Props) -> tuple[int, int, str]:
    protocol = str(rule.get("protocol") or rule.get("ipProtocol") or "-1").lower()
    if protocol in ("-1", "all"):
        return 0, 65_535, "every protocol"
    named = {"6": "tcp", "17": "udp"}.get(protocol, protocol)
    return _port(rule.get("fromPort"), 0), _port(rule.get("toPort"), 65_535), named


def _port(value: object, otherwise: int) -> int:
    """A port as number or text; `otherwise` for what is none."""
    return int(float(str(value))) if re.fullmatch(r"\d{1,5}(\.0)?", str(value)) else otherwise


def _is_control(rule: Props) -> bool:
    """ICMP knows no ports, and paths of networks need it."""
    return _range(rule)[2] in ("icmp", "icmpv6", "1", "58")


def _ports(rule: Props) -> str:
    low, high, protocol = _range(rule)
    return f"port {low} ({protocol})" if low == high else f"every port from {low} to {high} ({protocol})"


def _texts(props: Props, key: str) -> list[str]:
    found = props.get(key, default=[])
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


PORTS: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:ec2/securityGroup:SecurityGroup": _group,
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": _group,
    "aws:ec2/securityGroupRule:SecurityGroupRule": _separate_rule,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _separate_rule,
    "aws:ec2/managedPrefixList:ManagedPrefixList": _prefix_list,
    "aws:ec2/managedPrefixListEntry:ManagedPrefixListEntry": _prefix_list,
    "aws:eks/nodeGroup:NodeGroup": _remote_access,
    "gcp:compute/firewall:Firewall": _firewall,
    "gcp:compute/firewallPolicyRule:FirewallPolicyRule": _firewall_policy_rule,
    "gcp:compute/networkFirewallPolicyRule:NetworkFirewallPolicyRule": _firewall_policy_rule,
    "gcp:compute/regionNetworkFirewallPolicyRule:RegionNetworkFirewallPolicyRule": _firewall_policy_rule,
    "kubernetes:core/v1:Service": _open_service,
    "kubernetes:core/v1:ServicePatch": _open_service,
}


@guardrail("no-open-node-ports", *PORTS, unknown="judged in up")
def no_open_node_ports(resource: Resource, _: Update) -> Iterator[str]:
    """No port of a node is open to everybody; only web ports of a load balancer may be."""
    yield from PORTS[resource.type](resource.props)


GUARDRAILS = [no_public_bucket, private_cluster_endpoint, no_public_nodes, no_open_node_ports]
