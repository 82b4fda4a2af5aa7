"""Each Containerfile keeps the rules, installs what the workloads import, and runs what the stacks' pods run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from infra.kubernetes.pods import SCRATCH_PATH, USER_ID
from infra.kubernetes.training_job import CONFIG_FILE, CONFIG_PATH
from planner.workloads import InferenceService
from tools import setup

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workloads" / "containers"
FILES = sorted(FOLDER.glob("Containerfile.*"))
OF_TORCH = re.compile(r"(torch|torchgen|functorch|triton|nvidia|cuda)([-_.].*)?|torch-.*\.dist-info")
ALLOWED = "DL3008,DL3059"
"""Debian's versions (its archive keeps only the newest; the base image's digest fixes the rest); lines of their own."""


def stages(file: Path) -> dict[str, list[tuple[str, str]]]:
    """Each stage's instructions, with those of the stage that it starts from before them."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = list(found.get(base, []))
        found[name].append((word, rest))
    return found


def last(instructions: list[tuple[str, str]], word: str) -> str:
    return [rest for each, rest in instructions if each == word][-1]


def test_there_is_one_for_each_kind_of_chip() -> None:
    assert [file.suffix for file in FILES] == [".cpu", ".cuda", ".neuron", ".tpu"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_hadolint_finds_nothing(file: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, *(f"--ignore={rule}" for rule in ALLOWED.split(",")), file], capture_output=True, text=True)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_it_is_pinned_installs_by_hash_and_fetches_nothing_else(file: Path) -> None:
    made = stages(file)
    bases = {line.split()[1] for line in file.read_text().splitlines() if line.startswith("FROM ")} - set(made)
    assert bases
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", base) for base in bases)
    for word, rest in (each for instructions in made.values() for each in instructions):
        assert word != "ADD", "COPY takes files of the checkout, and nothing else is fetched"
        assert "pip install" not in rest or rest.count("pip install") == rest.count("--require-hashes")
        assert "apt-get install" not in rest or ("--no-install-recommends" in rest and "/var/lib/apt/lists" in rest)
        assert not re.search(r"\b(curl|wget)\b|://", rest)
        assert "|" not in rest.replace("||", ""), "a pipe hides the status of its first command"
        for path in re.findall(r"(?:workloads|tools)/[\w./-]+", rest) if word == "COPY" else ():
            assert (ROOT / path).exists(), path


def test_the_build_is_given_what_is_copied_and_nothing_else_of_a_checkout() -> None:
    """No credentials, no state, no package of this machine: whatever else lies beside them."""
    ignored, *listed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert (ignored, listed[-1]) == ("*", "**/__pycache__")
    given = [line.removeprefix("!") for line in listed[:-1]]
    copied = {
        path
        for file in FILES
        for word, rest in chain.from_iterable(stages(file).values())
        if word == "COPY" and "--from" not in rest
        for path in rest.split()[:-1]
    }
    assert all(any(path == each or path.startswith(f"{each}/") for each in given) for path in copied), copied
    assert all(any(path == each or path.startswith(f"{each}/") for path in copied) for each in given), given


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
@pytest.mark.parametrize("target", ["training", "serving"])
def test_it_runs_as_the_pods_user_what_the_pods_run(target: str, file: Path) -> None:
    instructions = stages(file)[target]
    assert last(instructions, "USER") == f"{USER_ID}:{USER_ID}"
    assert f"HOME={SCRATCH_PATH} " in last(instructions, "ENV") + " "
    runs = json.loads(last(instructions, "ENTRYPOINT")) + json.loads(last(instructions, "CMD"))
    if target == "serving":
        assert tuple(runs) == InferenceService.model_fields["command"].default
    else:
        assert runs == [*training_command(), "--config", f"{CONFIG_PATH}/{CONFIG_FILE}"]
    assert stages(file)[target] is not stages(file)["runtime"]


def training_command() -> list[str]:
    """What `make up` runs: the command that the program gives each training job."""
    source = (ROOT / "infra" / "assembly.py").read_text()
    found = re.search(r'command=\(("python".*?)\),\n\s*args=\(("--config", "[^"]+")\)', source)
    assert found is not None
    assert json.loads(f"[{found[2]}]") == ["--config", f"{CONFIG_PATH}/{CONFIG_FILE}"]
    command: list[str] = json.loads(f"[{found[1]}]")
    return command


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python with what `runtime.lock` says and nothing else; this checkout's PyTorch stands in for the CPU's."""
    home = tmp_path_factory.mktemp("container") / "fusion"
    uv = setup.find_uv()
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", home / "bin" / "python", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--requirement", FOLDER / "runtime.lock"], check=True)
    packages = home / "lib" / "python3.11" / "site-packages"
    for each in next(Path(sys.prefix).glob("lib/python3.*/site-packages")).iterdir():
        if OF_TORCH.fullmatch(each.name):
            (packages / each.name).symlink_to(each)
    yield home / "bin" / "python"


ENTRY_POINTS = ("workloads.training.run", "workloads.serving.server", "workloads.serving.backends")


def test_the_entry_points_find_every_package_that_they_import(clean: Path) -> None:
    modules = (*ENTRY_POINTS, "onnxruntime", "openvino", "torchao", "gcsfs", "s3fs", "sklearn.metrics", "tensorboard")
    done = subprocess.run(
        [clean, "-c", f"import importlib; [importlib.import_module(each) for each in {modules}]"],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for module in ("pulumi", "moto"):
        assert subprocess.run([clean, "-c", f"import {module}"], capture_output=True).returncode != 0


@pytest.mark.parametrize("entry", ["workloads.training", "workloads.serving"])
def test_the_entry_points_say_in_one_sentence_what_is_wrong(entry: str, clean: Path) -> None:
    done = subprocess.run(
        [clean, "-m", entry, "--config", f"{CONFIG_PATH}/{CONFIG_FILE}"],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/tmp"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"{CONFIG_PATH}/{CONFIG_FILE}: can't be read \(.*\n", done.stderr), done.stderr
