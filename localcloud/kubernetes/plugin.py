"""`pulumi-resource-kubernetes`: on a local stack each object becomes a YAML file, strictly validated."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from localcloud.kubernetes.rendering import RenderBackend
from localcloud.official import serve_or_hand_over

RENDER_OPTION = "renderYamlToDirectory"


def main() -> None:
    """Run the plugin."""
    serve_or_hand_over("kubernetes", make_backend, is_local=is_local)


def is_local(config: Mapping[str, object]) -> bool:
    """Whether the stack's own config of this package says that it runs on the local cloud."""
    return bool(config.get(RENDER_OPTION))


def make_backend() -> RenderBackend:
    """Rendering into the folder that the stack's config names, relative to the project's Pulumi.yaml."""
    named = Path(str(json.loads(os.environ["PULUMI_CONFIG"])[RENDER_OPTION]))
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), here)
    return RenderBackend(named if named.is_absolute() else root / named)


if __name__ == "__main__":
    main()
