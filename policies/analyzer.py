"""Guardrails as the engine asks them, each resource read once.

Pulumi's SDK for policies reads a resource's inputs anew for each policy, keeps only the tags of the stack's config,
knows no level set by a stack, and takes a third of a second to import. So the engine's protocol is answered here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import gc
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from functools import partial
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format

from localcloud.messages import analyzer_pb2, analyzer_pb2_grpc, plugin_pb2
from planner.catalog import UnknownOffer, load
from planner.catalog.instances import not_sold
from planner.errors import PlanError
from planner.plan import plan_reader
from policies.guardrail import LEVELS, Guardrail
from policies.objects import objects_of
from policies.pricing import billing_of
from policies.resource import NotKnown, Resource, read
from policies.state import State, read_state
from policies.update import SETTINGS_KEY, Update

SETTINGS_GUARDRAIL = "guardrail-settings"
VERSION = "0.0.1"
MESSAGE_BYTES_MAX = 400 * 1024 * 1024
"""As the engine's own limit (`sdk/go/common/util/rpcutil`), for stacks of many resources."""
REMEDIATE = "/pulumirpc.Analyzer/Remediate"


def serve(name: str, guardrails: Sequence[Guardrail]) -> None:
    """Answer the engine until it ends this process."""
    gc.freeze()  # what is imported stays: a collection between two resources need not look at them
    threads = futures.ThreadPoolExecutor(max_workers=4)
    limits = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    server = grpc.server(threads, interceptors=[WithoutRemediation()], options=limits)
    analyzer_pb2_grpc.add_AnalyzerServicer_to_server(Analyzer(name, guardrails), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(0)


class WithoutRemediation(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs alone
    """Guardrails change no inputs: the engine's question whether they do is refused before its message is read."""

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """None, which answers UNIMPLEMENTED, or what takes the call."""
        is_remediation = handler_call_details.method == REMEDIATE
        return None if is_remediation else continuation(handler_call_details)


class Analyzer(analyzer_pb2_grpc.AnalyzerServicer):
    """Judges resources one at a time, in the order that the engine registers them."""

    def __init__(
        self,
        name: str,
        guardrails: Sequence[Guardrail],
        read_state: Callable[[str, str], State] = read_state,
    ) -> None:
        self._name = name
        self._guardrails = guardrails
        self._by_name = {each.name: each for each in (*guardrails, _settings_guardrail())}
        self._pack_levels: dict[str, analyzer_pb2.EnforcementLevel.ValueType] = {}
        self._by_type: dict[str, list[Guardrail]] = {}
        self._declared: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()
        self._update = Update(read_state=read_state)
        self._settings_judged = False
        self._prepared: threading.Thread | None = None

    def GetPluginInfo(self, _request: Any, _context: Any) -> plugin_pb2.PluginInfo:
        """The pack's version."""
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetAnalyzerInfo(self, _request: Any, _context: Any) -> analyzer_pb2.AnalyzerInfo:
        """What the guardrails are called and take; the engine asks before it starts the program.

        While that starts, what the first resources need is read, so that they don't wait for it.
        """
        if self._prepared is None:
            self._prepared = threading.Thread(target=_prepare, daemon=True)
            self._prepared.start()
        infos = [each.info() for each in self._by_name.values()]
        return analyzer_pb2.AnalyzerInfo(name=self._name, version=VERSION, supportsConfig=True, policies=infos)

    def Configure(self, request: analyzer_pb2.ConfigureAnalyzerRequest, _context: Any) -> empty_pb2.Empty:
        """Take the pack's config; the engine sends it after the stack's."""
        self._by_type = {}
        self._pack_levels = {name: each.enforcementLevel for name, each in request.policyConfig.items()}
        config = {name: json_format.MessageToDict(each.properties) for name, each in request.policyConfig.items()}
        with self._lock:
            self._update = dataclasses.replace(self._update, pack_config=config)  # whose settings are read anew
            self._update.read_early()
        return empty_pb2.Empty()

    def ConfigureStack(
        self, request: analyzer_pb2.AnalyzerStackConfigureRequest, _context: Any
    ) -> analyzer_pb2.AnalyzerStackConfigureResponse:
        """Take the config of the stack that is judged; the engine sends it before the first resource."""
        with self._lock:
            self._settings_judged = False
            self._declared = {}
            self._by_type = {}
            self._update = Update(
                project=request.project,
                stack=request.stack,
                organization=request.organization,
                is_preview=request.dry_run,
                config=dict(request.config),
                secret_keys=frozenset(request.config_secret_keys),
                pack_config=self._update.pack_config,
                read_state=self._update.read_state,
            )
            self._update.read_early()
        return analyzer_pb2.AnalyzerStackConfigureResponse()

    def Analyze(self, request: analyzer_pb2.AnalyzeRequest, _context: Any) -> analyzer_pb2.AnalyzeResponse:
        """What one resource violates."""
        if self._prepared is not None:
            self._prepared.join()
        response = analyzer_pb2.AnalyzeResponse()
        with self._lock:
            self._declared[request.urn] = frozenset(request.properties.fields)
            if self._settings_are_wrong(response):
                return response
            for each in objects_of(_resource(request, self._update)):
                for guardrail in self._guardrails_on(each.type):
                    if guardrail.judge is not None:
                        self._judge(guardrail, partial(guardrail.judge, each, self._update), response)
        return response

    def AnalyzeStack(self, request: analyzer_pb2.AnalyzeStackRequest, _context: Any) -> analyzer_pb2.AnalyzeResponse:
        """What the stack as a whole violates."""
        response = analyzer_pb2.AnalyzeResponse()
        guardrails = [each for each in self._guardrails if each.judge_stack and self._is_enabled(each)]
        with self._lock:
            if not guardrails or self._update.wrong_settings():
                return response
            resources = [each for one in request.resources for each in objects_of(self._as_declared(one))]
            for each in guardrails:
                if each.judge_stack is not None:
                    self._judge(each, partial(each.judge_stack, resources, self._update), response)
        return response

    def _as_declared(self, request: analyzer_pb2.AnalyzerResource) -> Resource:
        """A resource of the stack, without what only its provider may fill in, which a preview does not know.

        Else a bucket without a policy would look like one whose policy is not known yet.
        """
        resource = _resource(request, self._update)
        if request.urn not in self._declared:
            return dataclasses.replace(resource, is_declared=False)
        declared = self._declared[request.urn]
        inputs = resource.props.value
        kept = {
            key: value for key, value in inputs.items() if key in declared or not resource.props.part(key).is_unknown()
        }
        return dataclasses.replace(resource, props=dataclasses.replace(resource.props, value=kept))

    def _level(self, guardrail: Guardrail) -> analyzer_pb2.EnforcementLevel.ValueType:
        """The stack's own level where it sets one, else that of the pack's config, else the guardrail's."""
        of_stack = None if self._update.wrong_settings() else self._update.settings.levels.get(guardrail.name)
        if of_stack is not None:
            return LEVELS[of_stack]
        level = self._pack_levels.get(guardrail.name, LEVELS[guardrail.level])
        return analyzer_pb2.MANDATORY if level == analyzer_pb2.REMEDIATE else level  # guardrails change no inputs

    def _is_enabled(self, guardrail: Guardrail) -> bool:
        return self._level(guardrail) != analyzer_pb2.DISABLED

    def _guardrails_on(self, resource_type: str) -> list[Guardrail]:
        if resource_type not in self._by_type:
            self._by_type[resource_type] = [
                each
                for each in self._guardrails
                if each.judge and (not each.types or resource_type in each.types) and self._is_enabled(each)
            ]
        return self._by_type[resource_type]

    def _judge(
        self, guardrail: Guardrail, judge: Callable[[], Iterable[str]], response: analyzer_pb2.AnalyzeResponse
    ) -> None:
        """Take each violation; what can't be judged is never passed over in silence."""
        try:
            for message in judge():
                self._report(guardrail.name, message, response)
        except NotKnown as error:
            if guardrail.unknown == "refused":
                self._report(
                    guardrail.name,
                    f"{error} decides this and is not known before the update; give it a plain value",
                    response,
                )
            else:
                reason = f"{error} is not known before the update, which judges it"
                response.not_applicable.append(_not_applicable(guardrail.name, reason))
        except Exception as error:  # whatever it is, nothing passes unjudged
            told = str(error) if isinstance(error, PlanError | UnknownOffer) else f"{type(error).__name__}: {error}"
            self._could_not_judge(guardrail, f"it could not be judged: {told}", response)

    def _could_not_judge(self, guardrail: Guardrail, message: str, response: analyzer_pb2.AnalyzeResponse) -> None:
        """A violation, unless another guardrail has told the same of this resource and stops the update."""
        told = (each.message for each in response.diagnostics if each.enforcementLevel == analyzer_pb2.MANDATORY)
        if any(each.endswith(message) for each in told):
            response.not_applicable.append(_not_applicable(guardrail.name, message))
        else:
            self._report(guardrail.name, message, response)

    def _report(self, name: str, message: str, response: analyzer_pb2.AnalyzeResponse) -> None:
        guardrail = self._by_name[name]
        response.diagnostics.add(
            policyName=name,
            policyPackName=self._name,
            policyPackVersion=VERSION,
            message=f"{guardrail.description}\n{message}" if message else guardrail.description,
            description=guardrail.description,
            enforcementLevel=self._level(guardrail),
        )

    def _settings_are_wrong(self, response: analyzer_pb2.AnalyzeResponse) -> bool:
        """Say once what is wrong with the settings; nothing is judged by wrong ones."""
        error = self._update.wrong_settings()
        if not self._settings_judged:
            self._settings_judged = True
            wrong = error.errors() if error else ()
            for each in wrong:
                field = ".".join(map(str, each["loc"]))
                self._report(
                    SETTINGS_GUARDRAIL, f"{SETTINGS_KEY}.{field}: {each['msg']}, got {each['input']!r}", response
                )
            for name in () if error else self._update.settings.levels.keys() - self._by_name.keys():
                near = difflib.get_close_matches(name, self._by_name, 1) or sorted(self._by_name)[:3]
                self._report(
                    SETTINGS_GUARDRAIL,
                    f"{SETTINGS_KEY}.levels.{name}: no guardrail has this name; such as {', '.join(near)}",
                    response,
                )
        return error is not None


def _not_applicable(name: str, reason: str) -> analyzer_pb2.PolicyNotApplicable:
    return analyzer_pb2.PolicyNotApplicable(policy_name=name, reason=reason)


def _prepare() -> None:
    """Read what nearly every stack is judged by; what can't be read here is told by the guardrail that needs it."""
    with contextlib.suppress(Exception):
        plan_reader()
        catalog = load()
        not_sold("aws", "us-east-1", "p5.48xlarge", catalog)
        billing_of("")


def _settings_guardrail() -> Guardrail:
    description = "What the stack and the pack's config set of the guardrails can be read."
    return Guardrail(SETTINGS_GUARDRAIL, description, frozenset(), (), "mandatory", "refused", judge=lambda *_: ())


def _resource(request: analyzer_pb2.AnalyzeRequest | analyzer_pb2.AnalyzerResource, update: Update) -> Resource:
    props = read(request.properties)
    return Resource(
        type=request.type,
        name=request.name,
        props=props,
        urn=request.urn,
        region=_region(request, props.value, update),
        parent=request.options.parent,
        references=_references(request) if isinstance(request, analyzer_pb2.AnalyzerResource) else {},
        is_custom=bool(request.provider.type),
        aliases=tuple(request.options.aliases),
    )


def _references(request: analyzer_pb2.AnalyzerResource) -> dict[str, tuple[str, ...]]:
    return {name: tuple(each.urns) for name, each in request.propertyDependencies.items()}


def _region(
    request: analyzer_pb2.AnalyzeRequest | analyzer_pb2.AnalyzerResource, inputs: dict[str, Any], update: Update
) -> str:
    """The resource's own, else its provider's, else the stack's."""
    package = request.type.partition(":")[0]
    of_provider = request.provider.properties.fields["region"].string_value
    for each in (inputs.get("region"), of_provider, update.config.get(f"{package}:region")):
        if isinstance(each, str) and each:
            return each
    return ""
