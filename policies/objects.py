"""Objects of Kubernetes as their API server takes them, whatever the program calls them.

A list becomes its items, and a token that means the same object (`kubernetes:v1:Service`, as a `CustomResource` of the
SDK has it, is `kubernetes:core/v1:Service`) becomes the one that guardrails name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from policies.resource import Props, Resource


def objects_of(resource: Resource) -> Iterator[Resource]:
    """A resource as what the guardrails judge: itself, or each item of the list that it is.

    Items that are not known before the update are one resource of which nothing is known.
    """
    if not resource.type.startswith("kubernetes:") or resource.type.count(":") != 2:
        yield resource
        return
    _, api_version, kind = resource.type.split(":")
    is_patch = kind.endswith("Patch")
    api_version = _plain(resource.props, "apiVersion") or api_version
    kind = _plain(resource.props, "kind") or kind
    if is_patch and not kind.endswith("Patch"):
        kind += "Patch"
    items = resource.props.part("items")
    if not kind.endswith("List") or items.value is None:
        yield replace(resource, type=_token(api_version, kind))
        return
    for item in (items,) if items.is_unknown() else items.each():
        own = _token(_plain(item, "apiVersion") or api_version, _plain(item, "kind") or kind.removesuffix("List"))
        yield from objects_of(replace(resource, type=own, props=item))


def _token(api_version: str, kind: str) -> str:
    return f"kubernetes:{api_version if '/' in api_version else f'core/{api_version}'}:{kind}"


def _plain(props: Props, key: str) -> str:
    part = props.part(key)
    return part.value if isinstance(part.value, str) and not part.is_unknown() else ""
