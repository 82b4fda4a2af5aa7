"""`pulumi-resource-kubernetes`: on a local stack each object becomes a YAML file, or goes to the local API server."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from localcloud.kubernetes.backend import KubernetesBackend
from localcloud.kubernetes.rendering import RenderBackend
from localcloud.official import serve_or_hand_over

RENDER_OPTION = "renderYamlToDirectory"
LOCAL_CONTEXT = "fusion-local"
"""The context that names the local API server, as `make cluster` writes it; any other is for the official plugin."""


def main() -> None:
    """Run the plugin."""
    serve_or_hand_over("kubernetes", make_backend, is_local=is_local)


def is_local(config: Mapping[str, object]) -> bool:
    """Whether the stack's own config of this package says that it runs on the local cloud."""
    return bool(config.get(RENDER_OPTION)) or config.get("context") == LOCAL_CONTEXT


def make_backend() -> KubernetesBackend:
    """Rendering into the folder that the stack's config names, else applying; paths begin at the Pulumi.yaml."""
    config = json.loads(os.environ["PULUMI_CONFIG"])
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), here)
    if folder := config.get(RENDER_OPTION):
        return RenderBackend(root / str(folder), root)
    from localcloud.kubernetes import api_server
    from localcloud.kubernetes.applying import ApplyBackend

    named = str(config.get("kubeconfig") or api_server.kubeconfig_file())
    is_text = "\n" in named or named.lstrip().startswith("{")
    return ApplyBackend(named if is_text else str(root / Path(named).expanduser()), LOCAL_CONTEXT)


if __name__ == "__main__":
    main()
