"""Errors of the planner, each one sentence for the user."""

from __future__ import annotations


class PlanError(ValueError):
    """No plan can be made from what was declared; the text says of what, why, and the way out."""
