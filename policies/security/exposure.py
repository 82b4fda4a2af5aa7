"""Guardrails on what the internet can reach: buckets, cluster endpoints, nodes and their ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Props, Resource
from policies.security.documents import Statement, WrongDocument, statements
from policies.update import Update

WEB_PORTS = frozenset({80, 443})
"""What a load balancer may offer to everybody; a node offers nothing."""
PUBLIC_ACLS = frozenset({"public-read", "public-read-write", "authenticated-read", "website"})
PUBLIC_GROUPS = ("AllUsers", "AuthenticatedUsers")
GCP_EVERYBODY = frozenset({"allUsers", "allAuthenticatedUsers"})
BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
PRINCIPAL_CONDITIONS = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceorgid",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:vpcsourceip",
        "s3:dataaccesspointaccount",
    }
)
"""Conditions that S3 counts as making a policy not public (Amazon S3 user guide, "The meaning of public")."""


def _public_acl(props: Props) -> Iterator[str]:
    acl = props.get("acl")
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
            if statement.is_public and not _is_bounded(statement):
                allowed = ", ".join(statement.actions)
                yield f"policy: {statement.name} allows everybody {allowed}; name the principals"
    except WrongDocument as error:
        yield f"policy can't be read: {error}"


def _bucket(props: Props) -> Iterator[str]:
    yield from _public_acl(props)
    yield from _bucket_policy(props)


def _gcp_bucket(props: Props) -> Iterator[str]:
    if props.get("publicAccessPrevention") != "enforced":
        yield "publicAccessPrevention is not enforced, so a grant can make it public; set it to enforced"
    if props.get("uniformBucketLevelAccess") is not True:
        yield "uniformBucketLevelAccess is off, so single objects can be made public by ACLs; set it to true"


def _gcp_grant(props: Props) -> Iterator[str]:
    members = [*_texts(props, "members"), *_texts(props, "member"), *_texts(props, "entity")]
    for everybody in sorted(GCP_EVERYBODY.intersection(members)):
        yield f"it grants {props.get('role', default='a role')} to {everybody}; name the members"


def _is_bounded(statement: Statement) -> bool:
    """Whether a condition bounds who may use it, with values that are no wildcard."""
    return any(
        key.lower() in PRINCIPAL_CONDITIONS and "*" not in (values if isinstance(values, list) else [values])
        for operator, each in statement.conditions.items()
        if "Not" not in operator and "IfExists" not in operator
        for key, values in each.items()
    )


BUCKETS: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:s3/bucket:Bucket": _bucket,
    "aws:s3/bucketV2:BucketV2": _bucket,
    "aws:s3/bucketAcl:BucketAcl": _public_acl,
    "aws:s3/bucketAclV2:BucketAclV2": _public_acl,
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _access_block,
    "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock": _access_block,
    "aws:s3/bucketPolicy:BucketPolicy": _bucket_policy,
    "gcp:storage/bucket:Bucket": _gcp_bucket,
    "gcp:storage/bucketIAMMember:BucketIAMMember": _gcp_grant,
    "gcp:storage/bucketIAMBinding:BucketIAMBinding": _gcp_grant,
    "gcp:storage/bucketAccessControl:BucketAccessControl": _gcp_grant,
    "gcp:storage/defaultObjectAccessControl:DefaultObjectAccessControl": _gcp_grant,
    "gcp:storage/objectAccessControl:ObjectAccessControl": _gcp_grant,
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
        if props.get("vpcConfig", "endpointPublicAccess", default=True) is not True:
            return
        open_to = _texts(props.part("vpcConfig"), "publicAccessCidrs") or ["0.0.0.0/0"]
        if everybody := [each for each in open_to if _is_everybody(each)]:
            yield (
                f"its endpoint is open to {', '.join(everybody)}; set vpcConfig.endpointPublicAccess to false, or "
                "publicAccessCidrs to your own ranges"
            )
        return
    is_private = props.get("privateClusterConfig", "enablePrivateEndpoint") is True
    by_name_only = props.get("controlPlaneEndpointsConfig", "ipEndpointsConfig", "enabled") is False
    if is_private or by_name_only:
        return
    allowed = [str(block.get("cidrBlock")) for block in props.each("masterAuthorizedNetworksConfig", "cidrBlocks")]
    if not props.has("masterAuthorizedNetworksConfig"):
        yield (
            "its endpoint is open to everybody; set privateClusterConfig.enablePrivateEndpoint, or "
            "masterAuthorizedNetworksConfig to your own ranges"
        )
    for each in filter(_is_everybody, allowed):
        yield f"masterAuthorizedNetworksConfig opens its endpoint to {each}; name your own ranges"


def _aws_node(props: Props) -> Iterator[str]:
    blocks = [props, *props.each("networkInterfaces")]
    if any(str(each.get("associatePublicIpAddress", default=False)).lower() == "true" for each in blocks):
        yield "associatePublicIpAddress gives it a public address; set it to false and reach it through the network"


def _notebook(props: Props) -> Iterator[str]:
    if props.get("directInternetAccess", default="Enabled") != "Disabled":
        yield "directInternetAccess is not Disabled; set it, and give it a subnet"


def _gke_cluster(props: Props) -> Iterator[str]:
    has_nodes = props.get("removeDefaultNodePool") is not True or props.get("enableAutopilot") is True
    if has_nodes and props.get("privateClusterConfig", "enablePrivateNodes") is not True:
        yield "its nodes have public addresses; set privateClusterConfig.enablePrivateNodes to true"


def _gke_pool(props: Props) -> Iterator[str]:
    if props.get("networkConfig", "enablePrivateNodes") is False:
        yield "networkConfig.enablePrivateNodes is false, so its nodes have public addresses; set it to true"


def _tpu(props: Props) -> Iterator[str]:
    networks = [*props.each("networkConfig"), *props.each("networkConfigs")]
    if any(each.get("enableExternalIps") is True for each in networks):
        yield "enableExternalIps gives it a public address; set it to false"


def _gcp_node(props: Props) -> Iterator[str]:
    for index, each in enumerate(props.each("networkInterfaces")):
        # an empty block asks for an address of the moment
        if any(isinstance(each.part(name).value, list | dict) and each.part(name).value for name in GCP_ADDRESSES):
            yield f"networkInterfaces[{index}].accessConfigs gives it a public address; remove it and use Cloud NAT"


GCP_ADDRESSES = ("accessConfigs", "ipv6AccessConfigs")
NODES: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:ec2/instance:Instance": _aws_node,
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": _aws_node,
    "aws:ec2/launchTemplate:LaunchTemplate": _aws_node,
    "aws:ec2/launchConfiguration:LaunchConfiguration": _aws_node,
    "aws:sagemaker/notebookInstance:NotebookInstance": _notebook,
    "gcp:compute/instance:Instance": _gcp_node,
    "gcp:compute/instanceTemplate:InstanceTemplate": _gcp_node,
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": _gcp_node,
    "gcp:container/cluster:Cluster": _gke_cluster,
    "gcp:container/nodePool:NodePool": _gke_pool,
    "gcp:tpu/v2Vm:V2Vm": _tpu,
}


@guardrail("no-public-nodes", *NODES)
def no_public_nodes(resource: Resource, _: Update) -> Iterator[str]:
    """No node has a public address."""
    yield from NODES[resource.type](resource.props)


def _group(props: Props) -> Iterator[str]:
    for rule in props.each("ingress"):
        yield from _rule(rule)


def _separate_rule(props: Props) -> Iterator[str]:
    if props.get("type", default="ingress") == "ingress":
        yield from _rule(props)


def _rule(rule: Props) -> Iterator[str]:
    everybody = [each for each in _cidrs(rule) if _is_everybody(each)]
    if everybody and not _is_web(rule):
        yield (
            f"{_ports(rule)} is open to {', '.join(everybody)}; name your own ranges, or the security group of the "
            "load balancer"
        )


def _firewall(props: Props) -> Iterator[str]:
    is_ingress = props.get("direction", default="INGRESS") == "INGRESS"
    if not is_ingress or props.get("disabled") is True or not props.has("allows"):
        return
    is_restricted = props.has("sourceTags") or props.has("sourceServiceAccounts")
    ranges = _texts(props, "sourceRanges") or ([] if is_restricted else ["0.0.0.0/0"])
    if everybody := [each for each in ranges if _is_everybody(each)]:
        yield f"the firewall lets {', '.join(everybody)} in; set sourceRanges to your own"


def _open_service(props: Props) -> Iterator[str]:
    kind = props.get("spec", "type", default="ClusterIP")
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
    if not is_internal and (not ranges or any(map(_is_everybody, ranges))):
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
    return int(rule.get("fromPort", default=0)), int(rule.get("toPort", default=65_535)), named


def _ports(rule: Props) -> str:
    low, high, protocol = _range(rule)
    return f"port {low} ({protocol})" if low == high else f"every port from {low} to {high} ({protocol})"


def _is_everybody(cidr: str) -> bool:
    """Whether a range is no team's own: `0.0.0.0/0`, `::/0`, and the halves and quarters that would make them up."""
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False
    return network.prefixlen < (8 if network.version == 4 else 16)


def _texts(props: Props, key: str) -> list[str]:
    found = props.get(key, default=[])
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


PORTS: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:ec2/securityGroup:SecurityGroup": _group,
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": _group,
    "aws:ec2/securityGroupRule:SecurityGroupRule": _separate_rule,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _separate_rule,
    "gcp:compute/firewall:Firewall": _firewall,
    "kubernetes:core/v1:Service": _open_service,
    "kubernetes:core/v1:ServicePatch": _open_service,
}


@guardrail("no-open-node-ports", *PORTS, unknown="judged in up")
def no_open_node_ports(resource: Resource, _: Update) -> Iterator[str]:
    """No port of a node is open to everybody; only web ports of a load balancer may be."""
    yield from PORTS[resource.type](resource.props)


GUARDRAILS = [no_public_bucket, private_cluster_endpoint, no_public_nodes, no_open_node_ports]
