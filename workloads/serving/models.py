"""The models of a server: loaded from their packages, found by name and version, replaced without a lost request."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from workloads.serving.backends import Device, Runtime
from workloads.serving.cache import AnswerCache
from workloads.serving.chip import Chip, chip_of
from workloads.serving.choosing import Choice, choose
from workloads.serving.config import ModelConfig, ServingConfig, VersionConfig
from workloads.serving.metrics import Metrics
from workloads.serving.model import Limits, ServedModel
from workloads.serving.package import Package, PackageError, open_package
from workloads.serving.pipelines import Pipeline, pipeline_of

Key = tuple[str, ModelConfig]
"""A package's URL and how it is served, whatever other versions there are: what has the same is not loaded again."""
Say = Callable[..., object]


GOLDEN = (5**0.5 - 1) / 2
"""Steps of this share of a circle come closest to visiting every arc of it as often as its length says."""


class Model:
    """All versions of a model."""

    def __init__(self, versions: Mapping[str, ServedModel], weights: Mapping[str, float]) -> None:
        """A model whose requests without a version are shared out by weight; one of 0 gets none of them."""
        self.versions = versions
        self._names = tuple(name for name, weight in weights.items() if weight)
        self._shares = tuple(accumulate(weights[name] for name in self._names))
        """Running sums of the weights."""
        self._place = 0.0

    def pick(self) -> ServedModel:
        """The version that a request without one goes to; each has had its share, to within a few, at any time."""
        if len(self._names) == 1:
            return self.versions[self._names[0]]
        self._place = (self._place + GOLDEN) % 1.0
        return self.versions[self._names[bisect(self._shares, self._place * self._shares[-1])]]


class Models:
    """What a server serves now."""

    def __init__(self, cache: Path, metrics: Metrics, say: Say, on_hang: Callable[[ServedModel], None]) -> None:
        self.by_name: Mapping[str, Model] = {}
        self._loaded: dict[Key, ServedModel] = {}
        self._cache = cache
        self._metrics = metrics
        self._say = say
        self._on_hang = on_hang
        self._chip: Chip | None = None
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, config: ServingConfig) -> None:
        """Serve what a config says: load what is new, switch over at once, then drain what is gone.

        Raises:
            PackageError: a package can't be served; what was served before goes on.
            StorageError: likewise.
        """
        async with self._one_at_a_time:
            wanted = {_key(version, model) for model in config.models for version in model.versions}
            chip = self._chip = self._chip or chip_of(await asyncio.to_thread(device_of, config))
            opened = {}
            for key in wanted - self._loaded.keys():
                self._say("measuring", package=key[0])
                opened[key] = await asyncio.to_thread(self._load, *key, config)
            fresh = {key: self._served(*each, key[1], chip) for key, each in opened.items()}
            everything = {**self._loaded, **fresh}
            try:
                self.by_name = _by_name(config, everything)
            except PackageError:
                await self._end(list(fresh.values()))
                raise
            gone = [model for key, model in everything.items() if key not in wanted]
            self._loaded = {key: everything[key] for key in wanted}
            await self._end(gone)

    async def _end(self, gone: Sequence[ServedModel]) -> None:
        """Let them answer what they have, and drop their metrics where no other has the same name and version."""
        await asyncio.gather(*(model.drain() for model in gone))
        served = {(each.manifest.name, each.manifest.version) for each in self._loaded.values()}
        for name, version in {(each.manifest.name, each.manifest.version) for each in gone} - served:
            self._metrics.forget(name, version)

    def _load(self, url: str, model: ModelConfig, config: ServingConfig) -> tuple[Package, Choice, Pipeline]:
        package = open_package(url, self._cache)
        pipeline = pipeline_of(
            package.manifest,
            model.pre,
            model.post,
            threads=model.pipeline_threads,
            queue_max=model.queue_max,
            say=self._say,
        )
        runtime = Runtime(model.threads, device_of(config), model.precision)
        choice = choose(package, runtime, batch_max=model.batch_max, slo_s=model.slo_ms / 1e3, named=model.backends)
        return package, choice, pipeline

    def _served(
        self, package: Package, choice: Choice, pipeline: Pipeline, model: ModelConfig, chip: Chip
    ) -> ServedModel:
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
        limits = Limits(model.batch_max, slo_s, model.queue_max, model.threads)
        metrics = self._metrics.of(manifest.name, manifest.version, slo_s=slo_s, batch_max=model.batch_max)
        cache = AnswerCache(manifest, int(model.cache_mib * 2**20), metrics) if model.cache_mib else None
        return ServedModel(manifest, choice, limits, metrics, chip, self._on_hang, pipeline, cache)

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


def _key(version: VersionConfig, model: ModelConfig) -> Key:
    return version.package, model.model_copy(update={"versions": ()})


def _by_name(config: ServingConfig, loaded: Mapping[Key, ServedModel]) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for model in config.models:
        served = [(loaded[_key(each, model)], each.weight) for each in model.versions]
        names = {each.manifest.name for each, _ in served}
        if len(names) > 1 or names & found.keys():
            raise PackageError(
                f"models: {', '.join(sorted(names))}: the versions of one model, and no others, belong under one entry"
            )
        versions = {each.manifest.version: each for each, _ in served}
        if len(versions) < len(served):
            raise PackageError(f"models: two packages of {names.pop()} have the same version")
        found[names.pop()] = Model(versions, {each.manifest.version: weight for each, weight in served})
    return found


def listing(models: Models) -> list[dict[str, Any]]:
    """What is served, by model and version."""
    return [
        {"name": name, "version": version, "backend": served.choice.backend, "state": "READY"}
        for name, model in models.by_name.items()
        for version, served in model.versions.items()
    ]
