"""One name for a service that runs on two clouds: what leads its clients to the one that is well."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.errors import require
from infra.kubernetes.pods import check_name
from infra.names import DOMAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class FailoverArgs:
    """Names of services on two clouds, of which the second answers while the first is not well.

    Attributes:
        domain: of the zone.
        clouds: the primary, then the one that takes over.
        services: by name, the path by which a service says with status 200 that it is ready.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: they lead nowhere.
    """

    domain: str
    clouds: tuple[str, str]
    services: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            re.fullmatch(DOMAIN, self.domain) is not None,
            f"failover: domain {self.domain!r}; use one such as models.example.com.",
        )
        require(len(set(self.clouds)) == 2, f"failover: clouds {', '.join(self.clouds)}; name two different ones.")
        require(bool(self.services), "failover: no services; name one, or leave it out.")
        for name, path in self.services.items():
            check_name("service", name)
            require(path.startswith("/"), f"failover: service {name}: path {path!r}; begin it with /.")


def host(service: str, domain: str, cloud: str | None = None) -> str:
    """The name of a service, or of its place on one cloud alone: a label beside it, so that one certificate has all."""
    return f"{service}.{domain}" if cloud is None else f"{service}-{cloud}.{domain}"
