"""`fusion up`: provision a stack; on a local one, run its training jobs here as they were provisioned."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion import capacity
from fusion.errors import FusionError
from fusion.stack import Stack
from planner import sold_out

if TYPE_CHECKING:
    from localcloud.clouds import LocalCloud


@click.command(name="up")
@click.option("--stack", "name", default="local", show_default=True, help="A stack of stacks/.")
@click.option("--ask-again", is_flag=True, help="Plan with offers again that were sold out before.")
def command(name: str, ask_again: bool) -> None:
    """Provision a stack, run its training jobs on this machine if it is local, and sum up."""
    stack = Stack.find(name)
    clouds = stack.local_clouds  # read first: what is wrong in the stack's file is told with the file's name
    stack.select()
    if ask_again:
        sold_out.forget(name)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.jsonl"
        provision(stack, log)
        guardrails = guardrails_said(log)
    outputs = stack.outputs()
    # On a cluster its own controllers run them.
    cloud = None if stack.is_on_cluster else clouds.get(outputs["cloud"])
    results = run_training_jobs(stack, cloud, outputs) if cloud else {}
    click.echo(summary(stack, outputs, guardrails, results))


def provision(stack: Stack, log: Path) -> None:
    """Update the stack; where the cloud has no capacity of an offer, the next plan without it is taken.

    What the update has made is removed where no plan is left; a first one of a stack that may be on either cloud then
    tries the other.

    Raises:
        FusionError: the update failed for another reason, or no plan is left within the guardrails.
    """
    before, is_first = {each["urn"] for each in stack.resources()}, True
    may_move = not before and stack.config.get("fusion:cloud") == "auto"
    while True:
        try:
            stack.up(log)
            return
        except FusionError as error:
            new = sold_out.remember(stack.name, capacity.sold_out(log))
            for each in new:
                click.echo(f"\n{each}.\nTrying the next plan of {stack.name}.\n")
            if new:
                is_first = False
                continue
            if is_first:
                raise
            none_left = f"{capacity.why(log) or error}. No plan is left without what was sold out"
            made = {each["urn"] for each in stack.resources()} - before
            _remove(stack, made if before else None, none_left)
            if before:
                raise FusionError(
                    f"{none_left}; what {stack.name} had before is there, what this update had made is removed"
                ) from None
            if may_move:
                may_move = False
                click.echo("\nNo plan is left there; all that had been made is removed. Trying the other cloud.\n")
                continue
            raise FusionError(f"{none_left}; all that had been made of {stack.name} is removed") from None


def _remove(stack: Stack, made: set[str] | None, none_left: str) -> None:
    """Destroy what an update made, or all of the stack.

    Raises:
        FusionError: something could not be removed; says first why it was to be.
    """
    if made is not None and not made:
        return
    try:
        stack.destroy(*sorted(made or ()))
    except FusionError as error:
        raise FusionError(
            f"{none_left}; what had been made is not all removed ({error}): `pulumi stack --stack {stack.name}` lists "
            "what is there, and another `fusion up` goes on from it"
        ) from None


def guardrails_said(log: Path) -> list[str]:
    """What the guardrails said of the update, a line each.

    Raises:
        FusionError: the engine wrote no log, or one that can't be read.
    """
    from fusion.review.events import read
    from fusion.review.headroom import guardrail_lines
    from planner.catalog import CatalogError, load

    try:
        return list(guardrail_lines(read(log), load()))
    except CatalogError as error:
        raise FusionError(str(error)) from None


def run_training_jobs(stack: Stack, cloud: LocalCloud, outputs: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Run each provisioned training job's own container spec as a process here; its last line of output is its result.

    Raises:
        FusionError: a job ended with an error, or said no result.
    """
    from localcloud.kubernetes.run import RunError, run_job

    results = {}
    for job, dataset in outputs["datasets"].items():
        _upload_dataset(dataset, f"{outputs['bucket_url']}/data/{dataset}", cloud)
        click.echo(f"\nRunning training job {job}: its container's command, as a process of this machine")
        lines: list[str] = []
        try:
            code = run_job(stack.manifests, job, identity=cloud.identity(), fetch=cloud.fetch, on_line=lines.append)
        except RunError as error:
            raise FusionError(f"training job {job} can't be run here: {error}") from None
        if code != 0:
            raise FusionError(f"training job {job} ended with status {code}; its output is above")
        results[job] = _result(job, lines)
    return results


def _upload_dataset(dataset: str, url: str, cloud: LocalCloud) -> None:
    """Put a data set that comes with a package into the bucket; others are the team's own and are there already."""
    if dataset != "digits":
        return
    click.echo(f"\nUploading the digits of scikit-learn to {url}")
    done = subprocess.run(
        [sys.executable, "-m", "workloads.data.digits", "--url", url], env=cloud.environment(), check=False
    )
    if done.returncode != 0:
        raise FusionError(f"uploading the data set to {url} ended with status {done.returncode}")


def _result(job: str, lines: list[str]) -> dict[str, Any]:
    for line in reversed(lines):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            if found.get("event") == "finished":
                return found
    raise FusionError(f"training job {job} ended without a result line; its output is above")


def summary(stack: Stack, outputs: dict[str, Any], guardrails: list[str], results: dict[str, dict[str, Any]]) -> str:
    """What was created, where, what it costs, what the guardrails say, what was trained, and what to try next."""
    where = f"{outputs['cloud']} {outputs['region']}{' (local cloud)' if stack.is_local else ''}"
    kinds = Counter(each["type"].split(":")[0] for each in stack.resources())
    cost = outputs["monthly_cost_usd"]
    lines = [
        "",
        f"Stack {stack.name} is up in {where}",
        f"  created     {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))} resources",
        f"  cluster     {outputs['cluster_name']}",
        f"  bucket      {outputs['bucket_url']}",
    ]
    for other, made in outputs.get("others", {}).items():
        lines.append(f"  on {other:<8} {made['region']}, cluster {made['cluster_name']}, bucket {made['bucket_url']}")
    for service, named in outputs.get("failover", {}).get("hosts", {}).items():
        lines.append(f"  {service:<11} {named}, wherever it is well")
    if stack.is_on_cluster:
        lines.append(
            f"  objects     in the control plane of this machine; `fusion status --stack {stack.name}` shows them"
        )
    elif stack.is_local:
        lines.append(f"  manifests   {stack.manifests.relative_to(stack.root)}/")
    lines += [
        f"  cost        ${cost['expected']:,.2f} a month expected, "
        f"${cost['min']:,.2f} to ${cost['max']:,.2f} as it scales"
        " (predicted)",
        *(f"  {'guardrails' if not index else '':<11} {line}" for index, line in enumerate(guardrails)),
    ]
    lines += [
        f"  {'sold out' if not index else '':<11} {each}" for index, each in enumerate(sold_out.of_stack(stack.name))
    ]
    for job, result in results.items():
        lines.append(
            f"  {job:<11} accuracy {result['accuracy']:.2%} on held-out data, "
            f"{result['samples_per_second']:,.0f} samples/s (measured here); "
            f"results in {outputs['bucket_url']}/runs/{job}"
        )
    file = stack.file.relative_to(stack.root)
    lines += [
        "",
        f"Next: in {file}, raise nodes.max of a workload to 20, run `make up STACK={stack.name}`,",
        "      and see the guardrail stop it. By hand: `source .fusion/env`, then",
        f"      `pulumi preview -s {stack.name}`. `make down STACK={stack.name}` removes everything.",
    ]
    return "\n".join(lines)
