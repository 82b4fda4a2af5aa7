"""The models of a server: loaded from their packages, found by name and version, replaced without a lost request."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from workloads.serving.backends import Device, Runtime
from workloads.serving.choosing import Choice, choose
from workloads.serving.config import ModelConfig, ServingConfig
from workloads.serving.metrics import Metrics
from workloads.serving.model import Limits, ServedModel
from workloads.serving.package import Package, PackageError, open_package

Key = tuple[str, ModelConfig]
"""A package's URL and how it is served: what has the same is not loaded again."""
Say = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Model:
    """All versions of a model."""

    versions: Mapping[str, ServedModel]
    names: tuple[str, ...]
    shares: tuple[float, ...]
    """Running sums of the weights of `names`."""

    def pick(self) -> ServedModel:
        """The version that a request without one goes to."""
        if len(self.names) == 1:
            return self.versions[self.names[0]]
        return self.versions[self.names[bisect(self.shares, random.random() * self.shares[-1])]]


class Models:
    """What a server serves now."""

    def __init__(self, cache: Path, metrics: Metrics, say: Say) -> None:
        self.by_name: Mapping[str, Model] = {}
        self._loaded: dict[Key, ServedModel] = {}
        self._cache = cache
        self._metrics = metrics
        self._say = say
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, config: ServingConfig) -> None:
        """Serve what a config says: load what is new, switch over at once, then drain what is gone.

        Raises:
            PackageError: a package can't be served; what was served before goes on.
            StorageError: likewise.
        """
        async with self._one_at_a_time:
            wanted = {(version.package, model): model for model in config.models for version in model.versions}
            fresh = {}
            for key in wanted.keys() - self._loaded.keys():
                self._say("measuring", package=key[0])
                package, choice = await asyncio.to_thread(self._load, *key, config)
                fresh[key] = self._served(package, choice, key[1])
            everything = {**self._loaded, **fresh}
            try:
                self.by_name = _by_name(config, everything)
            except PackageError:
                await asyncio.gather(*(model.drain() for model in fresh.values()))
                raise
            gone = [model for key, model in everything.items() if key not in wanted]
            self._loaded = {key: everything[key] for key in wanted}
            await asyncio.gather(*(model.drain() for model in gone))

    def _load(self, url: str, model: ModelConfig, config: ServingConfig) -> tuple[Package, Choice]:
        package = open_package(url, self._cache)
        runtime = Runtime(model.threads, device_of(config), model.precision)
        choice = choose(package, runtime, batch_max=model.batch_max, slo_s=model.slo_ms / 1e3, named=model.backends)
        return package, choice

    def _served(self, package: Package, choice: Choice, model: ModelConfig) -> ServedModel:
        manifest, slo_s = package.manifest, model.slo_ms / 1e3
        for trial in choice.trials:
            rows_per_second = trial.curve and round(trial.curve.rows_per_second(slo_s), 1)
            self._say(
                "backend",
                model=manifest.name,
                version=manifest.version,
                backend=trial.backend,
                chosen=trial.backend == choice.backend,
                rows_per_second=rows_per_second,
                max_abs_error=trial.max_abs_error,
                problem=trial.problem or None,
            )
        limits = Limits(model.batch_max, slo_s, model.queue_max)
        return ServedModel(manifest, choice, limits, self._metrics.of(manifest.name, manifest.version, slo_s))

    def everything(self) -> list[ServedModel]:
        """Every version that is served."""
        return list(self._loaded.values())

    async def drain(self) -> None:
        """Answer what waits, and end."""
        await asyncio.gather(*(model.drain() for model in self.everything()))


def device_of(config: ServingConfig) -> Device:
    """The device that a config names, or the one that there is."""
    if config.device != "auto":
        return config.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _by_name(config: ServingConfig, loaded: Mapping[Key, ServedModel]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for model in config.models:
        served = [(loaded[each.package, model], each.weight) for each in model.versions]
        names = {each.manifest.name for each, _ in served}
        if len(names) > 1 or names & found.keys():
            raise PackageError(
                f"models: {', '.join(sorted(names))}: the versions of one model, and no others, belong under one entry"
            )
        versions = {each.manifest.version: each for each, _ in served}
        if len(versions) < len(served):
            raise PackageError(f"models: two packages of {names.pop()} have the same version")
        chosen = [(each.manifest.version, weight) for each, weight in served if weight]
        shares = tuple(accumulate(weight for _, weight in chosen))
        found[names.pop()] = Model(versions, tuple(name for name, _ in chosen), shares)
    return found


def listing(models: Models) -> list[dict[str, Any]]:
    """What is served, by model and version."""
    return [
        {"name": name, "version": version, "backend": served.choice.backend, "state": "READY"}
        for name, model in models.by_name.items()
        for version, served in model.versions.items()
    ]
