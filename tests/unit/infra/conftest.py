"""Args that hold, from which each test departs by what it is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from infra.accelerator_pool import AcceleratorPoolArgs
from infra.errors import ArgumentError

REGION = "us-east-1"
ZONES = ("us-east-1a", "us-east-1b")


@pytest.fixture(scope="module", autouse=True)
def current_event_loop() -> None:
    """The SDK's mocks want one, which `asyncio.run` of any test before, in the same process, has taken away."""
    try:
        asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())


def pool_args(**changes: Any) -> AcceleratorPoolArgs:
    """A spot pool of one A10G a node in two zones."""
    defaults: dict[str, Any] = {
        "pool": "train",
        "region": REGION,
        "zones": ZONES,
        "instance_type": "g5.xlarge",
        "accelerator": "A10G",
        "accelerator_count": 1,
        "nodes_max": 2,
    }
    return AcceleratorPoolArgs(**(defaults | changes))


def efa_pool_args(**changes: Any) -> AcceleratorPoolArgs:
    """A pool of eight H100 a node in one zone, which AWS sells with 32 EFA adapters."""
    defaults = {"zones": ZONES[:1], "instance_type": "p5.48xlarge", "accelerator": "H100", "accelerator_count": 8}
    return pool_args(**(defaults | changes))


def refusal(make: Callable[..., object], *args: Any, **changes: Any) -> str:
    """The sentence with which the args are refused; one line that ends as sentences do."""
    with pytest.raises(ArgumentError) as refused:
        make(*args, **changes)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    return sentence
