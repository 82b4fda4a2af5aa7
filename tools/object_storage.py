"""Builds fake-gcs-server, the bucket server of the local Google Cloud, from its Go module, once a user and version.

`python -m tools.object_storage` leaves a link to it in `.fusion/bin`. Nothing is done where it is there already.
"""

from __future__ import annotations

import sys

from tools.control_plane import Build, Program, make_all

_MODULE = "github.com/fsouza/fake-gcs-server"
BUILD = Build("gcs", (Program("fake-gcs-server", _MODULE, _MODULE),), "2 to 4", folder="tools")

if __name__ == "__main__":
    sys.exit(make_all("object storage", (BUILD,)))
