"""A team's own calibrations: plans rest on those of the machines they plan for, and say which; others are refused."""

import datetime

import pytest

from planner.calibration.own import OLD_DAYS, Own, _is_named, own_calibrations
from planner.calibration.store import Calibration, GemmFit, MeasuredChip, MeasuredOn, builtin
from planner.catalog import Catalog, load
from planner.choices import Ask
from planner.goals import ServiceGoal
from planner.market import Where
from planner.optimizer import Optimizer, Options
from planner.packing import Demand
from planner.performance import InferenceLoad, PerformanceError
from planner.profiles.model import profile
from tests.unit.planner.test_host import COSTS

GENOA = MeasuredOn(processor="AMD EPYC 9R14", processors=2, accelerator=None, torch="2.9.0+cpu")
H100 = MeasuredOn(processor="Intel(R) Xeon(R)", processors=16, accelerator="NVIDIA H100 80GB HBM3", torch="2.9.0")


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
    monkeypatch.setattr("planner.calibration.own._installed", lambda: "2.9.1")


def days_ago(days: float) -> str:
    return (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%MZ")


def measured(name="c7a.large", on=GENOA, days=1.0, precision="fp32", threads=2) -> Calibration:
    fit = builtin().gemms["bf16"]
    shared = GemmFit(
        shared=fit.shared,
        by_chip={name: fit.shared},
        measured_ratio={name: {"low": 0.8, "high": 1.2}},
        transferred_ratio=fit.transferred_ratio,
    )
    return Calibration(
        name=name,
        measured_at=days_ago(days),
        place="a test",
        source="a test",
        split="none",
        gemms={precision: shared},
        convolution_measured=True,
        machine=MeasuredChip(
            name=name, peak_flops={precision: 1e11}, memory_bandwidth_bytes_per_s=1e10, memory_bytes=1e10
        ),
        measured_on=on,
        host={} if on is None or on.accelerator else {precision: COSTS.model_copy(update={"threads": threads})},
    )


def stored(folder, *calibrations: Calibration) -> Own:
    for number, each in enumerate(calibrations):
        each.write(folder / f"{number}.json")
    own_calibrations.cache_clear()
    return own_calibrations(folder)


def calibration_of(own: Own, instance_type: str, vcpus: float = 2.0, precision: str = "fp32") -> str:
    """What the prediction of a service on that type says that it rests on."""
    offers = [load().offer("aws", "us-east-1", instance_type)]
    on_cpu = offers[0].accelerator is None
    goal = ServiceGoal(InferenceLoad(profile("fusionnet-8"), 50.0), (precision,), replicas_max=4)
    where = Where(counts=frozenset({0}) if on_cpu else None, min_vcpus=0.0)
    ask = Ask("serve", where, goal, Demand(0 if on_cpu else 1, vcpus, 2.0), whole_nodes=False)
    predictor = Optimizer(Catalog(offers, load().accelerators), builtin(), own).predictor
    return Options(predictor, (ask,)).search(ask).prediction.calibration


def test_a_plan_rests_on_the_calibration_of_its_machine_and_says_so(tmp_path):
    own = stored(tmp_path, measured(), measured("H100", H100, precision="bf16"))
    assert own.refused == ()
    assert calibration_of(own, "c7a.xlarge").startswith("c7a.large of ")
    assert calibration_of(own, "p5.4xlarge", precision="bf16").startswith("H100 of ")
    assert "not measured on this instance type" in calibration_of(own, "c7i.xlarge")


@pytest.mark.parametrize(
    ("machine", "vcpus", "precision", "said"),
    [
        ("c7a.xlarge", 1.0, "fp32", "not c7a.large, which is of 2 threads and not of 1 vCPUs"),
        ("c7a.xlarge", 2.0, "bf16", "not c7a.large, which is of fp32 and not of bf16"),
    ],
)
def test_a_calibration_of_other_threads_or_precisions_is_told_and_not_used(tmp_path, machine, vcpus, precision, said):
    own = stored(tmp_path, measured())
    assert said in calibration_of(own, machine, vcpus, precision)


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        (measured(days=OLD_DAYS + 1), f"days old, above {OLD_DAYS}"),
        (measured(days=-3), "in the future"),
        (measured(on=None), "does not say on what it was measured"),
        (measured(on=GENOA.model_copy(update={"torch": "2.4.0"})), "with torch 2.4.0 and 2.9.1 is installed here"),
        (measured(on=GENOA.model_copy(update={"processor": "Intel(R) Xeon(R)"})), "has EPYC-Genoa"),
        (measured("this-machine"), "neither an accelerator nor a CPU instance type"),
        (measured("A100-80GB", H100), "was measured on NVIDIA H100 80GB HBM3"),
    ],
)
def test_an_old_or_foreign_calibration_is_told_and_not_used(tmp_path, calibration, said):
    own = stored(tmp_path, calibration)
    assert own.used == {}
    (sentence,) = own.refused
    assert said in sentence and sentence.startswith("calibration 0.json of ")


def test_a_broken_calibration_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    own_calibrations.cache_clear()
    with pytest.raises(PerformanceError, match=r"broken\.json"):
        own_calibrations(tmp_path)


@pytest.mark.parametrize(
    ("device", "name", "same"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB", True),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTXPRO6000", True),
        ("Tesla T4", "T4", True),
        ("NVIDIA L40S", "L4", False),
        ("NVIDIA A100-SXM4-40GB", "A100-80GB", False),
        ("NVIDIA A10G", "A10", False),
    ],
)
def test_devices_are_known_by_what_they_call_themselves(device, name, same):
    assert _is_named(device, name) is same
