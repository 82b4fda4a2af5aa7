"""Writes scikit-learn's 1,797 handwritten digits as a data set: `python -m workloads.data.digits --url URL`.

The grey 8 × 8 images are stored as 3 × 8 × 8, the same value in each channel: FusionNet takes three channels, as colour
images have, and zstd makes the two copies nearly free. They are not blown up to 32 × 32: that is 16 times the work with
no information added.
"""

from __future__ import annotations

import sys

import click
import numpy as np

from workloads.data.format import Index, write_index, write_split
from workloads.storage import StorageError

SHAPE = (3, 8, 8)
PIXEL_MAX = 16
TEST_SHARE = 0.2
SPLIT_SEED = 0  # of the data set, not of a run: every run is judged on the same held-out samples
SHARD_SAMPLES = 256


def write_digits(url: str) -> Index:
    """Write the data set, split 80 : 20 with the classes' shares kept, and return its index."""
    from sklearn import __version__ as sklearn_version
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.repeat(digits.images.astype(np.uint8)[:, np.newaxis], SHAPE[0], axis=1)
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=labels
    )
    index = Index(
        name="digits",
        source=f"scikit-learn {sklearn_version}, load_digits",
        kind="image",
        shape=SHAPE,
        scale=PIXEL_MAX,
        classes=tuple(str(name) for name in digits.target_names),
        splits={
            "train": write_split(url, "train", images[train], labels[train], shard_samples=SHARD_SAMPLES),
            "test": write_split(url, "test", images[test], labels[test], shard_samples=SHARD_SAMPLES),
        },
    )
    write_index(url, index)
    return index


@click.command()
@click.option("--url", required=True, help="The folder to write to, such as s3://bucket/data/digits.")
def main(url: str) -> None:
    """Write scikit-learn's digits as a data set."""
    try:
        index = write_digits(url)
    except StorageError as error:
        click.echo(f"digits: {error}", err=True)
        sys.exit(1)
    click.echo(f"{url}: {index.samples('train'):,} samples to train on, {index.samples('test'):,} held out")


if __name__ == "__main__":
    main()
