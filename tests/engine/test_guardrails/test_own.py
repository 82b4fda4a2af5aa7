"""Guardrails of a team's own, as docs/guardrails.md has them: its code runs here as it stands there."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from policies import guardrails, reference
from policies.own_guardrails import OwnGuardrailError, own_guardrails
from tests.engine.conftest import PACK, ROOT, Engine

GUIDE = (ROOT / "docs/guardrails.md").read_text()
OWN, WITHOUT_AN_ENGINE, WITH_AN_ENGINE = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
YAML, *_ = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
JSON, *_ = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
PLAIN = """
    import pulumi_aws as aws
    aws.ec2.Instance("plain", **{**SAFE, "metadata_options": None}, instance_type="%s")
"""


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack of the guide's form beside the project, with no guardrail of its own yet."""
    folder = tmp_path / "pack"
    (folder / "own").mkdir(parents=True)
    shutil.copy(ROOT / "policies/__main__.py", folder)
    described = yaml.safe_load((ROOT / "policies/PulumiPolicy.yaml").read_text())
    described["runtime"]["options"]["virtualenv"] = str(ROOT / ".venv")
    (folder / "PulumiPolicy.yaml").write_text(yaml.safe_dump(described))
    return folder


def test_the_reference_is_up_to_date() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run: python -m policies.reference"


def test_the_guides_guardrail_has_ten_lines_and_is_tested_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len([line for line in OWN.splitlines() if line]) <= 10
    naming = ModuleType("policies.own.naming")
    exec(OWN, vars(naming))
    monkeypatch.setitem(sys.modules, naming.__name__, naming)
    names: dict[str, Any] = {}
    exec(WITHOUT_AN_ENGINE, names)
    names["test_a_queue_begins_with_the_stacks_name"]()


@pytest.mark.parametrize("number", [0, 1])
def test_the_guides_tests_with_the_engine_pass(
    small: Engine, pack: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (pack / "own" / "naming.py").write_text(OWN)
    monkeypatch.setitem(PACK, "PULUMI_OPTION_POLICY_PACK", str(pack))
    names: dict[str, Any] = {}
    exec(WITH_AN_ENGINE, names)
    tests = [each for name, each in names.items() if name.startswith("test_")]
    assert len(tests) == 2
    tests[number](small)


def test_levels_of_the_stack_and_of_the_packs_config_hold_as_the_guide_says(small: Engine) -> None:
    config = yaml.safe_load(YAML)["config"]["fusion:guardrails"]
    limits = small.folder / "limits.json"
    limits.write_text(JSON)
    small.program(PLAIN % "m6i.large")
    assert "[mandatory]  imdsv2" in small.preview(status=None, **PACK)
    flags = ("--policy-pack", PACK["PULUMI_OPTION_POLICY_PACK"], "--policy-pack-config", str(limits))
    assert "[advisory]  imdsv2" in small.preview(*flags)
    small.configure(guardrails={"levels": {"imdsv2": "mandatory"}})
    assert "[mandatory]  imdsv2" in small.preview(*flags, status=None)
    small.configure(guardrails=config)
    small.program(PLAIN % "g5.xlarge")
    assert "[advisory]  imdsv2" in small.up(**PACK)
    small.program(PLAIN % "g5.4xlarge")
    printed = small.preview(*flags, status=None)
    assert "over the limit of $1,000.00" in printed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise ValueError('no')", "it does not load: ValueError: no"),
        ("x = 1", "it holds no guardrail"),
        (OWN.replace("queues-are-named", "imdsv2"), "the guardrail imdsv2 is there in the pack already"),
        ("from policies.security.metadata import imdsv2", "it holds no guardrail"),
    ],
)
def test_a_file_that_can_not_be_used_is_told_by_its_path(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "naming.py").write_text(text)
    with pytest.raises(OwnGuardrailError, match=re.escape(f"{tmp_path / 'naming.py'}: {told}")):
        own_guardrails(tmp_path, guardrails())


def test_a_file_that_can_not_be_used_stops_the_preview(small: Engine, pack: Path) -> None:
    (pack / "own" / "naming.py").write_text("import nothing_of_this_name")
    printed = small.preview(status=None, PULUMI_OPTION_POLICY_PACK=str(pack))
    assert "naming.py: it does not load: ModuleNotFoundError: No module named 'nothing_of_this_name'" in printed
    assert "Traceback" not in printed
