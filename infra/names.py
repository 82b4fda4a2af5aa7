"""Names that stay the same from one update to the next, and that the clouds accept."""

from __future__ import annotations

import hashlib
from typing import Literal

DIGEST_LENGTH = 6
STACK_TAG = "fusion:stack"
"""What everything of a stack carries, with the stack's name: bills and quotas are counted by it."""
EMAIL = r"[^@\s]+@[^@\s]+\.[^@\s]+"
"""An address, by its form alone."""
BY_DIGEST = r"[^@\s]+@sha256:[0-9a-f]{64}"
"""An image that stays what it is."""
MigStrategy = Literal["none", "single", "mixed"]
"""What becomes of GPUs that are cut into instances: `single` calls each a GPU, `mixed` by its size."""
NodeAutoscalerName = Literal["none", "karpenter"]
"""Who makes the nodes above a pool's minimum; with `none` the cloud's own node pools do."""
KubernetesTarget = Literal["cloud", "cluster"]
"""Where a stack's objects go: to its own cluster, or to the control plane that `make cluster` starts."""
CLAIMS_KUBERNETES_MIN = (1, 34)
"""The first version that serves claims of devices as `resource.k8s.io/v1`. Source: Kubernetes 1.34 release notes."""
DOMAIN = r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def short_name(name: str, limit: int) -> str:
    """The name itself where it fits, else its beginning and a digest of the whole, at most `limit` characters long.

    The digest keeps two long names apart that begin alike.
    """
    if len(name) <= limit:
        return name
    return f"{name[: limit - DIGEST_LENGTH - 1].rstrip('-')}-{digest(name)}"


def versioned_name(name: str, limit: int, *facts: object) -> str:
    """A name that changes with the facts that force a replacement.

    The replacement can then be made before the old one goes: both names exist for a while.
    """
    suffix = digest("|".join(str(fact) for fact in facts))
    return f"{short_name(name, limit - DIGEST_LENGTH - 1)}-{suffix}"


def digest(text: str) -> str:
    """A short, stable fingerprint; names need no more than to differ."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]
