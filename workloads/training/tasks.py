"""What a model learns: how a batch becomes input and target, the loss, and how the model is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workloads.config import ConfigError
from workloads.data.format import Index
from workloads.data.loader import Batch
from workloads.training.config import TaskName


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on samples that it was never trained on."""

    metrics: dict[str, float]
    """The task's few numbers under the names that reports and curves have; larger is not always better."""
    samples: int
    report: dict[str, Any]
    """Everything for report.json beside the metrics."""
    files: dict[str, bytes] = field(default_factory=dict)
    """What people look at, by file name."""


class Task(ABC):
    """One kind of learning; made for one data set and one device."""

    def __init__(self, index: Index, device: torch.device) -> None:
        self.index, self.device = index, device

    @property
    @abstractmethod
    def predictions_per_sample(self) -> int:
        """How many losses `loss` sums for one sample."""

    @property
    @abstractmethod
    def answers(self) -> int:
        """Among which a prediction chooses."""

    @abstractmethod
    def inputs_and_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the model takes and what it should answer, on the device."""

    @abstractmethod
    def observe(self, logits: Tensor, targets: Tensor) -> Tensor:
        """What `judge` needs to know of one batch, on the CPU; a row for each sample."""

    @abstractmethod
    def scores(self, observed: Tensor) -> dict[str, float]:
        """The task's few numbers, over all samples together; `accuracy` is one of them."""

    @abstractmethod
    def judge(self, observed: Tensor) -> Evaluation:
        """The verdict on all samples together, with reports and charts."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The sum of the cross-entropies (nats) of all predictions, in fp32.

        Raises:
            ConfigError: the model's answer is none to these targets.
        """
        expected = (*targets.shape, self.answers)
        if not isinstance(logits, Tensor) or logits.shape != expected or not logits.is_floating_point():
            said = f"{logits.dtype} of {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(f"model.name: the model answers with {said}; expected logits of {expected}")
        return F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="sum")


class Classification(Task):
    """One of the data set's classes for each image, row or text."""

    predictions_per_sample = 1

    @property
    def answers(self) -> int:
        """The classes."""
        return len(self.index.classes)

    def inputs_and_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pixels become floats from 0 to 1; rows and tokens stay as they are."""
        inputs = batch.inputs.to(self.device, non_blocking=True)
        if self.index.kind == "image":
            inputs = inputs.float() / self.index.scale
        return inputs, batch.labels.to(self.device, non_blocking=True)

    def observe(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(samples, 1 + classes): the true class, then each class's probability."""
        return torch.cat((targets.unsqueeze(1).float(), logits.float().softmax(dim=1)), dim=1).cpu()

    def scores(self, observed: Tensor) -> dict[str, float]:
        """Accuracy, macro F1 and calibration error by torchmetrics."""
        from torchmetrics.functional import classification as metrics  # its import takes over a second

        actual, shares, predicted = _actual_and_predicted(observed)
        classes = len(self.index.classes)
        return {
            "accuracy": metrics.multiclass_accuracy(predicted, actual, average="micro", num_classes=classes).item(),
            "f1_macro": metrics.multiclass_f1_score(predicted, actual, average="macro", num_classes=classes).item(),
            "calibration_error": metrics.multiclass_calibration_error(shares, actual, num_classes=classes).item(),
        }

    def judge(self, observed: Tensor) -> Evaluation:
        """The scores, scikit-learn's report, and charts."""
        from sklearn.metrics import classification_report  # these imports take over a second
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        from workloads.training.charts import classification_charts

        actual, shares, predicted = _actual_and_predicted(observed)
        classes = self.index.classes
        counts = multiclass_confusion_matrix(predicted, actual, num_classes=len(classes))
        names: dict[str, Any] = {"labels": list(range(len(classes))), "target_names": classes, "zero_division": 0}
        return Evaluation(
            metrics=self.scores(observed),
            samples=len(actual),
            report={
                "classification_report": classification_report(actual, predicted, output_dict=True, **names),
                "confusion_matrix": counts.tolist(),
            },
            files={
                "classification_report.txt": classification_report(actual, predicted, digits=4, **names).encode(),
                **classification_charts(actual, shares, counts, classes),
            },
        )


def _actual_and_predicted(observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each sample's class, the probability of every class, and the class that is the likeliest."""
    shares = observed[:, 1:]
    return observed[:, 0].long(), shares, shares.argmax(dim=1)


class NextToken(Task):
    """Each token from those before it."""

    @property
    def predictions_per_sample(self) -> int:
        """Every token but the first is predicted."""
        return self.index.shape[0] - 1

    @property
    def answers(self) -> int:
        """The tokens."""
        return self.index.vocabulary or 0

    def inputs_and_targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same tokens without the last, and without the first."""
        tokens = batch.inputs.to(self.device, non_blocking=True).long()
        return tokens[:, :-1], tokens[:, 1:]

    def observe(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(samples, 2): the sum of the losses, and how many tokens were foreseen."""
        losses = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), reduction="none")
        foreseen = (logits.argmax(dim=-1) == targets).sum(dim=1)
        return torch.stack((losses.view(targets.shape).sum(dim=1), foreseen.float()), dim=1).cpu()

    def scores(self, observed: Tensor) -> dict[str, float]:
        """Loss (nats a token), perplexity and the share of tokens foreseen."""
        loss, accuracy = (observed.double().sum(dim=0) / (len(observed) * self.predictions_per_sample)).tolist()
        return {"loss": loss, "perplexity": torch.tensor(loss).exp().item(), "accuracy": accuracy}

    def judge(self, observed: Tensor) -> Evaluation:
        """The scores, and on how many tokens."""
        return Evaluation(
            metrics=self.scores(observed),
            samples=len(observed),
            report={"held_out_tokens": len(observed) * self.predictions_per_sample},
        )


TASKS: dict[TaskName, type[Task]] = {"classification": Classification, "next_token": NextToken}


def task_for(name: TaskName | None, index: Index, device: torch.device) -> Task:
    """The task that the config names, or else the one that the data set is for.

    Raises:
        ConfigError: the data set is for another task.
    """
    fitting: TaskName = "next_token" if index.kind == "tokens" else "classification"
    if name not in (None, fitting):
        raise ConfigError(f"task: got {name}; the data set {index.name} holds {index.kind}, which is for {fitting}")
    return TASKS[fitting](index, device)
