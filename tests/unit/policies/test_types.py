"""Every type and every input that the guardrails name is one of the providers' own."""

import importlib
import inspect
import re

import pulumi
import pytest

from policies import guardrails
from policies.capacity import ACCELERATORS, MACHINES, TPU_TYPES
from policies.pricing import RULES
from policies.security.encryption import ENCRYPTED
from policies.security.identity import OPENED, TRUST
from policies.security.images import AS_TEXT
from policies.security.residency import REPLICAS
from policies.security.secrets import ENVIRONMENTS, KEPT, SCRIPTS
from policies.security.tags import TAGGED

EVERY = ENCRYPTED, OPENED, TRUST, AS_TEXT, ENVIRONMENTS, SCRIPTS, *(each.types for each in guardrails())
TYPES = sorted({kind for kinds in EVERY for kind in kinds if kind.startswith(("aws:", "gcp:"))})
PATHS = sorted(
    {
        (kind, (*rule.blocks, *path))
        for kind, rules in ENCRYPTED.items()
        for rule in rules
        for path in (rule.key, rule.switch)
    }
    | {(kind, path) for kind, paths in REPLICAS.items() for path in paths}
    | {(kind, path) for kind, path in ENVIRONMENTS.items() if not kind.startswith("kubernetes:")}
    | {
        (kind, (field,))
        for table in (SCRIPTS, KEPT)
        for kind, fields in table.items()
        for field in fields
        if ":core/" not in kind
    }
    | {(kind, (field,)) for table in (TRUST, AS_TEXT) for kind, field in table.items()}
    | {(kind, tuple(path.split("."))) for kind, path in TAGGED.items()}
    | {(kind, path) for table in (MACHINES, ACCELERATORS, TPU_TYPES) for kind, paths in table.items() for path in paths}
)


def resource_class(token: str) -> type[pulumi.CustomResource]:
    package, module, name = token.replace("lambda/", "lambda_/").split(":")
    found: type[pulumi.CustomResource] = getattr(
        importlib.import_module(f"pulumi_{package}.{module.split('/')[0]}"), name
    )
    return found


@pytest.mark.parametrize("token", TYPES)
def test_a_type_is_registered_under_the_token_that_is_judged(token: str) -> None:
    registered = re.search(r"super\(\w+, __self__\)\.__init__\(\s*'([^']+)'", inspect.getsource(resource_class(token)))
    assert registered is not None
    assert registered[1] == token


@pytest.mark.parametrize(("token", "path"), PATHS, ids=lambda each: each if isinstance(each, str) else ".".join(each))
def test_an_input_that_is_read_exists(token: str, path: tuple[str, ...]) -> None:
    block: type = resource_class(token)
    for key in path:
        getters = [each.fget for each in vars(block).values() if isinstance(each, property) and each.fget]
        found = next((each for each in getters if getattr(each, "_pulumi_name", each.__name__) == key), None)
        assert found is not None, f"{token}: {block.__name__} has no {key}"
        inner = re.search(r"outputs\.(\w+)", str(found.__annotations__["return"]))
        if inner:
            outputs = importlib.import_module(f"{resource_class(token).__module__.rpartition('.')[0]}.outputs")
            block = getattr(outputs, inner[1])


def test_all_that_has_a_price_and_takes_tags_is_judged_for_them() -> None:
    priced = [each for each in RULES if each.startswith(("aws:", "gcp:"))]
    takes = {"aws": "tags", "gcp": "labels"}
    assert len(priced) > 40
    assert [each for each in priced if hasattr(resource_class(each), takes[each[:3]]) and each not in TAGGED] == []
