"""Names of services that follow their health, in Route 53: its data plane stands outside of every region."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
import pulumi_aws as aws

from infra.failover import FailoverArgs, host

TTL_SECONDS = 60
"""What Route 53 advises beside health checks ("Values specific for failover records", TTL)."""
CHECKED_EVERY_S = 30
FAILURES = 3
"""Both are the service's defaults: an endpoint is left after about 90 s, and by clients a TTL later."""
ROLES = ("PRIMARY", "SECONDARY")


class AwsFailover(pulumi.ComponentResource):
    """A zone, and for each service on each cloud a health check and a failover record.

    Makes: Zone, HealthChecks, Records. `<service>.<domain>` leads to `<service>-<cloud>.<domain>` of the primary while
    its health check passes, else to the other's. Those two names are published by what serves each cluster's Gateway
    (ExternalDNS with `--regex-domain-filter`, or by hand), since the cluster alone knows the Gateway's address; so a
    zone that is removed takes what others have put in with it.

    Attributes:
        args: what it was made from.
        name_servers: to which whoever holds the domain above must delegate this one.

    Example:
        >>> args = FailoverArgs(domain="models.example.com", clouds=("aws", "gcp"), services={"classify": "/ready"})
        >>> AwsFailover("prod-failover", args).name_servers
    """

    args: FailoverArgs
    name_servers: pulumi.Output[Sequence[str]]

    def __init__(self, name: str, args: FailoverArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        facts = {"domain": args.domain, "clouds": list(args.clouds), "services": sorted(args.services)}
        super().__init__("fusion:aws:Failover", name, facts, opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        zone = aws.route53.Zone(
            name,
            name=args.domain,
            comment="Services on two clouds; made by Fusion",
            force_destroy=True,
            tags=args.tags,
            opts=child,
        )
        for service, path in args.services.items():
            for cloud, role in zip(args.clouds, ROLES, strict=True):
                self._lead(f"{name}-{service}-{cloud}", zone, (service, cloud, role), path)
        self.name_servers = zone.name_servers
        self.register_outputs({"name_servers": self.name_servers})

    def _lead(self, name: str, zone: aws.route53.Zone, where: tuple[str, str, str], path: str) -> None:
        (service, cloud, role), args = where, self.args
        child = pulumi.ResourceOptions(parent=self)
        target = host(service, args.domain, cloud)
        check = aws.route53.HealthCheck(
            name,
            type="HTTPS",
            fqdn=target,
            port=443,
            resource_path=path,
            enable_sni=True,
            request_interval=CHECKED_EVERY_S,
            failure_threshold=FAILURES,
            tags={**args.tags, "Name": name},
            opts=child,
        )
        aws.route53.Record(
            name,
            zone_id=zone.zone_id,
            name=host(service, args.domain),
            type="CNAME",
            ttl=TTL_SECONDS,
            records=[target],
            set_identifier=f"{service}-{cloud}",
            health_check_id=check.id,
            failover_routing_policies=[aws.route53.RecordFailoverRoutingPolicyArgs(type=role)],
            opts=child,
        )
