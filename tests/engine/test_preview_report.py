"""`fusion preview` on the real engine: what the comment of a pull request says, and with which status it ends."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import DIGITS, Engine

SERVICE = {
    "kind": "inference",
    "name": "classify",
    "image": f"registry.example.com/fusion/serving@sha256:{'0' * 64}",
    "needs": {"accelerator": "L4", "accelerators": 1, "vcpus": 2, "memory_gib": 8},
    "replicas": {"min": 1, "max": 2},
    "target": {"profile": "resnet-50", "requests_per_s": 100, "p99_ms_max": 200},
}
JOB = DIGITS | {
    "name": "train",
    "image": SERVICE["image"],
    "target": {"profile": "resnet-50", "samples": 1_281_167, "hours_max": 200},
    "training": {"batch_size": 64, "epochs": 1, "checkpoint_every_steps": 10_000},
}


@dataclass
class Told:
    """What one call of the command left behind."""

    status: int
    printed: str
    markdown: str
    html: str
    json: dict[str, Any]


def fusion(engine: Engine, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["fusion", *args],
        cwd=engine.folder,
        env=engine.environment | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )


def previewed(engine: Engine, *flags: str) -> Told:
    files = {option: engine.folder / f"told.{option}" for option in ("markdown", "html", "json")}
    for path in files.values():
        path.unlink(missing_ok=True)
    options = [word for option, path in files.items() for word in (f"--{option}", str(path))]
    done = fusion(engine, "preview", "-s", engine.stack, *options, *flags)
    texts = [path.read_text() for path in files.values()]
    assert "fusion/commands" not in done.stdout  # no traceback of its own
    return Told(done.returncode, done.stdout, texts[0], texts[1], json.loads(texts[2]))


def outcomes(told: Told) -> dict[str, str]:
    return {each["name"]: each["outcome"] for each in told.json["guardrails"]}


def rows(told: Told) -> dict[str, list[str]]:
    """The rows of all tables by their first cell."""
    lines = (line.strip("| ").split(" | ") for line in told.markdown.splitlines() if line.startswith("| "))
    return {cells[0]: cells[1:] for cells in lines}


@pytest.fixture
def served(platform: Engine) -> Engine:
    platform.configure(workloads=[JOB, SERVICE], guardrails={"monthly_cost_limit_usd": 10_000})
    return platform


def test_a_first_preview_says_what_the_stack_will_cost_and_how_fast_it_will_be(served: Engine) -> None:
    told = previewed(served)
    assert told.status == 0, told.printed
    assert told.markdown.startswith("<!-- fusion:local -->\n### ✅ <code>local</code>: ")
    assert told.json["verdict"]["kind"] == "changes"
    assert rows(told)["at the autoscaler's maximum"][0] == "–"
    classify, train = (
        next(each for each in told.json["workloads"] if each["name"] == name) for name in ("classify", "train")
    )
    measures = {each["name"]: each for each in classify["measures"]}
    assert measures.keys() == {"p50 latency", "p95 latency", "p99 latency", "throughput"}
    p99 = measures["p99 latency"]
    assert p99["limit"] == 200
    assert p99["after"]["low"] <= p99["after"]["value"] <= (p99["after"]["high"] or float("inf"))
    assert measures["throughput"]["after"]["value"] > 100
    assert classify["bound_by"] in told.markdown
    assert {each["name"]: each["limit"] for each in train["measures"]} == {
        "time of a run": 200,
        "cost of a run": None,
        "throughput": None,
    }
    assert "predicted" in told.markdown
    assert outcomes(told)["monthly-cost-limit"] == "passed"
    assert "<svg" in told.html
    assert "local: " in told.printed


def test_after_an_update_a_raised_pool_is_told_by_what_it_adds_to_the_bill(platform: Engine) -> None:
    platform.up()
    same = previewed(platform)
    assert (same.status, same.json["verdict"]["kind"]) == (0, "unchanged")
    assert rows(same)["at the autoscaler's maximum"][2] == "$0.00"

    platform.configure(workloads=[DIGITS | {"nodes": {"min": 0, "desired": 1, "max": 3}}])
    raised = previewed(platform)
    cost = raised.json["cost"]
    assert raised.status == 0
    changed = [each for each in cost["components"] if each["before"] != each["after"]]
    assert [each["name"] for each in changed] == ["pool g5-xlarge-spot"]
    one_node = changed[0]["before"]["max"] / 2
    assert cost["total"]["after"]["max"] - cost["total"]["before"]["max"] == pytest.approx(one_node)
    assert cost["total"]["after"]["expected"] == cost["total"]["before"]["expected"]
    assert "scalingConfig.maxSize</code>: <code>2</code> → <code>3</code>" in raised.markdown

    platform.configure(guardrails={"monthly_cost_limit_usd": 1000})
    broken = previewed(platform)
    assert broken.status != 0
    assert broken.json["verdict"]["kind"] == "blocked"
    assert outcomes(broken)["monthly-cost-limit"] == "violated"
    assert re.search(r"\*\*monthly-cost-limit\*\*.*over the limit of \$1,000\.00", broken.markdown)
    assert broken.json["notes"] == []

    log = platform.folder / "events.jsonl"
    platform.preview("--event-log", str(log), status=None, PULUMI_DEBUG_COMMANDS="true", **_pack())
    reported = fusion(platform, "report", str(log))
    assert reported.stdout == broken.markdown
    digest = platform.folder / "digest.json"
    digest.write_text(platform.run("preview", "--json", "--show-sames", status=None).rpartition("}")[0] + "}")
    assert "over the limit of $1,000.00" in fusion(platform, "report", str(digest)).stdout


STATEFUL = """
    import pulumi
    import pulumi_aws as aws
    password = pulumi.Config().require_secret("password")
    key = aws.kms.Key("key", description="of the volume", tags={{"hint": password}})
    volume = aws.ebs.Volume("data", availability_zone="{zone}", size=10, encrypted=True, kms_key_id=key.arn)
    {more}
"""


def test_replacing_what_holds_data_is_the_first_thing_told_and_a_secret_is_never_shown(small: Engine) -> None:
    small.run("config", "set", "--secret", "fusion:password", "correct horse")
    small.program(STATEFUL.format(zone="us-east-1a", more='table = aws.sqs.Queue("orders")'))
    small.up()
    small.run("config", "set", "--secret", "fusion:password", "battery staple")
    small.program(STATEFUL.format(zone="us-east-1b", more=""))
    told = previewed(small)
    assert told.status == 0, told.printed
    lost = {(each["name"], each["kind"]): each["holds"] for each in told.json["lost"]}
    assert lost == {("data", "replace"): "its data", ("orders", "delete"): "its messages"}
    warning = told.markdown.index("[!CAUTION]")
    assert warning < told.markdown.index("<details>")
    assert "forced by <code>availabilityZone</code>" in told.markdown
    assert "[secret]" in json.dumps(told.json)
    for text in (told.markdown, told.html, json.dumps(told.json)):
        assert "correct horse" not in text and "battery staple" not in text
    assert told.json["cost"]["total"]["after"]["max"] > 0


def test_what_fails_is_told_too(small: Engine) -> None:
    small.program("""
        import pulumi_aws as aws
        aws.ec2.Vpc("net", cidr_block="10.0.0.0/16")
        raise ValueError("half way <b>|")
    """)
    told = previewed(small)
    assert (told.status != 0, told.json["verdict"]["kind"]) == (True, "failed")
    assert "half way &#60;b&#62;&#124;" in told.markdown
    assert "ended early" in told.markdown

    small.stack_file.write_text("config: [\n")
    told = previewed(small)
    assert (told.status != 0, told.json["verdict"]["kind"]) == (True, "failed")
    assert "not YAML" in told.markdown


def test_a_wrong_config_is_told_with_its_field(platform: Engine) -> None:
    platform.configure(workloads=[DIGITS | {"nodes": {"min": 3, "max": 1}}])
    told = previewed(platform)
    assert (told.status != 0, told.json["verdict"]["kind"]) == (True, "failed")
    assert "fusion:workloads" in told.markdown


def test_drift_is_told_where_no_change_was_expected(small: Engine) -> None:
    import boto3

    from localcloud.aws.api import CREDENTIALS

    small.program("""
        import pulumi
        import pulumi_aws as aws
        pulumi.export("vpc", aws.ec2.Vpc("net", cidr_block="10.0.0.0/16", tags={"team": "ml"}).id)
    """)
    small.up()
    assert previewed(small, "--refresh", "--expect-no-changes").status == 0
    ec2 = boto3.client("ec2", endpoint_url=small.ensure(), region_name="us-east-1", **CREDENTIALS)
    ec2.create_tags(Resources=[small.outputs()["vpc"]], Tags=[{"Key": "team", "Value": "somebody else"}])
    told = previewed(small, "--refresh", "--expect-no-changes")
    assert (told.status != 0, told.json["verdict"]["kind"]) == (True, "drifted")
    assert "somebody else" in told.markdown


def _pack() -> dict[str, str]:
    return {"PULUMI_OPTION_POLICY_PACK": str(Path(__file__).parents[2] / "policies")}
