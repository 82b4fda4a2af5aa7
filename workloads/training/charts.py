"""What people look at when a run has ended: charts as PNG, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_precision_recall_curve, binary_roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 2_000
"""Of a curve, that are drawn."""
MOST_LINES = 10
"""Classes that get a curve of their own; of more, only all of them together are drawn."""
MOST_NUMBERS = 20
"""Classes up to which the confusion matrix has a number in each field, and a name beside each row."""
CONFIDENCE_BINS = 10
LEFT_INCHES, RIGHT_INCHES, BOTTOM_INCHES, TOP_INCHES = 0.8, 0.2, 0.55, 0.4
"""Margins of a chart."""
_ALL = "all classes"


def classification_charts(actual: Tensor, shares: Tensor, counts: Tensor, classes: Sequence[str]) -> dict[str, bytes]:
    """The charts of a classification, by file name.

    Args:
        actual: (samples,) true classes.
        shares: (samples, classes) predicted probabilities.
        counts: (classes, classes) samples by true and predicted class.
        classes: their names.
    """
    return {
        "confusion_matrix.png": _confusion_matrix(counts.numpy(), classes),
        "roc.png": _roc(actual, shares, classes),
        "precision_recall.png": _precision_recall(actual, shares, classes),
        "calibration.png": _calibration(actual, shares),
    }


def loss_chart(losses: Sequence[tuple[int, float]]) -> bytes:
    """The mean training loss of each epoch, over the step at which it ended."""
    figure, axes = _figure(6.4, 4)
    steps, values = zip(*losses, strict=True)
    axes.plot(steps, values, marker="." if len(losses) <= 50 else "")
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", scilimits=(-2, 4))
    axes.set(title="Training loss", xlabel="step", ylabel="mean loss of an epoch, nats")
    axes.grid(alpha=0.3)
    return _png(figure)


def _confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> bytes:
    size = 5.0 + 0.25 * min(len(classes), MOST_NUMBERS)
    figure = _empty_figure(size + 0.8, size)
    figure.set_layout_engine("constrained")  # names of classes take what room they need
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    if len(classes) <= MOST_NUMBERS:
        slanted = max(map(len, classes)) > 3
        axes.set_xticks(
            range(len(classes)), classes, rotation=45 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_yticks(range(len(classes)), classes)
        for row, column in np.argwhere(counts):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=ink, fontsize=8)
    axes.set(title=f"Confusion matrix of {counts.sum():,} held-out samples", xlabel="predicted", ylabel="true")
    return _png(figure)


def _roc(actual: Tensor, shares: Tensor, classes: Sequence[str]) -> bytes:
    figure, axes = _figure(6.4, 5.4)
    for name, score, positive in _lines(actual, shares, classes):
        false_rate, true_rate, _ = binary_roc(score, positive)
        area = torch.trapezoid(true_rate, false_rate)
        axes.plot(_thinned(false_rate), _thinned(true_rate), label=f"{name}: area {area:.4f}", **_style(name))
    axes.plot((0, 1), (0, 1), color="grey", linestyle=":", linewidth=1)
    axes.set(title="ROC, one class against the others", xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(loc="lower right", fontsize=8)
    axes.grid(alpha=0.3)
    return _png(figure)


def _precision_recall(actual: Tensor, shares: Tensor, classes: Sequence[str]) -> bytes:
    figure, axes = _figure(6.4, 5.4)
    for name, score, positive in _lines(actual, shares, classes):
        precision, recall, _ = binary_precision_recall_curve(score, positive)
        average = -((recall[1:] - recall[:-1]) * precision[:-1]).sum()
        axes.plot(_thinned(recall), _thinned(precision), label=f"{name}: average {average:.4f}", **_style(name))
    axes.set(title="Precision and recall, one class against the others", xlabel="recall", ylabel="precision")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(loc="lower left", fontsize=8)
    axes.grid(alpha=0.3)
    return _png(figure)


def _calibration(actual: Tensor, shares: Tensor) -> bytes:
    """How often the model is right, over how sure it is; and how many predictions are so sure."""
    confidence, predicted = shares.max(dim=1)
    place = (confidence * CONFIDENCE_BINS).long().clamp(max=CONFIDENCE_BINS - 1)
    number = torch.bincount(place, minlength=CONFIDENCE_BINS)
    filled = number > 0
    mean = torch.bincount(place, weights=confidence.double(), minlength=CONFIDENCE_BINS)[filled] / number[filled]
    right = (predicted == actual).double()
    accuracy = torch.bincount(place, weights=right, minlength=CONFIDENCE_BINS)[filled] / number[filled]
    figure = _empty_figure(6.4, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot((0, 1), (0, 1), color="grey", linestyle=":", label="as sure as it is right")
    above.plot(mean.numpy(), accuracy.numpy(), marker="o", label="this model")
    above.set(title="Calibration", ylabel="share that is right", ylim=(0, 1.02))
    above.legend(loc="upper left", fontsize=8)
    above.grid(alpha=0.3)
    middles = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS
    below.bar(middles, number.numpy(), width=0.9 / CONFIDENCE_BINS)
    below.set(xlabel="probability of the predicted class", ylabel="samples", xlim=(0, 1))
    return _png(figure)


def _lines(actual: Tensor, shares: Tensor, classes: Sequence[str]) -> list[tuple[str, Tensor, Tensor]]:
    """(name, score, whether it is that class) of each curve; a class that no held-out sample has gets none."""
    is_class = actual.unsqueeze(1) == torch.arange(len(classes))
    lines = [(_ALL, shares.flatten(), is_class.flatten().long())]
    if len(classes) <= MOST_LINES:
        present = [number for number in range(len(classes)) if is_class[:, number].any()]
        lines += [(classes[number], shares[:, number], is_class[:, number].long()) for number in present]
    return lines


def _thinned(values: Tensor) -> np.ndarray:
    """Evenly chosen points, with the first and the last."""
    return values[torch.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().long()].numpy()


def _style(name: str) -> dict[str, Any]:
    return {"color": "black", "linewidth": 2} if name == _ALL else {"linewidth": 1}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _empty_figure(width, height)
    return figure, figure.subplots()


def _empty_figure(width: float, height: float) -> Figure:
    """Inches; not by pyplot, which keeps figures and asks for a display.

    Its margins hold titles and numbers; to have them found anew takes as long as to draw the chart.
    """
    from matplotlib.figure import Figure, SubplotParams

    margins = SubplotParams(
        left=LEFT_INCHES / width,
        right=1 - RIGHT_INCHES / width,
        bottom=BOTTOM_INCHES / height,
        top=1 - TOP_INCHES / height,
        hspace=0.08,
    )
    return Figure(figsize=(width, height), subplotpars=margins)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
