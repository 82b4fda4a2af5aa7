"""Split execution against every cut that there is, over a shaped link.

    python -m benchmarks.partition prepare FOLDER --model resnet-50
    python -m benchmarks.partition run FOLDER --model resnet-50 --mbit-per-s 1 10 --json resnet-50.json

`prepare` cuts the model behind every layer whose output alone is sent, and writes both sides' packages. `run` starts the
cloud's server behind the link of `tests/shaped_link.py` (TUN devices: real TCP, bandwidth and delay by packet), and the edge in
a cgroup with a quarter of one core. At each round trip the client chooses by itself (15 requests; what it took in most of
the last 10 is its choice). Then every way is tried, but for those whose edge part, as measured, and bytes at the link's bandwidth alone
take 1.3 times the best one's time; and the choice and the ways that took at most 1.5 times the best one's are measured round after
round, in an order drawn for each. The first half of the rounds says which way is the best, the second half what it takes: the least of
several medians would be too low by their noise. Needs root.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy.stats import trim_mean
from sklearn.datasets import load_digits, load_sample_images
from torch import nn

from tests.shaped_link import ShapedLink, shaped_link
from workloads.models.fusionnet import FusionNet
from workloads.models.resnet import ResNet50
from workloads.partition import devices
from workloads.partition.client import SplitClient
from workloads.partition.plan import Estimate, read_plan
from workloads.partition.planning import Settings, make_plan
from workloads.serving.export import Source
from workloads.serving.package import Array

CORES = 0.25
PERIOD_US = 4_000
RTTS_MS = (1.0, 20.0, 100.0)
WARMING, COUNTED, TRIES = 5, 10, 2
LEAST_ROUNDS, LEAST_S = 16, 15.0
TRIMMED = 0.1
"""Of the times at each end, before their mean: under a quota they have two peaks, between which a median jumps."""
SETTLING_S = 5.0
PORT = 8094
CGROUP = Path("/sys/fs/cgroup/cpu/fusion-edge")


def source_of(model: str) -> Source:
    return {"resnet-50": _resnet, "fusionnet": _fusionnet}[model]()


def _resnet() -> Source:
    """With initial weights, on crops of scikit-learn's two photographs: no trained weights can be had here."""
    torch.manual_seed(0)
    crops = [
        photo[top : top + 224, left : left + 224].transpose(2, 0, 1)
        for photo in load_sample_images().images
        for top in (0, 100, 200)
        for left in (0, 130, 260, 400)
    ]
    images = np.stack(crops).astype(np.float32) / np.float32(255)
    return Source(ResNet50(shape=(3, 224, 224), classes=1000).eval(), {"image": images}, scale=255.0)


def _fusionnet() -> Source:
    """Trained on digits, enlarged to 3 × 32 × 32; the held-out ones are those that it never saw."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32).repeat(4, axis=1).repeat(4, axis=2)[:, None].repeat(3, axis=1)
    order = np.random.default_rng(0).permutation(len(images))
    torch.manual_seed(0)
    module = FusionNet(shape=(3, 32, 32), classes=10)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(4):
        for start in range(0, 1_280, 64):
            rows = order[start : start + 64]
            answers = module(torch.from_numpy(images[rows]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(answers, torch.from_numpy(digits.target[rows])).backward()
            optimizer.step()
    rest = order[1_280:]
    return Source(module.eval(), {"image": np.ascontiguousarray(images[rest])}, labels=digits.target[rest], scale=240.0)


def prepare(folder: Path, model: str) -> None:
    def here(layers: Any, inputs: Any) -> devices.DeviceProfile:
        return devices.measured(layers, inputs, name="this machine", threads=1)

    def quarter(layers: Any, inputs: Any) -> devices.DeviceProfile:
        found = here(layers, inputs)
        return found.model_copy(update={"name": "a quarter", "seconds": tuple(s / CORES for s in found.seconds)})

    settings = Settings(model, "1", loss_max=1.0)
    plan = make_plan(source_of(model), f"file://{folder / model}", quarter, here, settings, every_cut=True, say=print)
    print(f"{plan.judged_by}, {plan.held_out_rows} rows")
    for way in plan.ways:
        print(f"{way.name:28} {way.request_bytes:9,} bytes, zstd {way.zstd_bytes or 0:9,}, loss {way.loss:.4f}")


def serve(folder: Path, link: ShapedLink, model: str) -> subprocess.Popen[str]:
    document = yaml.safe_load((folder / model / "serving.yaml").read_text())
    for each in document["models"]:
        each |= {"batch_max": 1, "backends": ["channels_last"], "slo_ms": 60_000}
    config, log = Path(tempfile.mkdtemp()) / "serving.yaml", Path(tempfile.mkdtemp()) / "log"
    config.write_text(yaml.safe_dump({"port": PORT, **document}))
    process = subprocess.Popen(
        link.inside([sys.executable, "-m", "workloads.serving", "--config", str(config)]),
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"FUSION_SPLIT_URL": f"file://{folder / model}"},
    )
    while '"event": "ready"' not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    return process


def slow_down() -> None:
    """This process has a part of one core from here on."""
    CGROUP.mkdir(exist_ok=True)
    (CGROUP / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    (CGROUP / "cpu.cfs_quota_us").write_text(str(int(PERIOD_US * CORES)))
    (CGROUP / "cgroup.procs").write_text(str(os.getpid()))


def contenders(client: SplitClient, rows: Array, bytes_per_s: float) -> list[str]:
    """Labels of the ways that may be the best one, and of the better of edge alone and cloud alone."""
    tried: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for each in client.ranking():
        best_s = min(tried.values(), default=float("inf"))
        is_first_whole = each.way.kind != "split" and set(kinds.values()) <= {"split"}
        if is_first_whole or each.edge_s + sent_bytes(each) / bytes_per_s <= 1.3 * best_s:
            kinds[each.label] = each.way.kind
            tried[each.label] = min(client.by_way(each, [rows[at : at + 1]]).seconds for at in range(TRIES))
    whole = [label for label in tried if kinds[label] != "split"]
    better = min(whole, key=lambda label: tried[label])
    return [label for label in tried if label == better or tried[label] <= 1.5 * min(tried.values())]


def in_turn(client: SplitClient, rows: Array, chosen: str, labels: list[str]) -> dict[str, list[float]]:
    """Seconds of the client's choice (at "chosen", as the client asks: with its patience) and of each way, by round."""
    found: dict[str, list[float]] = {label: [] for label in ("chosen", *labels)}
    last = {each.label: each for each in client.ranking()}
    order = random.Random(0)  # what follows an idle wait for the cloud finds its quota full
    number, end = 0, time.monotonic() + LEAST_S
    while number < LEAST_ROUNDS or time.monotonic() < end:
        row = [rows[number % len(rows)][None]]
        last |= {each.label: each for each in client.ranking()}
        for label in order.sample(list(found), len(found)):
            answer = client.infer_by(last[chosen], row) if label == "chosen" else client.by_way(last[label], row)
            found[label].append(answer.seconds)
        number += 1
    return found


def sent_bytes(each: Estimate) -> int:
    return (each.way.zstd_bytes if each.is_compressed else each.way.request_bytes) or 0


def run(folder: Path, model: str, bandwidths: list[float]) -> list[dict[str, Any]]:
    rows = next(iter(source_of(model).inputs.values()))
    kinds = {way.name: way.kind for way in read_plan(f"file://{folder / model}").ways}
    results = []
    with shaped_link() as link:
        server = serve(folder, link, model)
        link.shape(bandwidths[0], RTTS_MS[0])
        slow_down()
        cache = Path(tempfile.mkdtemp())
        client = SplitClient(
            f"file://{folder / model}",
            f"http://{link.address}:{PORT}",
            slo_s=60,
            threads=1,
            cache=cache,
            backends=["channels_last"],
        )
        print(f"the edge's parts: {client.edge_bytes / 2**20:,.0f} MiB", flush=True)
        for mbit_per_s, rtt_ms in itertools.product(bandwidths, RTTS_MS):
            link.shape(mbit_per_s, rtt_ms)
            time.sleep(SETTLING_S)
            answers = [client.infer([rows[at % len(rows)][None]]) for at in range(WARMING + COUNTED)][WARMING:]
            chosen = statistics.mode(each.way for each in answers)
            labels = contenders(client, rows, mbit_per_s * 125e3)
            seconds = in_turn(client, rows, chosen, labels)
            half = len(seconds["chosen"]) // 2
            picked = {label: trim_mean(each[:half], TRIMMED) for label, each in seconds.items()}
            judged = {label: trim_mean(each[half:], TRIMMED) * 1e3 for label, each in seconds.items()}
            best = min(labels, key=lambda label: picked[label])
            whole = [label for label in labels if kinds[label.removesuffix("+zstd")] != "split"]
            better = min(whole, key=lambda label: picked[label])
            results.append(
                {
                    "model": model,
                    "mbit_per_s": mbit_per_s,
                    "rtt_ms": rtt_ms,
                    "chosen": chosen,
                    "stand_ins": sum(each.is_stand_in for each in answers),
                    "chosen_ms": judged["chosen"],
                    "best": best,
                    "best_ms": judged[best],
                    "better_whole": better,
                    "better_whole_ms": judged[better],
                    "by_round_s": seconds,
                }
            )
            print(line(results[-1]), flush=True)
        client.close()
        server.kill()
        server.wait()
    return results


def line(result: dict[str, Any]) -> str:
    took = result["chosen_ms"]
    return (
        f"| {result['model']} | {result['mbit_per_s']:g} | {result['rtt_ms']:g} | {result['chosen']} | {took:.1f} "
        f"| {result['best']} | {result['best_ms']:.1f} | {took / result['best_ms'] - 1:+.1%} "
        f"| {result['better_whole']} | {result['better_whole_ms']:.1f} | {took / result['better_whole_ms'] - 1:+.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("resnet-50", "fusionnet"), required=True)
    parser.add_argument("--mbit-per-s", type=float, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.what == "prepare":
        prepare(options.folder.resolve(), options.model)
        return
    print("| model | Mbit/s | RTT ms | chosen | ms | best way | ms | over it | better whole | ms | over it |")
    results = run(options.folder.resolve(), options.model, options.mbit_per_s)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
