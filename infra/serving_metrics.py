"""What a service's servers tell Prometheus of their load, as queries by which they are scaled."""

from __future__ import annotations

from infra.kubernetes.autoscaling import Trigger

RATE = "2m"
"""Two scrapes of half a minute and more."""
WAITING = {"fusion": "fusion_waiting_rows", "vllm": "vllm:num_requests_waiting"}
"""By server: what waits for a place in a batch."""
BUSY = {"fusion": f"rate(fusion_compute_seconds_total{{}}[{RATE}])", "vllm": "vllm:kv_cache_usage_perc{}"}
"""By server: the share of the time that it computes, or of its cache that sequences hold; 1 is all of it."""


def triggers(
    server: str, service: str, namespace: str, *, waiting_per_replica: float, utilisation: float
) -> tuple[Trigger, ...]:
    """Queue depth and utilisation of a service.

    Args:
        server: `fusion` (workloads.serving) or `vllm`.
        service: its pods' names begin with it.
    """
    pods = f'{{namespace="{namespace}",pod=~"{service}-[a-z0-9]+-[a-z0-9]+"}}'
    return (
        Trigger(query=f"sum({WAITING[server]}{pods})", per_replica=waiting_per_replica),
        Trigger(query=f"sum({BUSY[server].replace('{}', pods)})", per_replica=utilisation),
    )
