"""The limits that a stack must keep: what a team sets, and the rules that judge a plan."""

from planner.guardrails.rules import PLAN_RULES, PlanRule, Violation, check_plan
from planner.guardrails.settings import GuardrailSettings, Level

__all__ = ["PLAN_RULES", "GuardrailSettings", "Level", "PlanRule", "Violation", "check_plan"]
