"""A Pulumi provider plugin over the SDK's gRPC stubs, for the packages of the local cloud.

A package implements `Backend`; this module speaks the protocol: values in and out, errors as one sentence, a clean end.
The engine is told that secrets are not accepted, so it unwraps them and marks the outputs of the same name secret
itself.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import grpc
from google.protobuf import empty_pb2

from localcloud.messages import plugin_pb2, provider_pb2, provider_pb2_grpc
from localcloud.parent import when_parent_ends
from localcloud.values import from_struct, to_struct

Properties = dict[str, Any]


class ProviderError(Exception):
    """What went wrong with a resource, in one sentence for the user."""


class InitFailed(ProviderError):
    """A resource is there and did not become ready: its id and outputs are kept in the state, with the reason."""

    def __init__(self, id: str, inputs: Properties, outputs: Properties, reason: str) -> None:
        super().__init__(reason)
        self.id, self.inputs, self.outputs = id, inputs, outputs


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that is wrong: its name, and why."""

    property: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a difference of inputs leads to; ``details`` are the paths that differ, each with ADD, UPDATE or DELETE."""

    changed: Sequence[str] = ()
    replaced_by: Sequence[str] = ()
    delete_before_replace: bool = False
    details: Mapping[str, str] = field(default_factory=dict)
    replacing_details: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as it is now: the inputs that would declare it, and its outputs."""

    id: str
    inputs: Properties
    outputs: Properties


@dataclass(frozen=True, slots=True)
class Resource:
    """The resource that a request is about.

    Attributes:
        ignore_changes: paths whose changes are somebody else's.
        timeout_s: the user's own limit of the operation; 0 where there is none.
        outputs: those of the state; empty before it is created or imported.
    """

    urn: str
    type: str
    name: str
    ignore_changes: tuple[str, ...] = ()
    timeout_s: float = 0
    outputs: Properties = field(default_factory=dict)


class Backend(ABC):
    """What a package does with its resources. Every method may raise `ProviderError`."""

    package: str
    version: str

    @abstractmethod
    def configure(self, variables: Properties) -> None:
        """Take the provider's own config."""

    @abstractmethod
    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Inputs with defaults filled in, and what is wrong with them."""

    @abstractmethod
    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """What changed between two sets of checked inputs."""

    @abstractmethod
    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Create it; its id and outputs."""

    @abstractmethod
    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """The resource as it is now, None when it is gone; ``inputs`` is empty on import."""

    @abstractmethod
    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Change it in place; its outputs."""

    @abstractmethod
    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Delete it; one that is gone already is no error."""

    @abstractmethod
    def invoke(self, token: str, args: Properties) -> Properties:
        """Call a function of the package."""

    def for_config(self, variables: Properties) -> Backend:
        """Who serves a provider of this config, where that is not said by the stack's config alone."""
        return self

    def check_config(self, variables: Properties) -> Properties:
        """The provider's own config as it is to be taken, values that are not known yet included."""
        return variables

    @abstractmethod
    def known(self, resource: Resource, id: str) -> None:
        """The engine has named this id: its state has it."""


@dataclass
class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    """The provider protocol on a backend."""

    backend: Backend
    stop: threading.Event = field(default_factory=threading.Event)

    def Handshake(self, request: Any, context: Any) -> provider_pb2.ProviderHandshakeResponse:
        """Agree on the protocol."""
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=False, accept_resources=False, accept_outputs=False
        )

    def GetSchema(self, request: Any, context: Any) -> provider_pb2.GetSchemaResponse:
        """The least that the engine takes as a schema."""
        return provider_pb2.GetSchemaResponse(
            schema=f'{{"name": "{self.backend.package}", "version": "{self.backend.version}"}}'
        )

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:
        """The version that the plugin stands in for."""
        return plugin_pb2.PluginInfo(version=self.backend.version)

    def CheckConfig(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:
        """The provider's config is checked when it is used; a backend may do without what is not known yet."""
        checked: Properties = {}
        with _one_sentence(context):
            variables = from_struct(request.news)
            checked = self._backend_for(variables).check_config(variables)
        return provider_pb2.CheckResponse(inputs=to_struct(checked))

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:
        """What changed of the provider's config; what that means for a resource, its own difference says."""
        old, new = (_settings(each) for each in (request.old_inputs, request.news))
        return _diff_response(changes(old, new, frozenset()))

    def Configure(self, request: provider_pb2.ConfigureRequest, context: Any) -> provider_pb2.ConfigureResponse:
        """Take the config."""
        with _one_sentence(context):
            variables = from_struct(request.args)
            self._backend_for(variables).configure(variables)
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True, acceptResources=False)

    def _backend_for(self, variables: Properties) -> Backend:
        self.backend = self.backend.for_config(variables)
        return self.backend

    def Check(self, request: provider_pb2.CheckRequest, context: Any) -> provider_pb2.CheckResponse:
        """Check inputs."""
        inputs: Properties = {}
        failures: list[Failure] = []
        with _one_sentence(context):
            resource = resource_of(request.urn)
            old, new = from_struct(request.olds), from_struct(request.news)
            inputs, failures = self.backend.check(resource, old, new, request.randomSeed)
        return provider_pb2.CheckResponse(
            inputs=to_struct(inputs),
            failures=[provider_pb2.CheckFailure(property=each.property, reason=each.reason) for each in failures],
        )

    def Diff(self, request: provider_pb2.DiffRequest, context: Any) -> provider_pb2.DiffResponse:
        """Compare the inputs of the state with the new ones."""
        change = Change()
        with _one_sentence(context):
            resource = resource_of(request.urn, request.ignoreChanges)
            resource = replace(resource, outputs=from_struct(request.olds))
            self.backend.known(resource, request.id)
            old = from_struct(request.old_inputs)
            new = from_struct(request.news)
            change = self.backend.diff(resource, request.id, old, new)  # the engine has applied ignoreChanges
        return _diff_response(change)

    def Create(self, request: provider_pb2.CreateRequest, context: Any) -> provider_pb2.CreateResponse:
        """Create a resource."""
        id, outputs = "", Properties()
        with _one_sentence(context):
            inputs = from_struct(request.properties)
            resource = resource_of(request.urn, timeout_s=request.timeout)
            id, outputs = self.backend.create(resource, inputs, request.preview)
        return provider_pb2.CreateResponse(id=id, properties=to_struct(outputs))

    def Read(self, request: provider_pb2.ReadRequest, context: Any) -> provider_pb2.ReadResponse:
        """Refresh or import a resource."""
        found = None
        with _one_sentence(context):
            resource = replace(resource_of(request.urn), outputs=from_struct(request.properties))
            self.backend.known(resource, request.id)
            inputs = from_struct(request.inputs)
            found = self.backend.read(resource, request.id, inputs)
        if found is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(
            id=found.id,
            properties=to_struct(found.outputs),
            inputs=to_struct(found.inputs),
        )

    def Update(self, request: provider_pb2.UpdateRequest, context: Any) -> provider_pb2.UpdateResponse:
        """Change a resource in place."""
        outputs = Properties()
        with _one_sentence(context):
            resource = resource_of(request.urn, request.ignoreChanges, request.timeout)
            resource = replace(resource, outputs=from_struct(request.olds))
            self.backend.known(resource, request.id)
            old = from_struct(request.old_inputs)
            new = from_struct(request.news)
            outputs = self.backend.update(resource, request.id, old, new, request.preview)
        return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Delete(self, request: provider_pb2.DeleteRequest, context: Any) -> empty_pb2.Empty:
        """Delete a resource."""
        with _one_sentence(context):
            resource = resource_of(request.urn, timeout_s=request.timeout)
            resource = replace(resource, outputs=from_struct(request.properties))
            self.backend.known(resource, request.id)
            inputs = from_struct(request.old_inputs)
            self.backend.delete(resource, request.id, inputs)
        return empty_pb2.Empty()

    def Invoke(self, request: provider_pb2.InvokeRequest, context: Any) -> provider_pb2.InvokeResponse:
        """Call a function."""
        result: Properties = {}
        with _one_sentence(context):
            result = self.backend.invoke(request.tok, from_struct(request.args))
        answer = provider_pb2.InvokeResponse()
        getattr(answer, "return").CopyFrom(to_struct(result))
        return answer

    def Construct(self, request: provider_pb2.ConstructRequest, context: Any) -> provider_pb2.ConstructResponse:
        """No component of a package is served."""
        with _one_sentence(context):
            what = f"{request.type}: the local cloud does not serve this component"
            raise ProviderError(f"{what}; declare the resources that it would make")
        return provider_pb2.ConstructResponse()

    def Cancel(self, request: Any, context: Any) -> empty_pb2.Empty:
        """Nothing runs longer than one request."""
        return empty_pb2.Empty()


def _settings(config: Any) -> Properties:
    """A provider's config without what the engine adds to it."""
    return {key: value for key, value in from_struct(config).items() if key != "version" and not key.startswith("__")}


class _one_sentence:
    """Turns an error of the backend into a gRPC error with its sentence, and any other into one that names it."""

    def __init__(self, context: Any) -> None:
        self.context = context

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, InitFailed):
            self.context.set_trailing_metadata((("grpc-status-details-bin", _init_failed(error)),))
            self.context.abort(grpc.StatusCode.UNKNOWN, str(error))
        elif isinstance(error, ProviderError):
            self.context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        elif isinstance(error, Exception):
            self.context.abort(grpc.StatusCode.INTERNAL, f"local cloud: {type(error).__name__}: {error}")


def _init_failed(error: InitFailed) -> bytes:
    """The status that tells the engine what was created all the same."""
    from google.rpc import status_pb2

    detail = provider_pb2.ErrorResourceInitFailed(
        id=error.id, inputs=to_struct(error.inputs), properties=to_struct(error.outputs), reasons=[str(error)]
    )
    status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
    status.details.add().Pack(detail)
    return bytes(status.SerializeToString())


def resource_of(urn: str, ignore_changes: Sequence[str] = (), timeout_s: float = 0) -> Resource:
    """`urn:pulumi:stack::project::parent$type::name` → its own type and its name."""
    _, _, kinds, name = urn.split("::", 3)
    return Resource(urn, kinds.split("$")[-1], name, tuple(ignore_changes), timeout_s)


def _diff_response(change: Change) -> provider_pb2.DiffResponse:
    kinds = provider_pb2.PropertyDiff.Kind
    details = change.details or dict.fromkeys(change.changed, "UPDATE")
    replaced = change.replacing_details or set(change.replaced_by)
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if change.changed else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=list(change.changed),
        replaces=list(change.replaced_by),
        deleteBeforeReplace=change.delete_before_replace,
        hasDetailedDiff=True,
        detailedDiff={
            path: provider_pb2.PropertyDiff(
                kind=kinds.Value(f"{kind}_REPLACE" if path in replaced else kind), inputDiff=True
            )
            for path, kind in details.items()
        },
    )


def serve(make_backend: Callable[[], Backend]) -> None:
    """Serve until the engine ends the plugin; the port is the first line of standard output, as the protocol asks."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", 400 * 1024 * 1024)]
    )
    servicer = Servicer(make_backend())
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: servicer.stop.set())
    when_parent_ends(servicer.stop.set)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    servicer.stop.wait()
    server.stop(grace=1).wait()


def changes(old: Mapping[str, Any], new: Mapping[str, Any], replace_on: frozenset[str]) -> Change:
    """What differs. ``replace_on`` are paths such as `launchTemplate.id`: a difference there or inside is a
    replacement.
    """
    details = dict(differences(old, new))
    replacing = frozenset(path for path in details if _is_within(path, replace_on))
    return Change(
        changed=sorted({_top(path) for path in details}),
        replaced_by=sorted({_top(path) for path in replacing}),
        details=details,
        replacing_details=replacing,
    )


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each path at which two values differ, and whether its value was added, changed or removed."""
    if _is_object(old, new) and _is_object(new, old):
        before, after = old or {}, new or {}
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name), after.get(name), _field(path, name))
    elif isinstance(old, list) and isinstance(new, list):
        for index, (was, now) in enumerate(zip_longest(old, new)):
            yield from differences(was, now, f"{path}[{index}]")
    elif old != new:
        yield path, "ADD" if old is None else "DELETE" if new is None else "UPDATE"


def _field(path: str, name: str) -> str:
    """The path of a field, as the engine parses it: `scalingConfig.maxSize`, `tags["a.b"]`."""
    if any(mark in name for mark in '.[]"'):
        return f"{path}[{json.dumps(name)}]"
    return f"{path}.{name}" if path else name


def _is_object(value: Any, other: Any) -> bool:
    """Whether it is an object, or none where the other one is: an absent block has no fields."""
    return isinstance(value, Mapping) or (value is None and isinstance(other, Mapping))


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _is_within(path: str, places: frozenset[str]) -> bool:
    return any(path == place or path.startswith((f"{place}.", f"{place}[")) for place in places)
