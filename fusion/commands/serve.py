"""`fusion serve`: what the inference container runs, on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from fusion.commands.export import as_url
from fusion.errors import FusionError


@click.command(name="serve")
@click.argument("package", metavar="PACKAGE_URL", required=False)
@click.option("--config", type=click.Path(path_type=Path), help="A serving.yaml: several models, versions, limits.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65_535), help="Of gRPC; 0 takes a free one.  [default: none]")
@click.option("--slo-ms", type=click.FloatRange(0, min_open=True), default=100, show_default=True, help="Of a request.")
@click.option("--batch-max", type=click.IntRange(1, 4096), default=32, show_default=True, help="Rows of a batch.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of the model.")
@click.option("--backend", "backends", multiple=True, help="The ones to try.  [default: all that load at once]")
def command(
    package: str | None,
    config: Path | None,
    host: str,
    port: int,
    grpc_port: int | None,
    slo_ms: float,
    batch_max: int,
    threads: int,
    backends: tuple[str, ...],
) -> None:
    """Serve a package that `fusion export` made, under a latency SLO, by the fastest backend that passes its self-test.

    Give PACKAGE_URL (a folder: s3://, gs://, file://, or a path), or --config for more. Ends on Ctrl-C or SIGTERM, when
    the requests under way are answered.
    """
    if (package is None) == (config is None):
        raise FusionError("expected PACKAGE_URL or --config")
    if package is not None:
        model = {
            "versions": [{"package": as_url(package)}],
            "slo_ms": slo_ms,
            "batch_max": batch_max,
            "threads": threads,
            "backends": list(backends),
        }
        config = _written({"host": host, "port": port, "grpc_port": grpc_port, "models": [model]})
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "workloads.serving", "--config", str(config)])


def _written(document: dict[str, object]) -> Path:
    """The options as a serving.yaml; it stays, because SIGHUP reads it again."""
    import yaml

    path = Path(tempfile.mkdtemp(prefix="fusion-serve-")) / "serving.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
