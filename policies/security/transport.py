"""Guardrails on encryption in transit: nothing answers without TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from policies.guardrail import guardrail, stack_guardrail
from policies.resource import Props, Resource
from policies.security.buckets import AWS_BUCKETS, bucket_names
from policies.security.documents import Statement, WrongDocument, statements
from policies.update import Update

CLEAR_LISTENERS = frozenset({"HTTP", "TCP", "UDP", "TCP_UDP"})
OLD_POLICIES = ("TLS-1-0", "TLS-1-1", "2015-", "2016-08", "FS-2018")
"""Parts of the names of ELB's policies that still speak TLS below 1.2 (Elastic Load Balancing, "Security policies")."""
OLD_VIEWERS = ("SSL", "TLSv1_", "TLSv1.1")
"""How policies of CloudFront below TLS 1.2 begin, beside `TLSv1` (CloudFront, "Supported protocols and ciphers")."""
SQL_MODES = ("ENCRYPTED_ONLY", "TRUSTED_CLIENT_CERTIFICATE_REQUIRED")
BUCKET_POLICIES = ("aws:s3/bucketPolicy:BucketPolicy",)


def _listener(props: Props) -> Iterator[str]:
    protocol = str(props.get("protocol", default="HTTP")).upper()
    if protocol in CLEAR_LISTENERS and not (protocol == "HTTP" and _only_redirects(props)):
        yield f"protocol {protocol} answers without TLS; use HTTPS or TLS, or only redirect to HTTPS"
    policy = str(props.get("sslPolicy", default=""))
    if protocol in ("HTTPS", "TLS") and any(part in policy for part in OLD_POLICIES):
        yield f"sslPolicy {policy} still speaks TLS below 1.2; use ELBSecurityPolicy-TLS13-1-2-2021-06"


def _only_redirects(listener: Props) -> bool:
    return listener.has("defaultActions") and all(
        action.get("type") == "redirect" and action.get("redirect", "protocol") == "HTTPS"
        for action in listener.each("defaultActions")
    )


def _classic_load_balancer(props: Props) -> Iterator[str]:
    for each in props.each("listeners"):
        protocol = str(each.get("lbProtocol", default="")).upper()
        if protocol in CLEAR_LISTENERS:
            yield f"the listener of port {each.get('lbPort', default='?')} is {protocol}; use HTTPS or SSL"


def _distribution(props: Props) -> Iterator[str]:
    for each in (*props.each("defaultCacheBehavior"), *props.each("orderedCacheBehaviors")):
        if each.get("viewerProtocolPolicy") == "allow-all":
            yield "viewerProtocolPolicy allow-all answers without TLS; use https-only or redirect-to-https"
    oldest = str(props.get("viewerCertificate", "minimumProtocolVersion", default=""))
    if oldest == "TLSv1" or oldest.startswith(OLD_VIEWERS):
        yield f"viewerCertificate.minimumProtocolVersion {oldest} still speaks TLS below 1.2; use TLSv1.2_2021"


def _cache(props: Props) -> Iterator[str]:
    """A member of a replication group answers as the group does."""
    if props.get("transitEncryptionEnabled") is not True and not props.has("replicationGroupId"):
        yield "transitEncryptionEnabled is not true, so it answers without TLS; set it"


def _memory_database(props: Props) -> Iterator[str]:
    if props.get("tlsEnabled", default=True) is not True:
        yield "tlsEnabled is false, so it answers without TLS; set it to true"


def _database_proxy(props: Props) -> Iterator[str]:
    if props.get("requireTls") is not True:
        yield "requireTls is not true, so it answers without TLS; set it"


def _kafka(props: Props) -> Iterator[str]:
    if props.get("encryptionInfo", "encryptionInTransit", "clientBroker", default="TLS") != "TLS":
        yield "encryptionInfo.encryptionInTransit.clientBroker is not TLS, so it answers without TLS; set it"


def _domain_name(props: Props) -> Iterator[str]:
    if props.get("securityPolicy") == "TLS_1_0":
        yield "securityPolicy TLS_1_0 still speaks TLS below 1.2; use TLS_1_2"


def _search_domain(props: Props) -> Iterator[str]:
    if props.get("domainEndpointOptions", "enforceHttps", default=True) is not True:
        yield "domainEndpointOptions.enforceHttps is false, so it answers without TLS; set it to true"


def _clear_proxy(_: Props) -> Iterator[str]:
    yield "a target HTTP proxy answers without TLS; use a target HTTPS proxy"


def _sql(props: Props) -> Iterator[str]:
    if props.get("settings", "ipConfiguration", "sslMode") not in SQL_MODES:
        yield "settings.ipConfiguration.sslMode is not ENCRYPTED_ONLY, so it answers without TLS; set it"


def _redis(props: Props, mode: str = "SERVER_AUTHENTICATION") -> Iterator[str]:
    if props.get("transitEncryptionMode") != mode:
        yield f"transitEncryptionMode is not {mode}, so it answers without TLS; set it"


def _ssl_policy(props: Props) -> Iterator[str]:
    if props.get("minTlsVersion", default="TLS_1_0") not in ("TLS_1_2", "TLS_1_3"):
        yield "minTlsVersion is below TLS_1_2; set it"


def _ingress(props: Props) -> Iterator[str]:
    if not props.has("spec", "tls"):
        yield "spec.tls is not set, so it answers without TLS; name the hosts and the secret of their certificate"


def _gateway(props: Props) -> Iterator[str]:
    for each in props.each("spec", "listeners"):
        if (protocol := str(each.get("protocol", default="HTTP"))) not in ("HTTPS", "TLS"):
            yield f"the listener {each.get('name', default='?')} is {protocol}, which answers without TLS; use HTTPS"


ANSWERS: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:lb/listener:Listener": _listener,
    "aws:alb/listener:Listener": _listener,
    "aws:elb/loadBalancer:LoadBalancer": _classic_load_balancer,
    "aws:cloudfront/distribution:Distribution": _distribution,
    "aws:elasticache/replicationGroup:ReplicationGroup": _cache,
    "aws:elasticache/cluster:Cluster": _cache,
    "aws:appsync/apiCache:ApiCache": _cache,
    "aws:memorydb/cluster:Cluster": _memory_database,
    "aws:memorydb/multiRegionCluster:MultiRegionCluster": _memory_database,
    "aws:rds/proxy:Proxy": _database_proxy,
    "aws:msk/cluster:Cluster": _kafka,
    "aws:apigateway/domainName:DomainName": _domain_name,
    "aws:opensearch/domain:Domain": _search_domain,
    "gcp:compute/targetHttpProxy:TargetHttpProxy": _clear_proxy,
    "gcp:compute/regionTargetHttpProxy:RegionTargetHttpProxy": _clear_proxy,
    "gcp:sql/databaseInstance:DatabaseInstance": _sql,
    "gcp:redis/instance:Instance": _redis,
    "gcp:redis/cluster:Cluster": partial(_redis, mode="TRANSIT_ENCRYPTION_MODE_SERVER_AUTHENTICATION"),
    "gcp:memorystore/instance:Instance": _redis,
    "gcp:compute/sSLPolicy:SSLPolicy": _ssl_policy,
    "gcp:compute/regionSslPolicy:RegionSslPolicy": _ssl_policy,
    "kubernetes:networking.k8s.io/v1:Ingress": _ingress,
    "kubernetes:extensions/v1beta1:Ingress": _ingress,
    "kubernetes:gateway.networking.k8s.io/v1:Gateway": _gateway,
    "kubernetes:gateway.networking.k8s.io/v1beta1:Gateway": _gateway,
}


@guardrail("tls-only", *ANSWERS)
def tls_only(resource: Resource, _: Update) -> Iterator[str]:
    """What answers requests does so over TLS 1.2 or newer."""
    yield from ANSWERS[resource.type](resource.props)


@guardrail("buckets-tls-only", *BUCKET_POLICIES, *AWS_BUCKETS, unknown="judged in up")
def bucket_policies_need_tls(resource: Resource, _: Update) -> Iterator[str]:
    """The policy of a bucket refuses requests without TLS."""
    props = resource.props
    if resource.type in AWS_BUCKETS and not props.has("policy"):
        return  # it has a policy of its own, or buckets-have-policies says so
    try:
        refusing = [each for each in statements(props.part("policy")) if _refuses_clear_text(each)]
        if not any(each.is_about(f"arn:aws:s3:::{props.get('bucket')}/object") for each in refusing):
            yield (
                "policy does not refuse requests without TLS; add a statement that denies s3:* on the bucket and its "
                "objects (/*) to everybody where aws:SecureTransport is false"
            )
    except WrongDocument as error:
        yield f"policy can't be read: {error}"


def _refuses_clear_text(statement: Statement) -> bool:
    said = {
        key.lower(): str(value[0] if isinstance(value, list) and value else value).lower()
        for operator, each in statement.conditions.items()
        if operator.lower() in ("bool", "boolifexists")
        for key, value in each.items()
    }
    return (
        not statement.allows
        and "*" in statement.principals
        and statement.covers("s3:GetObject")
        and statement.covers("s3:PutObject")
        and said == {"aws:securetransport": "false"}
    )


@stack_guardrail("buckets-have-policies")
def buckets_have_policies(resources: Sequence[Resource], _: Update) -> Iterator[str]:
    """Every bucket of AWS has a policy, which refuses requests without TLS."""
    policies = [each for each in resources if each.type in BUCKET_POLICIES]
    configured = {urn for each in policies for urn in each.references.get("bucket", ())}
    named = {name for each in policies for name in bucket_names(each)}
    for bucket in (each for each in resources if each.type in AWS_BUCKETS):
        has_policy = bucket.urn in configured or not named.isdisjoint(bucket_names(bucket))
        if not has_policy and not bucket.props.has("policy"):
            yield (
                f"bucket {bucket.name} has no BucketPolicy, so it answers without TLS; add one that denies s3:* to "
                "everybody where aws:SecureTransport is false"
            )


GUARDRAILS = [tls_only, bucket_policies_need_tls, buckets_have_policies]
