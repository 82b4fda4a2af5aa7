"""Builds fake-gcs-server, the bucket server of the local Google Cloud, from its Go module, once a user and version.

`python -m tools.object_storage` leaves a link to it in `.fusion/bin`, with `--stack NAME` only where that stack is on
the local Google Cloud. Nothing is done where it is there already.
"""

from __future__ import annotations

import sys

from tools.control_plane import Build, Program, make_all
from tools.setup import ROOT

_MODULE = "github.com/fsouza/fake-gcs-server"
BUILD = Build("gcs", (Program("fake-gcs-server", _MODULE, _MODULE),), "2 to 4", folder="tools")

LOCAL_CLOUD = "gcp:project: fusion-local"


def is_needed(arguments: list[str]) -> bool:
    """Whether it is asked for, by itself or by a stack that there is."""
    if arguments[:1] != ["--stack"]:
        return True
    file = ROOT / "stacks" / f"Pulumi.{''.join(arguments[1:2])}.yaml"
    return file.is_file() and LOCAL_CLOUD in file.read_text()


if __name__ == "__main__":
    sys.exit(make_all("object storage", (BUILD,)) if is_needed(sys.argv[1:]) else 0)
