"""`fusion cluster` and `fusion status` say what is wrong with what they are given, and the way out."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from fusion.cli import cli
from fusion.errors import FusionError


def refused(*args: str) -> str:
    result = CliRunner().invoke(cli, args)
    assert isinstance(result.exception, FusionError), result.output
    return str(result.exception)


def test_nodes_are_of_an_offer_or_of_a_stack_and_an_unknown_offer_is_told_with_the_nearest() -> None:
    assert refused("cluster", "nodes") == "give either --offer or --stack"
    assert "expected cloud:instance type:region" in refused("cluster", "nodes", "--offer", "p5.48xlarge")
    assert "p5.48xlarge" in refused("cluster", "nodes", "--offer", "aws:p5.49xlarge:us-east-1")


def test_without_a_control_plane_nodes_say_how_to_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))
    assert "`make cluster`" in refused("cluster", "nodes", "--offer", "aws:p5.48xlarge:us-east-1")


def test_a_region_without_offers_is_refused_before_anything_is_started() -> None:
    assert "--region mars-1: the catalog has no offers" in refused("cluster", "up", "--region", "mars-1")


def test_status_is_either_watched_or_json() -> None:
    assert "exclude each other" in refused("status", "--watch", "--json")
