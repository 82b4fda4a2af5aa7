"""Models of a team's own: one that says what it was given, in a warning and in an error, and some that are none."""

from __future__ import annotations

import os
import warnings

import torch
from torch import Tensor, nn


class Quoting(nn.Module):
    def __init__(self, *, shape: tuple[int, ...], classes: int, **_: object) -> None:
        super().__init__()
        self.layer = nn.Linear(shape[0], classes)
        self.steps = 0

    def forward(self, rows: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps == 2:
            warnings.warn(f"odd: {rows.tolist()}", stacklevel=1)
        if self.steps == 3:
            match os.environ.get("FAILS"):
                case "by a message":
                    raise ValueError(f"can't take {rows.tolist()}")
                case "by another error":
                    _half_of(str(rows.tolist()))
                case "by shape":
                    return self.layer(rows[:, 1:].float())
        return self.layer(rows.float() / 100_000)


def _half_of(text: str) -> float:
    try:
        return float(text) / 2
    except ValueError as error:
        raise RuntimeError("no number") from error


def net(**given: object) -> nn.Module:
    torch.manual_seed(0)
    return Quoting(**given)  # type: ignore[arg-type] # as the data set has it


class Short(Quoting):
    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows)[:, 1:]


class Endless(Quoting):
    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(rows) * float("nan")


def no_model(**_: object) -> int:
    return 5


def failing(**_: object) -> nn.Module:
    raise KeyError("weights.pt")


def fixed(**given: object) -> nn.Module:
    return net(**given).requires_grad_(False)
