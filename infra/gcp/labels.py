"""Tags as Google Cloud takes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

LABEL_MAX = 63


def as_labels(tags: Mapping[str, str]) -> dict[str, str]:
    """Labels hold lower-case letters, digits, dashes and underscores alone: `fusion:stack` becomes `fusion-stack`.

    Source: cloud.google.com/resource-manager/docs/labels-overview, "Requirements for labels".
    """
    return {_label(name): _label(value) for name, value in tags.items()}


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:LABEL_MAX]
