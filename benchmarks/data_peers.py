"""The peers of `benchmarks/data.py`: writes the same samples in each peer's format, and reads them as its guide says.

Runs in an environment of its own: `python data_peers.py write FOLDER` or `python data_peers.py read PEER CACHE`; the
bucket's address and credentials are in the environment. Where a peer takes worker processes it gets as many as there are
processors, which is as many threads as Fusion's loader gets.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from data_measure import BATCH, BUCKET, SHARD_MIB, SIDE, measure
from PIL import Image, ImageOps

WORKERS = len(os.sched_getaffinity(0))
ENDPOINT = os.environ.get("AWS_ENDPOINT_URL", "")
IMAGES = os.environ["BENCHMARK_KIND"] == "images"

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


def tensor(data: bytes) -> torch.Tensor:
    """As `workloads.data.format.decode_image`: the same work for everyone."""
    if not IMAGES:
        return torch.frombuffer(bytearray(data), dtype=torch.int32)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (SIDE, SIDE))
        fitted = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = pa.array(fitted).flatten().to_numpy().reshape(SIDE, SIDE, -1)
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :, :3].transpose(2, 0, 1)))


def samples(folder: Path) -> Iterator[tuple[bytes, int]]:
    table = pa.ipc.open_file(pa.memory_map(str(folder / "samples.arrow"))).read_all()
    for data, label in zip(table["input"], table["label"], strict=True):
        yield bytes(data.as_buffer()), label.as_py()


def write(folder: Path) -> None:
    from litdata import optimize
    from streaming import MDSWriter

    bucket = folder / BUCKET
    with MDSWriter(
        out=str(bucket / "mosaicml"),
        columns={"data": "bytes", "label": "int"},
        compression=None if IMAGES else "zstd",
        size_limit=SHARD_MIB * 2**20,
    ) as writer:
        for data, label in samples(folder):
            writer.write({"data": data, "label": label})
    staging = folder / "litdata"
    optimize(
        fn=pair,
        inputs=[(data, label) for data, label in samples(folder)],
        output_dir=str(staging),
        chunk_bytes=f"{SHARD_MIB}MB",
        num_workers=1,
    )
    shutil.copytree(staging, bucket / "litdata")
    (bucket / "webdataset").mkdir()
    (bucket / "s3torchconnector").mkdir()
    tar, size = None, 0
    for number, (data, label) in enumerate(samples(folder)):
        if tar is None or size > SHARD_MIB * 2**20:
            tar and tar.close()
            tar = tarfile.open(bucket / "webdataset" / f"{number:08d}.tar", "w")  # noqa: SIM115 - closed when it is full
            size = 0
        for ending, content in (("bin", data), ("cls", str(label).encode())):
            entry = tarfile.TarInfo(f"{number:08d}.{ending}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        size += len(data)
        (bucket / "s3torchconnector" / f"{number:08d}.{label}").write_bytes(data)
    assert tar is not None
    tar.close()


def pair(sample: tuple[bytes, int]) -> dict[str, Any]:
    return {"data": sample[0], "label": sample[1]}


def mosaicml(cache: Path, epoch: int) -> Batches:
    from streaming import StreamingDataset

    class Decoded(StreamingDataset):
        def __getitem__(self, at: int) -> Any:
            sample = super().__getitem__(at)
            return tensor(sample["data"]), sample["label"]

    data = Decoded(
        remote=f"s3://{BUCKET}/mosaicml", local=str(cache), shuffle=True, batch_size=BATCH, shuffle_seed=epoch
    )
    return iter(torch.utils.data.DataLoader(data, BATCH, num_workers=WORKERS))


def litdata(cache: Path, epoch: int) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    # litdata has no option that lets its client speak plain HTTP to the benchmark's server.
    downloader._OBSTORE_CLIENT_OPTIONS = {**(downloader._OBSTORE_CLIENT_OPTIONS or {}), "allow_http": True}

    class Decoded(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            sample = super().__getitem__(at)
            return tensor(sample["data"]), sample["label"]

    data = Decoded(f"s3://{BUCKET}/litdata", cache_dir=str(cache), shuffle=True, seed=epoch)
    return iter(StreamingDataLoader(data, batch_size=BATCH, num_workers=WORKERS))


def webdataset(cache: Path, epoch: int) -> Batches:
    import boto3
    import webdataset as wds

    def open_s3(url: str, mode: str = "rb", bufsize: int = 8192) -> Any:
        return boto3.client("s3").get_object(Bucket=BUCKET, Key=url.split("/", 3)[3])["Body"]

    wds.gopen_schemes["s3"] = open_s3
    listed = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="webdataset/")["Contents"]
    urls = [f"s3://{BUCKET}/{entry['Key']}" for entry in listed]
    cache.mkdir(exist_ok=True)
    data = wds.WebDataset(urls, shardshuffle=100, cache_dir=str(cache), seed=epoch, empty_check=False).shuffle(1000)
    data = data.to_tuple("bin", "cls").map(lambda sample: (tensor(sample[0]), int(sample[1])))
    return iter(torch.utils.data.DataLoader(data, BATCH, num_workers=WORKERS))


def s3torchconnector(cache: Path, epoch: int) -> Batches:
    from s3torchconnector import S3MapDataset

    def read(reader: Any) -> Any:
        return tensor(reader.read()), int(reader.key.rsplit(".", 1)[1])

    data = S3MapDataset.from_prefix(
        f"s3://{BUCKET}/s3torchconnector/", region="us-east-1", endpoint=ENDPOINT, transform=read
    )
    return iter(torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS))


READERS: dict[str, Callable[[Path, int], Batches]] = {
    reader.__name__: reader for reader in (mosaicml, litdata, webdataset, s3torchconnector)
}

if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        measure(READERS[sys.argv[2]], Path(sys.argv[3]))
