"""Builds etcd, the Kubernetes API server and its controller manager from their Go modules, once a user and version.

`python -m tools.control_plane` leaves links to them in `.fusion/bin`. Nothing is done where they are there already.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.setup import CACHE, FUSION, ROOT, SetupError, locked, not_writable, put, run, step

_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Build:
    """Programs of one Go module.

    Attributes:
        name: the folder with its go.mod, and in the user's cache.
        module: the module whose version, as go.mod has it, is what is built.
        programs: each by its name, with its package.
        minutes: what to expect of a cold build on 2 cores.
        folder: where the folder with its go.mod is.
    """

    name: str
    module: str
    programs: dict[str, str]
    minutes: str
    folder: str = "tools/kubernetes"

    @property
    def sources(self) -> Path:
        """The folder with go.mod and go.sum."""
        return ROOT / self.folder / self.name

    @property
    def version(self) -> str:
        """The module's version, with its v."""
        found = re.search(rf"{re.escape(self.module)} (v\S+)", (self.sources / "go.mod").read_text())
        if found is None:
            raise SetupError(f"{self.sources / 'go.mod'} does not require {self.module}")
        return found.group(1)

    @property
    def linker_flags(self) -> str:
        """Without symbols for debuggers; Kubernetes is told its version."""
        major, minor, _ = self.version.removeprefix("v").split(".", 2)
        stamped = (
            f"-X {_VERSION}.gitVersion={self.version} -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}"
        )
        return f"-s -w {stamped}" if self.name == "kubernetes" else "-s -w"

    @property
    def home(self) -> Path:
        """Where the programs are kept: by version, and by what they are built from."""
        files = [(self.sources / name).read_bytes() for name in ("go.mod", "go.sum")]
        key = hashlib.sha256(b"".join(files) + self.linker_flags.encode()).hexdigest()[:12]
        return CACHE / self.name / f"{self.version.removeprefix('v')}-{key}"

    def make(self) -> None:
        """Build the programs that are not there, and link all of them.

        Raises:
            SetupError: Go is missing, or the build failed.
        """
        with locked(CACHE / self.name / "build.lock"):
            for program, package in self.programs.items():
                if not (self.home / program).exists():
                    self._build(program, package)
        (FUSION / "bin").mkdir(parents=True, exist_ok=True)
        for program in self.programs:
            link, target = FUSION / "bin" / program, self.home / program
            if link.resolve() != target:
                put(link, target, as_hard_link=False)

    def _build(self, program: str, package: str) -> None:
        go = shutil.which("go")
        if go is None:
            raise SetupError(f"{program} {self.version} is built from its Go module, and go is not on PATH: install it")
        self.home.mkdir(parents=True, exist_ok=True)
        fresh = self.home / f"{program}.new"
        with step(f"building {program} {self.version} from its Go module ({self.minutes} minutes on 2 cores, once)"):
            flags = ("-trimpath", "-ldflags", self.linker_flags, "-o", fresh)
            run(go, "build", *flags, package, cwd=self.sources, env={"CGO_ENABLED": "0"})
        fresh.rename(self.home / program)


BUILDS = (
    Build("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}, "1 to 2"),
    Build(
        "kubernetes",
        "k8s.io/kubernetes",
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kube-apiserver", "kube-controller-manager")},
        "2 to 5",
    ),
)


def main() -> int:
    """Build what is missing; 0 when all of it is there."""
    return make_all("control plane", BUILDS)


def make_all(what: str, builds: Iterable[Build]) -> int:
    """Build what is missing of some; what goes wrong is said in a sentence that begins with ``what``."""
    try:
        for build in builds:
            build.make()
    except SetupError as error:
        sys.stderr.write(f"{what}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{what}: {not_writable(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
