"""What the plan promised of a run, and how the run compares with it.

The platform writes the plan's prediction to a file beside the run's training.yaml and names it in `FUSION_PREDICTION`.
It is no part of the environment: another price or calibration must not start a job anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from workloads.config import ConfigError, Section, checked

VARIABLE = "FUSION_PREDICTION"


class Range(Section):
    """A predicted number; nine of ten measured cases lie from `low` to `high`."""

    value: float = Field(gt=0)
    low: float = Field(gt=0)
    high: float = Field(gt=0)


class Promise(Section):
    """The plan's prediction of a training job; `infra.assembly.promise` writes it."""

    machine: str
    """The accelerator, or the CPU instance type, as the catalog names it."""
    instance_type: str
    nodes: int = Field(ge=1)
    devices: int = Field(ge=1)
    """Of all nodes together; a node's processors are one."""
    vcpus: float = Field(ge=0)
    """Of a pod on processors; 0 on accelerators."""
    precision: str
    profile: str
    peak_flops: float = Field(gt=0)
    """Of one device, in that precision."""
    samples_per_s: Range
    run_hours: Range
    run_usd: Range
    usd_per_hour: float = Field(gt=0)
    """Of all nodes together."""
    corrected_by: float = Field(gt=0)
    """Measured ÷ predicted step time of earlier runs, which the prediction holds already."""
    calibration: str

    def utilisation(self, flops_per_sample: float, samples_per_second: float) -> float:
        """The model's share of what the planned chips could compute (MFU)."""
        return flops_per_sample * samples_per_second / (self.devices * self.peak_flops)

    def beside(self, *, samples_per_second: float | None, hours: float | None, mfu: float | None) -> dict[str, Any]:
        """For the report: the promise, and what was measured over what was promised."""
        usd = None if hours is None else hours * self.usd_per_hour
        return {
            **self.model_dump(),
            "measured": {
                "samples_per_s": _beside(samples_per_second, self.samples_per_s),
                "run_hours": _beside(hours, self.run_hours),
                "run_usd": _beside(usd, self.run_usd),
                "mfu": mfu and _rounded(mfu),
            },
        }


def _beside(measured: float | None, promised: Range) -> dict[str, float] | None:
    if not measured:
        return None
    return {"value": _rounded(measured), "over_predicted": _rounded(measured / promised.value)}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def read_promise(environment: Mapping[str, str] = os.environ) -> Promise | None:
    """What the plan promised; None where nothing planned this run.

    Raises:
        ConfigError: the file can't be read or is not what the platform writes.
    """
    if not (name := environment.get(VARIABLE)):
        return None
    try:
        document = json.loads(Path(name).read_text())
    except OSError as error:
        raise ConfigError(f"{VARIABLE}: {name} can't be read ({error.strerror}); unset it to train without") from None
    except ValueError as error:
        raise ConfigError(f"{VARIABLE}: {name} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{VARIABLE}: {name} holds no prediction")
    return checked(document, Promise, source=name)
