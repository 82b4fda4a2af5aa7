"""Fusion's language host does for a Python program what the official one does."""

import os
import signal
import time

import pytest
import yaml

from tests.engine.conftest import ROOT, Engine


def test_output_and_stack_outputs_pass_through(small: Engine) -> None:
    small.program("""
        import pulumi
        print("hello from the program")
        pulumi.export("answer", 42)
        pulumi.export("stack", pulumi.get_stack())
    """)
    printed = small.up()
    assert "hello from the program" in printed
    assert "Traceback" not in printed
    assert small.outputs() == {"answer": 42, "stack": "local"}


def test_an_exception_is_shown_with_the_programs_own_frames(small: Engine) -> None:
    small.program("""
        def build():
            raise ValueError("no such zone")
        build()
    """)
    printed = small.up(status=None)
    assert "ValueError: no such zone" in printed
    assert "__main__.py" in printed
    assert "language_host" not in printed
    assert "runpy" not in printed


def test_a_run_error_is_one_sentence(small: Engine) -> None:
    small.program("""
        import pulumi
        raise pulumi.RunError("the zone is full")
    """)
    printed = small.up(status=None)
    assert "the zone is full" in printed
    assert "Traceback" not in printed
    assert printed.partition("Diagnostics:")[2].count("error:") == 1
    assert "unhandled" not in printed


@pytest.mark.parametrize(
    ("rendered", "said"),
    [
        ("helm.v3.Chart('app', k8s.helm.v3.LocalChartOpts(path='./chart'))", "declare what `helm template` prints"),
        ("kustomize.Directory('app', directory='./app')", "declare what `kubectl kustomize` prints"),
        ("helm.v4.Chart('app', chart='app')", "kubernetes:helm.sh/v4:Chart resource 'app' has a problem"),
    ],
)
def test_what_a_provider_refuses_is_one_sentence_without_frames_that_are_not_the_programs(
    small: Engine, rendered: str, said: str
) -> None:
    small.program(f"""
        import pulumi_kubernetes as k8s
        k8s.{rendered}
    """)
    printed = small.preview(status=None)
    assert said in printed
    assert "Traceback" not in printed
    assert "resource monitor" not in printed
    assert printed.partition("Diagnostics:")[2].count("    error: ") == 1


def test_a_secret_of_the_config_stays_secret(small: Engine) -> None:
    small.run("config", "set", "--secret", "fusion:token", "hunter2")
    small.program("""
        import pulumi
        pulumi.export("token", pulumi.Config("fusion").require_secret("token"))
        pulumi.export("length", pulumi.Config("fusion").require_secret("token").apply(len))
    """)
    assert "hunter2" not in small.up()
    assert small.outputs()["token"] == "[secret]"
    assert "hunter2" not in small.stack_file.read_text()


def test_interrupting_the_cli_ends_the_program(small: Engine) -> None:
    marker = small.folder / "pid"
    small.program(f"""
        import os, pathlib, time
        pathlib.Path({str(marker)!r}).write_text(str(os.getpid()))
        time.sleep(300)
    """)
    process = small.start("up", "--yes", "--skip-preview")
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    program = int(marker.read_text())
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a user presses it twice when the program does not end
    printed, _ = process.communicate(timeout=60)
    assert "Traceback (most recent call last)" not in printed
    assert not _is_running(program)


def _is_running(process_id: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("traced", [False, True], ids=["", "traced"])
def test_a_policy_pack_sees_the_stacks_config(small: Engine, traced: bool) -> None:
    pack = small.folder / "pack"
    pack.mkdir()
    (pack / "PulumiPolicy.yaml").write_text("runtime: python\nversion: 0.0.1\n")
    (pack / "__main__.py").write_text(
        "from policies.analyzer import serve\n"
        "from policies.guardrail import guardrail\n"
        "@guardrail('region', 'pulumi:pulumi:Stack')\n"
        "def region(resource, update):\n"
        "    'Says the region.'\n"
        "    yield f\"region is {update.config['aws:region']}\"\n"
        "serve('p', [region])\n"
    )
    options = ("--tracing", f"file:{small.folder / 'trace'}") if traced else ()
    printed = small.preview("--policy-pack", str(pack), *options, status=None)
    assert "region is us-east-1" in printed
    assert "Traceback" not in printed


PROVIDER = """
import sys
from pulumi.provider import ConstructResult, Provider, main

class Greeter(Provider):
    def construct(self, name, resource_type, inputs, options=None):
        import pulumi
        component = pulumi.ComponentResource(resource_type, name, {}, options)
        component.register_outputs({})
        print("greeter was asked for", name, file=sys.stderr)
        return ConstructResult(component.urn, {"greeting": pulumi.Output.from_input("hello " + name)})

main(Greeter("0.0.1"), sys.argv[1:])
"""


def test_a_provider_written_in_python_runs_as_a_plugin(small: Engine) -> None:
    plugin = small.folder / "greeter"
    plugin.mkdir()
    (plugin / "PulumiPlugin.yaml").write_text(f"runtime:\n  name: python\n  options: {{virtualenv: {ROOT}/.venv}}\n")
    (plugin / "__main__.py").write_text(PROVIDER)
    project = yaml.safe_load((small.folder / "Pulumi.yaml").read_text())
    project["plugins"] = {"providers": [{"name": "greeter", "path": "./greeter"}]}
    (small.folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    small.program("""
        import pulumi
        class Greeting(pulumi.ComponentResource):
            greeting: pulumi.Output[str]
            def __init__(self, name):
                super().__init__("greeter:index:Greeting", name, {"greeting": None}, remote=True)
        pulumi.export("greeting", Greeting("world").greeting)
    """)
    printed = small.up()
    assert small.outputs() == {"greeting": "hello world"}
    assert "Traceback" not in printed
