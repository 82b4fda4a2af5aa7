"""Guardrails on container images."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Props, Resource
from policies.security.pods import pods_of
from policies.update import Update

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
DEFAULT_REGISTRY = "docker.io"
AS_TEXT: Mapping[str, str] = {
    "aws:ecs/taskDefinition:TaskDefinition": "containerDefinitions",
    "aws:batch/jobDefinition:JobDefinition": "containerProperties",
}
"""Where containers stand as JSON text."""
ELSEWHERE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "aws:lambda/function:Function": (("imageUri",),),
    "aws:sagemaker/model:Model": (("primaryContainer", "image"), ("containers", "image")),
    "gcp:cloudrunv2/service:Service": (("template", "containers", "image"),),
    "gcp:cloudrunv2/job:Job": (("template", "template", "containers", "image"),),
}


def registry_of(image: str) -> str:
    """The host of an image's registry, as runtimes read it: a first part with a dot or a colon, or localhost."""
    first, slash, _ = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first.lower() if is_host else DEFAULT_REGISTRY


def _images(resource: Resource) -> Iterator[tuple[str, str]]:
    """Container → image, of a pod, of a volume of one, or of a task of ECS, Batch, Lambda, SageMaker or Cloud Run."""
    for pod in pods_of(resource):
        for container in pod.containers():
            if pod.is_whole or container.has("image"):
                yield (
                    f"container {container.get('name', default=container.path[-1])}",
                    str(container.get("image", default="")),
                )
        for volume in pod.spec.each("volumes"):
            if volume.has("image"):
                yield f"volume {volume.get('name', default='')}", str(volume.get("image", "reference", default=""))
    for path in ELSEWHERE.get(resource.type, ()):
        for image in found_at(resource.props, path):
            yield ".".join(path), str(image.get())
    for container in text_containers(resource):
        if container.has("image"):
            yield f"container {container.get('name', default='?')}", str(container.get("image", default=""))


def found_at(props: Props, path: tuple[str, ...]) -> Iterator[Props]:
    """What is set at a path, in each element of the lists on the way."""
    if not path:
        yield from () if props.value in (None, "") else (props,)
        return
    for block in props.each():
        yield from found_at(block.part(path[0]), path[1:])


def text_containers(resource: Resource) -> Iterator[Props]:
    """The containers of a task of ECS or a job of Batch, which are JSON text."""
    field = AS_TEXT.get(resource.type)
    if field is None:
        return
    try:
        yield from Props(json.loads(resource.props.get(field, default="[]")), (field,), resource.props.secrets).each()
    except (TypeError, ValueError, RecursionError):
        return  # the service refuses it


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
    path = image.partition("@")[0]
    path = path.partition("/")[2] if path.lower().startswith(f"{host.lower()}/") else path
    if host.lower() == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    folder = folder.rstrip("/")
    return not folder or path.startswith(f"{folder}/") or path.partition(":")[0] == folder


GUARDRAILS = [by_digest, allowed_registries]
