"""What is the same for all resources of an update: the stack's config, its guardrails' settings, the catalog."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from planner.catalog import Catalog, load
from planner.guardrails.settings import GuardrailSettings, stricter
from policies.state import State, read_state

Remembered = TypeVar("Remembered")
SETTINGS_KEY = "fusion:guardrails"


@dataclass
class Update:
    """A preview or an update, from its first resource to its last.

    Attributes:
        project, stack, organization: their names.
        is_preview: nothing is created.
        config: the stack's config by its keys, such as `aws:region`; structured values are JSON text.
        secret_keys: the keys whose values are encrypted in the stack's file.
        pack_config: by guardrail, what the pack's own config sets of it.
        read_state: the state of a stack, by its organization and its name.
    """

    project: str = ""
    stack: str = ""
    organization: str = ""
    is_preview: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    secret_keys: frozenset[str] = frozenset()
    pack_config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    read_state: Callable[[str, str], State] = field(default=read_state)
    _states: dict[Callable[..., Any], Any] = field(default_factory=dict)
    _reading: Future[State] | None = None

    @functools.cached_property
    def settings(self) -> GuardrailSettings:
        """What the stack and the pack's config set, the stricter where both do.

        Raises:
            pydantic.ValidationError: a value is wrong.
        """
        joined = self.mapping(SETTINGS_KEY)
        for values in self.pack_config.values():
            joined = stricter(joined, values)
        return GuardrailSettings.model_validate(joined)

    def wrong_settings(self) -> ValidationError | None:
        """What is wrong with the settings; None where they can be read."""
        try:
            _ = self.settings
        except ValidationError as error:
            return error
        return None

    @functools.cached_property
    def catalog(self) -> Catalog:
        """Prices and accelerators."""
        return load()

    @functools.cached_property
    def state(self) -> State:
        """What is deployed of the stack, read when it is first asked for, or early.

        Raises:
            policies.state.StateNotRead: it can't be read.
        """
        return self._reading.result() if self._reading else self.read_state(self.organization, self.stack)

    def read_early(self) -> None:
        """Read the state while the program starts, where a limit will ask for it: the CLI takes its time."""
        if self._reading is None and self.stack and not self.wrong_settings() and self.settings.limits_the_stacks_cost:
            thread = ThreadPoolExecutor(1)
            self._reading = thread.submit(self.read_state, self.organization, self.stack)
            thread.shutdown(wait=False)

    def mapping(self, key: str) -> dict[str, Any]:
        """The value of a structured key such as `fusion:guardrails`; empty where it is not set or no mapping."""
        try:
            value = json.loads(self.config.get(key, "{}"))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def remembered(self, make: Callable[[Update], Remembered]) -> Remembered:
        """What a guardrail remembers from one resource to the next: made at the first call, the same ever after."""
        if make not in self._states:
            self._states[make] = make(self)
        remembered: Remembered = self._states[make]
        return remembered
