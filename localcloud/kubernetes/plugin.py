"""`pulumi-resource-kubernetes`: on a local stack each object becomes a YAML file, or goes to the local API server.

The stack's own config of this package says which, as for the other clouds, but for one thing: a provider whose own
config names the context of the local API server applies there, whatever the stack's says. That is how the program
carries out `fusion:kubernetes: cluster`, of which no plugin is told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from localcloud.kubernetes.applying import ApplyBackend
from localcloud.kubernetes.backend import KubernetesBackend
from localcloud.kubernetes.rendering import RenderBackend
from localcloud.official import become_official, not_installed
from localcloud.provider import Backend, Properties, ProviderError, serve

RENDER_OPTION = "renderYamlToDirectory"
LOCAL_CONTEXT = "fusion-local"
"""The context that names the local API server, as `make cluster` writes it; any other is for the official plugin."""


def main() -> None:
    """Run the plugin: the official one where it is installed and the stack's config names nothing local."""
    if not is_local(config_of_stack()):
        become_official("kubernetes")
    serve(make_backend)


def is_local(config: Mapping[str, object]) -> bool:
    """Whether the stack's own config of this package says that it runs on the local cloud."""
    return bool(config.get(RENDER_OPTION)) or config.get("context") == LOCAL_CONTEXT


def config_of_stack() -> dict[str, object]:
    """The stack's config of this package, as the engine gives it to a plugin before it asks anything."""
    found: dict[str, object] = json.loads(os.environ.get("PULUMI_CONFIG") or "{}")
    return found


def make_backend() -> KubernetesBackend:
    """Rendering into the folder that the stack's config names, which begins at the Pulumi.yaml, else undecided."""
    folder = config_of_stack().get(RENDER_OPTION)
    return Rendering(_root() / str(folder), _root()) if folder else Undecided(Path(os.devnull), _root())


def _root() -> Path:
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), here)


class Rendering(RenderBackend):
    """Into files, but for a provider that names the local API server."""

    def for_config(self, variables: Properties) -> Backend:
        """One that applies, where the provider's own config asks for it."""
        if variables.get("context") != LOCAL_CONTEXT:
            return self
        return _applying(variables.get("kubeconfig") or config_of_stack().get("kubeconfig"))


class Undecided(Rendering):
    """Until a provider is configured: it or the stack's config must name the local API server."""

    def for_config(self, variables: Properties) -> Backend:
        """One that applies.

        Raises:
            ProviderError: neither names it, and the official plugin, which is for all others, is not there.
        """
        config = config_of_stack()
        if config.get("context") == LOCAL_CONTEXT:
            return _applying(config.get("kubeconfig"))
        chosen = super().for_config(variables)
        if chosen is self:
            raise ProviderError(not_installed("kubernetes"))
        return chosen


def _applying(kubeconfig: object) -> ApplyBackend:
    """To the API server of a kubeconfig, given by its path or as text; to that of this machine where there is none.

    Raises:
        ProviderError: there is no such file, or it does not have the context.
    """
    from localcloud.kubernetes import api_server

    named = str(kubeconfig or api_server.kubeconfig_file())
    if "\n" in named or named.lstrip().startswith("{"):
        return ApplyBackend(named, LOCAL_CONTEXT)
    file = _root() / Path(named).expanduser()
    if not file.is_file():
        raise ProviderError(f"no control plane of this machine: {file} is not there; start one with `make cluster`")
    return ApplyBackend(str(file), LOCAL_CONTEXT)


if __name__ == "__main__":
    main()
