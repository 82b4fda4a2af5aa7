"""`fusion plan`: where each workload should run, what that is predicted to cost and take, and why nothing else won."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import click
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from fusion.errors import FusionError
from fusion.report.findings import (
    Difference,
    Findings,
    WorkloadFindings,
    bill,
    differences,
    workload_findings,
)
from fusion.stack import Stack
from fusion.stack_plan import config_of
from fusion.yaml_files import loaded_yaml, read_yaml
from infra.config import ConfigError, StackConfig, sentences
from infra.planning import not_built, planned_stack
from planner.calibration.own import own_calibrations
from planner.catalog import Catalog, CatalogError, load
from planner.errors import PlanError
from planner.plan import Plan, finite
from planner.profiles import FOLDERS
from planner.stack import StackAnswer
from planner.targets import Scope, answer, frontier_of, places_of
from planner.workloads import AnyWorkload, Budget, Declared, Quota


def _some(workloads: tuple[AnyWorkload, ...]) -> tuple[AnyWorkload, ...]:
    """Not by `min_length`, which counts the valid ones and so speaks up about each that is not."""
    if not workloads:
        raise ValueError("expected at least one workload")
    return workloads


class WorkloadFile(Declared):
    """A file of workloads outside any stack; any cloud and region may win that `regions` does not leave out."""

    workloads: Annotated[tuple[AnyWorkload, ...], AfterValidator(_some)]
    regions: tuple[str, ...] | None = Field(default=None, min_length=1, description="such as aws/eu-* or gcp/*")
    quotas: tuple[Quota, ...] = ()
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What is planned: a document, where its workloads stand in it, and how its errors name it."""

    file: str
    document: dict[str, Any]
    stack: str | None

    @property
    def said(self) -> str:
        """What is planned, as its plan names it."""
        return self.file if self.stack is None else f"stack {self.stack}"

    @property
    def workloads(self) -> Any:
        """As typed, unchecked."""
        return self.document.get("workloads" if self.stack is None else "fusion:workloads")


@dataclass(frozen=True, slots=True)
class Planned:
    """The answers of one document, and what is said of them."""

    answer: StackAnswer
    findings: Findings


@click.command(name="plan")
@click.argument("target", metavar="[STACK|FILE]", default="local")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write one page with pictures, which needs nothing else to be read.",
)
@click.option(
    "--what-if",
    "asked",
    multiple=True,
    metavar="WORKLOAD.FIELD=VALUE",
    help="Plan with another value, such as digits.target.hours_max=2, and show the difference; repeatable.",
)
@click.option(
    "--catalog",
    "own",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A folder with offers.csv, accelerators.csv or both, or an offers.csv, in place of the shipped ones.",
)
def command(target: str, as_json: bool, html: Path | None, asked: tuple[str, ...], own: Path | None) -> None:
    """Say where each workload should run, what it costs and takes, and why not elsewhere.

    STACK is a stack's name (its file is in stacks/); FILE holds `workloads:` outside any stack. docs/planner.md has
    the fields.
    """
    source = _read(target)
    catalog = _catalog(own)
    in_full = as_json or html is not None
    planned = _plan(_changed(source, asked), catalog, in_full)
    for sentence in planned.findings.notes:
        click.echo(f"note: {sentence}", err=True)
    before, earlier = _before(source, catalog, in_full) if asked else (None, None)
    changes = differences(before.findings, planned.findings) if before else ()
    if html is not None:
        _write_page(html, planned.findings, asked, changes, earlier)
    if as_json:
        click.echo(json.dumps(finite(_json(planned, before, changes, earlier)), indent=2))
        return
    from fusion.report.table import print_findings

    print_findings(planned.findings, changes, earlier)
    if html is not None:
        click.echo(f"wrote {html}")


def _before(source: Source, catalog: Catalog, in_full: bool) -> tuple[Planned | None, str | None]:
    """The plan without the changes, or why there is none."""
    try:
        return _plan(source, catalog, in_full), None
    except FusionError as error:
        return None, str(error)


def _write_page(
    path: Path, findings: Findings, asked: Sequence[str], changes: Sequence[Difference], earlier: str | None
) -> None:
    try:
        from fusion.report.page import page
    except ModuleNotFoundError as error:
        raise FusionError(f"--html needs {error.name}, which is not installed; install fusion[report]") from None
    try:
        path.write_text(page(findings, asked, changes, earlier), encoding="utf-8")
    except OSError as error:
        raise FusionError(f"--html {path}: can't be written: {error.strerror}") from None


def _read(target: str) -> Source:
    path = Path(target)
    if not path.is_file():
        if path.suffix in (".yaml", ".yml"):
            raise FusionError(f"{target}: no such file; expected a stack's name or a file with workloads")
        stack = Stack.find(target)
        return Source(str(stack.file), stack.config, stack.name)
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise FusionError(f"{target}: expected `workloads:` with a list below it")
    return Source(target, document, None)


def _catalog(own: Path | None) -> Catalog:
    try:
        return load(own)
    except CatalogError as error:
        raise FusionError(str(error)) from None


def _changed(source: Source, changes: Iterable[str]) -> Source:
    changed = dataclasses.replace(source, document=copy.deepcopy(source.document))
    for change in changes:
        key, equals, text = change.partition("=")
        name, *fields = key.split(".")
        if not equals or not fields or "" in (name, *fields):
            raise FusionError(f"--what-if {change}: expected WORKLOAD.FIELD=VALUE, such as digits.target.hours_max=2")
        workloads = changed.workloads if isinstance(changed.workloads, list) else []
        named = {str(each.get("name")): each for each in workloads if isinstance(each, dict)}
        if name not in named:
            raise FusionError(f"--what-if {change}: no workload is named {name}; {source.file} has {', '.join(named)}")
        if fields == ["name"]:
            raise FusionError(f"--what-if {change}: a workload's name is by what it is compared; change another field")
        at: dict[str, Any] = named[name]
        for field in fields[:-1]:
            inner = at.setdefault(field, {})
            if not isinstance(inner, dict):
                raise FusionError(f"--what-if {change}: {field} is {inner!r} in {source.file}; it has no fields")
            at = inner
        at[fields[-1]] = _value(change, text)
    return changed


def _value(change: str, text: str) -> Any:
    try:
        return loaded_yaml(text)
    except ValueError:
        raise FusionError(f"--what-if {change}: {text!r} is no value; expected a number or a word") from None


def _plan(source: Source, catalog: Catalog, in_full: bool) -> Planned:
    """Answers and findings; `in_full` with the frontier, which takes longer than the answer."""
    try:
        if source.stack is None:
            return _plan_file(source, catalog, in_full)
        return _plan_stack(source, source.stack, catalog, in_full)
    except ValidationError as error:
        raise FusionError("\n".join(sentences(error, source.file, ""))) from None
    except ConfigError as error:
        raise FusionError(str(error)) from None
    except PlanError as error:
        raise FusionError(f"{source.file}: {error}") from None


def _plan_file(source: Source, catalog: Catalog, in_full: bool) -> Planned:
    asked = TypeAdapter(WorkloadFile).validate_python(source.document)
    if twice := [name for name, count in Counter(each.name for each in asked.workloads).items() if count > 1]:
        raise PlanError(f"the name {twice[0]} is used twice; each workload needs a name of its own")
    places = None if asked.regions is None else places_of(asked.regions, catalog)
    scope = Scope(places, (), asked.quotas, asked.budget, (Path(source.file).parent, Path()))
    return _planned(source, asked.workloads, catalog, scope, answer(asked.workloads, catalog, scope), in_full)


def _plan_stack(source: Source, stack: str, catalog: Catalog, in_full: bool) -> Planned:
    config = config_of(source.document, stack, source.file)
    planned = planned_stack(config, stack, catalog)
    parts = [_planned_on(source, config, each.plan, each.answer, catalog, in_full) for each in planned.parts]
    if len(parts) == 1:
        return parts[0]
    clouds = [each.cloud for each in planned.plan.parts]
    notes = (*own_calibrations().refused, *planned.plan.notes)
    return _joined([_told_of(each, cloud) for each, cloud in zip(parts, clouds, strict=True)], planned.plan, notes)


def _planned_on(
    source: Source, config: StackConfig, plan: Plan, found: StackAnswer, catalog: Catalog, in_full: bool
) -> Planned:
    place = (plan.cloud, plan.region)
    scope = Scope(frozenset({place}), not_built(*place, config, catalog), folders=FOLDERS)
    return _planned(source, plan.workloads, catalog, scope, found, in_full, plan)


def _told_of(planned: Planned, cloud: str) -> Planned:
    """The same, of workloads that are on another cloud too: their names say on which they are meant."""

    def named(workload: str) -> str:
        return f"{workload} on {cloud}"

    found, answer = planned.findings, planned.answer
    pools = tuple(dataclasses.replace(each, workloads=tuple(map(named, each.workloads))) for each in answer.pools)
    return Planned(
        dataclasses.replace(answer, answers={named(key): each for key, each in answer.answers.items()}, pools=pools),
        dataclasses.replace(
            found,
            workloads=tuple(dataclasses.replace(each, name=named(each.name)) for each in found.workloads),
            without_target={named(name): each for name, each in found.without_target.items()},
        ),
    )


def _joined(parts: Sequence[Planned], whole: Plan, notes: tuple[str, ...]) -> Planned:
    """What is planned on two clouds at once, as one answer."""
    answers, findings = [each.answer for each in parts], [each.findings for each in parts]
    return Planned(
        StackAnswer(
            answers={name: each for answer in answers for name, each in answer.answers.items()},
            pools=tuple(pool for each in answers for pool in each.pools),
            usd_per_month=sum(each.usd_per_month for each in answers),
            usd_per_hour=sum(each.usd_per_hour for each in answers),
            egress_usd_per_month=sum(each.egress_usd_per_month for each in answers),
            exact=all(each.exact for each in answers),
        ),
        dataclasses.replace(
            findings[0],
            workloads=tuple(workload for each in findings for workload in each.workloads),
            without_target={name: said for each in findings for name, said in each.without_target.items()},
            bill=bill(whole.items),
            notes=notes,
        ),
    )


def _planned(
    source: Source,
    workloads: Iterable[AnyWorkload],
    catalog: Catalog,
    scope: Scope,
    found: StackAnswer,
    in_full: bool,
    plan: Plan | None = None,
) -> Planned:
    findings: list[WorkloadFindings] = []
    others: dict[str, str] = {}
    for each in workloads:
        own = found.answers[each.name]
        if own.prediction is None:
            offer, best = own.best.offer, own.best
            others[each.name] = (
                f"{offer.instance_type} {best.price_model.replace('_', ' ')} in {offer.region}, "
                f"${best.price_usd_per_hour:.3f} an hour by node, by needs and price (it has no target)"
            )
            continue
        choices = frontier_of(each, catalog, scope) if in_full else ()
        findings.append(workload_findings(each, own, choices))
    notes = (*own_calibrations().refused, *(plan.notes if plan else found.notes))
    stack_bill = bill(plan.items) if plan else None
    return Planned(found, Findings(source.said, tuple(findings), others, stack_bill, notes))


def _json(
    planned: Planned, before: Planned | None, changes: Sequence[Difference], earlier: str | None
) -> dict[str, Any]:
    found = planned.findings
    result: dict[str, Any] = {
        "workloads": {
            each.name: {
                "best": dataclasses.asdict(answer.best),
                "prediction": dataclasses.asdict(each.prediction),
                "runners_up": [dataclasses.asdict(choice) for choice in answer.runners_up],
                "rejected": [dataclasses.asdict(rejected) for rejected in answer.rejected],
                "cost_parts_usd": {part.name: part.value for part in each.cost_parts},
                "time_parts_s": {part.name: part.value for part in each.time_parts},
                "frontier": [dataclasses.asdict(way) for way in each.frontier],
            }
            for each in found.workloads
            for answer in (planned.answer.answers[each.name],)
        },
        "without_target": dict(found.without_target),
        "pools": [dataclasses.asdict(pool) for pool in planned.answer.pools],
        "usd_per_month": planned.answer.usd_per_month,
        "usd_per_hour": planned.answer.usd_per_hour,
        "egress_usd_per_month": planned.answer.egress_usd_per_month,
        "exact": planned.answer.exact,
        "notes": list(found.notes),
        "monthly_cost_max_usd": found.bill.monthly_usd.max if found.bill else None,
        "bill_usd_per_month": {name: dataclasses.asdict(each) for name, each in found.bill.lines}
        if found.bill
        else None,
    }
    if before is not None:
        differing = [dataclasses.asdict(each) for each in changes]
        result |= {"differences": differing, "before": _json(before, None, (), None)}
    return result | ({"no_plan_before": earlier} if earlier else {})
