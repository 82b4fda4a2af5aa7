"""How long `make up` takes from an empty local cloud, with and without the training run at its end.

    python benchmarks/make_up.py [--repeats 3] [--json PATH]

Each round is a new clone of this checkout's last commit, so that the user's own stack is left alone: `make up` there, set-up
included, then `make up` again, then `make down`, which must leave the local cloud empty. The caches that set-up fills
(packages, the Pulumi CLI) are those of the machine: run it once before for warm ones. Each figure is the median of whole
processes; the JSON has every time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
LIMIT_S = 60.0
"""What the first `make up` may take without the training run."""
TRAINING_STARTS, TRAINING_ENDS = "Uploading the digits", "Stack local is up"
COLUMNS = {
    "set_up": "set-up",
    "up": "`pulumi up`",
    "without_training": "without the training",
    "training": "training",
    "whole": "`make up`, whole",
    "second": "`make up` again, without the training",
    "down": "`make down`",
}


def main() -> None:
    """Run the rounds, print the table, and end with status 1 when the limit is passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fusion-make-up-") as folder:
        rounds = [round_in(Path(folder) / str(number)) for number in range(asked.repeats)]
    table = Table(title=f"`make up` from an empty local cloud, seconds, median of {asked.repeats}")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    table.add_row(*(f"{median(each[name] for each in rounds):.1f}" for name in COLUMNS))
    Console().print(table)
    if asked.json:
        asked.json.write_text(json.dumps(rounds, indent=1) + "\n")
    taken = median(each["without_training"] for each in rounds)
    if taken > LIMIT_S:
        sys.exit(f"{taken:.1f} s without the training: the limit is {LIMIT_S:.0f} s")


def round_in(checkout: Path) -> dict[str, float]:
    """The times of one round, in seconds; ends the benchmark when a command fails."""
    subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
    first = timed(checkout, "up", TRAINING_STARTS, TRAINING_ENDS, "setup: ready")
    second = timed(checkout, "up", TRAINING_STARTS, TRAINING_ENDS)
    down = timed(checkout, "down", "the local cloud is empty")
    training = first[TRAINING_ENDS] - first[TRAINING_STARTS]
    return {
        "set_up": first["setup: ready"],
        "up": first[TRAINING_STARTS] - first["setup: ready"],
        "without_training": first["whole"] - training,
        "training": training,
        "whole": first["whole"],
        "second": second["whole"] - (second[TRAINING_ENDS] - second[TRAINING_STARTS]),
        "down": down["whole"],
    }


def timed(checkout: Path, target: str, *marks: str) -> dict[str, float]:
    """When, in seconds after its start, `make` printed each mark, and when it ended (`whole`)."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "FUSION_", "AWS_"))}
    start, seen, printed = time.monotonic(), dict.fromkeys(marks, -1.0), []
    with subprocess.Popen(
        ["make", target], cwd=checkout, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            for mark in (each for each in marks if each in line):
                seen[mark] = time.monotonic() - start
    seen["whole"] = time.monotonic() - start
    if process.returncode or min(seen.values()) < 0:
        sys.exit(
            f"`make {target}` ended with status {process.returncode}, or did not say one of {marks}:\n"
            + "".join(printed)
        )
    return seen


if __name__ == "__main__":
    main()
