"""`fusion data`: write data sets to a bucket, and check them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fusion.errors import FusionError


@click.group(name="data")
def command() -> None:
    """Write data sets to a bucket, and check them."""


@command.command(name="pack")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("url")
@click.option("--label", default="label", show_default=True, help="The column of classes.")
@click.option("--text", default="text", show_default=True, help="The column of texts.")
@click.option("--size", default=(224, 224), type=(int, int), show_default=True, help="Height and width of images.")
@click.option("--channels", type=click.IntRange(1, 4), help="Of images.  [default: 3; 1 for idx files]")
@click.option("--tokenizer", help="Of texts: a tokenizer.json, or bytes.")
@click.option("--length", default=512, type=click.IntRange(2), show_default=True, help="Of texts, in tokens.")
@click.option("--test-share", default=0.1, show_default=True, help="Held out where the source has no test split.")
@click.option("--held-out", help="Which split, where the source holds out several.  [default: test before val]")
@click.option("--shard-mib", default=16.0, type=click.FloatRange(0.001), show_default=True, help="Size of a shard.")
@click.option("--name", help="What the data set is called.  [default: the last part of URL]")
def pack_command(
    source: Path,
    url: str,
    label: str,
    text: str,
    size: tuple[int, int],
    channels: int | None,
    tokenizer: str | None,
    length: int,
    test_share: float,
    held_out: str | None,
    shard_mib: float,
    name: str | None,
) -> None:
    """Write SOURCE as a data set to URL; the same command goes on after an interruption.

    SOURCE is a folder of images (one folder a class), of idx files, or of .txt files; a .csv, .parquet or .jsonl file
    or a folder with train and test ones; or what Hugging Face's save_to_disk wrote. URL starts with s3://, gs://,
    webhdfs://, hdfs:// or file://.
    """
    with told():
        from workloads.data import pack, sources

        options = sources.Options(label, text, size, channels, tokenizer, length, test_share, held_out)
        found = sources.find(source, options)
        samples = pack.shard_samples(found, shard_mib)
        with progress(f"packing {source}", sum(found.counts.values())) as done:
            index = pack.pack(
                found,
                url.rstrip("/"),
                name=name or url.rstrip("/").rsplit("/", 1)[-1],
                origin=f"packed from {source.name}",
                samples_per_shard=samples,
                fingerprint=sources.fingerprint(source, options, samples),
                done=done,
            )
    if found.left_out:
        click.echo(f"left out: {', '.join(found.left_out)} (--held-out names the split to hold out)")
    shards = [shard for split in index.splits.values() for shard in split]
    click.echo(
        f"{url}: {index.samples('train'):,} samples to train on, {index.samples('test'):,} held out; {index.kind} of "
        f"shape {' × '.join(map(str, index.shape))}, {len(index.classes) or 'no'} classes; {len(shards)} shards, "
        f"{sum(shard.bytes for shard in shards) / 2**20:,.1f} MiB"
    )


@command.command(name="check")
@click.argument("url")
def check_command(url: str) -> None:
    """Read the data set at URL whole, and say which shards are not what its index says."""
    with told():
        from workloads.data import pack
        from workloads.data.format import read_index

        total = sum(shard.samples for split in read_index(url)[0].splits.values() for shard in split)
        with progress(f"checking {url}", total) as done:
            index, problems = pack.check(url.rstrip("/"), done)
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise FusionError(f"{url}: {len(problems)} of {sum(map(len, index.splits.values()))} shards are broken")
    click.echo(f"{url}: {total:,} samples in {sum(map(len, index.splits.values()))} shards: all right")


@contextmanager
def told() -> Iterator[None]:
    """What the library refuses, as the command line's error."""
    try:
        from workloads.data.sources import SourceError
        from workloads.storage import StorageError
    except ModuleNotFoundError as error:
        raise FusionError(f"data needs {error.name}, which is not installed; install fusion[train]") from None
    try:
        yield
    except (SourceError, StorageError) as error:
        raise FusionError(str(error)) from error


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of samples on a terminal; silent elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda samples: bar.advance(task, samples)
