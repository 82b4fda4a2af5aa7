"""What must not be shown, whoever reads the comment: values marked as secret, and those that are secret by nature."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from policies.marks import SECRET_SIGNATURE, SIGNATURE_KEY
from policies.resource import is_unknown
from policies.security.secrets import CREDENTIALS

SECRET = "[secret]"
NOT_KNOWN = "known after the update"
SECRET_NAMES = re.compile(
    r"pass(word|phrase|wd)|secret|token|credential|private_?key|api_?key|access_?key|auth_?key|connection_?string"
    r"|kubeconfig|user_?data|client_?key|signing_?key|license_?key",
    re.IGNORECASE,
)
HARMLESS = re.compile(
    r"secret_?(name|id|arn|key_?ref|ref)|secrets?_?(manager|store)|token_?(endpoint|ttl|expiration|audience)"
    r"|http_?tokens|(input|output|max)_?tokens|automount_?service_?account_?token|public_?access|key_?(id|arn|name)$",
    re.IGNORECASE,
)
"""Phrases that hold one of the words above and name no secret."""
PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY.*?(?:-----END[A-Z ]*-----|\Z)", re.DOTALL)
SECRET_TYPES = re.compile(
    r"^kubernetes:core/v1:Secret$|^aws:secretsmanager/secretVersion:|^aws:ssm/parameter:|^gcp:secretmanager/secretVersion:"
    r"|^aws:iam/accessKey:|^random:index/randomPassword:|^tls:",
)
SHOWN_OF_SECRET_TYPES = {"name", "type", "description", "metadata", "tags", "tagsAll", "labels", "tier", "keyId"}


def is_secret_by_nature(resource_type: str, path: tuple[str | int, ...]) -> bool:
    """Whether the value at a path holds a secret though nobody marked it, told by its name and the resource's type."""
    words = [part for part in path if isinstance(part, str)]
    if words and SECRET_TYPES.search(resource_type):
        return words[0] not in SHOWN_OF_SECRET_TYPES or "annotations" in words  # kubectl keeps a copy in one
    return any(SECRET_NAMES.search(HARMLESS.sub("", each)) for each in words)


def is_marked(value: Any) -> bool:
    """Whether the engine marked this very value as secret."""
    if isinstance(value, Mapping):
        return bool(value.get(SIGNATURE_KEY) == SECRET_SIGNATURE)
    return isinstance(value, str) and value == SECRET


def holds_marked(value: Any) -> bool:
    """Whether the engine marked it, or any part of it, as secret."""
    if is_marked(value):
        return True
    if isinstance(value, Mapping):
        return any(map(holds_marked, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_marked, value))


def hidden_as_in(value: Any, other: Any) -> Any:
    """The value with `[secret]` wherever the other one, of the same property at another time, has it."""
    if value is not None and isinstance(other, str) and SECRET in other:
        return SECRET
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return {key: hidden_as_in(each, other.get(key)) for key, each in value.items()}
    if isinstance(value, list) and isinstance(other, list):
        rest = [None] * (len(value) - len(other))
        return [hidden_as_in(each, its) for each, its in zip(value, [*other, *rest], strict=False)]
    return value


def without_secrets(value: Any, resource_type: str, path: tuple[str | int, ...] = ()) -> Any:
    """Inputs, or the part of them at a path, with `[secret]` for what is, and words for what is not known yet."""
    can_hold = value is not None and not isinstance(value, bool)
    if is_marked(value) or (can_hold and is_secret_by_nature(resource_type, path)):
        return SECRET
    if is_unknown(value):
        return NOT_KNOWN
    if isinstance(value, Mapping):
        inside = {key: without_secrets(each, resource_type, (*path, str(key))) for key, each in value.items()}
        return inside | {"value": SECRET} if _names_a_secret(value) else inside
    if isinstance(value, list | tuple):
        return [without_secrets(each, resource_type, (*path, index)) for index, each in enumerate(value)]
    if isinstance(value, str):
        document = value.lstrip()[:1] in ("{", "[")
        return _document_without_secrets(value, resource_type, path) if document else without_credentials(value)
    return value


def without_credentials(text: str) -> str:
    """A text with `[secret]` for what has the form that an issuer gives its keys and tokens."""
    text = PRIVATE_KEY.sub(SECRET, text)
    for form in CREDENTIALS.values():
        text = form.sub(SECRET, text)
    return text


def _names_a_secret(pair: Mapping[str, Any]) -> bool:
    """A name beside its value, as in the environment of a container."""
    name = pair.get("name", pair.get("key"))
    return isinstance(name, str) and "value" in pair and is_secret_by_nature("", (name,))


def _document_without_secrets(text: str, resource_type: str, path: tuple[str | int, ...]) -> str:
    """JSON inside of a text, such as a policy, has the same names inside."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return without_credentials(text)
    return json.dumps(without_secrets(document, resource_type, path), ensure_ascii=False)
