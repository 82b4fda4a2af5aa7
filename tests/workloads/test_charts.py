"""The charts of a run that has ended, and the curves that they are drawn from."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from workloads.training.charts import classification_charts, loss_chart
from workloads.training.tensorboard import HOURS, TensorBoardLog, read_curve


def judged(classes: int, *, samples: int = 200, absent: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    actual = torch.randint(0, classes, (samples,))
    actual[actual == absent] = 0
    shares = (torch.randn(samples, classes) + 2 * torch.nn.functional.one_hot(actual, classes)).softmax(dim=1)
    counts = torch.zeros(classes, classes, dtype=torch.long)
    counts.index_put_((actual, shares.argmax(dim=1)), torch.ones(samples, dtype=torch.long), accumulate=True)
    return actual, shares, counts


@pytest.mark.parametrize(("classes", "absent"), [(3, None), (3, 2), (40, None)])
def test_each_chart_is_an_image_with_something_on_it(classes: int, absent: int | None) -> None:
    names = [f"class {number}" for number in range(classes)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = classification_charts(*judged(classes, absent=absent), names)
    assert drawn.keys() == {"confusion_matrix.png", "roc.png", "precision_recall.png", "calibration.png"}
    for content in drawn.values():
        image = Image.open(io.BytesIO(content))
        assert image.format == "PNG" and min(image.size) > 300
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert colours is not None and len(colours) > 10


def test_the_loss_of_a_resumed_run_is_the_whole_runs_and_each_step_has_one_value(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    first = TensorBoardLog(url, from_step=0)
    for step, loss in ((10, 2.0), (20, 1.5), (30, 1.2)):
        first.scalars(step, {"train/loss": loss})
    first.upload(30)
    resumed = TensorBoardLog(url, from_step=20)  # what came after step 20 is made anew
    resumed.scalars(30, {"train/loss": 1.0})
    resumed.upload(30)
    losses = read_curve(url, "train/loss")
    assert losses == [(10, 2.0), (20, 1.5), (30, 1.0)]
    shown = EventAccumulator(str(tmp_path))
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("train/loss")] == losses, "as TensorBoard reads it"
    assert read_curve(url, HOURS)[-1][1] == pytest.approx(resumed.hours, abs=1e-4)
    assert Image.open(io.BytesIO(loss_chart(losses))).format == "PNG"
