"""Errors of the predictions on measured rows that were left out of the fit: `python -m benchmarks.prediction [--part
PART] [--json FILE]`.

Matrix products: one chip, or one generation of chips, is left out at a time. Language models: one model or one chip is
left out at a time; a chip that is left out has none of its matrix products either. Prints, as Markdown, errors (median
/ 90th percentile in %) by what was left out, those of the shipped constants beside them ("seen"), those of rows that
were never fitted, how far measurements of the same point lie apart, the share of left-out rows inside the interval (of
the other ones that were left out, and of the one that predictions show), and the worst rows. Needs scipy; takes about
a quarter of an hour.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.calibration import fit
from planner.calibration.store import NEARLY_FULL as FULL_FROM
from planner.calibration.store import DecoderFit, Ratios, builtin
from planner.catalog import load
from planner.performance import DoesNotFit, TrainingRun, predict_training
from planner.performance.chip import Chip
from planner.performance.collectives import all_reduce_s, inside_link
from planner.performance.gemm import GemmParameters
from planner.performance.language_model import DecoderParameters, DecoderTiming
from planner.performance.roofline import forward_time
from planner.profiles.model import profile

Row = dict[str, Any]
Found = tuple[list[Row], list[Row], list[Row]]
"""Errors, the rows that they are of, and coverage of the intervals."""


def summary(quantity: str, split: str, what: str, errors: Sequence[float]) -> Row:
    ordered = sorted(abs(error) for error in errors)
    return {
        "quantity": quantity,
        "split": split,
        "what": what,
        "rows": len(ordered),
        "median_error": statistics.median(ordered),
        "p90_error": ordered[int(0.9 * (len(ordered) - 1))],
        "bias": statistics.median(errors),
    }


def inside(interval: Ratios, errors: Sequence[float]) -> float:
    """Share of the errors (predicted ÷ measured - 1) whose measured ÷ predicted the interval holds."""
    return sum(interval.low <= 1 / (1 + error) <= interval.high for error in errors) / len(errors)


def coverage(quantity: str, split: str, left_out: Mapping[str, Sequence[float]], shown: Ratios) -> list[Row]:
    """By what was left out: the share inside the interval of the others, and inside the one that is shown."""
    measured = {name: [1 / (1 + error) for error in errors] for name, errors in left_out.items()}
    return [
        {
            "quantity": quantity,
            "split": split,
            "what": name,
            "coverage": inside(fit.envelope([own for other, own in measured.items() if other != name]), errors),
            "coverage_shown": inside(shown, errors),
            "low": shown.low,
            "high": shown.high,
        }
        for name, errors in left_out.items()
    ]


def gemm_errors(rows: Sequence[fit.GemmRow], left_out: fit.ChipProducts) -> Found:
    tables, worst, covered = [], [], []
    for precision in fit.PRECISIONS.values():
        quantity = f"matrix product {precision}"
        same = [row for row in rows if row.precision == precision]
        fitted = {generation: fit.fit_gemm(own) for generation, own in fit.generations(same).items()}
        foreign = {
            generation: fit.shared([own for other, own in fitted.items() if other != generation])
            for generation in fitted
        }
        chips = {row.chip.name: row.chip.generation for row in same}
        splits: Mapping[str, Callable[[str], GemmParameters]] = {
            "chip left out": lambda name, precision=precision: left_out[name][precision],
            "generation left out": lambda name, chips=chips, foreign=foreign: foreign[chips[name]],
            "shipped (seen)": lambda name, precision=precision: builtin().gemm(name, precision).parameters,
        }
        shown = builtin().gemms[precision]
        assert shown.sibling_ratio is not None
        intervals = {"chip left out": shown.sibling_ratio, "generation left out": shown.transferred_ratio}
        for split, parameters_of in splits.items():
            pooled: dict[str, list[float]] = {}
            for name in sorted(chips):
                own = [row for row in same if row.chip.name == name]
                parameters = parameters_of(name)
                pooled[name] = [fit.predicted_gemm(row, parameters) / row.seconds - 1 for row in own]
                tables.append(summary(quantity, split, name, pooled[name]))
                if split == "chip left out":
                    worst += [
                        {
                            "quantity": quantity,
                            "what": f"{name} m={row.m} n={row.n} k={row.k}",
                            "measured_ms": row.seconds * 1e3,
                            "error": error,
                        }
                        for row, error in zip(own, pooled[name], strict=True)
                    ]
            tables.append(summary(quantity, split, "all", [error for own in pooled.values() for error in own]))
            if split in intervals:
                alone = [name for name in chips if list(chips.values()).count(chips[name]) == 1]
                groups = {n: e for n, e in pooled.items() if split != "chip left out" or n not in alone}
                if split == "generation left out":
                    groups = {
                        g: [error for name, own in pooled.items() if chips[name] == g for error in own]
                        for g in dict.fromkeys(chips.values())
                    }
                covered += coverage(quantity, split, groups, intervals[split])
    return tables, worst, covered


QUANTITIES: Mapping[str, tuple[Callable[[Any], float], Callable[[fit.DecoderRow], float]]] = {
    "time by output token": (lambda timing: timing.time_per_output_token_s, lambda row: row.output_token_s),
    "time to first token": (lambda timing: timing.time_to_first_token_s, lambda row: row.first_token_s),
}


def source(row: fit.DecoderRow) -> str:
    return f"{row.config.name} {row.engine} {row.client.replace(', ', '/')}"


def predictable(
    rows: Sequence[fit.DecoderRow], parameters: fit.DecoderFits, products: fit.ChipProducts
) -> tuple[list[fit.DecoderRow], list[DecoderTiming]]:
    """Rows with their timings, but those that the model says don't fit into the memory: of unknown sources only."""
    found = []
    for row in rows:
        try:
            found.append((row, fit.predicted_decoder(row, parameters, products)))
        except DoesNotFit:
            if row.client != fit.UNKNOWN_CLIENT:
                raise
            print(f"said not to fit, though it was measured: {source(row)} tp={row.tensor_parallel}", file=sys.stderr)
    return [row for row, _ in found], [timing for _, timing in found]


def decoder_errors(rows: Sequence[fit.DecoderRow], left_out: fit.ChipProducts) -> Found:
    tables, worst, covered = [], [], []
    known = [row for row in rows if row.client != fit.UNKNOWN_CLIENT]
    decoders = builtin().decoders
    assert decoders is not None
    shipped: fit.DecoderFits = {engine: DecoderParameters(**own) for engine, own in decoders.engines.items()}
    products = fit.chip_products(builtin().gemms, {row.chip.name: row.chip for row in rows})
    pooled: dict[tuple[str, str], dict[str, list[float]]] = {}
    kinds: dict[tuple[str, str], list[str]] = {}
    splits: Mapping[str, tuple[Callable[[fit.DecoderRow], str], Sequence[fit.DecoderRow]]] = {
        "model left out": (lambda row: row.config.name, known),
        "chip left out": (lambda row: row.chip.name, known),
        "shipped (seen)": (source, known),
        "never fitted": (source, [row for row in rows if row.client == fit.UNKNOWN_CLIENT]),
    }
    for split, (key, judged) in splits.items():
        for name in sorted({key(row) for row in judged}):
            own = [row for row in judged if key(row) == name]
            used = {**products, name: left_out[name]} if split == "chip left out" else products
            parameters: fit.DecoderFits = shipped
            if split.endswith("left out"):
                parameters = fit.fit_decoder([row for row in known if key(row) != name], products)
            own, timings = predictable(own, parameters, used)
            if not own:
                continue
            kinds[split, name] = [kind(row, timing) for row, timing in zip(own, timings, strict=True)]
            for quantity, (predicted, measured) in QUANTITIES.items():
                errors = [predicted(timing) / measured(row) - 1 for timing, row in zip(timings, own, strict=True)]
                tables.append(summary(quantity, split, name, errors))
                pooled.setdefault((quantity, split), {})[name] = errors
                if split == "model left out":
                    worst += [
                        {
                            "quantity": quantity,
                            "what": f"{source(row)} {row.chip.name} {row.precision} tp={row.tensor_parallel} "
                            f"in={row.traffic.input_tokens} out={row.traffic.output_tokens} "
                            f"c={row.traffic.concurrency}",
                            "measured_ms": measured(row) * 1e3,
                            "error": error,
                        }
                        for row, error in zip(own, errors, strict=True)
                    ]
    for (quantity, split), groups in pooled.items():
        tables.append(summary(quantity, split, "all", [error for own in groups.values() for error in own]))
        if split.endswith("left out"):
            covered += serving_coverage(
                quantity, split, {n: [*zip(kinds[split, n], e, strict=True)] for n, e in groups.items()}, decoders
            )
    return tables, worst, covered


NEARLY_FULL = "nearly full"


def kind(row: fit.DecoderRow, timing: DecoderTiming) -> str:
    """What its interval is of: rows whose cache is nearly full, otherwise those of its engine."""
    full = timing.running >= FULL_FROM * timing.most_sequences
    return NEARLY_FULL if full else row.engine


def serving_coverage(
    quantity: str, split: str, left_out: Mapping[str, Sequence[tuple[str, float]]], decoders: DecoderFit
) -> list[Row]:
    """As `coverage`, where each row's interval is that of its kind; of a kind that no other group has, the one shown."""
    field = "output_token" if quantity == "time by output token" else "first_token"
    shown = {kind: getattr(ratios, field) for kind, ratios in decoders.ratios.items()}
    shown[NEARLY_FULL] = getattr(decoders.nearly_full_ratios, field)
    result = []
    for name, own in left_out.items():
        inside_others, inside_shown = 0.0, 0.0
        for each in sorted({kind for kind, _ in own}):
            errors = [error for kind, error in own if kind == each]
            others = [
                [1 / (1 + error) for kind, error in rows if kind == each]
                for other, rows in left_out.items()
                if other != name
            ]
            some = [rows for rows in others if len(rows) > 1]
            inside_others += len(errors) * inside(fit.envelope(some) if some else shown[each], errors)
            inside_shown += len(errors) * inside(shown[each], errors)
        result.append(
            {
                "quantity": quantity,
                "split": split,
                "what": name,
                "coverage": inside_others / len(own),
                "coverage_shown": inside_shown / len(own),
            }
        )
    return result


def repeated_errors(rows: Sequence[fit.DecoderRow]) -> Found:
    """How far a point that was measured more than once lies from the geometric mean of its other measurements, under
    the same version of the engine and under any: nothing that knows no version can come nearer than the latter."""
    tables: list[Row] = []
    for what in ("same version", "any version"):
        points: dict[fit.DecoderRow, list[fit.DecoderRow]] = {}
        for row in rows:
            version = row.version if what == "same version" else ""
            point = dataclasses.replace(row, version=version, first_token_s=0.0, output_token_s=0.0)
            points.setdefault(point, []).append(row)
        again = [own for own in points.values() if len(own) > 1]
        for quantity, (_, measured) in QUANTITIES.items():
            errors = []
            for own in again:
                times = [measured(row) for row in own]
                whole = math.fsum(math.log(time) for time in times)
                errors += [math.exp((whole - math.log(time)) / (len(times) - 1)) / time - 1 for time in times]
            tables.append(summary(quantity, "measured again", what, errors))
    return tables, [], []


def all_reduce_errors(chips: Mapping[str, Chip]) -> Found:
    """NCCL's all-reduce in a node; four constants for all chips, set by hand with these rows in sight."""
    errors: dict[str, list[float]] = {}
    with (fit.DATA / "all_reduce_measured.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            chip, devices = chips[row["system"]], int(row["devices"])
            predicted = all_reduce_s(float(row["bytes"]), devices, inside_link(chip, devices))
            errors.setdefault(chip.name, []).append(predicted / (float(row["latency_ms"]) / 1e3) - 1)
    tables = [summary("all-reduce", "seen", name, own) for name, own in errors.items()]
    return [*tables, summary("all-reduce", "seen", "all", [error for own in errors.values() for error in own])], [], []


def published_errors() -> Found:
    """Whole models on chips without a row of their own, as published; nothing was fitted to them.

    Errors are of the time of a batch. Eager frameworks launch their kernels from Python, which the built-in calibration
    leaves out: their small batches take longer than predicted; TensorRT fuses layers, and takes less.
    """
    accelerators, errors = load().accelerators, dict[tuple[str, str], list[float]]()
    with (fit.DATA / "published_throughput.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            chip, model = Chip.from_accelerator(accelerators[row["accelerator"]]), profile(row["model"])
            batch, precision = int(row["batch"]), row["precision"]
            if row["task"] == "training":
                run = TrainingRun(model, 10**6, 1, batch, precision, optimizer="momentum")
                predicted = predict_training(chip, run, builtin()).samples_per_s.value
            else:
                predicted = batch / forward_time(chip, model, precision, batch, builtin()).total_s
            size = "batch of 32 and more" if batch >= 32 else "batch below 32"
            what = f"{row['accelerator']} {precision} {row['software']}, {size}"
            errors.setdefault((f"{row['model']} {row['task']}", what), []).append(
                float(row["samples_per_s"]) / predicted - 1
            )
    return [summary(quantity, "never fitted", what, own) for (quantity, what), own in errors.items()], [], []


def tables(errors: Sequence[Row], covered: Sequence[Row], worst: Sequence[Row]) -> list[str]:
    """What `docs/performance-model.md` shows, as Markdown; a table without rows is empty."""
    products = [row for row in errors if row["quantity"].startswith("matrix product")]
    serving = [row for row in errors if row["quantity"] in QUANTITIES]
    others = [row for row in errors if row not in products and row not in serving]
    return [
        pivot(products, ("quantity", "what"), "split"),
        pivot(serving, ("split", "what"), "quantity"),
        markdown(
            ("quantity", "what", "rows", "median / p90", "bias"),
            [(r["quantity"], r["what"], r["rows"], both(r), f"{100 * r['bias']:+.0f}") for r in others],
        ),
        markdown(
            ("quantity", "left out", "in the interval of the others", "in the one shown"),
            [
                (
                    r["quantity"],
                    f"{r['what']} ({r['split'].split()[0]})",
                    f"{r['coverage']:.0%}",
                    f"{r['coverage_shown']:.0%}" + (f" (×{r['low']:.2f} to ×{r['high']:.2f})" if "low" in r else ""),
                )
                for r in covered
            ],
        ),
        markdown(
            ("quantity", "row", "measured", "error"),
            [(r["quantity"], r["what"], f"{r['measured_ms']:.3g} ms", f"{r['error']:+.0%}") for r in worst],
        ),
    ]


def both(row: Row) -> str:
    """Median and 90th percentile in per cent."""
    return f"{100 * row['median_error']:.1f} / {100 * row['p90_error']:.1f}"


def pivot(rows: Sequence[Row], keys: tuple[str, str], across: str) -> str:
    """A row for each pair of keys, a column of errors for each value of `across`; the last of a group is bold."""
    columns = list(dict.fromkeys(row[across] for row in rows))
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for key in sorted({row[keys[0]] for row in rows}, key=[row[keys[0]] for row in rows].index):
        for row in sorted((r for r in rows if r[keys[0]] == key), key=lambda r: r["what"] == "all"):
            found.setdefault((key, row[keys[1]]), {})[row[across]] = row
    return markdown(
        (*keys, "rows", *columns),
        [
            (
                first,
                f"**{second}**" if second == "all" else second,
                next(iter(cells.values()))["rows"],
                *(both(cells[column]) if column in cells else "" for column in columns),
            )
            for (first, second), cells in found.items()
        ],
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table, or nothing where there are no rows."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) if rows else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("products", "serving", "others"), help="one part only; default all")
    options = parser.parse_args()
    known = fit.chips()
    gemms = fit.gemm_rows(known)
    found: list[Found] = []
    if options.part in (None, "products"):
        found.append(gemm_errors(gemms, fit.left_out_products(gemms, {row.chip.name for row in gemms})))
    if options.part in (None, "serving"):
        rows = fit.decoder_rows(known)
        served = {row.chip.name for row in rows if row.client != fit.UNKNOWN_CLIENT}
        found.append(decoder_errors(rows, fit.left_out_products(gemms, served)))
        found.append(repeated_errors([row for row in rows if row.client != fit.UNKNOWN_CLIENT]))
    if options.part in (None, "others"):
        found += [all_reduce_errors(known), published_errors()]
    errors = [row for tables, _, _ in found for row in tables]
    covered = [row for _, _, own in found for row in own]
    worst = [row for _, own, _ in found for row in sorted(own, key=lambda row: -abs(row["error"]))[:8]]
    print("\n\n".join(table for table in tables(errors, covered, worst) if table))
    if options.json:
        options.json.write_text(json.dumps({"errors": errors, "coverage": covered, "worst": worst}, indent=1) + "\n")


if __name__ == "__main__":
    main()
