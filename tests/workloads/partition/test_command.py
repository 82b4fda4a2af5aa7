"""`fusion partition` measures a device, plans a split, runs it, and says what is wrong in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from fusion.commands.partition import command
from fusion.errors import FusionError

MODEL = ["--model", "fusionnet", "--shape", "1x8x8", "--classes", "10"]
LINK = ["--mbit-per-s", "10", "--rtt-ms", "5"]


def fusion(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def refused(*arguments: str) -> str:
    error = fusion(*arguments).exception
    assert isinstance(error, FusionError), error
    return str(error)


def test_a_measured_device_is_planned_for_and_the_edge_answers_without_its_cloud(tmp_path: Path) -> None:
    edge, plan, held_out = (str(tmp_path / name) for name in ("edge.json", "plan", "held-out.npz"))
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)) / np.float32(255)
    np.savez(held_out, input=images.astype(np.float32), labels=np.zeros(40, np.int64))
    measured = fusion("measure", edge, *MODEL, "--name", "camera")
    assert measured.exit_code == 0 and measured.output.startswith("camera: 4 layers, ")
    planned = fusion(
        "plan", plan, *MODEL, *LINK, "--held-out", held_out, "--edge", edge, "--cloud", "H100", "--json",
        "--loss-max", "1", "--pixel-scale", "255", "--edge-watts", "10,2,4",
    )  # fmt: skip
    assert planned.exit_code == 0, planned.output
    ways = json.loads(planned.stdout)
    assert {way["kind"] for way in ways} >= {"edge", "cloud"}
    assert [way["edge_joules"] for way in ways] == sorted(way["edge_joules"] for way in ways)
    edge_alone = next(way for way in ways if way["kind"] == "edge")
    assert edge_alone["latency_ms"] == pytest.approx(1e3 * sum(json.loads(Path(edge).read_text())["seconds"]))
    ran = fusion("run", plan, "--server", "http://127.0.0.1:1", "--requests", "7", "--held-out", held_out)
    assert ran.exit_code == 0 and "the cloud does not answer" in ran.output
    assert ran.output.splitlines()[2].split() == ["7", "edge"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    plan = ("plan", str(tmp_path / "p"), *LINK)
    assert "expected one of --run, --model and --program" in refused(*plan)
    assert "Orin: no such file, and no accelerator of the catalog" in refused(*plan, *MODEL, "--edge", "Orin")
    np.savez(tmp_path / "wrong.npz", input=np.zeros((4, 1, 9, 9), np.float32))
    assert "expected float32 of 2 rows or more of (1, 8, 8)" in refused(
        *plan, *MODEL, "--held-out", str(tmp_path / "wrong.npz")
    )
    (tmp_path / "edge.json").write_text("{}")
    assert "`fusion partition measure` writes such files" in refused(
        *plan, *MODEL, "--edge", str(tmp_path / "edge.json")
    )
    assert "holds no split plan" in refused("run", str(tmp_path), "--server", "http://127.0.0.1:1")
    assert "got '5,x'; expected watts" in fusion(*plan, *MODEL, "--edge-watts", "5,x").output
