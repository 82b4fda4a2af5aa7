"""What the documents say of FusionNet on the digits, each by one command; it trains the model first.

    python -m benchmarks.digits optimize   # docs/optimize.md: 8 bits against 32, 8 epochs
    python -m benchmarks.digits migrate    # docs/migrate.md: a package for an L4, 8 epochs
    python -m benchmarks.digits xla        # docs/training.md: bf16 on XLA's CPU device, 6 epochs; makes its own Python, once

Everything is done by the commands that a user has, and what they print is printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tools.setup import CACHE, find_uv
from workloads.data.digits import write_digits

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "workloads" / "containers" / "runtime.lock"
XLA = ("torch==2.9.0", "torch_xla==2.9.0")
OPTIONS = {
    "optimize": ("--for", "c7i.2xlarge", "--quantize", "int8-static", "--accuracy-drop-max", "0.005"),
    "migrate": ("--to", "L4"),
}


def train(folder: Path, python: str | Path, **changes: Any) -> str:
    """Train as a container does; returns the run's URL."""
    url = f"file://{folder}/run"
    document = {
        "run": "digits",
        "data": {"url": f"file://{folder}/data", "cache": {"folder": str(folder / "cache")}},
        "checkpoint": {"url": f"{url}/checkpoints"},
        "outputs": {"url": url},
    }
    config = folder / "training.yaml"
    config.write_text(yaml.safe_dump(document | changes))
    command = [python, "-m", "workloads.training", "--config", config]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"PJRT_DEVICE": "CPU"} if "device" in changes else {})
    subprocess.run(command, env=environment, check=True)
    return url


def xla_python() -> Path:
    """A Python with torch_xla and, without their PyTorch, the packages of the containers."""
    folder = CACHE / "benchmarks" / "-".join(("xla", *XLA)).replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = find_uv()
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", python]
        subprocess.run([*install, *XLA], check=True)
        subprocess.run([*install, "--no-deps", "--require-hashes", "-r", LOCK], check=True)
        (folder / "ready").touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*OPTIONS, "xla"))
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(f"file://{folder}/data")
        if what == "xla":
            train(folder, xla_python(), epochs=6, device="xla", precision="bf16")
            return
        run = train(folder, sys.executable, epochs=8)
        fusion = [
            Path(sys.executable).with_name("fusion"),
            what,
            f"file://{folder}/package",
            "--run",
            run,
            *OPTIONS[what],
        ]
        subprocess.run(fusion, check=True)


if __name__ == "__main__":
    main()
