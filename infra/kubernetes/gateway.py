"""The way in from outside of the cluster: one Gateway for all services of a stack, which answers with TLS alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pulumi

from infra.errors import require
from infra.kubernetes.objects import make_object
from infra.kubernetes.pods import check_name
from infra.names import DOMAIN

GATEWAY_API = "gateway.networking.k8s.io/v1"
HTTPS_LISTENER = "https"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayArgs:
    """A Gateway for `<service>.<domain>`.

    Attributes:
        name: of the Gateway in its namespace.
        namespace: that of the services; routes of no other namespace are taken.
        class_name: the GatewayClass that the cluster's controller serves, such as `envoy`.
        domain: its subdomains are the services'.
        certificate: name of the Secret in the namespace with the certificate of `*.<domain>`.

    Raises:
        ArgumentError: names that are none.
    """

    name: str
    namespace: str
    class_name: str
    domain: str
    certificate: str

    def __post_init__(self) -> None:
        check_name("gateway", self.name)
        require(
            re.fullmatch(DOMAIN, self.domain) is not None,
            f"gateway {self.name}: domain {self.domain!r}; use one such as models.example.com.",
        )
        for field, value in (("class_name", self.class_name), ("certificate", self.certificate)):
            require(bool(value.strip()), f"gateway {self.name}: no {field}; name one.")


class Gateway(pulumi.ComponentResource):
    """One listener with TLS for all services of a stack.

    Makes: Gateway. Its GatewayClass, the controller behind it and the certificate are the cluster's.

    Example:
        >>> args = GatewayArgs(
        ...     name="services", namespace="workloads", class_name="envoy", domain="models.example.com",
        ...     certificate="models-tls",
        ... )
        >>> Gateway("prod-gateway", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: GatewayArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:Gateway", name, {"domain": args.domain, "class": args.class_name}, opts)
        self.args = args
        listener = {
            "name": HTTPS_LISTENER,
            "port": 443,
            "protocol": "HTTPS",
            "hostname": f"*.{args.domain}",
            "tls": {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": args.certificate}]},
            "allowedRoutes": {"namespaces": {"from": "Same"}},
        }
        metadata = {
            "name": args.name,
            "namespace": args.namespace,
            "labels": {"app.kubernetes.io/managed-by": "fusion"},
        }
        value = {
            "apiVersion": GATEWAY_API,
            "kind": "Gateway",
            "metadata": metadata,
            "spec": {"gatewayClassName": args.class_name, "listeners": [listener]},
        }
        make_object(name, value, pulumi.ResourceOptions(parent=self))
        self.register_outputs({})
