"""How fast one processor writes and reads the same images as Parquet and as Arrow: `python -m benchmarks.data_format`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workloads.data.format import encode, to_table

IMAGES, SHAPE, ROUNDS = 2_000, (3, 64, 64), 3


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def seconds(function: Callable[[Any], Any], argument: Any) -> tuple[float, Any]:
    """CPU time of the fastest round, and the result."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        result = function(argument)
        fastest = min(fastest, time.process_time() - began)
    return fastest, result


def main() -> None:
    random = np.random.default_rng(0)
    slope = np.arange(int(np.prod(SHAPE)), dtype=np.uint8) // 8
    images = (random.integers(0, 40, (IMAGES, *SHAPE), dtype=np.uint8).reshape(IMAGES, -1) + slope).reshape(-1, *SHAPE)
    table = to_table(images, None)
    readers: dict[str, tuple[Callable[[Any], bytes], Callable[[Any], pa.Table]]] = {
        "Parquet": (parquet, lambda data: pq.read_table(pa.BufferReader(data))),
        "Arrow": (encode, lambda data: pa.ipc.open_file(pa.BufferReader(data)).read_all()),
    }
    print("| format | write, MB/s | read, MB/s | size |\n|---|---|---|---|")
    for name, (write, read) in readers.items():
        written, data = seconds(write, table)
        took, back = seconds(read, data)
        assert back["input"].equals(table["input"]) or back["input"].to_pylist() == table["input"].to_pylist()
        print(
            f"| {name} | {images.nbytes / written / 1e6:,.0f} | {images.nbytes / took / 1e6:,.0f} | "
            f"{len(data) / images.nbytes:.0%} |"
        )


if __name__ == "__main__":
    main()
