"""Objects in a cluster by server-side apply: what a stack with a kubeconfig has.

The server is asked whatever it can answer: a preview is a dry run, a difference is what a dry run of the program's
object would change in the object as it is now. Each resource applies under a field manager of its own, named after its
URN: what an update that was killed has created is found again and belongs to nobody else.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from localcloud.kubernetes.backend import KubernetesBackend, read_kubeconfig
from localcloud.kubernetes.cluster import Cause, Cluster, Refusal, UnknownKind
from localcloud.kubernetes.objects import (
    AUTONAMED,
    CRD_KIND,
    DEFAULT_NAMESPACE,
    is_same_place,
    object_id,
    replacing_fields,
)
from localcloud.kubernetes.validation import Object
from localcloud.provider import (
    Change,
    Failure,
    Found,
    InitFailed,
    Properties,
    ProviderError,
    Resource,
    differences,
)
from localcloud.values import has_unknown

MANAGER_PREFIX = "pulumi-kubernetes-"
FORCE, SKIP_AWAIT = "pulumi.com/patchForce", "pulumi.com/skipAwait"
UNSERVED_ANNOTATIONS = ("pulumi.com/patchFieldManager", "pulumi.com/replaceUnready", "pulumi.com/waitFor")
SERVED_OPTIONS = frozenset(
    {"kubeconfig", "context", "namespace", "renderYamlToDirectory", "version", "pluginDownloadURL"}
)
READY_TIMEOUT_S, DELETE_TIMEOUT_S, LOOK_EVERY_S = 60, 300, 0.1
DATA_HOLDERS = frozenset({"Namespace", "PersistentVolume", "PersistentVolumeClaim", CRD_KIND})
"""Kinds that are not replaced because the server refuses a change: what they hold would go with them."""
OF_THE_SERVER = ("managedFields", "uid", "resourceVersion", "generation", "creationTimestamp", "selfLink")


class ApplyBackend(KubernetesBackend):
    """Each object in the cluster that the stack's own config names."""

    def __init__(self, kubeconfig: str, context: str) -> None:
        super().__init__()
        self.cluster = Cluster(read_kubeconfig(kubeconfig), context)
        self.default_namespace = DEFAULT_NAMESPACE
        self._in_state: set[str] = set()

    def known(self, resource: Resource, id: str) -> None:
        """Remember the URNs whose objects the state has."""
        self._in_state.add(resource.urn)

    def configure(self, variables: Properties) -> None:
        """Take the default namespace, and the version of Kubernetes from the server.

        Raises:
            ProviderError: an option is set that is not carried out; the server can't be reached.
        """
        if unserved := sorted(name for name in variables.keys() - SERVED_OPTIONS if not name.startswith("__")):
            raise ProviderError(f"provider option {unserved[0]}: the local cloud does not carry it out; leave it out")
        self.default_namespace = str(variables.get("namespace") or DEFAULT_NAMESPACE)
        version = self.cluster.request("GET", "/version")
        self.kubernetes_versions = (f"{version['major']}.{version['minor'].rstrip('+')}",)

    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Fill in name and namespace; go by the schema only where values are unknown and the server can't be asked."""
        inputs, failures = super().check(resource, old or self._left_by_a_kill(resource, new), new, seed)
        metadata = inputs.get("metadata")
        if not failures and isinstance(metadata, Mapping) and not metadata.get("namespace"):
            try:
                _, is_namespaced = self.cluster.kind(str(inputs.get("apiVersion")), str(inputs.get("kind")))
            except UnknownKind:
                is_namespaced = False
            if is_namespaced:
                inputs = inputs | {"metadata": {**metadata, "namespace": self.default_namespace}}
        return inputs, failures

    def _left_by_a_kill(self, resource: Resource, new: Properties) -> Properties:
        """An object with an automatic name that a killed update of this resource made: its name is taken again."""
        metadata = new.get("metadata") or {}
        if resource.urn in self._in_state or not isinstance(metadata, Mapping) or metadata.get("name"):
            return {}
        try:
            path = self._path({**new, "metadata": {**metadata, "name": ""}})
            objects = self.cluster.request("GET", path.rstrip("/"))["items"]
        except (UnknownKind, Refusal):
            return {}
        for found in objects:
            managers = [each["manager"] for each in found["metadata"].get("managedFields") or ()]
            if _annotations(found).get(AUTONAMED) == "true" and own_manager(resource) in managers:
                return {"metadata": found["metadata"]}
        return {}

    def failures(self, resource: Resource, old: Properties, inputs: Properties) -> list[Failure]:
        """What is wrong by its schema where the server can't be asked, and annotations that are not carried out."""
        for name in UNSERVED_ANNOTATIONS:
            if name in _annotations(inputs):
                reason = f"{name}: the local cloud does not carry it out; leave it out"
                return [Failure("metadata.annotations", reason)]
        return self.schema_failures(inputs) if has_unknown(inputs) else []

    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """What the server says that applying the object would change in the one that is there, whoever changed it."""
        if has_unknown(new) or self._replacing(old, new):
            return super().diff(resource, id, old, new)
        try:
            path = self._path(new)
        except UnknownKind:
            return super().diff(resource, id, old, new)
        live = self.cluster.get(path)
        if live is None:
            return Change(["metadata"], details={"metadata": "ADD"})
        wanted = _keeping(new, live, resource.ignore_changes)
        try:
            applied = self.cluster.apply(path, wanted, manager_of(resource, live), force=True, dry_run=True)
        except Refusal as refusal:
            return self._replacement(new, refusal)
        details = dict(differences(_comparable(live), _comparable(applied)))
        return Change(sorted({re.split(r"[.\[]", each)[0] for each in details}), details=details)

    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Apply it; one that another has made is not taken over."""
        if preview:
            self._would_be_taken(resource, inputs)
            return "", inputs
        try:
            path = self._path(inputs)
            live = self.cluster.get(path)
        except UnknownKind as error:
            raise ProviderError(f"{_named(inputs)}: {error}; install its definition first (depends_on)") from None
        self._refuse_anothers(resource, inputs, live)
        return self._applied(resource, path, inputs, live)

    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Apply it; what another manager holds is a conflict."""
        if preview and has_unknown(new):
            return new
        path = self._path(new)
        live = self.cluster.get(path)
        wanted = _keeping(new, live or {}, resource.ignore_changes)
        if preview:
            try:
                return _outputs(self._apply(resource, path, wanted, live, dry_run=True))
            except _NotYet:
                self._refuse_by_schema(new)
                return new
        return self._applied(resource, path, wanted, live)[1]

    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """The object as it is, and the inputs with the values that their fields have now."""
        api_version, kind = _of_token(resource.type)
        api_version, kind = str(inputs.get("apiVersion", api_version)), str(inputs.get("kind", kind))
        namespace, _, name = id.rpartition("/")
        try:
            live = self.cluster.get(self.cluster.path(api_version, kind, namespace or self.default_namespace, name))
        except UnknownKind:
            return None
        except Refusal as refusal:
            raise ProviderError(f"{kind} {id}: {refusal.message}") from None
        if live is None:
            return None
        return Found(object_id(live), _as_now(inputs, live) if inputs else _declared(live), _outputs(live))

    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Delete it after what it owns, and wait until it is gone."""
        namespace, _, name = id.rpartition("/")
        place = namespace or self.default_namespace
        try:
            path = self.cluster.path(str(inputs["apiVersion"]), str(inputs["kind"]), place, name)
            live = self.cluster.get(path)
            if live is None:
                return
            self.cluster.request("DELETE", path, propagationPolicy="Foreground")
        except UnknownKind:
            return
        except Refusal as refusal:
            if refusal.status == 404:
                return
            raise ProviderError(f"{_named(inputs)} can't be deleted: {refusal.message}") from None
        uid = live["metadata"]["uid"]

        def left() -> str | None:
            found = self.cluster.get(path)
            if found is None or found["metadata"]["uid"] != uid:
                return None
            return f"its finalizers are {', '.join(found['metadata'].get('finalizers') or ()) or 'none'}"

        if reason := self._wait(left, resource.timeout_s or DELETE_TIMEOUT_S):
            raise ProviderError(f"{_named(inputs)} was told to go and is still there: {reason}")

    def _replacing(self, old: Properties, new: Properties) -> bool:
        """Whether a field changes that is known to replace; what the program leaves to the server is the server's."""
        if new["kind"] in ("ConfigMap", "Secret"):
            return bool(replacing_fields(old, new, self.default_namespace))
        return bool(replacing_fields(_as_now(new, old), new, self.default_namespace))

    def _path(self, value: Object) -> str:
        metadata = value["metadata"]
        namespace = metadata.get("namespace") or self.default_namespace
        return self.cluster.path(str(value["apiVersion"]), str(value["kind"]), namespace, str(metadata["name"]))

    def _would_be_taken(self, resource: Resource, inputs: Properties) -> None:
        """Ask the server with a dry run; by the schemas where it lacks what this very update makes."""
        if has_unknown(inputs):
            return  # `check` went by its schema
        try:
            path = self._path(inputs)
            live = self.cluster.get(path)
            if live is not None and resource.urn not in self._in_state:
                self._refuse_anothers(resource, inputs, live)
            value = inputs if live is None else _as_new(inputs)  # the live one will be deleted first
            self._apply(resource, self._path(value), value, None, dry_run=True)
        except (UnknownKind, _NotYet):
            self._refuse_by_schema(inputs)

    def _refuse_by_schema(self, inputs: Properties) -> None:
        if failures := self.schema_failures(inputs):
            raise ProviderError("; ".join(f"{_named(inputs)}: {each.property}: {each.reason}" for each in failures))

    def _refuse_anothers(self, resource: Resource, inputs: Properties, live: Object | None) -> None:
        """An object that is there and was never applied by this resource is another's."""
        if live is None or _is_forced(inputs) or live["metadata"].get("deletionTimestamp"):
            return
        managers = [each["manager"] for each in live["metadata"].get("managedFields") or ()]
        is_made_with_its_namespace = (live["kind"], live["metadata"]["name"]) == ("ServiceAccount", "default")
        if own_manager(resource) not in managers and not is_made_with_its_namespace:
            raise ProviderError(
                f"{_named(inputs)} exists already, managed by {', '.join(sorted(set(managers))) or 'nobody known'}; "
                f'give it another name, import it, or take it over with the annotation {FORCE}: "true"'
            )

    def _apply(
        self, resource: Resource, path: str, value: Object, live: Object | None, *, dry_run: bool
    ) -> dict[str, Any]:
        """Server-side apply; a refusal becomes one sentence."""
        manager = manager_of(resource, live)
        try:
            return self.cluster.apply(path, value, manager, force=_is_forced(value), dry_run=dry_run)
        except Refusal as refusal:
            is_not_yet = refusal.status == 404 or "does not support dry run" in refusal.message
            if dry_run and is_not_yet:
                raise _NotYet from None
            raise ProviderError(_sentence(value, refusal)) from None

    def _applied(self, resource: Resource, path: str, value: Properties, live: Object | None) -> tuple[str, Properties]:
        applied = self._apply(resource, path, value, live, dry_run=False)
        id = object_id(applied)
        if _annotations(value).get(SKIP_AWAIT) == "true":
            return id, _outputs(applied)
        reason = self._wait(lambda: self._unready(path, applied), resource.timeout_s or READY_TIMEOUT_S)
        ready = self.cluster.get(path) or applied
        if reason:
            raise InitFailed(id, value, _outputs(ready), f"{_named(value)} is there and not ready: {reason}")
        return id, _outputs(ready)

    def _unready(self, path: str, applied: Object) -> str | None:
        """What the control plane itself still has to do before others can use the object; None when it has."""
        live = self.cluster.get(path) or {}
        status = live.get("status") or {}
        if applied["kind"] == "Namespace":
            return None if status.get("phase") == "Active" else f"its phase is {status.get('phase')}"
        if applied["kind"] != CRD_KIND:
            return None
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        accepted = conditions.get("NamesAccepted", {})
        if accepted.get("status") == "False":
            return str(accepted.get("message"))
        if conditions.get("Established", {}).get("status") != "True":
            return "it is not established"
        spec = applied["spec"]
        for version in spec["versions"]:
            if version.get("served"):
                try:
                    self.cluster.kind(f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                except UnknownKind as error:
                    return str(error)
        return None

    def _wait(self, problem: Callable[[], str | None], timeout_s: float) -> str | None:
        """Wait until there is no problem; the last one when the time is over."""
        deadline = time.monotonic() + timeout_s
        while (reason := problem()) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        return reason

    def _replacement(self, new: Properties, refusal: Refusal) -> Change:
        """A change that the server refuses while it would take the object as a new one is a replacement."""
        fields = [cause.field for cause in refusal.causes if cause.field]
        if refusal.status != 422 or new["kind"] in DATA_HOLDERS or not self._is_fine_as_new(new):
            raise ProviderError(_sentence(new, refusal)) from None
        tops = sorted({re.split(r"[.\[]", field)[0] for field in fields}) or ["spec"]
        return Change(
            tops,
            tops,
            delete_before_replace=is_same_place(new, new),
            details=dict.fromkeys(fields, "UPDATE"),
            replacing_details=frozenset(fields),
        )

    def _is_fine_as_new(self, value: Properties) -> bool:
        fresh = _as_new(value)
        try:
            self.cluster.apply(self._path(fresh), fresh, MANAGER_PREFIX + "question", force=True, dry_run=True)
        except Refusal:
            return False
        return True


class _NotYet(Exception):
    """The server can't be asked with a dry run: a namespace is missing, or a webhook takes none."""


def _as_new(value: Properties) -> Properties:
    """The object under a name that nothing has, to ask what the server says of it as a new one."""
    metadata = value["metadata"]
    name = str(metadata["name"])
    fresh = f"{name[:40].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return {**value, "metadata": {**metadata, "name": fresh}}


def own_manager(resource: Resource) -> str:
    """The field manager of a resource: always the same, and no other's."""
    return MANAGER_PREFIX + hashlib.sha256(resource.urn.encode()).hexdigest()[:8]


def manager_of(resource: Resource, live: Object | None) -> str:
    """The manager that applied the object before, also under the resource's earlier name; else its own."""
    managed = ((live or {}).get("metadata") or {}).get("managedFields") or ()
    applied = [each["manager"] for each in managed if each["operation"] == "Apply"]
    ours = [name for name in applied if name.startswith(MANAGER_PREFIX)]
    own = own_manager(resource)
    return ours[0] if len(ours) == 1 and own not in ours else own


def _sentence(value: Object, refusal: Refusal) -> str:
    """The server's refusal with object, field and value; a secret's values stay out of it."""
    if refusal.reason == "Conflict" and refusal.causes:
        held = "; ".join(f"{each.field}: {each.message}" for each in refusal.causes)
        return (
            f"{_named(value)}: {held}. Another manager has set it: take the field out of the program, ignore it "
            f'(ignore_changes), or take it over with the annotation {FORCE}: "true"'
        )
    is_secret = value["kind"] == "Secret"
    if refusal.causes:
        return f"{_named(value)}: " + "; ".join(_cause(each, is_secret=is_secret) for each in refusal.causes)
    if is_secret and refusal.status != 403:
        return f"{_named(value)}: refused ({refusal.reason}); its message may hold a secret's value and is not shown"
    message = re.sub(r"^failed to create typed patch object \([^)]*\): ", "", refusal.message)
    wrong = re.match(r"\.(\S+): expected", message)
    shown = f" (it is {_at(value, wrong.group(1))!r})" if wrong else ""
    return f"{_named(value)}: {message.lstrip('.')}{shown}"


def _cause(cause: Cause, *, is_secret: bool) -> str:
    return f"{cause.field}: {cause.reason if is_secret else cause.message}"


def _at(value: Any, path: str) -> Any:
    """The value at a path of the server's, such as `spec.replicas`; None behind a list's selector."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _named(value: Object) -> str:
    return f"{value['kind']} {object_id(value)}"


def _annotations(value: Object) -> Mapping[str, Any]:
    metadata = value.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return annotations if isinstance(annotations, Mapping) else {}


def _is_forced(value: Object) -> bool:
    return _annotations(value).get(FORCE) == "true"


def _of_token(token: str) -> tuple[str, str]:
    """`kubernetes:apps/v1:Deployment` → apps/v1 and Deployment; the core group has no name."""
    _, api_version, kind = token.split(":", 2)
    return api_version.removeprefix("core/"), kind


def _comparable(live: Object) -> dict[str, Any]:
    """An object without what changes by itself."""
    metadata = {name: value for name, value in live["metadata"].items() if name not in OF_THE_SERVER}
    return {**{name: value for name, value in live.items() if name != "status"}, "metadata": metadata}


def _declared(live: Object) -> dict[str, Any]:
    """The inputs that would declare an object that is imported."""
    return _comparable(live)


def _outputs(live: Object) -> dict[str, Any]:
    metadata = {name: value for name, value in live["metadata"].items() if name != "managedFields"}
    return {**live, "metadata": metadata}


def _as_now(inputs: Any, live: Any) -> Any:
    """Inputs with the values that their fields have in the cluster; fields that are gone are left out."""
    if isinstance(inputs, Mapping) and isinstance(live, Mapping):
        found = {name: _as_now(value, live[name]) for name, value in inputs.items() if name in live}
        if live.get("kind") == "Secret" and "stringData" in inputs:  # which the server takes and never shows
            data = live.get("data") or {}
            found["stringData"] = {
                name: base64.b64decode(data[name]).decode(errors="replace")
                for name in inputs["stringData"]
                if name in data
            }
        return found
    if isinstance(inputs, list) and isinstance(live, list) and len(inputs) == len(live):
        return [_as_now(*pair) for pair in zip(inputs, live, strict=True)]
    return live


def _keeping(new: Properties, live: Object, ignored: tuple[str, ...]) -> Properties:
    """The object with the values that fields of others have now, so that no manager is contradicted."""
    kept = copy.deepcopy(new)
    for path in ignored:
        parts = list(_parts(path))
        target: Any = kept
        source: Any = live
        for part in parts[:-1]:
            target = _step(target, part)
            source = _step(source, part)
        value = _step(source, parts[-1])
        if isinstance(target, dict) and isinstance(parts[-1], str):
            target.pop(parts[-1], None)
            if value is not None:
                target[parts[-1]] = value
    return kept


def _step(value: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return value[part] if isinstance(value, list) and part < len(value) else None
    return value.get(part) if isinstance(value, Mapping) else None


def _parts(path: str) -> Iterator[str | int]:
    """`spec.template`, `metadata.annotations["a.b/c"]`, `spec.ports[0]`."""
    for name, quoted, index in re.findall(r'([^.\["\]]+)(?![^\[]*"\])|\["([^"]+)"\]|\[(\d+)\]', path):
        yield int(index) if index else quoted or (int(name) if name.isdigit() else name)
