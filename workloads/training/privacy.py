"""Differentially private training (DP-SGD, Abadi et al. 2016): what the weights may tell of one sample is bounded.

Opacus computes each sample's gradient, shortens it to `max_grad_norm`, and adds Gaussian noise to their sum. Its Rényi
accountant (Mironov et al. 2019) turns how often that was done into ε. Which ε it is depends on how samples come into
batches, and a run claims no other than that of its own sampling:

- `poisson`: each step takes each sample by a toss of its own, with chance batch_size / samples, from a secret seed. The
  accountant's bound for the sampled Gaussian mechanism holds, between data sets of which one has a sample more.
- `shuffled`: each sample once an epoch, in the order that the config's seed gives. Whoever knows the seed knows the
  batches, so that sampling hides nothing: an epoch is one Gaussian mechanism on each sample (its batches are disjoint).
  It holds between data sets of which one lacks a sample's gradient, with the order of the others unchanged ("zero-out",
  Kairouz et al. 2021), and needs much more noise for the same ε.

The noise, and the tosses, come from generators seeded by the operating system for each process and kept nowhere: noise
that can be computed again hides nothing. They are not cryptographic generators.

ε is of the weights, with all checkpoints. It is not of the loss, of its curve, or of what is measured on held-out
samples: these are computed without noise. Steps that a killed process made after its last checkpoint left nothing
behind, and are not counted.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from typing_extensions import override

from workloads.config import ConfigError
from workloads.data.loader import Batch, Dataset
from workloads.training.config import PrivacyConfig, TrainingConfig
from workloads.training.loop import Trainer
from workloads.training.manifest import Position
from workloads.training.optimizers import set_learning_rate
from workloads.training.tasks import Task
from workloads.training.world import World

if TYPE_CHECKING:
    from opacus.optimizers import DPOptimizer

ORDERS: Sequence[float] = (*(1 + x / 10 for x in range(1, 100)), *range(11, 64), *(2**x for x in range(6, 13)))
"""Of the Rényi divergences that are tried; the least ε of all of them holds."""
NOISE_MAX = 1e6
_NOISE_TOLERANCE = 1e-3
_SPENT = "privacy_spent"
_NEIGHBOURS = {
    "poisson": "data sets of which one has one sample more",
    "shuffled": "data sets of which one lacks one sample's gradient, in the same order",
}

Mechanism = tuple[float, float, int]
"""(noise multiplier, chance of a sample to take part, times)."""


def epsilon_of(history: Sequence[Mechanism], delta: float) -> float:
    """The ε that all these mechanisms together spend, at this δ."""
    from opacus.accountants.analysis.rdp import get_privacy_spent

    if not history:
        return 0.0
    divergences = sum(times * _divergences(noise, chance) for noise, chance, times in history)
    spent, _ = get_privacy_spent(orders=list(ORDERS), rdp=divergences, delta=delta)
    return float(spent)


@lru_cache(maxsize=256)
def _divergences(noise: float, chance: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(orders,): of one mechanism. Kept, as each epoch asks for the ε of the same ones, and a look takes 0.3 s."""
    from opacus.accountants.analysis.rdp import compute_rdp

    found: np.ndarray[Any, np.dtype[np.float64]] = compute_rdp(
        q=chance, noise_multiplier=noise, steps=1, orders=list(ORDERS)
    )
    return found


def noise_for(target: float, delta: float, history: Sequence[Mechanism], chance: float, times: int) -> float | None:
    """The least noise multiplier with which ε stays below the target; None where there is none."""
    low, high = 0.0, 1.0
    while epsilon_of([*history, (high, chance, times)], delta) > target:
        low, high = high, high * 2
        if high > NOISE_MAX:
            return None
    while high - low > _NOISE_TOLERANCE * high:
        middle = (low + high) / 2
        if epsilon_of([*history, (middle, chance, times)], delta) > target:
            low = middle
        else:
            high = middle
    return high


class Privacy:
    """Clips and adds noise for one run, and keeps its account: in the optimizer's first group, as loss scales are."""

    def __init__(
        self, config: TrainingConfig, asked: PrivacyConfig, model: nn.Module, samples: int, world: World
    ) -> None:
        """Give every layer its per-sample gradients.

        Raises:
            ConfigError: the model or the data set does not go with it, or Opacus is not installed.
        """
        try:
            from opacus import GradSampleModule
        except ImportError:
            raise ConfigError("privacy: needs the package opacus; install fusion[privacy]") from None
        if world.size > 1:
            raise ConfigError(f"privacy: got {world.size} ranks; expected one, others have not been tried")
        self.asked, self.world, self.epochs = asked, world, config.epochs
        self.batch_size, self.samples = config.data.batch_size, samples
        self.batches = -(-samples // self.batch_size)
        self._check_data()
        check_model(model, config.model.name)
        self._layers = GradSampleModule(model, loss_reduction="sum")
        self.secret = secrets.randbits(63)
        """Of the tosses."""
        self.noise_multiplier = self.epsilon_at_end = 0.0
        self._history: list[Mechanism] = []
        self._group: dict[str, Any] = {}
        self._optimizer: DPOptimizer

    def _check_data(self) -> None:
        if self.asked.delta >= 1 / self.samples:
            raise ConfigError(
                f"privacy.delta: got {self.asked.delta:g}; expected less than 1 / {self.samples} samples: at more, "
                "a run that publishes one of them whole would pass"
            )
        if self.batch_size > self.samples:
            raise ConfigError(f"data.batch_size: got {self.batch_size}; expected at most the {self.samples} samples")

    @property
    def chance(self) -> float:
        """Of a sample to take part in one mechanism, as the account has it."""
        return self.batch_size / self.samples if self.asked.sampling == "poisson" else 1.0

    @property
    def epsilon(self) -> float:
        """What was spent so far."""
        return epsilon_of(self._history, self.asked.delta)

    def keep_account(self, optimizer: optim.Optimizer) -> None:
        """Before a checkpoint is loaded: the place where it has its account."""
        optimizer.param_groups[0][_SPENT] = json.dumps([])

    def start(self, optimizer: optim.Optimizer, position: Position) -> None:
        """Go on from a position with the account of the checkpoint that the optimizer was loaded from.

        Raises:
            ConfigError: the target is out of reach.
        """
        from opacus.optimizers import DPOptimizer

        self._group = optimizer.param_groups[0]
        self._history = [tuple(each) for each in json.loads(self._group[_SPENT])]
        times = self._times_left(position)
        self.noise_multiplier = self._noise(position, times)
        self.epsilon_at_end = epsilon_of(
            [*self._history, (self.noise_multiplier, self.chance, times)], self.asked.delta
        )
        if not math.isfinite(self.epsilon_at_end):
            raise ConfigError(
                f"privacy.noise_multiplier: got {self.noise_multiplier:g}, with which ε has no "
                "bound; expected more noise"
            )
        self._optimizer = DPOptimizer(
            optimizer,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.asked.max_grad_norm,
            expected_batch_size=self.batch_size,
            generator=torch.Generator(self.world.device).manual_seed(secrets.randbits(63)),
        )

    def _times_left(self, position: Position) -> int:
        steps = self.epochs * self.batches - position.step
        return max(0, steps if self.asked.sampling == "poisson" else steps // self.batches)

    def _noise(self, position: Position, times: int) -> float:
        if self.asked.noise_multiplier is not None:
            return self.asked.noise_multiplier
        assert self.asked.target_epsilon is not None, "the config has one of them"
        if not times:
            return self._history[-1][0]
        noise = noise_for(self.asked.target_epsilon, self.asked.delta, self._history, self.chance, times)
        if noise is None:
            raise ConfigError(
                f"privacy.target_epsilon: got {self.asked.target_epsilon:g}; the {position.step} steps made so far "
                f"have spent {self.epsilon:.4g}, and no noise is enough for the rest; expected a larger target"
            )
        return noise

    def clip(self, *, last: bool) -> None:
        """Add the shortened gradients of a part of a batch to those of the parts before it."""
        for weight in self._optimizer.params:
            if weight.grad_sample is None:  # no sample was drawn
                weight.grad_sample = weight.new_zeros((0, *weight.shape))
        if not last:
            self._optimizer.signal_skip_step(True)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def step(self, number: int) -> None:
        """Move the weights along the noisy gradient, and count it; ``number`` is the step's, from 0."""
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self.asked.sampling == "poisson" or number % self.batches == 0:
            self._count((self.noise_multiplier, self.chance, 1))

    def _count(self, one: Mechanism) -> None:
        before = self._history[-1] if self._history else None
        if before and before[:2] == one[:2]:
            self._history[-1] = (*one[:2], before[2] + 1)
        else:
            self._history.append(one)

    def store(self) -> None:
        """Bring the optimizer's copy of the account up to date; call it before the run is saved."""
        self._group[_SPENT] = json.dumps(self._history)

    def report(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "epsilon": self.epsilon,
            "delta": self.asked.delta,
            "between": _NEIGHBOURS[self.asked.sampling],
            "sampling": self.asked.sampling,
            "accountant": "rdp",
            "mechanisms": [
                {"noise_multiplier": noise, "chance": chance, "times": times} for noise, chance, times in self._history
            ],
            "max_grad_norm": self.asked.max_grad_norm,
        }


@dataclass
class PrivateTrainer(Trainer):
    """The loop with each sample's gradient shortened and noise added."""

    privacy: Privacy = field(kw_only=True)

    @override
    def batches(self, position: Position) -> Iterator[Batch]:
        if self.privacy.asked.sampling == "shuffled":
            return super().batches(position)
        first = position.step - position.epoch * self.loader.batches
        return self.loader.drawn(position.epoch, secret=self.privacy.secret, first_batch=first)

    @override
    def backward(self, batch: Batch, *, last: bool) -> Tensor:
        loss = torch.zeros((), device=self.world.device)
        if len(batch.labels):
            inputs, targets = self.task.inputs_and_targets(batch)
            total = self.task.loss(self.model(inputs), targets) / self.task.predictions_per_sample
            total.backward()
            loss = total.detach() * (self.world.data_size / batch.global_samples)
        self.privacy.clip(last=last)
        return loss

    @override
    def update(self, step: int) -> None:
        set_learning_rate(self.optimizer, self.config, step, self.steps)
        self.privacy.step(step)

    @override
    def save(self, position: Position) -> None:
        self.privacy.store()
        super().save(position)

    @override
    def facts(self) -> dict[str, float]:
        return {"epsilon": round(self.privacy.epsilon, 4)}

    @override
    def guarantees(self) -> dict[str, Any]:
        return {"privacy": self.privacy.report()}


def check_model(model: nn.Module, name: str) -> None:
    """Refuse a model in which one sample's gradient is no function of that sample alone.

    Raises:
        ConfigError: what is in the way, and what to use.
    """
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise ConfigError(
                f"privacy: the model {name} normalizes by batch ({path}), which mixes samples; expected a model "
                "without, such as fusionnet, vit-b-16, encoder or decoder, or one of your own with GroupNorm in its "
                "place (opacus.validators.ModuleValidator.fix makes it)"
            )
    from opacus.validators import ModuleValidator

    if errors := ModuleValidator.validate(model, strict=False):
        raise ConfigError(f"privacy: the model {name}: {' '.join(str(errors[0]).split())}")


def check_gradients(model: nn.Module, name: str, task: Task, data: Dataset) -> None:
    """Try on three samples whether each one's gradient is the same whichever others are beside it.

    Call it after `Privacy` was made, on a model in training.

    Raises:
        ConfigError: it is not, or Opacus can't compute it.
    """
    inputs, labels = (torch.from_numpy(each) for each in data.take(np.arange(min(3, len(data)))))
    weights = list(model.named_parameters())
    steady = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    for module in steady:
        module.eval()
    found = []
    for count in (len(labels), len(labels) - 1):
        batch = Batch(inputs[:count], labels[:count], count)
        try:
            given, targets = task.inputs_and_targets(batch)
            task.loss(model(given), targets).backward()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"privacy: Opacus can't take the model {name}: {' '.join(str(error).split())}") from error
        found.append({path: (_taken(weight, "grad_sample"), _taken(weight, "grad")) for path, weight in weights})
    for module in steady:
        module.train()
    for path, (each, together) in found[0].items():
        fewer = found[1][path][0]
        alike = (
            isinstance(each, Tensor)
            and isinstance(fewer, Tensor)
            and each.shape[0] == len(labels)
            and fewer.shape[0] == len(labels) - 1
            and _near(each[:-1], fewer)
            and (together is None or _near(each.sum(0), together))
        )
        if not alike:
            raise ConfigError(
                f"privacy: the model {name}: a sample's gradient of {path} is not the same beside other samples; "
                "expected layers that take (samples, ...) and treat each sample for itself, and chance only in "
                "nn.Dropout"
            )


def _taken(weight: nn.Parameter, name: str) -> Any:
    """What a backward pass left there, which is cleared."""
    left = getattr(weight, name, None)
    setattr(weight, name, None)
    return left


def _near(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-3, atol=1e-6 + 1e-4 * float(second.abs().max()))
