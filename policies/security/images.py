"""Guardrails on container images."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.guardrail import guardrail
from policies.resource import Resource
from policies.security.pods import pods_of
from policies.update import Update

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
DEFAULT_REGISTRY = "docker.io"


def registry_of(image: str) -> str:
    """The host of an image's registry, as runtimes read it: a first part with a dot or a colon, or localhost."""
    first, slash, _ = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first.lower() if is_host else DEFAULT_REGISTRY


def _images(resource: Resource) -> Iterator[tuple[str, str]]:
    """Container → image, of a pod or of a task of ECS, Lambda or Cloud Run."""
    for pod in pods_of(resource):
        for container in pod.containers():
            if pod.is_whole or container.has("image"):
                yield (
                    f"container {container.get('name', default=container.path[-1])}",
                    str(container.get("image", default="")),
                )
    for image in resource.props.each("imageUri") if resource.type == "aws:lambda/function:Function" else ():
        yield "the function", str(image.get())


@guardrail("images-by-digest", unknown="judged in up")
def by_digest(resource: Resource, _: Update) -> Iterator[str]:
    """Images are named by digest, so that what was reviewed is what runs."""
    for container, image in _images(resource):
        if not DIGEST.search(image):
            yield f"{container} has the image {image or '(none)'}, which can change; add its @sha256:… digest"


@guardrail("image-registries", settings=("image_registries_allowed",), unknown="judged in up")
def allowed_registries(resource: Resource, update: Update) -> Iterator[str]:
    """Images come from the registries that the team allows."""
    allowed = update.settings.image_registries_allowed
    if allowed is None:
        return
    for container, image in _images(resource):
        if not any(_is_below(image, each) for each in allowed):
            named = ", ".join(allowed) or "none"
            yield f"{container} has the image {image} of {registry_of(image)}; allowed are {named}"


def _is_below(image: str, allowed: str) -> bool:
    """`registry.example.com/team` allows that host's images below `team/`; a part of a name is no match."""
    host, _, folder = allowed.partition("/")
    if registry_of(image) != host.lower():
        return False
    path = image.partition("/")[2] if registry_of(image) != DEFAULT_REGISTRY or image.startswith(host) else image
    return not folder or path.startswith(f"{folder.rstrip('/')}/")


GUARDRAILS = [by_digest, allowed_registries]
