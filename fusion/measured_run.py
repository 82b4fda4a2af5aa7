"""From a training run's report to the row that corrects predictions."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusion.errors import FusionError
from planner.calibration.own import FOLDER, RUNS, why_run_not_used
from planner.calibration.store import MeasuredOn, MeasuredRun

STEPS_LEAST = 50
"""Of a run that says something about its speed: the first ones are slower."""
DATA_WAIT_MOST = 0.1
"""Share of the time; a run that waits longer says more about its storage than about its chips."""


class _Part(BaseModel):
    """Of a report, what a row is made of; the rest is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Measured(_Part):
    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    over_predicted: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Results(_Part):
    samples_per_s: _Measured


class _Promise(_Part):
    machine: str
    devices: int
    vcpus: float
    precision: str
    profile: str
    corrected_by: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    measured: _Results


class _Config(_Part):
    precision: str


class _Report(_Part):
    run: str
    device: str
    processor: str
    threads: int
    ranks: int
    torch: str
    finished_at: str
    steps_measured: int = 0
    data_wait_share: float
    promise: _Promise | None = None
    config: _Config


def read_report(url: str) -> MeasuredRun:
    """The row that the report in a run's folder makes.

    Raises:
        FusionError: there is none, it was not planned, or it says nothing about the planned machine's speed.
    """
    try:
        from workloads import storage
    except ModuleNotFoundError as error:
        raise FusionError(
            f"reading a bucket needs {error.name}, which is not installed; install fusion[train]"
        ) from None
    location = url if url.endswith(".json") else storage.join(url, "report.json")
    try:
        report = _Report.model_validate_json(storage.read(location))
    except storage.StorageError as error:
        raise FusionError(f"--run {url}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise FusionError(f"--run {url}: {location}: {where}: {first['msg']}; is it a training run's report?") from None
    return _row(report, location)


def stored_run(run: MeasuredRun, url: str, output: Path | None) -> Path:
    """Write a row to where plans find it, or to the file that was named.

    Raises:
        FusionError: no plan would rest on it, and it says why; or the file can't be written.
    """
    digest = hashlib.sha256(f"{url} {run.measured_at}".encode()).hexdigest()[:8]
    name = re.sub(r"[^\w.-]+", "-", f"{run.profile}-{run.machine}-{run.precision}")
    path = output or FOLDER / RUNS / f"{name}-{digest}.json"
    if problem := why_run_not_used(path, run):
        raise FusionError(f"--run {url}: {problem}; nothing is stored")
    try:
        run.write(path)
    except OSError as error:
        raise FusionError(f"--output {path} can't be written: {error.strerror}; name another file") from None
    return path


def _row(report: _Report, location: str) -> MeasuredRun:
    promise = report.promise
    if promise is None:
        raise FusionError(f"--run: {location} holds no promise: no plan predicted the run, or it was complete before")
    _refuse(location, report, promise)
    on_cpu = report.device == "cpu"
    accelerator = None if on_cpu else report.device
    return MeasuredRun(
        machine=promise.machine,
        devices=promise.devices,
        vcpus=promise.vcpus,
        profile=promise.profile,
        precision=promise.precision,
        step_ratio=promise.corrected_by / promise.measured.samples_per_s.over_predicted,
        samples_per_s=promise.measured.samples_per_s.value,
        measured_at=report.finished_at,
        place=f"{location}, {report.ranks} × {accelerator or report.processor}, torch {report.torch}",
        measured_on=MeasuredOn(
            processor=report.processor, processors=report.threads, accelerator=accelerator, torch=report.torch
        ),
    )


def _refuse(location: str, report: _Report, promise: _Promise) -> None:
    """Say what makes a run's speed another than that of what was planned."""
    problem = ""
    if report.config.precision != promise.precision:
        problem = f"it ran in {report.config.precision} and was predicted in {promise.precision}"
    elif report.ranks != promise.devices:
        problem = f"it had {report.ranks} ranks and was predicted with {promise.devices} devices"
    elif promise.vcpus and report.threads != promise.vcpus:
        problem = f"its ranks had {report.threads} threads and were predicted with {promise.vcpus:g} vCPUs"
    elif report.steps_measured < STEPS_LEAST:
        problem = f"its last process made {report.steps_measured} steps, fewer than {STEPS_LEAST}"
    elif report.data_wait_share > DATA_WAIT_MOST:
        problem = f"it waited for data in {report.data_wait_share:.0%} of its time, more than {DATA_WAIT_MOST:.0%}"
    if problem:
        raise FusionError(f"--run: {location} says nothing about the planned machine's speed: {problem}")
