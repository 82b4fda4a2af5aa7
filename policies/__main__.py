"""The policy pack as the engine runs it."""

import sys
from pathlib import Path

from policies import guardrails
from policies.analyzer import serve
from policies.own_guardrails import OwnGuardrailError, own_guardrails

try:
    own = own_guardrails(Path(__file__).with_name("own"), guardrails())
except OwnGuardrailError as error:
    sys.exit(str(error))
serve("fusion", [*guardrails(), *own])
