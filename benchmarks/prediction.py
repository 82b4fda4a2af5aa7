"""Errors of the predictions on measured rows that were left out of the fit: `python -m benchmarks.prediction [--json
FILE]`.

Matrix products: one chip is left out at a time. Language models: one model is left out at a time. Prints errors by
what was left out, those of the shipped (refitted) parameters beside them, the share of left-out rows inside the
interval, and the worst rows. `coverage` of a left-out chip or model is that of the interval made of the other ones that
were left out; `shipped` is that of the interval that predictions show. Needs scipy; takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.calibration import fit
from planner.calibration.store import Ratios, builtin
from planner.performance.gemm import GemmParameters

Row = dict[str, Any]


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


def gemm_errors(rows: Sequence[fit.GemmRow]) -> tuple[list[Row], list[Row], list[Row]]:
    tables, worst, covered = [], [], []
    for precision in fit.PRECISIONS.values():
        quantity = f"matrix product {precision}"
        same = [row for row in rows if row.precision == precision]
        foreign = {
            generation: fit.fit_shared([row for row in same if row.chip.generation != generation])
            for generation in fit.generations(same)
        }
        chips = {row.chip.name: row.chip.generation for row in same}
        splits: Mapping[str, Callable[[str], GemmParameters]] = {
            "chip left out": lambda name, same=same: fit.left_out_gemm(same, name),
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


def decoder_errors(rows: Sequence[fit.DecoderRow]) -> tuple[list[Row], list[Row], list[Row]]:
    tables, worst, covered = [], [], []
    quantities: dict[str, tuple[Callable[[Any], float], Callable[[fit.DecoderRow], float]]] = {
        "time by output token": (lambda timing: timing.time_per_output_token_s, lambda row: row.output_token_s),
        "time to first token": (lambda timing: timing.time_to_first_token_s, lambda row: row.first_token_s),
    }
    everything = fit.fit_decoder(rows)
    pooled: dict[tuple[str, str], dict[str, list[float]]] = {}
    keys: dict[str, Callable[[fit.DecoderRow], str]] = {
        "model left out": lambda row: row.config.name,
        "chip left out": lambda row: row.chip.name,
        "shipped (seen)": lambda row: row.config.name,
    }
    for split, key in keys.items():
        for name in sorted({key(row) for row in rows}):
            own = [row for row in rows if key(row) == name]
            seen = split.startswith("shipped")
            parameters = everything if seen else fit.fit_decoder([row for row in rows if key(row) != name])
            timings = [fit.predicted_decoder(row, parameters) for row in own]
            for quantity, (predicted, measured) in quantities.items():
                errors = [predicted(timing) / measured(row) - 1 for timing, row in zip(timings, own, strict=True)]
                tables.append(summary(quantity, split, name, errors))
                pooled.setdefault((quantity, split), {})[name] = errors
                if split == "model left out":
                    worst += [
                        {
                            "quantity": quantity,
                            "what": f"{row.config.name} {row.engine} {row.precision} tp={row.tensor_parallel} "
                            f"in={row.traffic.input_tokens} out={row.traffic.output_tokens} "
                            f"c={row.traffic.concurrency}",
                            "measured_ms": measured(row) * 1e3,
                            "error": error,
                        }
                        for row, error in zip(own, errors, strict=True)
                    ]
    shown = builtin().decoders
    assert shown is not None
    intervals = {"time by output token": shown.output_token_ratio, "time to first token": shown.first_token_ratio}
    for (quantity, split), groups in pooled.items():
        tables.append(summary(quantity, split, "all", [error for own in groups.values() for error in own]))
        if split == "model left out":
            covered += coverage(quantity, split, groups, intervals[quantity])
    return tables, worst, covered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    known = fit.chips()
    gemms, worst_gemms, covered_gemms = gemm_errors(fit.gemm_rows(known))
    decoders, worst_decoders, covered_decoders = decoder_errors(fit.decoder_rows(known))
    print(f"{'quantity':22} {'split':15} {'what':14} {'rows':>5} {'median':>7} {'p90':>7} {'bias':>7}")
    for row in (*gemms, *decoders):
        print(
            f"{row['quantity']:22} {row['split']:15} {row['what']:14} {row['rows']:5d} {row['median_error']:7.1%} "
            f"{row['p90_error']:7.1%} {row['bias']:+7.1%}"
        )
    covered = [*covered_gemms, *covered_decoders]
    print("\nshare of left-out rows inside the nine-of-ten interval: of the others left out, and the one that is shown")
    for row in covered:
        print(
            f"{row['quantity']:22} {row['split']:15} {row['what']:14} {row['coverage']:7.1%} "
            f"{row['coverage_shown']:7.1%}  x{row['low']:.2f} to x{row['high']:.2f}"
        )
    worst = [
        row for rows in (worst_gemms, worst_decoders) for row in sorted(rows, key=lambda row: -abs(row["error"]))[:8]
    ]
    print("\nworst rows that were left out")
    for row in worst:
        print(f"{row['quantity']:22} {row['what']:60} {row['measured_ms']:10.3f} ms {row['error']:+8.0%}")
    if options.json:
        options.json.write_text(
            json.dumps({"errors": [*gemms, *decoders], "coverage": covered, "worst": worst}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
