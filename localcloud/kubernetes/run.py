"""Runs a rendered Job here: its container's own command, arguments, environment and mounts, as processes.

What a cluster would add is added: the pod's name and index, the identity that reaches the bucket, the DNS names of
the pods, a folder for each volume; of a bucket that is mounted a copy, as it is then. Paths that begin with a mount
path are pointed at its folder. Where torchrun was told to start one process a device and there is none, it starts
one. A pod for a TPU runs through torch_xla on the CPU where `FUSION_XLA_PYTHON` names a Python that has it, else on
the CPU without. Nothing else is changed; what can't be honoured is refused.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

Object = Mapping[str, Any]
Fetch = Callable[[Object, Path], None]

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
LOOPBACK = "127.0.0.1"
TPU, XLA_DEVICE = "google.com/tpu", "PJRT_DEVICE"
_CHECKOUT = Path(__file__).resolve().parents[2]
_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class RunError(RuntimeError):
    """A rendered Job can't be run on this machine as it is; one sentence that says what and why."""


def run_job(
    manifest_dir: Path,
    job_name: str,
    *,
    identity: Mapping[str, str],
    fetch: Fetch | None = None,
    on_line: Callable[[str], None] | None = None,
) -> int:
    """Run a Job that was rendered to YAML and return its exit status; its output goes to standard output.

    Args:
        manifest_dir: the folder that the stack's objects were rendered to.
        job_name: the Job's `metadata.name`.
        identity: by variable, what the pods reach the local cloud's buckets with.
        fetch: copies what a CSI driver would mount, given the spec of a PersistentVolume, into a folder.
        on_line: is given each line of output too, without its end.

    Raises:
        RunError: the Job is not there, or asks for something that can't be honoured here.
    """
    objects = read_objects(manifest_dir)
    job = _only(objects, "Job", job_name, manifest_dir)
    pods = [Pod.of(job, index, objects, fetch) for index in range(_pod_count(job))]
    _say_substitutions(pods[0])
    with tempfile.TemporaryDirectory(prefix=f"{job_name}-") as folder:
        processes = [pod.start(Path(folder) / str(pod.index), identity) for pod in pods]
        with _forwarded_signals(processes):
            return _attend(processes, on_line)


def read_objects(manifest_dir: Path) -> list[Object]:
    """Every Kubernetes object in the YAML files of a folder and the folders in it."""
    files = sorted(path for path in manifest_dir.rglob("*") if path.suffix in {".yaml", ".yml", ".json"})
    if not files:
        raise RunError(f"{manifest_dir} holds no rendered objects; run `pulumi up` on the stack first")
    return [item for file in files for item in yaml.safe_load_all(file.read_text()) if isinstance(item, dict)]


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a Job, as this machine can run it."""

    job: Object
    index: int
    objects: list[Object]
    spec: Object
    container: Object
    fetch: Fetch | None

    @classmethod
    def of(cls, job: Object, index: int, objects: list[Object], fetch: Fetch | None = None) -> Pod:
        """The pod with this completion index; refuses what a process of this machine can't be."""
        spec = job["spec"]["template"]["spec"]
        name = job["metadata"]["name"]
        containers = spec.get("containers") or []
        if len(containers) != 1 or spec.get("initContainers"):
            raise RunError(f"Job {name} has several containers; only a Job with a single one can be run here")
        if not containers[0].get("command"):
            raise RunError(
                f"Job {name} leaves its command to the image's entry point, and no image is run here; "
                "set the container's command"
            )
        return cls(job, index, objects, spec, containers[0], fetch)

    @property
    def name(self) -> str:
        """As a cluster's indexed Job names it, without the random ending."""
        return f"{self.job['metadata']['name']}-{self.index}"

    @property
    def namespace(self) -> str:
        """The Job's namespace."""
        return str(self.job["metadata"].get("namespace", "default"))

    @property
    def devices(self) -> dict[str, str]:
        """Device requests by resource name, such as `nvidia.com/gpu`."""
        limits = (self.container.get("resources") or {}).get("limits") or {}
        return {name: str(amount) for name, amount in limits.items() if "/" in name}

    def start(self, folder: Path, identity: Mapping[str, str]) -> subprocess.Popen[str]:
        """Start the container's command with its volumes under ``folder``."""
        mounts = self._mounts(folder)
        declared = self._environment()
        environment = {name: _mapped(value, mounts) for name, value in declared.items()}
        command = [
            _mapped(_expanded(str(part), declared), mounts)
            for part in (*self.container["command"], *(self.container.get("args") or ()))
        ]
        (folder / "home").mkdir(parents=True)
        return subprocess.Popen(
            [_executable(command[0], self.name, xla=XLA_DEVICE in environment), *command[1:]],
            env={**_machine(folder, mounts), **environment, **identity},
            cwd=_mapped(self.container["workingDir"], mounts) if self.container.get("workingDir") else folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C reaches it once, through us
        )

    def _mounts(self, folder: Path) -> dict[str, Path]:
        """Mount path → folder with the volume's content."""
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes") or []}
        mounts: dict[str, Path] = {}
        for mount in self.container.get("volumeMounts") or []:
            path = str(mount["mountPath"]).rstrip("/")
            if "subPathExpr" in mount:
                raise RunError(
                    f"pod {self.name} mounts a subPathExpr at {path}, which can't be done here; name a subPath"
                )
            if mount["name"] not in volumes:
                raise RunError(f"pod {self.name} mounts {mount['name']} at {path}, but has no volume of that name")
            whole = folder / "volumes" / mount["name"]
            self._fill(volumes[mount["name"]], whole)
            mounts[path] = whole / mount["subPath"] if mount.get("subPath") else whole
            mounts[path].mkdir(parents=True, exist_ok=True)
        return mounts

    def _fill(self, volume: Object, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            return
        if "persistentVolumeClaim" in volume:
            self._fetch(volume, folder)
            return
        if "configMap" in volume:
            source = volume["configMap"]
            content = self._content("ConfigMap", source["name"], optional=bool(source.get("optional")))
        elif "secret" in volume:
            source = volume["secret"]
            content = self._content("Secret", source["secretName"], optional=bool(source.get("optional")))
        else:
            kind = next((key for key in volume if key != "name"), "nothing")
            raise RunError(
                f"volume {volume['name']} is a {kind}; only configMap, secret, emptyDir and folders of a bucket can be "
                "had on this machine"
            )
        wanted = {item["key"]: item["path"] for item in source.get("items") or ()} or {key: key for key in content}
        for key, path in wanted.items():
            if key not in content:
                raise RunError(f"volume {volume['name']} wants the key {key}, which its source does not have")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content[key])

    def _fetch(self, volume: Object, folder: Path) -> None:
        """What a claim's volume mounts; a disk that a StorageClass would make is none."""
        name = volume["persistentVolumeClaim"]["claimName"]
        claims = [each for each in self._of_namespace("PersistentVolumeClaim") if each["metadata"]["name"] == name]
        bound = claims[0]["spec"].get("volumeName") if claims else None
        found = [
            each["spec"]
            for each in self.objects
            if each.get("kind") == "PersistentVolume" and each["metadata"]["name"] == bound
        ]
        if not found or "csi" not in found[0] or self.fetch is None:
            raise RunError(
                f"volume {volume['name']} is the disk of the claim {name}, which can't be had on this machine; leave "
                "the volume out here"
            )
        self.fetch(found[0], folder)

    def _environment(self) -> dict[str, str]:
        """The container's environment, each reference resolved as the kubelet does: in order, later ones win."""
        environment: dict[str, str] = {"JOB_COMPLETION_INDEX": str(self.index), "HOSTNAME": self.name}
        for source in self.container.get("envFrom") or []:
            prefix = source.get("prefix", "")
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source:
                    found = self._content(kind, source[key]["name"], optional=bool(source[key].get("optional")))
                    environment |= {f"{prefix}{name}": value for name, value in found.items()}
        for variable in self.container.get("env") or []:
            value = self._value(variable)
            if value is not None:
                environment[variable["name"]] = self._resolved_host(_expanded(value, environment))
        if not _has_gpu() and environment.get("PET_NPROC_PER_NODE", "1") != "1":
            environment["PET_NPROC_PER_NODE"] = "1"  # one process a device; a CPU is one
        if environment.get(XLA_DEVICE) == "TPU":
            environment = {**environment, XLA_DEVICE: "CPU"}
            if not xla_python():
                del environment[XLA_DEVICE]
        return environment

    def _value(self, variable: Object) -> str | None:
        if "valueFrom" not in variable:
            return str(variable.get("value") or "")
        source = variable["valueFrom"]
        for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
            if key in source:
                reference = source[key]
                optional = bool(reference.get("optional"))
                content = self._content(kind, reference["name"], optional=optional)
                if reference["key"] not in content and not optional:
                    raise RunError(f"env {variable['name']}: {kind} {reference['name']} has no key {reference['key']}")
                return content.get(reference["key"])
        if "fieldRef" in source:
            return self._field(variable["name"], source["fieldRef"]["fieldPath"])
        raise RunError(
            f"env {variable['name']}: valueFrom {next(iter(source), 'nothing')} can't be honoured on this machine; "
            "use configMapKeyRef, secretKeyRef or fieldRef"
        )

    def _field(self, variable: str, path: str) -> str:
        metadata = self.job["spec"]["template"].get("metadata") or {}
        known = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "spec.nodeName": LOOPBACK,
            "spec.serviceAccountName": str(self.spec.get("serviceAccountName", "default")),
            "status.podIP": LOOPBACK,
            "status.hostIP": LOOPBACK,
        }
        for kind in ("annotations", "labels"):
            added = {INDEX_ANNOTATION: str(self.index)}
            known |= {
                f"metadata.{kind}['{key}']": str(value) for key, value in ((metadata.get(kind) or {}) | added).items()
            }
        if path not in known:
            raise RunError(f"env {variable}: fieldRef {path} is not known on this machine")
        return known[path]

    def _content(self, kind: str, name: str, *, optional: bool) -> dict[str, str]:
        found = [item for item in self._of_namespace(kind) if item["metadata"]["name"] == name]
        if not found:
            if optional:
                return {}
            raise RunError(
                f"Job {self.job['metadata']['name']} needs the {kind} {name}, which the stack did not render"
            )
        if kind == "Secret":
            return _secret(found[0])
        return {key: str(value) for key, value in (found[0].get("data") or {}).items()}

    def _of_namespace(self, kind: str) -> list[Object]:
        return [
            item
            for item in self.objects
            if item.get("kind") == kind and item["metadata"].get("namespace", "default") == self.namespace
        ]

    def _resolved_host(self, value: str) -> str:
        """The DNS name that a headless Service gives a pod of this Job → this machine."""
        services = "|".join(re.escape(service["metadata"]["name"]) for service in self._of_namespace("Service"))
        pod = rf"{re.escape(self.job['metadata']['name'])}-[0-9]+"
        named = services and re.fullmatch(rf"{pod}\.({services})(\.{re.escape(self.namespace)}(\.svc.*)?)?", value)
        return LOOPBACK if named else value


def _only(objects: list[Object], kind: str, name: str, manifest_dir: Path) -> Object:
    found = [item for item in objects if item.get("kind") == kind and item["metadata"]["name"] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunError(f"{manifest_dir} holds {len(found)} Jobs named {name}; give them names of their own")
    known = ", ".join(sorted(item["metadata"]["name"] for item in objects if item.get("kind") == kind)) or "none"
    raise RunError(f"{manifest_dir} holds no {kind} named {name}; there are: {known}")


def _pod_count(job: Object) -> int:
    name, spec = job["metadata"]["name"], job["spec"]
    together, completions = int(spec.get("parallelism", 1)), int(spec.get("completions", spec.get("parallelism", 1)))
    cpus = len(os.sched_getaffinity(0))
    if completions != together:
        raise RunError(
            f"Job {name} has {completions} completions at parallelism {together}; only equal ones can be run here"
        )
    if together > max(cpus, 2):
        raise RunError(
            f"Job {name} wants {together} pods at once and this machine has {cpus} CPUs; lower nodes.desired here"
        )
    if together > 1 and spec.get("completionMode") != "Indexed":
        raise RunError(f"Job {name} runs {together} pods that have no index; set completionMode: Indexed")
    return together


def _say_substitutions(pod: Pod) -> None:
    if pod.devices and not _has_gpu():
        asked = ", ".join(f"{amount} × {name}" for name, amount in pod.devices.items())
        how = "on the CPU"
        if any(name == TPU for name in pod.devices):
            how += f" through torch_xla ({xla_python()})" if xla_python() else ", without torch_xla"
        print(f"{pod.job['metadata']['name']}: asks for {asked}; this machine has none, so it runs {how}", flush=True)


def xla_python() -> str:
    """The Python that has torch_xla, which goes with an older PyTorch (docs/training.md); empty where none is named."""
    return os.environ.get("FUSION_XLA_PYTHON", "")


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


def _machine(folder: Path, mounts: Mapping[str, Path]) -> dict[str, str]:
    """What the image would bring: a path, a home, its Python packages; a volume at /tmp is where temporary files go."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    image = {"PATH": path, "HOME": str(folder / "home"), "LANG": "C.UTF-8", "PYTHONPATH": str(_CHECKOUT)}
    return image | ({"TMPDIR": str(mounts["/tmp"])} if "/tmp" in mounts else {})


def _executable(name: str, pod: str, *, xla: bool) -> str:
    """`python` is the image's only one, and here this one, or that of torch_xla; others are looked for on the path."""
    if name in {"python", "python3"}:
        return xla_python() if xla else sys.executable
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise RunError(f"pod {pod} runs {name}, which is not on this machine; it may exist in the image only")
    return found


def _mapped(value: str, mounts: Mapping[str, Path]) -> str:
    """A value that is a path under a mount → the path under its folder; the longest mount path wins."""
    for path in sorted(mounts, key=len, reverse=True):
        if value == path or value.startswith(f"{path}/"):
            return f"{mounts[path]}{value[len(path) :]}"
    return value


def _expanded(value: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` as Kubernetes expands it; an unknown name is left as it is."""
    return _REFERENCE.sub(lambda match: environment.get(match[1], match[0]), value)


def _secret(item: Object) -> dict[str, str]:
    data = {key: base64.b64decode(value).decode() for key, value in (item.get("data") or {}).items()}
    return data | {key: str(value) for key, value in (item.get("stringData") or {}).items()}


def _attend(processes: list[subprocess.Popen[str]], on_line: Callable[[str], None] | None) -> int:
    """Pass the output on until all have ended; when one fails the others, which would wait for it, are stopped."""
    failed: list[int] = []
    printing = threading.Lock()

    def follow(index: int, process: subprocess.Popen[str]) -> None:
        prefix = f"[{index}] " if len(processes) > 1 else ""
        for line in process.stdout or ():
            with printing:
                print(f"{prefix}{line}", end="", flush=True)
                if on_line:
                    on_line(line.rstrip("\n"))
        if (status := process.wait()) != 0:
            failed.append(status if status > 0 else 128 - status)
            for other in processes:
                other.terminate()

    threads = [threading.Thread(target=follow, args=item) for item in enumerate(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed[0] if failed else 0


@contextlib.contextmanager
def _forwarded_signals(processes: list[subprocess.Popen[str]]) -> Iterator[None]:
    """Tell the pods to end when we are told to; they save, and we return their status."""

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.terminate()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may take signals over
        yield
        return
    before = {number: signal.signal(number, forward) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
