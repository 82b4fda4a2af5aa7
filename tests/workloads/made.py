"""Small data sets of every kind that a model can learn in a few epochs, written as `workloads.data` has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from workloads.data.format import Index, Kind, Split, write_index, write_split

FIELDS: dict[Kind, dict[str, Any]] = {
    "image": {"shape": (3, 32, 32), "scale": 255, "classes": ("dark", "bright")},
    "tabular": {"shape": (6,), "classes": ("low", "high"), "categories": (3, 5)},
    "text": {"shape": (12,), "classes": ("without", "with"), "vocabulary": 32},
    "tokens": {"shape": (17,), "vocabulary": 32},
}
SPLITS: tuple[Split, ...] = ("train", "test")


def index_of(kind: Kind, **changes: Any) -> Index:
    return Index(name=kind, source="made by the tests", kind=kind, splits={}, **(FIELDS[kind] | changes))


def write(url: str, kind: Kind, *, samples: int = 96) -> str:
    random = np.random.default_rng(7)
    splits = {}
    for split in SPLITS:
        inputs, labels = _made(kind, samples if split == "train" else 48, random)
        splits[split] = write_split(url, split, inputs, labels, shard_samples=32)
    write_index(url, index_of(kind).model_copy(update={"splits": splits}))
    return url


def _made(kind: Kind, count: int, random: np.random.Generator) -> tuple[Any, Any]:
    labels = np.arange(count) % 2
    match kind:
        case "image":
            noise = random.integers(0, 100, (count, 3, 32, 32))
            return (noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels
        case "tabular":
            numbers = random.normal(size=(count, 4)) * 100 + 300
            categories = np.stack((random.integers(0, 3, count), labels * 3 + random.integers(0, 2, count)), axis=1)
            return np.concatenate((numbers, categories), axis=1).astype(np.float32), labels
        case "text":
            texts = random.integers(2, 32, (count, 12))
            texts[labels == 1, random.integers(0, 6, count)[labels == 1]] = 1  # the word that makes the class
            texts[:, 9:] = 0
            return texts.astype(np.int32), labels
        case "tokens":
            start = random.integers(0, 32, (count, 1))
            return ((start + 3 * np.arange(17)) % 32).astype(np.int32), None
