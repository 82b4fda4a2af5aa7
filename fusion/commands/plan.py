"""`fusion plan`: where each workload should run, what that is predicted to cost and take, and why nothing else won."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import TypeAdapter, ValidationError

from fusion.errors import FusionError
from fusion.stack import Stack
from infra.config import ConfigError, sentences
from infra.config import load as load_config
from infra.planning import not_built, plan_stack
from planner.calibration.store import Interval
from planner.catalog import Catalog, CatalogError, load
from planner.errors import PlanError
from planner.optimizer import Answer, Choice
from planner.plan import finite
from planner.prediction import WorkloadPrediction
from planner.targets import best_of, prediction_of
from planner.workloads import AnyWorkload, Declared


class WorkloadFile(Declared):
    """A file of workloads outside any stack; every one has a target, and any cloud and region may win."""

    workloads: tuple[AnyWorkload, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What is planned: a document, where its workloads stand in it, and how its errors name it."""

    file: str
    document: dict[str, Any]
    stack: str | None

    @property
    def workloads(self) -> Any:
        """As typed, unchecked."""
        return self.document.get("workloads" if self.stack is None else "fusion:workloads")


@dataclass(frozen=True, slots=True)
class Planned:
    """The answers of one document."""

    answers: Mapping[str, Answer]
    others: Mapping[str, str]
    """Offers of the workloads without a target, chosen by needs and price."""
    monthly_usd_max: float | None
    """Of a stack, with its platform, at the autoscaler's maximum."""


@click.command(name="plan")
@click.argument("target", metavar="[STACK|FILE]", default="local")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@click.option(
    "--what-if",
    "changes",
    multiple=True,
    metavar="WORKLOAD.FIELD=VALUE",
    help="Plan with another value, such as digits.target.hours_max=2, and show the difference; repeatable.",
)
def command(target: str, as_json: bool, changes: tuple[str, ...]) -> None:
    """Say where each workload should run, what it costs and takes, and why not elsewhere."""
    source = _read(target)
    catalog = _catalog()
    changed = _changed(source, changes)
    planned = _plan(changed, catalog)
    before = _plan(source, catalog) if changes else None
    if as_json:
        click.echo(json.dumps(finite(_json(planned, before)), indent=2))
        return
    for line in _lines(planned, before):
        click.echo(line)


def _read(target: str) -> Source:
    path = Path(target)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise FusionError(f"{target}: no such file; expected a stack's name or a file with workloads")
        stack = Stack.find(target)
        return Source(str(stack.file), stack.config, stack.name)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FusionError(f"{target}: can't be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise FusionError(f"{target}: expected `workloads:` with a list below it")
    return Source(target, document, None)


def _catalog() -> Catalog:
    try:
        return load()
    except CatalogError as error:
        raise FusionError(str(error)) from None


def _changed(source: Source, changes: Iterable[str]) -> Source:
    changed = dataclasses.replace(source, document=copy.deepcopy(source.document))
    for change in changes:
        key, equals, text = change.partition("=")
        name, *fields = key.split(".")
        if not equals or not fields:
            raise FusionError(f"--what-if {change}: expected WORKLOAD.FIELD=VALUE, such as digits.target.hours_max=2")
        workloads = changed.workloads if isinstance(changed.workloads, list) else []
        named = {str(each.get("name")): each for each in workloads if isinstance(each, dict)}
        if name not in named:
            raise FusionError(f"--what-if {change}: no workload is named {name}; {source.file} has {', '.join(named)}")
        at: dict[str, Any] = named[name]
        for field in fields[:-1]:
            inner = at.setdefault(field, {})
            if not isinstance(inner, dict):
                raise FusionError(f"--what-if {change}: {field} is {inner!r} in {source.file}; it has no fields")
            at = inner
        try:
            at[fields[-1]] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise FusionError(f"--what-if {change}: {text!r} is no value; expected a number or a word") from None
    return changed


def _plan(source: Source, catalog: Catalog) -> Planned:
    try:
        return _plan_file(source, catalog) if source.stack is None else _plan_stack(source, source.stack, catalog)
    except ValidationError as error:
        raise FusionError("\n".join(sentences(error, source.file, ""))) from None
    except ConfigError as error:
        raise FusionError(str(error)) from None
    except PlanError as error:
        raise FusionError(f"{source.file}: {error}") from None


def _plan_file(source: Source, catalog: Catalog) -> Planned:
    answers: dict[str, Answer] = {}
    for workload in TypeAdapter(WorkloadFile).validate_python(source.document).workloads:
        if workload.name in answers:
            raise PlanError(f"the name {workload.name} is used twice; each workload needs a name of its own")
        answers[workload.name] = best_of(workload, catalog)
    return Planned(answers, {}, None)


def _plan_stack(source: Source, stack: str, catalog: Catalog) -> Planned:
    values = {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in source.document.items()
    }
    config = load_config(values, stack=stack, stack_file=source.file)
    plan = plan_stack(config, stack, catalog)
    place = (config.cloud, config.region)
    answers = {
        each.name: best_of(each, catalog, place, not_built(*place, catalog))
        for each in config.workloads
        if each.target is not None
    }
    others = {
        each.name: f"{pool.instance_type} {pool.price_model.replace('_', ' ')} in {plan.region}, "
        f"${pool.price_usd_per_hour:.3f} an hour by node, by needs and price (it has no target)"
        for each in config.workloads
        if each.target is None
        for pool in (plan.pool_of(each.name),)
    }
    return Planned(answers, others, plan.monthly_usd.max)


def _lines(planned: Planned, before: Planned | None) -> Iterable[str]:
    for name, answer in planned.answers.items():
        prediction = prediction_of(name, answer)
        unit = "an hour" if prediction.run_usd is None else "a run"
        yield f"{name}: {_said(answer.best, unit)}"
        yield f"  {_predicted(prediction)}"
        for reason in prediction.reasons:
            yield f"  {reason}"
        yield f"  rests on: {prediction.calibration}"
        for each in answer.runners_up:
            yield f"  {_said(each, unit)}: {each.usd / answer.best.usd - 1:.0%} dearer"
        for rejected in answer.rejected:
            yield f"  {_said(rejected.choice, unit)}: {rejected.reason}"
        if before is not None:
            was = before.answers.get(name)
            yield f"  before: {_said(was.best, unit) if was else 'not planned by a target'}"
    for name, offer in planned.others.items():
        yield f"{name}: {offer}"
    if planned.monthly_usd_max is not None:
        was_usd = f" (before: ${before.monthly_usd_max:,.2f})" if before and before.monthly_usd_max else ""
        yield f"whole stack: ${planned.monthly_usd_max:,.2f} a month at the autoscaler's maximum{was_usd}"


def _said(choice: Choice, unit: str) -> str:
    offer = choice.offer
    return (
        f"{choice.shape.nodes} x {offer.instance_type} ({choice.machine.count} {choice.machine.accelerator}) "
        f"{choice.price_model.replace('_', ' ')} in {offer.cloud} {offer.region}, ${choice.usd:,.2f} {unit}"
    )


def _predicted(prediction: WorkloadPrediction) -> str:
    named = (
        ("run (hours)", prediction.run_hours),
        ("run (USD)", prediction.run_usd),
        ("p50 (ms)", prediction.p50_ms),
        ("p95 (ms)", prediction.p95_ms),
        ("p99 (ms)", prediction.p99_ms),
    )
    return "; ".join(f"{name} {_interval(value)}" for name, value in named if value is not None)


def _interval(value: Interval) -> str:
    return f"{value.value:.3g} [{value.low:.3g} to {value.high:.3g}]"


def _json(planned: Planned, before: Planned | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "workloads": {
            name: {
                "best": dataclasses.asdict(answer.best),
                "prediction": dataclasses.asdict(prediction_of(name, answer)),
                "runners_up": [dataclasses.asdict(each) for each in answer.runners_up],
                "rejected": [dataclasses.asdict(each) for each in answer.rejected],
            }
            for name, answer in planned.answers.items()
        },
        "without_target": dict(planned.others),
        "monthly_cost_max_usd": planned.monthly_usd_max,
    }
    return result if before is None else result | {"before": _json(before, None)}
