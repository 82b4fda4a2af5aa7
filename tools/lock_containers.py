"""Writes the containers' locks, for tools/lock.sh: what the extras `train`, `privacy`, `serve`, and torchao need.

`runtime.lock` holds everything but PyTorch and what PyTorch brings for GPUs, which is another in each container;
`torch-cuda.lock` holds those. Versions are those of requirements.lock.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "workloads" / "containers"
OF_BASE = ("boto3", "click", "numpy", "pydantic", "pyyaml")
"""Of the project's own dependencies, those that workloads/ imports; the others are for planning and provisioning."""
OF_GPUS = re.compile(r"(torch|triton|cuda-.*|nvidia-.*)==")


def main() -> None:
    """Compile once, and cut the result in two."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [each for each in project["dependencies"] if re.split(r"[^\w-]", each)[0] in OF_BASE]
    wanted += [*extras["train"], *extras["privacy"], *extras["serve"], "gcsfs"]
    wanted += [each for each in extras["optimize"] if each.startswith("torchao")]
    command = (
        *("uv", "pip", "compile", "-", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"),
        *("--no-emit-index-url", "--no-annotate", "--quiet", "--constraint", "requirements.lock"),
    )
    done = subprocess.run(command, input="\n".join(wanted), text=True, capture_output=True, check=True, cwd=ROOT)
    entries = re.split(r"\n(?=\S)", done.stdout.strip())
    for name, is_of_gpus in (("runtime.lock", False), ("torch-cuda.lock", True)):
        kept = [each for each in entries if bool(OF_GPUS.match(each)) == is_of_gpus]
        (FOLDER / name).write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main()
