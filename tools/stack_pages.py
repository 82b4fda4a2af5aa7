"""Writes `docs/stacks/`: for each stack to start from, what it is for and what `fusion plan` says of it today.

`python -m tools.stack_pages` writes all of them and the list in `docs/stacks/README.md`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from click.testing import CliRunner

from fusion.commands.plan import command
from fusion.stack import Stack
from fusion.stack_plan import plan_of
from planner.catalog import load
from planner.plan import Plan
from planner.prediction import WorkloadPrediction

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "stacks"
TABLE_HEAD = "| stack | what for | where | USD a month, expected to most | predicted |\n|---|---|---|---|---|"
INTRODUCTION = """\
# Stacks to start from

Copy one to `stacks/Pulumi.<your name>.yaml`, put your images, project, addresses and limits in (the lines that say
`yours`), and see `fusion plan <your name>` and `pulumi preview`. The workflows of pull requests leave those that have a
page here alone. `python -m tools.stack_pages` writes these pages;
`tests/unit/infra/test_stack_pages.py` checks that they say what is planned, and `tests/engine/test_stacks.py` that the
engine previews each stack within its guardrails. Prices and predictions are those of the catalog; nothing here was
measured on a cloud.
"""


def names() -> list[str]:
    """The stacks that are not of the local cloud."""
    every = (path.name.split(".")[1] for path in (ROOT / "stacks").glob("Pulumi.*.yaml"))
    return sorted(name for name in every if not Stack(name, ROOT).is_local)


def purpose(name: str) -> str:
    """The first line of a stack's file, which says what it is for."""
    return (ROOT / "stacks" / f"Pulumi.{name}.yaml").read_text().partition("\n")[0].removeprefix("# ")


def page(name: str) -> str:
    """A stack's own page."""
    said = CliRunner().invoke(command, [name])
    if said.exit_code:
        raise SystemExit(f"fusion plan {name}: {said.output}{said.exception or ''}")
    lines = "\n".join(line.rstrip() for line in said.output.rstrip().splitlines())
    return (
        f"# {name}\n\n{purpose(name)}\n\nIts file is [stacks/Pulumi.{name}.yaml](../../stacks/Pulumi.{name}.yaml); "
        f"`fusion plan {name}` says of it:\n\n```\n{lines}\n```\n"
    )


def index() -> str:
    """The list of all of them."""
    rows = "\n".join(_row(name) for name in names())
    return f"{INTRODUCTION}\n{TABLE_HEAD}\n{rows}\n"


def _row(name: str) -> str:
    plan = _plan(name)
    usd = plan.monthly_usd
    predicted = "; ".join(_promise(each) for each in plan.predictions)
    where = " and ".join(f"{each.cloud} {each.region}" for each in plan.parts)
    return (
        f"| [{name}]({name}.md) | {purpose(name)} | {where} | ${usd.expected:,.0f} to ${usd.max:,.0f} | {predicted} |"
    )


def _promise(predicted: WorkloadPrediction) -> str:
    if predicted.p99_ms:
        return f"{predicted.workload}: p99 {predicted.p99_ms.value:.3g} ms"
    assert predicted.run_hours and predicted.run_usd
    return f"{predicted.workload}: {predicted.run_hours.value:.2g} h and ${predicted.run_usd.value:,.2f} a run"


def _plan(name: str) -> Plan:
    return plan_of(Stack(name, ROOT), load())


def main() -> None:
    """Write all pages."""
    for name in names():
        (PAGES / f"{name}.md").write_text(page(name))
    (PAGES / "README.md").write_text(index())
    sys.stdout.write(f"wrote {len(names())} pages to {PAGES}\n")


if __name__ == "__main__":
    main()
