"""The policy pack as the engine runs it."""

import os
import sys
from pathlib import Path

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it asks every installed distribution for some

from policies import guardrails
from policies.analyzer import serve
from policies.own_guardrails import OwnGuardrailError, own_guardrails

try:
    own = own_guardrails(Path(__file__).with_name("own"), guardrails())
except OwnGuardrailError as error:
    sys.exit(str(error))
serve("fusion", [*guardrails(), *own])
