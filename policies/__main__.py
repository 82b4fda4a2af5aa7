"""The policy pack as the engine runs it."""

from policies import guardrails
from policies.analyzer import serve

serve("fusion", guardrails())
