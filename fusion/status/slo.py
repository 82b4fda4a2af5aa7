"""Whether the services of a plan keep their SLO, as their servers count it and Prometheus keeps it."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from fusion.errors import FusionError
from planner.plan import Plan

OBJECTIVE = 0.99
"""Of the requests within the SLO, as in workloads/serving/observability/alerts.yaml."""
WINDOW = "1h"
TIMEOUT_S = 10

_BAD = """(
  (sum(rate(fusion_slow_requests_total{pods}[{window}])) or vector(0))
  + (sum(rate(fusion_failed_requests_total{pods}[{window}])) or vector(0))
  + (sum(rate(fusion_refused_requests_total{pods}[{window}])) or vector(0))
) / sum(rate(fusion_request_seconds_count{served}[{window}]))"""
_P99 = "histogram_quantile(0.99, sum by (le) (rate(fusion_request_seconds_bucket{served}[{window}])))"


@dataclass(frozen=True, slots=True)
class Slo:
    """A service's limit, what was predicted and what its servers measured in the last hour.

    Attributes:
        p99_ms_max: the limit; None where the target states none.
        predicted_p99_ms: by the plan.
        p99_ms: measured; None where nothing was.
        bad_ratio: requests that were late, refused or failed, of all.
        burn: times as fast as the error budget allows; 1 spends it exactly.
    """

    service: str
    p99_ms_max: float | None
    predicted_p99_ms: float | None
    p99_ms: float | None
    bad_ratio: float | None

    @property
    def burn(self) -> float | None:
        """How fast the error budget is spent; 1 spends it exactly."""
        return None if self.bad_ratio is None else self.bad_ratio / (1 - OBJECTIVE)

    @property
    def state(self) -> str:
        """`kept`, `burning` or `not measured`."""
        if self.burn is None:
            return "not measured"
        return "kept" if self.burn <= 1 else "burning"


def slos(plan: Plan, prometheus: str | None) -> Iterator[Slo]:
    """Of the services that have a target.

    Args:
        prometheus: its address; nothing is measured without one.

    Raises:
        FusionError: Prometheus can't be asked.
    """
    for found in plan.predictions:
        if found.run_hours is not None:
            continue
        yield Slo(
            service=found.workload,
            p99_ms_max=found.p99_ms_max,
            predicted_p99_ms=found.p99_ms.value if found.p99_ms else None,
            p99_ms=_milliseconds(_asked(prometheus, _P99, found.workload)),
            bad_ratio=_asked(prometheus, _BAD, found.workload),
        )


def _milliseconds(value_s: float | None) -> float | None:
    return None if value_s is None else value_s * 1e3


def _asked(prometheus: str | None, query: str, service: str) -> float | None:
    """The value of a query about a service's pods; None where there is none."""
    if prometheus is None:
        return None
    pods = f'pod=~"{service}-.*"'
    for name, text in (("{pods}", f"{{{pods}}}"), ("{served}", f'{{stage="total",{pods}}}'), ("{window}", WINDOW)):
        query = query.replace(name, text)
    url = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            result = json.load(answer)["data"]["result"]
    except (OSError, ValueError, KeyError) as error:
        raise FusionError(f"--prometheus {prometheus}: can't be asked: {error}") from None
    value = float(result[0]["value"][1]) if result else math.nan
    return value if math.isfinite(value) else None
