"""FusionNet served on this machine's CPU, predicted and measured: `python -m benchmarks.cpu_serving [--json FILE]`.

Calibrates the machine, predicts FusionNet's batch latency and the p99 and throughput of a server at 30, 60 and 80 % of
capacity, then runs that server: one replica that takes what waits, up to the largest batch, as the queueing model has
it. Calibration and measurement take turns, and the middle one of the rounds counts; where rounds disagree by more than
`NOISE`, other work disturbed them and there is no verdict. Needs torch; takes about three minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from planner.calibration.measure import measure
from planner.calibration.store import Calibration
from planner.performance import Chip, InferenceLoad, predict_inference
from planner.performance.roofline import forward_time
from planner.profiles.model import profile
from workloads.models.fusionnet import FusionNet

Row = dict[str, Any]
PROFILE = profile("fusionnet-32")
BATCHES = (1, 2, 4, 8, 16, 32)
BATCH_MAX = 16
SHARES = (0.3, 0.6, 0.8)
NOISE = 0.2
WITHIN = 0.2


def seconds_of(model: torch.nn.Module, images: torch.Tensor, repeats: int) -> float:
    """Median of one pass."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        model(images)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def serve(model: torch.nn.Module, images: torch.Tensor, rate: float, seconds: float, seed: int) -> list[float]:
    """Responses (s) to a Poisson stream: a free server takes what has arrived, up to `BATCH_MAX`."""
    draw = random.Random(seed).expovariate
    arrivals, responses, at = [draw(rate)], [], 0
    while arrivals[-1] < seconds:
        arrivals.append(arrivals[-1] + draw(rate))
    began = time.perf_counter()
    while at < len(arrivals):
        now = time.perf_counter() - began
        if now < arrivals[at]:
            continue  # spins: sleeping would add the timer's slack to every response
        end = at + 1
        while end < len(arrivals) and end - at < BATCH_MAX and arrivals[end] <= now:
            end += 1
        model(torch.stack([images[index % len(images)] for index in range(at, end)])).argmax(1).tolist()
        done = time.perf_counter() - began
        responses += [done - arrived for arrived in arrivals[at:end]]
        at = end
    return responses[len(responses) // 20 :]


def overheads(images: torch.Tensor) -> tuple[float, float]:
    """Seconds that the server itself takes by batch and by request: gathering inputs, reading answers."""

    def of(batch: int) -> float:
        logits, times = torch.randn(batch, 10), []
        for _ in range(200):
            began = time.perf_counter()
            torch.stack([images[index] for index in range(batch)])
            logits.argmax(1).tolist()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    one, many = of(1), of(BATCH_MAX)
    each = max(0.0, (many - one) / (BATCH_MAX - 1))
    return max(0.0, one - each), each


def load(rate: float, by_batch: float, by_request: float) -> InferenceLoad:
    return InferenceLoad(
        PROFILE,
        requests_per_s=rate,
        precision="fp32",
        batch_max=BATCH_MAX,
        overhead_s_per_batch=by_batch,
        overhead_s_per_request=by_request,
    )


def one_round(model: torch.nn.Module, images: torch.Tensor, seed: int, seconds: float) -> list[Row]:
    """Calibrate, then predict and measure every quantity."""
    calibration: Calibration = measure("cpu", "this-machine", ("fp32",))
    assert calibration.machine is not None
    chip: Chip = calibration.machine.chip()
    rows = []
    for batch in BATCHES:
        predicted = forward_time(chip, PROFILE, "fp32", batch, calibration).total_s
        rows.append(pair(f"latency of a batch of {batch}", predicted, seconds_of(model, images[:batch], 100)))
    by_batch, by_request = overheads(images)
    capacity = predict_inference(chip, load(1.0, by_batch, by_request), calibration).capacity_per_s.value
    busy = serve(model, images, 1e9, BATCH_MAX * 200 / 1e9, seed)  # everything has arrived at once
    reached = (len(busy) * 20 / 19) / max(busy)
    rows.append(pair("throughput (1/s)", capacity, reached))
    for share in SHARES:
        rate = share * reached
        predicted = predict_inference(chip, load(rate, by_batch, by_request), calibration).p99_s.value
        responses = sorted(serve(model, images, rate, seconds, seed))
        rows.append(pair(f"p99 at {share:.0%} of capacity", predicted, responses[int(0.99 * len(responses))]))
    return rows


def pair(what: str, predicted: float, measured: float) -> Row:
    return {"what": what, "predicted": predicted, "measured": measured}


def verdict(what: str, rounds: Sequence[Row]) -> Row:
    """The middle round by error, and how far the rounds are apart."""
    errors = sorted(math.log(row["predicted"] / row["measured"]) for row in rounds)
    measured = [row["measured"] for row in rounds]
    error = math.exp(statistics.median(errors)) - 1
    noise = statistics.quantiles(measured, n=4)[2] / statistics.quantiles(measured, n=4)[0] - 1
    return {
        "what": what,
        "predicted": statistics.median(row["predicted"] for row in rounds),
        "measured": statistics.median(measured),
        "error": error,
        "noise": noise,
        "verdict": "too noisy" if noise > NOISE else "within" if abs(error) <= WITHIN else "beyond",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of serving, for each load and round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = FusionNet(shape=(3, 32, 32), classes=10).eval()
    images = torch.randn(64, 3, 32, 32)
    with torch.inference_mode():
        seconds_of(model, images[:32], 50)
        rounds = [one_round(model, images, seed, options.seconds) for seed in range(options.rounds)]
    rows = [verdict(same[0]["what"], same) for same in zip(*rounds, strict=True)]
    print(f"{'what':26} {'predicted':>11} {'measured':>11} {'error':>7} {'noise':>6}  within {WITHIN:.0%}?")
    for row in rows:
        print(
            f"{row['what']:26} {row['predicted']:11.5g} {row['measured']:11.5g} {row['error']:+7.1%} "
            f"{row['noise']:6.0%}  {row['verdict']}"
        )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "rounds": rounds}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
