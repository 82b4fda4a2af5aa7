"""Each stack to start from, previewed by the engine within its own guardrails: on the local clouds, else as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.engine.conftest import PACK, ROOT, make_engine
from tools import stack_pages


@pytest.mark.parametrize("name", stack_pages.names())
def test_a_stack_previews_within_its_guardrails(name: str, tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{name}.yaml").read_text())["config"]
    engine = make_engine(tmp_path / "project", str(ROOT / "infra"))
    local = {"aws:region": {"aws:profile": "fusion-local"}, "gcp:region": {"gcp:project": "fusion-local"}}
    places = {key: value for region, more in local.items() if region in config for key, value in more.items()}
    engine.config = {**config, **places, "kubernetes:renderYamlToDirectory": str(engine.manifests)}
    engine.configure()
    said = engine.preview(**PACK)
    engine.kill_server()
    limit = config["fusion:guardrails"]["monthly_cost_limit_usd"]
    assert f"limit   : {limit}" in said
    assert "mandatory" not in said and "advisory" not in said, said
