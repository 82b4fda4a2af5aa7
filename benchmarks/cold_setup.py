"""How long set-up takes on a machine that has nothing cached: packages, the Pulumi CLI, the Kubernetes control plane,
the bucket server of local stacks on Google Cloud.

    python benchmarks/cold_setup.py

One run, about ten minutes on two cores: a new clone of this checkout's last commit with every cache in an empty folder.
Prints each step with its seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
CACHES = {
    "HOME": "home",
    "XDG_CACHE_HOME": "home/.cache",
    "UV_CACHE_DIR": "uv",
    "PIP_CACHE_DIR": "pip",
    "GOPATH": "go",
    "GOCACHE": "go-build",
}
STEP = re.compile(r"setup: (?P<what>(installing|downloading|building) .*) \.\.\.$")


def main() -> None:
    """Clone, run both targets, print the steps."""
    with tempfile.TemporaryDirectory(prefix="fusion-cold-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        # A read-only module cache could not be removed at the end.
        caches = {name: str(Path(folder) / place) for name, place in CACHES.items()} | {"GOFLAGS": "-modcacherw"}
        Path(caches["HOME"]).mkdir()
        seconds = {
            target: run(target, clone, os.environ | caches) for target in ("setup", "control-plane", "object-storage")
        }
    print(", ".join(f"make {target} {taken:.0f} s" for target, taken in seconds.items()))


def run(target: str, clone: Path, environment: dict[str, str]) -> float:
    """Run one target, print its steps as they end, and return its seconds."""
    start = step_start = time.monotonic()
    step = ""
    command = ["make", "--no-print-directory", target]
    with subprocess.Popen(
        command, cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := STEP.match(line.rstrip()):
                step, step_start = found["what"], time.monotonic()
            elif step and (line.startswith("setup:   done") or "did not answer" in line):
                print(f"{time.monotonic() - step_start:6.0f} s  {step}", flush=True)
                step = ""
    if process.returncode:
        sys.exit(f"make {target} ended with status {process.returncode}")
    return time.monotonic() - start


if __name__ == "__main__":
    main()
