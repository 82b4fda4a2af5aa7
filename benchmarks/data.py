"""Samples a second from one S3 endpoint, cold and cached, against MosaicML streaming, litdata, webdataset and s3torchconnector.

    python -m benchmarks.data [--kind images|tokens] [--samples 3000] [--rounds 3] [--folder FOLDER]

With a folder the samples, and what the server holds, are made once and kept there (`--rounds 0` makes them alone). A reader
at a time, which takes less than three minutes, and the table of all that the file holds:

    python -m benchmarks.data --folder FOLDER --rounds 1 --json images.json --only mosaicml

The server is versitygw (Apache-2.0, built here from its Go module) over a folder of this machine. Every reader gets the
same samples in shards of the same size, the same decoding, as many threads or processes as there are processors, and
runs in a process of its own; the readers take turns. Each reads two epochs: the first with an empty cache, the second
with what the first left; each must see every sample exactly once, or the benchmark fails. s3torchconnector has no cache.
A reader's processor time, its workers' included, says on a busy machine what its samples a second can't.

Images are 256 × 256 JPEGs, decoded to 224 × 224; tokens are 2,048 numbers a sample, compressed with zstd where the
format can.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.data_measure import BATCH, BUCKET, SHARD_MIB, SIDE, measure
from benchmarks.slices import added, rounds_of
from tools.setup import CACHE, find_uv
from workloads.data.cache import ShardCache
from workloads.data.format import Index, write_index, write_split
from workloads.data.loader import Dataset, Loader

HERE = Path(__file__).parent
GATEWAY = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
READERS = ("fusion", "mosaicml", "litdata", "webdataset", "s3torchconnector")
SAMPLES = {"images": 3_000, "tokens": 8_000}
TOKENS = 2_048
PORT = 7071
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark-secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
    "S3_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
    "AWS_ALLOW_HTTP": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
CREDENTIALS: dict[str, Any] = {
    "aws_access_key_id": SETTINGS["AWS_ACCESS_KEY_ID"],
    "aws_secret_access_key": SETTINGS["AWS_SECRET_ACCESS_KEY"],
    "region_name": SETTINGS["AWS_REGION"],
}


def environment() -> Path:
    """The Python of an environment that holds the peers; made once a user."""
    wanted = HERE / "data_peers.txt"
    folder = CACHE / "benchmarks" / f"data-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    if not (folder / "ready").exists():
        subprocess.run([find_uv(), "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install = [find_uv(), "pip", "install", "--quiet", "--python", folder / "bin" / "python", "-r", wanted]
        subprocess.run(install, check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """versitygw over a folder, one folder in it a bucket."""
    folder.mkdir(parents=True, exist_ok=True)
    home = CACHE / "benchmarks" / "versitygw"
    if not (home / "versitygw").exists():
        subprocess.run(
            ["go", "install", GATEWAY], env=os.environ | {"GOBIN": str(home), "CGO_ENABLED": "0"}, check=True
        )
    secrets = {"ROOT_ACCESS_KEY": SETTINGS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": SETTINGS["AWS_SECRET_ACCESS_KEY"]}
    words = [home / "versitygw", "--port", f"127.0.0.1:{PORT}", "--quiet", "posix", folder]
    process = subprocess.Popen(words, env=os.environ | secrets, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(SETTINGS["AWS_ENDPOINT_URL"])
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def samples(kind: str, count: int) -> list[bytes]:
    """Photograph-like JPEGs, or tokens that repeat as words do."""
    random = np.random.default_rng(0)
    if kind == "tokens":
        zipf = np.minimum(random.zipf(1.2, (count, TOKENS)), 50_000).astype(np.int32)
        return [row.tobytes() for row in zipf]
    return [_photograph(random) for _ in range(count)]


def _photograph(random: np.random.Generator) -> bytes:
    coarse = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize(
        (256, 256), Image.Resampling.BICUBIC
    )
    grain = random.normal(0, 8, (256, 256, 3))
    file = io.BytesIO()
    Image.fromarray((np.asarray(coarse) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def prepare(folder: Path, kind: str, count: int, python: Path) -> None:
    """Write every format's files; a sample's label is its number."""
    files = samples(kind, count)
    labels = np.arange(len(files))
    table = pa.table({"input": pa.array(files, pa.large_binary()), "label": labels})
    with pa.OSFile(str(folder / "samples.arrow"), "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    url = f"file://{folder}/{BUCKET}/fusion"
    fields: dict[str, Any] = {"kind": "image", "shape": (3, SIDE, SIDE), "scale": 255, "stored_as": "files"}
    inputs: Any = files
    if kind == "tokens":
        fields = {"kind": "text", "shape": (TOKENS,), "vocabulary": 50_001}
        inputs = np.frombuffer(b"".join(files), np.int32).reshape(-1, TOKENS)
    in_shard = SHARD_MIB * 2**20 * len(files) // sum(map(len, files))
    shards = write_split(url, "train", inputs, labels, shard_samples=in_shard)
    classes = tuple(map(str, labels))
    write_index(url, Index(name="benchmark", source="made", classes=classes, splits={"train": shards}, **fields))
    subprocess.run([python, HERE / "data_peers.py", "write", folder], check=True, stdout=sys.stderr, env=settings(kind))


def upload(folder: Path) -> None:
    """Put all files through the server, which then knows their tags."""
    client = boto3.client("s3", endpoint_url=SETTINGS["AWS_ENDPOINT_URL"], **CREDENTIALS)
    client.create_bucket(Bucket=BUCKET)
    files = [file for file in folder.rglob("*") if file.is_file()]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: client.upload_file(str(file), BUCKET, str(file.relative_to(folder))), files))
    shutil.rmtree(folder)


def settings(kind: str) -> dict[str, str]:
    return os.environ | SETTINGS | {"BENCHMARK_KIND": kind, "TOKENIZERS_PARALLELISM": "false"}


def fusion(cache: Path, epoch: int) -> Iterator[tuple[Any, Any]]:
    data = Dataset(f"s3://{BUCKET}/fusion", "train", ShardCache(cache))
    for batch in Loader(data, BATCH, seed=0).epoch(epoch):
        yield batch.inputs, batch.labels


def run(reader: str, kind: str, folder: Path, python: Path) -> list[dict[str, float]]:
    """One reader's cold and cached epoch."""
    cache = Path(tempfile.mkdtemp(dir=folder)) / "cache"
    words = [sys.executable, "-m", "benchmarks.data", "--reader", cache]
    if reader != "fusion":
        words = [python, HERE / "data_peers.py", "read", reader, cache]
    done = subprocess.run(words, env=settings(kind), capture_output=True, text=True, check=False, timeout=280)
    shutil.rmtree(cache.parent)
    if done.returncode:
        raise RuntimeError(f"{reader} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    epochs: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=tuple(SAMPLES), default="images")
    parser.add_argument("--samples", type=int, help="by default 3,000 images or 8,000 rows of tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep here what is made, or take it from here")
    parser.add_argument("--only", choices=READERS, action="append", help="leave out the other readers; can be repeated")
    parser.add_argument("--json", type=Path, help="add every measurement to those that this file holds")
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        measure(fusion, arguments.reader)
        return
    python = environment()
    count = arguments.samples or SAMPLES[arguments.kind]
    readers = arguments.only or READERS
    found: dict[str, list[list[dict[str, float]]]] = {reader: [] for reader in readers}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        held = folder / f"{arguments.kind}-{count}"
        with server(held):
            if not (folder / f"{held.name}-ready").exists():
                prepare(Path(temporary), arguments.kind, count, python)
                upload(Path(temporary) / BUCKET)
                (folder / f"{held.name}-ready").touch()
            for turn in range(arguments.rounds):
                for reader in (*readers[turn % len(readers) :], *readers[: turn % len(readers)]):
                    epochs = run(reader, arguments.kind, Path(temporary), python)
                    print(f"round {turn + 1}: {reader}: {epochs}", file=sys.stderr, flush=True)
                    for epoch in epochs:
                        if not epoch["samples"] == epoch["different_samples"] == count:
                            raise RuntimeError(f"{reader} did not see every sample exactly once: {epoch}")
                    found[reader].append(epochs)
    if arguments.rounds:
        show(added(arguments.json, found), f"{count:,} {arguments.kind}")


def show(found: dict[str, list[list[dict[str, float]]]], what: str) -> None:
    """Print the medians."""
    print(f"{what}, median of {rounds_of(found)} rounds, {os.cpu_count()} processors")
    print(
        "| reader | cold, samples/s | cached, samples/s | first batch, cold, s | first batch, cached, s "
        "| processor, cold, ms a sample | processor, cached, ms a sample | memory, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for reader, rounds in found.items():
        rates, firsts, busy = (
            [statistics.median(r[epoch][key] for r in rounds) for epoch in (0, 1)]
            for key in ("samples_per_s", "first_batch_s", "processor_ms_a_sample")
        )
        memory = statistics.median(max(epoch["memory_mib"] for epoch in r) for r in rounds)
        print(
            f"| {reader} | {rates[0]:,.0f} | {rates[1]:,.0f} | {firsts[0]:.2f} | {firsts[1]:.2f} "
            f"| {busy[0]:.2f} | {busy[1]:.2f} | {memory:,.0f} |"
        )


if __name__ == "__main__":
    main()
