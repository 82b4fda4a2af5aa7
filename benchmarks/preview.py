"""`pulumi preview` of a Fusion stack, with and without the policy pack, against a bare program of the same resources.

    python benchmarks/preview.py [--resources 50 200 1000] [--repeats 5] [--json PATH]

The stack is the platform with as many training jobs as it takes. Below 80 resources, which the platform has with one
job, it is a program of the same components without bucket, registry and jobs: config, plan, network and cluster.

The bare program is written from the stack's own preview: one constructor of pulumi_aws or pulumi_kubernetes for each
resource, with literal inputs, no components, no plan and no pack. The empty pack is one policy that never judges,
started and answered as Fusion's own: what it adds is the engine's and gRPC's, whatever a pack does. All take their
turns in the same run, through the same CLI, language host and local cloud. Each figure is the quickest of whole processes: what else a machine does
only ever adds. The JSON has every time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
UNKNOWN = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
NOT_TYPED = ("tagsAll", "__defaults", "__internal")


@dataclass(frozen=True)
class Project:
    """A Pulumi project with one stack, and the environment that it is previewed in."""

    folder: Path
    environment: dict[str, str]

    def preview(self, *args: str, pack: Path | None = None) -> str:
        """What `pulumi preview` prints; ends the benchmark when it fails."""
        environment = self.environment | ({"PULUMI_OPTION_POLICY_PACK": str(pack)} if pack else {})
        done = subprocess.run(
            ["pulumi", "preview", "--stack", "local", "--non-interactive", *args],
            cwd=self.folder,
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return done.stdout


def project(folder: Path, main: str, config: dict[str, Any]) -> Project:
    home = folder / "home"
    home.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "AWS_"))}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as the file that set-up writes does
    environment |= {
        "PATH": f"{ROOT / '.fusion/bin'}{os.pathsep}{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "FUSION_HOME": str(folder.parent / "fusion"),
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": f"file://{home}?metadata=skip",
        "PULUMI_CONFIG_PASSPHRASE": "benchmark",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    runtime = {"name": "python", "options": {"virtualenv": str(ROOT / ".venv")}}
    settings = {"name": "fusion", "main": main, "stackConfigDir": "stacks", "runtime": runtime}
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
    (folder / "stacks").mkdir()
    (folder / "stacks" / "Pulumi.local.yaml").write_text(yaml.safe_dump({"config": config}))
    subprocess.run(["pulumi", "stack", "init", "local"], cwd=folder, env=environment, check=True, capture_output=True)
    return Project(folder, environment)


def stack_config(folder: Path, workloads: int, **more: Any) -> dict[str, Any]:
    """A stack of so many training jobs on one pool."""
    jobs = [
        {
            "kind": "training",
            "name": f"job-{number}",
            "image": f"registry.example.com/fusion/training@sha256:{64 * '0'}",
            "price_model": "spot",
            "needs": {"accelerator": "A10G", "accelerators": 1, "vcpus": 3, "memory_gib": 12},
        }
        for number in range(workloads)
    ]
    return {
        "aws:region": "us-east-1",
        "aws:profile": "fusion-local",
        "kubernetes:renderYamlToDirectory": str(folder / "manifests"),
        "fusion:workloads": jobs,
        "fusion:guardrails": {"monthly_cost_limit_usd": 1e6},
        **more,
    }


EMPTY_PACK = """
from policies.analyzer import serve
from policies.guardrail import guardrail

@guardrail("never", "no:such/type:Type")
def never(resource, update):
    "It judges nothing."
    yield from ()

serve("empty", [never])
"""
SMALLEST_PLATFORM = 80
NETWORK_AND_CLUSTER = """
import pulumi

from infra import assembly, config, planning
from infra.build import builder_of
from infra.plan_resource import PlanResource
from infra.run import without_what_only_costs_time
from planner.catalog import load

without_what_only_costs_time()
stack = pulumi.get_stack()
settings = config.load(pulumi.runtime.get_config_env(), stack=stack, stack_file=f"stacks/Pulumi.{stack}.yaml")
plan = planning.plan_stack(settings, stack, load())
args = assembly.platform_args(settings, plan)
registered = PlanResource(f"{stack}-plan", plan)
after_plan = pulumi.ResourceOptions(depends_on=registered.urn.apply(lambda _: []))
network = builder_of("aws").network(f"{stack}-network", args.network, after_plan)
cluster = builder_of("aws").cluster(f"{stack}-cluster", args.cluster, network, after_plan)
pulumi.export("cluster_name", cluster.cluster_name)
"""


def empty_pack(folder: Path) -> Path:
    """A pack with one policy that never judges, for the same language host."""
    folder.mkdir()
    settings = yaml.safe_load((ROOT / "policies" / "PulumiPolicy.yaml").read_text())
    settings["runtime"]["options"]["virtualenv"] = str(ROOT / ".venv")
    (folder / "PulumiPolicy.yaml").write_text(yaml.safe_dump(settings))
    (folder / "__main__.py").write_text(EMPTY_PACK)
    return folder


def planned_resources(stack: Project) -> list[dict[str, Any]]:
    """What the engine would create, in order, components left out."""
    steps = json.loads(stack.preview("--json"))["steps"]
    return [step["newState"] for step in steps if step["newState"].get("custom")]


def bare_program(resources: list[dict[str, Any]]) -> str:
    """A program that makes the same resources by their constructors, and nothing else."""
    lines = ["import pulumi_aws as aws", "import pulumi_kubernetes as kubernetes"]
    for number, resource in enumerate(resources):
        if resource["type"].startswith("pulumi:providers:"):
            continue
        inputs = {name: literal(value, name) for name, value in resource["inputs"].items() if name not in NOT_TYPED}
        if resource["type"].startswith("kubernetes:"):
            inputs = {name: value for name, value in inputs.items() if name not in ("apiVersion", "kind")}
        args = "".join(f", {snake(name)}={value!r}" for name, value in inputs.items())
        lines.append(f"{constructor(resource['type'])}('resource-{number}'{args})")
    return "\n".join(lines) + "\n"


def constructor(token: str) -> str:
    """`aws:ec2/vpc:Vpc` → `aws.ec2.Vpc`, `kubernetes:batch/v1:Job` → `kubernetes.batch.v1.Job`."""
    package, module, name = token.split(":")
    if package == "aws":
        return f"aws.{module.partition('/')[0]}.{name}"
    group = module.replace(".k8s.io/", ".").replace("/", ".") if "/" in module else f"core.{module}"
    return f"kubernetes.{group}.{name}"


def literal(value: Any, name: str) -> Any:
    """A value with what only the update will know replaced by a text of that form."""
    if isinstance(value, dict):
        return {key: literal(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [literal(each, name) for each in value]
    if not (isinstance(value, str) and UNKNOWN.fullmatch(value)):
        return value
    if name.lower().endswith("policy"):
        return "{}"
    return "https://later" if name == "url" else "later"


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def small_stack(folder: Path) -> Project:
    """A Fusion program of a network without flow logs, and a cluster."""
    made = project(folder, ".", stack_config(folder, 1, **{"fusion:network": {"flow_logs": False}}))
    (folder / "__main__.py").write_text(NETWORK_AND_CLUSTER)
    return made


def platform(folder: Path, resources: int) -> Project:
    """This checkout's own program, with training jobs for about so many resources."""
    made = project(folder, str(ROOT / "infra"), stack_config(folder, 1))
    stack_file = folder / "stacks" / "Pulumi.local.yaml"
    first = len(planned_resources(made))
    stack_file.write_text(yaml.safe_dump({"config": stack_config(folder, 2)}))
    each = len(planned_resources(made)) - first
    jobs = max(1, 1 + round((resources - first) / each))
    stack_file.write_text(yaml.safe_dump({"config": stack_config(folder, jobs)}))
    return made


def measure(resources: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Seconds of the four previews of a stack of about so many resources, by way."""
    stack_folder, bare_folder = folder / "stack", folder / "bare"
    fusion = small_stack(stack_folder) if resources < SMALLEST_PLATFORM else platform(stack_folder, resources)
    planned = planned_resources(fusion)
    bare_config = {key: value for key, value in stack_config(bare_folder, 0).items() if not key.startswith("fusion:")}
    bare = project(bare_folder, ".", bare_config)
    (bare_folder / "__main__.py").write_text(bare_program(planned))
    empty = empty_pack(folder / "empty")
    ways = {
        "bare": lambda: bare.preview(),
        "fusion": lambda: fusion.preview(),
        "with an empty pack": lambda: fusion.preview(pack=empty),
        "with Fusion's pack": lambda: fusion.preview(pack=ROOT / "policies"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {"resources": len(planned), "seconds": times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = []
    for resources in asked.resources:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FUSION_HOME"] = str(Path(folder) / "fusion")
            try:
                results.append(measure(resources, asked.repeats, Path(folder)))
            finally:
                from localcloud import server

                server.stop()
    table = Table(title="pulumi preview, quickest of whole processes, in seconds")
    ratios = ("fusion ÷ bare", "pack ÷ bare", "empty ÷ fusion", "pack ÷ fusion")
    for column in ("resources", "bare", "fusion", "empty pack", "pack", *ratios):
        table.add_column(column, justify="right")
    for result in results:
        bare, fusion, empty, pack = (min(each) for each in result["seconds"].values())
        shown = (bare, fusion, empty, pack, fusion / bare, pack / bare, empty / fusion, pack / fusion)
        figures = (f"{each:.2f}" for each in shown)
        table.add_row(str(result["resources"]), *figures)
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
