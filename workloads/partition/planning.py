"""From a model to a split plan: the cuts worth having, what each loses, and the packages of both sides."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import yaml
from torch import Tensor

from workloads import storage
from workloads.partition import codings
from workloads.partition.codings import Coding
from workloads.partition.cut import Costs, best_cuts
from workloads.partition.devices import DeviceProfile
from workloads.partition.layers import Layers, layers_of
from workloads.partition.plan import PLAN, Judge, SplitPlan, Watts, Way
from workloads.serving.export import Source, export, to_eval, traced
from workloads.serving.package import Array, Format, PackageError, refuse_published

SERVING = "serving.yaml"
SIZED_ROWS = 8
"""Of the held-out rows, whose coded sizes are taken."""
TESTED_ROWS = 4
"""In the packages' self-tests."""
JUDGED_TOGETHER = 16
Profiler = Callable[[Layers, Sequence[Tensor]], DeviceProfile]
"""Of a device: the model's layers and one row of each input → what it takes for each layer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a plan is made."""

    name: str
    version: str
    loss_max: float
    formats: tuple[Format, ...] = ()
    """Beside the PyTorch program."""
    slo_ms: float = 1000
    """Of the cloud's server."""
    threads: int = 1
    """Of the cloud's server."""
    watts: Watts | None = None
    """Of the edge device, where cuts that spare its energy are wanted, too."""


def make_plan(
    source: Source,
    url: str,
    edge: Profiler,
    cloud: Profiler,
    settings: Settings,
    *,
    every_cut: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> SplitPlan:
    """Plan, and write plan, packages and the server's config to a folder.

    Args:
        source: the model, with held-out rows.
        url: the folder; holds no plan yet.
        edge, cloud: what the devices take for the layers.
        settings: how.
        every_cut: behind each layer whose output alone is sent, instead of only the cuts that can be best.
        say: called with a line for each package.

    Raises:
        PackageError: the model can't be traced, split or exported.
        StorageError: the bucket refused.
    """
    refuse_published(storage.join(url, "edge", "whole"))
    planning = _Planning(source, url, edge, cloud, settings, say)
    cuts = planning.single_cuts() if every_cut else planning.best_cuts()
    found = [way for number, cut in enumerate(cuts) for way in planning.ways(number, cut)]
    within = [way for way in found if way.loss <= settings.loss_max]
    plan = SplitPlan(
        name=settings.name,
        version=settings.version,
        scale=source.scale,
        held_out_rows=len(planning.rows[0]),
        judged_by=planning.judged_by,
        loss_max=settings.loss_max,
        edge=planning.edge,
        cloud=planning.cloud,
        ways=tuple(within),
        left_out=tuple(
            f"{way.name}: loses {way.loss:.4f}, allowed are {settings.loss_max:g}"
            for way in found
            if way.loss > settings.loss_max
        ),
    )
    planning.export(within)
    storage.write(storage.join(url, PLAN), plan.model_dump_json(indent=1).encode())
    return plan


class _Planning:
    def __init__(
        self,
        source: Source,
        url: str,
        edge: Profiler,
        cloud: Profiler,
        settings: Settings,
        say: Callable[[str], object],
    ) -> None:
        self.source, self.url, self.settings, self.say = source, url, settings, say
        self.rows = [np.ascontiguousarray(each) for each in source.inputs.values()]
        if len(self.rows[0]) < 2:
            raise PackageError("the model needs at least 2 held-out rows of each input")
        to_eval(source.module)
        self.layers = layers_of(traced(source, [each[:2] for each in self.rows]))
        self.graph = self.layers.graph
        self.given = [layer for layer, reads in enumerate(self.graph.reads) if not reads]
        one = [torch.from_numpy(each[:1]) for each in self.rows]
        self.edge = edge(self.layers, one).fits(self.layers)
        self.cloud = cloud(self.layers, one).fits(self.layers)
        self.everything = frozenset(range(len(self.graph.names)))
        self.whole = self._run(self.everything, self.given, self.graph.results, None, self.rows)
        self.judged_by = self._judge()
        self.cut_of: dict[str, frozenset[int]] = {"edge": self.everything}

    # which cuts

    def best_cuts(self) -> list[frozenset[int]]:
        """All of it on the edge, all in the cloud, and every cut between that is best at some bandwidth."""
        sent = self._sent_bytes()
        found = self._best_cuts(sent, Watts(1, 1, 1))  # of a device that always takes a watt, joules are seconds
        if self.settings.watts is not None:
            found += self._best_cuts(sent, self.settings.watts)
        return list(dict.fromkeys([self.everything, *found, frozenset(self.given)]))

    def _best_cuts(self, sent: Sequence[float], watts: Watts) -> tuple[frozenset[int], ...]:
        fixed = Costs(
            edge=tuple(watts.compute * each for each in self.edge.seconds),
            cloud=tuple(watts.idle * each for each in self.cloud.seconds),
            send=tuple(0.0 for _ in self.graph.names),
            answer=tuple(0.0 for _ in self.graph.results),
        )
        return best_cuts(self.graph, fixed, [watts.send * each for each in sent])

    def single_cuts(self) -> list[frozenset[int]]:
        """All on the edge, and behind every layer such that the outputs of no other layer cross."""
        prefixes = [frozenset(range(size)) | frozenset(self.given) for size in range(1, len(self.graph.names))]
        single = [each for each in prefixes if len(self.graph.sent(each)) == len(self.given)]
        return list(dict.fromkeys([self.everything, *single]))

    def _sent_bytes(self) -> list[float]:
        """By layer: the median bytes of its output as it would be sent, coded and compressed."""
        sizes: list[list[int]] = [[] for _ in self.graph.names]
        for row in range(min(SIZED_ROWS, len(self.rows[0]))):
            outputs = {layer: [each[row : row + 1]] for layer, each in zip(self.given, self.rows, strict=True)}
            for layer, reads in enumerate(self.graph.reads):
                if reads:
                    inputs = [each for source in reads for each in outputs[source]]
                    outputs[layer] = self._run([layer], reads, [layer], None, inputs)
                sizes[layer].append(self._sent(layer, outputs[layer]))
        return [float(statistics.median(each)) for each in sizes]

    def _sent(self, layer: int, tensors: Sequence[Array]) -> int:
        scale = self.source.scale
        if layer in self.given and scale is not None:
            return len(codings.image_file("jpeg", tensors[0], scale))
        return len(codings.compressed(_body(codings.coded("int8", tensors, 1.0))))

    # the ways of a cut

    def ways(self, number: int, on_edge: frozenset[int]) -> list[Way]:
        """A way for each coding of what crosses; of lossy ones the plain coding is the last resort."""
        edge_s = sum(self.edge.seconds[layer] for layer in on_edge)
        if on_edge == self.everything:
            return [
                Way(
                    name="edge",
                    kind="edge",
                    layers_on_edge=len(self.everything) - len(self.given),
                    sends=(),
                    coding=None,
                    edge="edge/whole",
                    cloud=None,
                    model=None,
                    edge_s=edge_s,
                    encode_s=0,
                    cloud_s=0,
                    request_bytes=0,
                    zstd_bytes=None,
                    zstd_s=0,
                    answer_bytes=0,
                    loss=0,
                )
            ]
        found = [self._way(number, on_edge, edge_s, coding) for coding in self._codings(on_edge)]
        if all(way.loss > self.settings.loss_max for way in found):
            found.append(self._way(number, on_edge, edge_s, "plain"))
        return found

    def _codings(self, on_edge: frozenset[int]) -> tuple[Coding, ...]:
        is_image = self.source.scale is not None and on_edge == frozenset(self.given)
        return ("pixels", *codings.IMAGE_FILES) if is_image else ("int8",)

    def _way(self, number: int, on_edge: frozenset[int], edge_s: float, coding: Coding) -> Way:
        cuts_input = on_edge == frozenset(self.given)
        sent = self.graph.sent(on_edge)
        names = [self.graph.names[layer] for layer in sent]
        tensors = self._crossing(on_edge, self.rows)
        name = f"{'cloud' if cuts_input else ','.join(names)}/{coding}"
        self.cut_of[name] = on_edge
        package = f"cut{number}-{'pixels' if coding in codings.IMAGE_FILES else coding}"
        body, encode_s = self._encoded(coding, [each[:1] for each in tensors])
        packed, zstd_s = _timed(lambda: codings.compressed(body))
        return Way(
            name=name,
            kind="cloud" if cuts_input else "split",
            layers_on_edge=len(on_edge) - len(self.given),
            sends=tuple(names),
            coding=coding,
            edge=None if cuts_input else f"edge/cut{number}",
            cloud=f"cloud/{package}",
            model=f"{self.settings.name}-{package}",
            edge_s=edge_s,
            encode_s=encode_s,
            cloud_s=sum(self.cloud.seconds[layer] for layer in self.everything - on_edge),
            request_bytes=len(body),
            zstd_bytes=None if coding in codings.IMAGE_FILES else len(packed),
            zstd_s=zstd_s,
            answer_bytes=sum(each[:1].nbytes for each in self.whole),
            loss=self._loss(self._answers(on_edge, coding, tensors)),
        )

    def _crossing(self, on_edge: frozenset[int], inputs: Sequence[Array]) -> list[Array]:
        if on_edge == frozenset(self.given):
            return list(inputs)
        return self._run(on_edge, self.given, self.graph.sent(on_edge), None, inputs)

    def _encoded(self, coding: Coding, tensors: Sequence[Array]) -> tuple[bytes, float]:
        scale = self.source.scale or 1.0
        if coding in codings.IMAGE_FILES:
            return _timed(lambda: codings.image_file(coding, tensors[0], scale))
        return _timed(lambda: _body(codings.coded(coding, tensors, scale)))

    # what is lost

    def _answers(self, on_edge: frozenset[int], coding: Coding, tensors: Sequence[Array]) -> list[Array]:
        sent = self.graph.sent(on_edge)
        coded = codings.coded(coding, tensors, self.source.scale or 1.0)
        return self._run(self.everything - on_edge, sent, self.graph.results, coding, coded)

    def _judge(self) -> Judge:
        if self.whole[0].ndim != 2 or self.whole[0].shape[1] < 2:
            return "error by deviation"
        return "the whole model's answers" if self.source.labels is None else "labels"

    def _loss(self, answers: Sequence[Array]) -> float:
        """Of accuracy by labels; or of agreement with the whole model; or error ÷ standard deviation of the outputs."""
        if self.judged_by == "error by deviation":
            return float(np.sqrt(np.mean((answers[0] - self.whole[0]) ** 2)) / max(np.std(self.whole[0]), 1e-12))
        found, own = answers[0].argmax(1), self.whole[0].argmax(1)
        right = own if self.source.labels is None else self.source.labels
        return max(0.0, float(np.mean(own == right) - np.mean(found == right)))

    def _run(
        self,
        layers: Iterable[int],
        takes: Sequence[int],
        gives: Sequence[int],
        coding: Coding | None,
        inputs: Sequence[Array],
    ) -> list[Array]:
        module = self._part(layers, takes, gives, coding)
        found: list[list[Array]] = []
        with torch.inference_mode():
            for start in range(0, len(inputs[0]), JUDGED_TOGETHER):
                rows = [torch.from_numpy(each[start : start + JUDGED_TOGETHER]) for each in inputs]
                outputs = module(*rows)
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                found.append([each.contiguous().numpy() for each in outputs])
        return [np.concatenate(each) for each in zip(*found, strict=True)]

    def _part(
        self, layers: Iterable[int], takes: Sequence[int], gives: Sequence[int], coding: Coding | None
    ) -> torch.fx.GraphModule:
        floats = [is_float for _, is_float in self.layers.tensors(takes)]
        decoders = None if coding is None else codings.decoders(coding, floats, self.source.scale or 1.0)
        return self.layers.part(layers, takes, gives, decoders)

    # packages

    def export(self, ways: Sequence[Way]) -> None:
        """The packages of both sides, and the config of the server that serves the cloud's."""
        rows = [np.ascontiguousarray(each[:TESTED_ROWS]) for each in self.source.self_test.values()]
        by_name = dict(zip(self.graph.names, range(len(self.graph.names)), strict=True))
        made: set[str] = set()
        for way in ways:
            cut = self.cut_of[way.name]
            sent = [by_name[name] for name in way.sends]
            if way.edge is not None and way.edge not in made:
                gives = sent or self.graph.results
                names = [name for name, _ in self.layers.tensors(gives)] if sent else self.source.output_names
                module = self._part(cut, self.given, gives, None)
                inputs = dict(zip(self.source.inputs, rows, strict=True))
                self._export(way.edge, way.edge.replace("/", "-"), module, inputs, tuple(names))
            if way.cloud is not None and way.cloud not in made and way.coding is not None and way.model is not None:
                coding: Coding = "pixels" if way.coding in codings.IMAGE_FILES else way.coding
                tensors = self._crossing(cut, rows)
                coded = codings.coded(coding, tensors, self.source.scale or 1.0)
                names = codings.names_of(coding, *map(list, zip(*self.layers.tensors(sent), strict=True)))
                module = self._part(self.everything - cut, sent, self.graph.results, coding)
                inputs = dict(zip(names, coded, strict=True))
                self._export(way.cloud, way.model, module, inputs, self.source.output_names)
            made |= {each for each in (way.edge, way.cloud) if each is not None}
        served = sorted(each for each in made if each.startswith("cloud/"))
        models = [
            {
                "versions": [{"package": f"${{FUSION_SPLIT_URL}}/{each}"}],
                "slo_ms": self.settings.slo_ms,
                "threads": self.settings.threads,
                "batch_max": 8,
            }
            for each in served
        ]
        storage.write(storage.join(self.url, SERVING), yaml.safe_dump({"models": models}).encode())

    def _export(
        self, folder: str, name: str, module: torch.fx.GraphModule, inputs: dict[str, Array], outputs: tuple[str, ...]
    ) -> None:
        text = f"{folder} of {self.settings.name}, split"
        export(
            Source(module, inputs, outputs, self.source.classes, text),
            storage.join(self.url, folder),
            name=name,
            version=self.settings.version,
            formats=self.settings.formats,
        )
        self.say(folder)


def _body(tensors: Sequence[Array]) -> bytes:
    return b"".join(each.tobytes() for each in tensors)


def _timed(work: Callable[[], bytes]) -> tuple[bytes, float]:
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return result, statistics.median(times)
