"""`fusion plan` answers in one piece, shows what a change does, and names what is wrong without a traceback."""

import csv
import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.commands.plan import command
from fusion.errors import FusionError
from planner.catalog import Accelerator, Offer
from planner.performance import queueing

ROOT = Path(__file__).parents[2]
JOB = {
    "kind": "training",
    "name": "train",
    "image": "x",
    "needs": {"accelerators": 1},
    "training": {"batch_size": 1024},
    "target": {"profile": "fusionnet-8", "samples": 100_000},
}


def plan(document: object, *arguments: str) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "workloads.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return CliRunner().invoke(command, [str(file), *arguments])


def test_the_json_holds_choice_prediction_and_runners_up() -> None:
    answer = json.loads(plan({"workloads": [JOB]}, "--json").output)["workloads"]["train"]
    assert answer["best"]["usd"] <= min(each["usd"] for each in answer["runners_up"])
    low, value, high = (answer["prediction"]["run_hours"][each] for each in ("low", "value", "high"))
    assert low <= value <= high


def test_a_language_model_is_told_by_its_time_to_first_token() -> None:
    target = {"model": "llama-3.1-8b", "input_tokens": 1000, "output_tokens": 200, "requests_per_s": 1}
    chat = {"kind": "inference", "name": "chat", "image": "x", "needs": {"accelerators": 1}, "target": target}
    output = plan({"workloads": [chat]}).output
    assert "time to first token" in output and "p99" not in output and "batch" not in output


def plan_on_zeta1(folder: Path, **peaks: str) -> Result:
    """A language model's plan over one offer of a chip that no shipped file names."""
    chip = {"name": "Zeta1", "vendor": "other", "kind": "gpu", "memory_gib": "96", "source": "sheet"} | peaks
    offer = {"cloud": "aws", "region": "us-east-1", "instance_type": "z1.8xlarge", "accelerator": "Zeta1"}
    offer |= {"accelerator_count": "1", "accelerator_memory_gib": "96", "vcpus": "32", "memory_gib": "256"}
    offer |= {
        "price_usd_per_hour": "3.5",
        "price_source": "quote",
        "price_as_of": "2026-11-01",
        "architecture": "x86_64",
    }
    dated = {"as_of": "2026-11-01", "confidence": "vendor-doc"}
    for name, kind, row in (("accelerators.csv", Accelerator, chip | dated), ("offers.csv", Offer, offer)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [each.name for each in dataclasses.fields(kind)])
            writer.writeheader()
            writer.writerow(row)
    target = {"model": "llama-3.1-8b", "input_tokens": 1000, "output_tokens": 200, "requests_per_s": 1}
    chat = {"kind": "inference", "name": "chat", "image": "x", "needs": {"accelerators": 1}, "target": target}
    return plan({"workloads": [chat]}, "--catalog", str(folder))


def test_a_chip_and_an_offer_of_ones_own_are_planned_for_with_the_wider_interval(tmp_path: Path) -> None:
    output = plan_on_zeta1(tmp_path, bf16_tflops="800", memory_bandwidth_gb_per_s="4000").output
    assert "z1.8xlarge (1 Zeta1)" in output
    assert "transferred to this chip: the interval is widened" in output.replace("\n", " ")


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"bf16_tflops": "800"}, "lacks the memory, its bandwidth or every peak of Zeta1"),
        ({"memory_bandwidth_gb_per_s": "4000"}, "lacks the memory, its bandwidth or every peak of Zeta1"),
        ({"fp16_tflops": "800", "memory_bandwidth_gb_per_s": "4000"}, "precision is 'bf16'"),
    ],
)
def test_what_is_not_known_of_ones_own_chip_is_named(tmp_path: Path, figures: dict[str, str], said: str) -> None:
    assert said in str(plan_on_zeta1(tmp_path, **figures).exception)


@pytest.mark.parametrize(("services", "said"), [(2, False), (11, True)])
def test_a_plan_that_is_not_the_exact_optimum_says_so(services: int, said: bool) -> None:
    declared = {"kind": "inference", "image": "x", "needs": {"vcpus": 1, "memory_gib": 2}}
    result = plan({"workloads": [declared | {"name": f"service-{each}"} for each in range(services)]})
    assert ("each other one by itself" in result.output) is said
    noted = json.loads(
        plan({"workloads": [declared | {"name": f"service-{each}"} for each in range(services)]}, "--json").stdout
    )
    assert (noted["exact"], bool(noted["notes"])) == (not said, said)


def test_what_if_shows_the_plan_before_and_after() -> None:
    result = plan({"workloads": [JOB]}, "--what-if", "train.price_model=spot")
    assert " spot in " in result.output.splitlines()[0]
    rows = [re.split(r"\s{2,}", line.strip()) for line in result.output.splitlines()]
    assert ["train", "bought", "on demand", "spot", "changed"] in rows
    (cost,) = [row for row in rows if row[:2] == ["train", "USD a run"]]
    before, after = (float(value) for value in cost[2:4])
    assert cost[4] == f"{after - before:+,.4g} ({after / before - 1:+.1%})" or before > after > 0


def test_what_if_says_why_there_was_no_plan_before() -> None:
    job = JOB | {"target": JOB["target"] | {"hours_max": 1e-6}}
    result = plan({"workloads": [job]}, "--what-if", "train.target.hours_max=1")
    assert "before the change there was no plan: " in result.output and "limit: raise " in result.output
    answer = json.loads(plan({"workloads": [job]}, "--what-if", "train.target.hours_max=1", "--json").output)
    assert "limit: raise " in answer["no_plan_before"]


def test_the_parts_of_a_cost_and_of_a_time_add_up_to_it() -> None:
    service = {
        "kind": "inference",
        "name": "serve",
        "image": "x",
        "needs": {"accelerators": 1, "accelerator": "L4"},
        "target": {"profile": "fusionnet-8", "requests_per_s": 100},
    }
    answers = json.loads(plan({"workloads": [JOB, service]}, "--json").output)["workloads"]
    assert set(answers["serve"]["time_parts_s"]) == {"network", "transfer", "batch wait", "queue", "service"}
    for answer in answers.values():
        assert sum(answer["cost_parts_usd"].values()) == pytest.approx(answer["best"]["usd"])
        assert sum(answer["time_parts_s"].values()) == pytest.approx(answer["best"]["outcome"]["seconds"])
        costs = [way["usd"] for way in answer["frontier"]]
        assert costs == sorted(costs) and costs[0] == pytest.approx(answer["best"]["usd"])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("train.target.hours_max=-1", r"workloads\[0\]\.target\.hours_max: got -1; input should be greater than 0"),
        ("train.target.hours_max=.nan", r"workloads\[0\]\.target\.hours_max: got NaN"),
        ("train.target.profile=resnet", r"workload train: target: profile is 'resnet'; shipped profiles are"),
        ("train.target.hours_max=1e-6", r"raise hours_max from 1e-06 to"),
        ("train.needs.accelerator=B900", r"needs\.accelerator is 'B900'; .*nearest: B300"),
        ("other.target.hours_max=1", r"no workload is named other; .* has train"),
        ("train", r"expected WORKLOAD\.FIELD=VALUE"),
        ("train..x=1", r"expected WORKLOAD\.FIELD=VALUE"),
        ("train.name=other", r"a workload's name is by what it is compared"),
        ("train.target={", r"'\{' is no value"),
    ],
)
def test_what_is_wrong_is_named(change: str, expected: str) -> None:
    result = plan({"workloads": [JOB]}, "--what-if", change)
    assert isinstance(result.exception, FusionError)
    assert re.search(expected, str(result.exception)), str(result.exception)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workloads: []", r"workloads: got \[\]; expected at least one workload"),
        ("a: &a [*a]\nworkloads: *a", r"nested without end"),
        ("workloads: " + "[" * 3000 + "]" * 3000, r"nested without end or too deeply; expected at most 50 levels"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
                for before, name in zip("abcdefg", "bcdefgh", strict=True)
            )
            + "workloads: *h",
            r"its aliases repeat too much",
        ),
        ("workloads: []\nworkloads: []", r"found the key workloads twice"),
        ("workloads: [", r"not YAML"),
    ],
)
def test_a_file_that_is_no_list_of_workloads_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "workloads.yaml"
    file.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(command, [str(file)])
    assert isinstance(result.exception, FusionError)
    assert re.fullmatch(f"{re.escape(str(file))}: .*{expected}.*", str(result.exception)), str(result.exception)


def test_a_workload_that_is_wrong_is_told_once() -> None:
    result = plan({"workloads": [JOB | {"nodes": {"min": 5, "max": 4}}]})
    assert len(str(result.exception).splitlines()) == 1, str(result.exception)


def test_limits_that_nothing_keeps_are_refused_without_replaying_every_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    target = {"profile": "fusionnet-32", "requests_per_s": 1, "p99_ms_max": 1e-6, "usd_per_hour_max": 1e-6}
    service = {"kind": "inference", "name": "serve", "image": "x", "needs": {"accelerators": 1}, "target": target}
    replay, replayed = queueing._replay, []
    monkeypatch.setattr(queueing, "_replay", lambda *asked: replayed.append(asked) or replay(*asked))
    result = plan({"workloads": [service | {"replicas": {"min": 1, "max": 15_000}}]})
    assert isinstance(result.exception, FusionError) and "no machine can run it" in str(result.exception)
    assert len(replayed) < 20


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("training"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    document=VALUES
    | st.builds(lambda value: {"workloads": value}, VALUES)
    | st.builds(
        lambda key, value: {"workloads": [JOB | {key: value}]},
        st.sampled_from(["kind", "name", "needs", "training", "target", "nodes", "price_model"]),
        VALUES,
    )
    | st.builds(
        lambda key, value: {"workloads": [JOB | {"target": {"profile": "fusionnet-8", "samples": 10} | {key: value}}]},
        st.sampled_from(["profile", "samples", "hours_max", "run_usd_max", "precision"]),
        VALUES,
    )
)
def test_any_input_gets_a_plan_or_one_error(document: object) -> None:
    result = plan(document)
    assert result.exception is None or isinstance(result.exception, FusionError), repr(result.exception)


def test_planning_a_stack_loads_neither_pulumi_nor_torch() -> None:
    code = (
        "import sys; from fusion.cli import cli; cli(['plan', 'local'], standalone_mode=False); "
        "print([m for m in ('pulumi', 'pulumi_aws', 'torch', 'boto3') if m in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stderr.strip() == "[]"


SERVICE = {"kind": "inference", "name": "serve", "image": "x", "needs": {"accelerators": 1, "accelerator": "L4"}}
NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([-1, 0, 1e300, 10**40, float("nan"), float("inf"), "any", None])
)


@settings(max_examples=60, deadline=None)
@given(
    top=st.dictionaries(st.sampled_from(["quotas", "budget", "regions"]), VALUES, max_size=1),
    quota=st.dictionaries(
        st.sampled_from(["cloud", "region", "vcpus", "nodes", "accelerators", "instance_types"]),
        NUMBERS | st.just("aws"),
        max_size=3,
    ),
    service=st.dictionaries(
        st.sampled_from(["requests_per_s", "p99_ms_max", "usd_per_hour_max", "objective", "precision", "model"]),
        NUMBERS | st.text(max_size=5),
        max_size=2,
    ),
    more=st.dictionaries(st.sampled_from(["data", "replicas", "spot_fallback", "price_model"]), VALUES, max_size=1),
)
def test_any_limit_and_load_gets_a_plan_or_one_error(top, quota, service, more):
    target = {"profile": "fusionnet-8", "requests_per_s": 100} | service
    document = {"workloads": [SERVICE | more | {"target": target}], "quotas": [quota] if quota else []} | top
    result = plan(document)
    assert result.exception is None or isinstance(result.exception, FusionError), repr(result.exception)
