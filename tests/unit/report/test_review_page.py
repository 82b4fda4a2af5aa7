"""A review's page is whole in itself and readable in a browser, on a phone and without a network."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fusion.commands.report import command
from infra.config import load as load_config
from infra.planning import plan_stack
from planner.catalog import load
from tests.unit.report.browser import shown
from tests.unit.report.logs import PLAN, error, log, passed, replaced, step, urn, violation

VOLUME = "aws:ebs/volume:Volume"
NAME = "monthly-cost-limit"
WORKLOADS = [
    {
        "kind": "training",
        "name": "train",
        "image": "x",
        "price_model": "spot",
        "needs": {"accelerator": "A10G", "accelerators": 1},
        "target": {"profile": "resnet-50", "samples": 1_281_167, "hours_max": 0.1},
    },
    {
        "kind": "inference",
        "name": "serve",
        "image": "x",
        "needs": {"accelerator": "L4", "accelerators": 1},
        "replicas": {"min": 1, "max": 3},
        "target": {"profile": "resnet-50", "requests_per_s": 100, "peak_requests_per_s": 300, "p99_ms_max": 100},
    },
]


def planned(*workloads: dict) -> dict:
    """The inputs of the registered plan."""
    config = {
        "aws:region": "us-east-1",
        "fusion:workloads": json.dumps(workloads),
        "fusion:guardrails": '{"monthly_cost_limit_usd": 10000}',
    }
    settings = load_config(config, stack="prod", stack_file="stacks/Pulumi.prod.yaml")
    return json.loads(json.dumps(plan_stack(settings, "prod", load()).as_props()))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Of a stack that grows, with a broken guardrail, a replaced volume, a long error and a name that is HTML."""
    folder = tmp_path_factory.mktemp("review")
    loose = [
        each | {"target": {key: value for key, value in each["target"].items() if key != "hours_max"}}
        for each in WORKLOADS
    ]
    grown = loose[1] | {"replicas": {"min": 1, "max": 5}}
    events = [
        step("update", PLAN, "prod-plan", planned(*loose), planned(loose[0], grown)),
        *replaced(
            VOLUME,
            "<script>nothing.there()</script>",
            {"size": 8},
            {"size": 8, "availabilityZone": "x" * 300},
            "availabilityZone",
        ),
        step("update", "aws:sqs/queue:Queue", "queue", {"name": "a"}, {"name": "b" * 200}, {"name": "update"}),
        passed(urn(PLAN, "prod-plan"), NAME),
        violation(NAME, "over by $5 " * 30, urn(VOLUME, "a")),
        error("Traceback\n" + "  File\n" * 30 + "x" * 400),
    ]
    source = folder / "log.jsonl"
    config = {"aws:region": "us-east-1", "fusion:workloads": json.dumps(WORKLOADS)}
    source.write_text(log(*events, config=config, result="failed"))
    path = folder / "review.html"
    ran = CliRunner().invoke(command, [str(source), "--html", str(path)])
    assert ran.exception is None, ran.output
    return path


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_an_error_a_request_or_a_sideways_scroll(page, width, tmp_path):
    measured, logged = shown(page, width, tmp_path)
    # The cost, hours, dollars and samples/s of the job, milliseconds and requests/s of the service.
    assert f'data-width="{width}" data-over="0" data-pictures="6" data-asked=""' in measured
    assert "CONSOLE" not in logged


def test_it_says_what_the_comment_says(page):
    text = page.read_text()
    for said in (
        "The preview failed",
        "will be replaced, with its data",
        "over by $5",
        "limited by",
        "p99 latency",
        "p99 latency at peak",
        "300 requests/s at peak",
        "at the autoscaler",
    ):
        assert said in text
    assert "<script" not in text and "&lt;script&gt;" in text
    assert 'class="over"' in text  # the job's deadline


def test_the_page_is_the_same_for_the_same_log(page, tmp_path):
    again = tmp_path / "again.html"
    CliRunner().invoke(command, [str(page.parent / "log.jsonl"), "--html", str(again)])
    assert again.read_text() == page.read_text()
