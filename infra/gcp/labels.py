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


def wrong_labels(tags: Mapping[str, str]) -> str | None:
    """Why tags can't be labels; None where they can."""
    for name in tags:
        if not re.match(r"[a-z]", _label(name)):
            return f"{name}: a label of Google Cloud begins with a letter from a to z; choose another key"
    by_label: dict[str, str] = {}
    for name in tags:
        if (other := by_label.setdefault(_label(name), name)) != name:
            return f"{other} and {name} are one label on Google Cloud, {_label(name)}; keep one of them"
    return None


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:LABEL_MAX]
