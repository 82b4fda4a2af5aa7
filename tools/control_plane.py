"""Builds a Kubernetes control plane and its controllers from their Go modules, once a user and version.

`python -m tools.control_plane` leaves links to them in `.fusion/bin`. Nothing is done where they are there already.
Beside each lie the manifests of its module that it can't do without: definitions, webhooks, stages.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.setup import CACHE, FUSION, ROOT, SetupError, locked, not_writable, put, run, step

_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the package that it is built from.

    Attributes:
        name: as it is called in `.fusion/bin`.
        package: its main package.
        module: the module that the package is in.
        manifests: YAML files and folders of the module that are kept as `<name>.manifests` beside the program.
    """

    name: str
    package: str
    module: str
    manifests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """Programs of one go.mod: they share its versions, and so what they have in common is compiled once.

    Attributes:
        name: the folder with its go.mod, and in the user's cache.
        programs: what is built; the version of the first one's module names the folder.
        minutes: what to expect of a cold build on 2 cores, of all of them.
        folder: where the folder with its go.mod is.
    """

    name: str
    programs: tuple[Program, ...]
    minutes: str
    folder: str = "tools/kubernetes"

    @property
    def sources(self) -> Path:
        """The folder with go.mod and go.sum."""
        return ROOT / self.folder / self.name

    @property
    def version(self) -> str:
        """The first program's, with its v."""
        module = self.programs[0].module
        found = re.search(rf"{re.escape(module)} (v\S+)", (self.sources / "go.mod").read_text())
        if found is None:
            raise SetupError(f"{self.sources / 'go.mod'} does not require {module}")
        return found.group(1)

    @property
    def linker_flags(self) -> str:
        """Without symbols for debuggers; Kubernetes is told its version."""
        major, minor, _ = self.version.removeprefix("v").split(".", 2)
        stamped = (
            f"-X {_VERSION}.gitVersion={self.version} -X {_VERSION}.gitMajor={major} -X {_VERSION}.gitMinor={minor}"
        )
        return f"-s -w {stamped}" if self.programs[0].module == "k8s.io/kubernetes" else "-s -w"

    @property
    def home(self) -> Path:
        """Where the programs are kept: by version, and by what they are built from."""
        files = [(self.sources / name).read_bytes() for name in ("go.mod", "go.sum")]
        key = hashlib.sha256(b"".join(files) + self.linker_flags.encode()).hexdigest()[:12]
        return CACHE / self.name / f"{self.version.removeprefix('v')}-{key}"

    @property
    def is_built(self) -> bool:
        """Whether all programs are in the user's cache."""
        return all((self.home / program.name).exists() for program in self.programs)

    def make(self) -> None:
        """Build the programs that are not there, and link all of them.

        Raises:
            SetupError: Go is missing, or the build failed.
        """
        with locked(CACHE / self.name / "build.lock"):
            for program in self.programs:
                if not (self.home / program.name).exists():
                    self._build(program)
        (FUSION / "bin").mkdir(parents=True, exist_ok=True)
        for program in self.programs:
            link, target = FUSION / "bin" / program.name, self.home / program.name
            if link.resolve() != target:
                put(link, target, as_hard_link=False)

    def _build(self, program: Program) -> None:
        go = shutil.which("go")
        if go is None:
            raise SetupError(
                f"{program.name} {self.version} is built from its Go module, and go is not on PATH: install it"
            )
        self.home.mkdir(parents=True, exist_ok=True)
        fresh = self.home / f"{program.name}.new"
        names = ", ".join(each.name for each in self.programs)
        with step(f"building {program.name} from its Go module ({self.minutes} minutes on 2 cores for {names}, once)"):
            flags = ("-trimpath", "-ldflags", self.linker_flags, "-o", fresh)
            run(go, "build", *flags, program.package, cwd=self.sources, env={"CGO_ENABLED": "0"})
            if program.manifests:
                self._keep_manifests(go, program)
        fresh.rename(self.home / program.name)  # last: it says that all is there

    def _keep_manifests(self, go: str, program: Program) -> None:
        """Copy the module's YAML files: Go's module cache may be cleaned."""
        listed = subprocess.run(
            [go, "list", "-m", "-f", "{{.Dir}}", program.module],
            cwd=self.sources,
            check=True,
            capture_output=True,
            text=True,
        )
        module, kept = Path(listed.stdout.strip()), self.home / f"{program.name}.manifests"
        for name in program.manifests:
            files = sorted((module / name).rglob("*.yaml")) if (module / name).is_dir() else [module / name]
            for file in files:
                target = kept / file.relative_to(module)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())


_WEBHOOKS = "config/components/webhook/manifests.yaml"
CORE = (
    Build("etcd", (Program("etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),), "1 to 2"),
    Build(
        "kubernetes",
        tuple(
            Program(name, f"k8s.io/kubernetes/cmd/{name}", "k8s.io/kubernetes")
            for name in ("kube-apiserver", "kube-controller-manager")
        ),
        "2 to 5",
    ),
)
CONTROLLERS = (
    Build(
        "controllers",
        (
            Program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "k8s.io/kubernetes"),
            Program("jobset", "sigs.k8s.io/jobset", "sigs.k8s.io/jobset", ("config/components/crd/bases", _WEBHOOKS)),
            Program(
                "karpenter", "sigs.k8s.io/karpenter/kwok", "sigs.k8s.io/karpenter", ("pkg/apis/crds", "kwok/apis/crds")
            ),
            Program(
                "kwok",
                "sigs.k8s.io/kwok/cmd/kwok",
                "sigs.k8s.io/kwok",
                (
                    "kustomize/stage/node/fast/node-initialize.yaml",
                    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
                    "kustomize/stage/pod/fast/pod-ready.yaml",
                    "kustomize/stage/pod/fast/pod-delete.yaml",
                    "kustomize/stage/pod/general/pod-complete.yaml",
                ),
            ),
        ),
        "4 to 8",
    ),
    Build(
        "kueue",
        (
            Program(
                "kueue", "sigs.k8s.io/kueue/cmd/kueue", "sigs.k8s.io/kueue", ("config/components/crd/bases", _WEBHOOKS)
            ),
        ),
        "4 to 6",
    ),
)
SCANNERS = (
    Build(
        "kube-score",
        (Program("kube-score", "github.com/zegl/kube-score/cmd/kube-score", "github.com/zegl/kube-score"),),
        "1 to 2",
    ),
)
"""They judge manifests, and run for the tests alone."""


def main() -> int:
    """Build what is missing of the control plane, with `--all` of controllers and scanners too; 0 when all is there.

    Without `--all` those that were built before are linked.
    """
    is_asked = "--all" in sys.argv[1:]
    others = (each for each in (*CONTROLLERS, *SCANNERS) if is_asked or each.is_built)
    return make_all("control plane", (*CORE, *others))


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
