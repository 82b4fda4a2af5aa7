"""What a stack's file declares and what is planned from it, with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fusion.errors import FusionError
from fusion.stack import Stack
from infra.config import ConfigError, StackConfig, load
from infra.planning import plan_stack
from planner.catalog import Catalog
from planner.errors import PlanError
from planner.plan import Plan


def config_of(document: Mapping[str, Any], stack: str, file: str) -> StackConfig:
    """A stack's config from the values of its file.

    Raises:
        ConfigError: one line for each wrong value.
    """
    values = {
        key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in document.items()
    }
    return load(values, stack=stack, stack_file=file)


def plan_of(stack: Stack, catalog: Catalog) -> Plan:
    """What the Pulumi program would provision.

    Raises:
        FusionError: the config is wrong, or a workload fits no offer.
    """
    try:
        return plan_stack(config_of(stack.config, stack.name, str(stack.file)), stack.name, catalog)
    except ConfigError as error:
        raise FusionError(str(error)) from None
    except PlanError as error:
        raise FusionError(f"{stack.file}: {error}") from None
