"""The team's own calibrations: what `fusion calibrate` measured on a machine that the catalog names.

They lie in the checkout, so that everyone's plan, the pull request's and the guardrails' rest on the same. One that is
old, or that was measured on something else than its name says, is not used, and it is said why.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path

from planner.calibration.runs import read_run
from planner.calibration.store import Calibration, MeasuredOn, MeasuredRun, builtin, read_calibration
from planner.catalog import Accelerator
from planner.machines import Machine, cpu_of
from planner.performance.chip import Chip

FOLDER = Path(__file__).parents[2] / "calibrations"
RUNS = "runs"
"""The folder in it, of measured training runs."""
OLD_DAYS = 180
CLOUDS = ("aws", "azure", "gcp")
PROCESSORS = {"EPYC": "EPYC", "Graviton": "aarch64"}
"""What the system calls the processors of a generation whose name starts so; of all others, Xeon."""


@dataclass(frozen=True, slots=True)
class Own:
    """Calibrations by the name of an accelerator or of a CPU generation, and why others are not used."""

    used: Mapping[str, Sequence[Calibration]]
    refused: tuple[str, ...] = ()
    """A sentence each."""
    runs: Mapping[str, Sequence[MeasuredRun]] = field(default_factory=dict)
    """Measured training runs, by the same names."""
    _found: dict[tuple[object, ...], tuple[Chip, Calibration]] = field(default_factory=dict, repr=False)
    """The same objects for the same machine, for what was predicted is found by them."""

    def of(
        self, machine: Machine, chip: Chip, usual: Calibration, precisions: Collection[str]
    ) -> tuple[Chip, Calibration]:
        """What predictions of the machine rest on: the own calibration if it measured this, else `usual`, which then
        says what the own one is of."""
        measured = self.used.get(machine.accelerator)
        runs = [run for run in self.runs.get(machine.accelerator, ()) if run.vcpus == machine.vcpus]
        if not (measured or runs) or machine.fraction != 1:
            return chip, usual
        key = (machine.accelerator, machine.vcpus, chip.memory_bytes, *sorted(precisions))
        if key not in self._found:
            chip, found = _resting_on(measured, machine, chip, usual, precisions) if measured else (chip, usual)
            self._found[key] = chip, found.model_copy(update={"runs": tuple(runs)}) if runs else found
        return self._found[key]


def _resting_on(
    measured: Sequence[Calibration], machine: Machine, chip: Chip, usual: Calibration, precisions: Collection[str]
) -> tuple[Chip, Calibration]:
    for own in measured:
        if own.machine is not None and not _lacks(own, machine, precisions):
            has = own.machine.chip()
            return replace(has, link_bytes_per_s=chip.link_bytes_per_s, memory_bytes=chip.memory_bytes), own
    others = ", ".join(f"{own.name}, which is {_lacks(own, machine, precisions)}" for own in measured)
    return chip, usual.model_copy(update={"place": f"{usual.place}; not {others}"})


def _lacks(own: Calibration, machine: Machine, precisions: Collection[str]) -> str:
    """Of what else a calibration is; empty where it is of this."""
    assert own.machine is not None
    threads = {host.threads for host in own.host.values()}
    if machine.vcpus and machine.vcpus not in threads:
        return f"of {' and '.join(map(str, threads))} threads and not of {machine.vcpus:g} vCPUs"
    if missing := sorted(set(precisions) - own.machine.peak_flops.keys()):
        return f"of {', '.join(own.machine.peak_flops)} and not of {', '.join(missing)}"
    return ""


@functools.cache
def own_calibrations(folder: Path = FOLDER) -> Own:
    """Those in the folder, judged today.

    Raises:
        PerformanceError: a file can't be read or is wrong; names it.
    """
    found: dict[str, list[Calibration]] = {}
    runs: dict[str, list[MeasuredRun]] = {}
    refused: list[str] = []
    for path in sorted(folder.glob("*.json")):
        calibration = read_calibration(path)
        if sentence := why_not_used(path, calibration):
            refused.append(sentence)
        else:
            name, _ = _judged_today(*_said_of(calibration))
            # serving of language models is of engines that `fusion calibrate` does not run
            found.setdefault(name, []).append(calibration.model_copy(update={"decoders": builtin().decoders}))
    for path in sorted((folder / RUNS).glob("*.json")):
        run = read_run(path)
        if sentence := why_run_not_used(path, run):
            refused.append(sentence)
        else:
            name, _ = _judged_today(run.machine, run.measured_at, run.measured_on)
            runs.setdefault(name, []).append(run)
    return Own(found, tuple(refused), runs)


def why_run_not_used(path: Path, run: MeasuredRun) -> str:
    """As `why_not_used`, of a measured training run."""
    _, problem = _judged_today(run.machine, run.measured_at, run.measured_on)
    return f"measured run {path.name} of {run.measured_at} is not used: {problem}" if problem else ""


def why_not_used(path: Path, calibration: Calibration) -> str:
    """A sentence, where no plan would rest on what is stored at that path; empty where plans do."""
    _, problem = _judged_today(*_said_of(calibration))
    return f"calibration {path.name} of {calibration.measured_at} is not used: {problem}" if problem else ""


def _said_of(calibration: Calibration) -> tuple[str, str, MeasuredOn | None]:
    return calibration.machine.name if calibration.machine else "", calibration.measured_at, calibration.measured_on


def _judged_today(name: str, measured_at: str, on: MeasuredOn | None) -> tuple[str, str]:
    from planner.catalog import load

    return _judged(name, measured_at, on, load().accelerators, datetime.datetime.now(datetime.UTC))


def _judged(
    name: str,
    measured_at: str,
    on: MeasuredOn | None,
    accelerators: Mapping[str, Accelerator],
    now: datetime.datetime,
) -> tuple[str, str]:
    """The name of the machines that it is of, and why it can't be used; one of both is empty."""
    if on is None or not name:
        return "", "it does not say on what it was measured; run fusion calibrate again"
    days = (now - datetime.datetime.fromisoformat(measured_at)).total_seconds() / 86_400
    if not -1 <= days <= OLD_DAYS:
        when = f"it is {days:.0f} days old, above {OLD_DAYS}" if days > 0 else "its date is in the future"
        return "", f"{when}; run fusion calibrate again"
    if (torch := _installed()) and _minor(torch) != _minor(on.torch):
        return "", f"it was measured with torch {on.torch} and {torch} is installed here; run fusion calibrate again"
    if name in accelerators:
        if not _is_named(on.accelerator or "", name):
            return "", f"it is named {name} and was measured on {on.accelerator or on.processor}"
        return name, ""
    cpus = [cpu for cloud in CLOUDS if (cpu := cpu_of(cloud, name)) is not None]
    if not cpus:
        return "", f"{name} is neither an accelerator nor a CPU instance type of the catalog"
    expected = next((word for start, word in PROCESSORS.items() if cpus[0].name.startswith(start)), "Xeon")
    if expected not in on.processor or on.accelerator:
        return "", f"{name} has {cpus[0].name}, and it was measured on {on.accelerator or on.processor}"
    return cpus[0].name, ""


def _is_named(device: str, name: str) -> bool:
    """Whether a device calls itself as the catalog does: `NVIDIA A100-SXM4-80GB` is an A100-80GB and no A10."""
    words = re.split(r"[\s-]+", device)
    runs = {"".join(words[at:end]).lower() for at in range(len(words)) for end in range(at + 1, len(words) + 1)}
    return all(part.lower() in runs for part in name.split("-"))


def _installed() -> str:
    """The version of torch that is installed here; empty where none is, as where only plans are made."""
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


def _minor(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]
