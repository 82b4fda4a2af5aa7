"""The ranges of the registered models' arguments; `workloads.models.build` checks them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Size = Annotated[int, Field(strict=True, ge=1, le=1_048_576)]
"""How many or how wide."""
Layers = Annotated[int, Field(strict=True, ge=1, le=4_096)]
"""How many blocks, one after the other."""
Dropout = Annotated[float, Field(strict=True, ge=0, lt=1)]
"""The share of values that training leaves out."""
Base = Annotated[float, Field(strict=True, gt=1)]
"""Of the lengths that rotary positions turn by."""
