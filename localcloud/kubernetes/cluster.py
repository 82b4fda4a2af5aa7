"""Requests to a Kubernetes API server, and what it says when it refuses one.

The kubernetes package reads the kubeconfig and signs in (certificates, tokens, exec plugins); objects stay plain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.kubernetes.validation import Object
from localcloud.provider import ProviderError

APPLY = "application/apply-patch+yaml"
REQUEST_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Cause:
    """A field that the server objects to, and why."""

    field: str
    reason: str
    message: str


class Refusal(ProviderError):
    """The server's own answer to a request that it did not carry out."""

    def __init__(self, status: int, message: str, reason: str = "", causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(message)
        self.status, self.message, self.reason, self.causes = status, message, reason, causes


class UnknownKind(ProviderError):
    """The server serves no such kind (yet)."""


class Cluster:
    """One API server, as a kubeconfig's context names it."""

    def __init__(self, kubeconfig: Mapping[str, Any], context: str | None) -> None:
        from kubernetes.config import ConfigException, new_client_from_config_dict

        try:
            make: Any = new_client_from_config_dict  # the package has no types
            self._client = make(dict(kubeconfig), context=context, persist_config=False)
        except ConfigException as error:
            raise ProviderError(f"kubeconfig: {error}") from None
        self.address = self._client.configuration.host
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def request(
        self, method: str, path: str, body: Object | None = None, *, content: str = "application/json", **query: str
    ) -> Any:
        """The server's answer.

        Raises:
            Refusal: it did not carry the request out.
            ProviderError: it can't be reached.
        """
        return json.loads(self._answer(method, path, body, content, query))

    def text(self, path: str) -> str:
        """What the server has at a path that is no object, such as /metrics; raises as `request`."""
        return self._answer("GET", path, None, "text/plain", {}).decode()

    def _answer(self, method: str, path: str, body: Object | None, content: str, query: Mapping[str, str]) -> bytes:
        from urllib3.exceptions import HTTPError

        call = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Content-Type": content, "Accept": "application/json, text/plain"},
            body=body if body is None or "json" in content else json.dumps(body),  # the client writes JSON by itself
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._client.call_api(*call, _request_timeout=REQUEST_TIMEOUT_S)
            data: bytes = answer.read()
        except (HTTPError, OSError) as error:
            raise ProviderError(
                f"the API server at {self.address} can't be reached ({type(error).__name__}); for the context "
                "fusion-local, start it with `make cluster`"
            ) from None
        if answer.status >= 400:
            raise _refusal(answer.status, data)
        return data

    def kind(self, api_version: str, kind: str) -> tuple[str, bool]:
        """A kind's name in paths, and whether its objects are in namespaces.

        Raises:
            UnknownKind: the server has no such kind.
        """
        if (api_version, kind) not in self._kinds:
            try:
                served = self.request("GET", _base(api_version))["resources"]
            except Refusal as refusal:
                if refusal.status != 404:
                    raise
                served = []
            found = [each for each in served if each["kind"] == kind and "/" not in each["name"]]
            if not found:
                raise UnknownKind(f"the API server at {self.address} has no {kind} in {api_version}")
            self._kinds[api_version, kind] = found[0]["name"], bool(found[0]["namespaced"])
        return self._kinds[api_version, kind]

    def path(self, api_version: str, kind: str, namespace: str, name: str) -> str:
        """Where an object is; a namespace is passed over for kinds that have none."""
        plural, is_namespaced = self.kind(api_version, kind)
        within = f"/namespaces/{namespace}" if is_namespaced else ""
        return f"{_base(api_version)}{within}/{plural}/{name}"

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at a path; None when there is none."""
        try:
            found: dict[str, Any] = self.request("GET", path)
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            return None
        return found

    def apply(self, path: str, value: Object, manager: str, *, force: bool, dry_run: bool) -> dict[str, Any]:
        """Server-side apply, strict about fields; the object as it is, or would be, afterwards."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": str(force).lower()}
        applied: dict[str, Any] = self.request(
            "PATCH", path, value, content=APPLY, **query, **({"dryRun": "All"} if dry_run else {})
        )
        return applied


def _base(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _refusal(status: int, data: bytes) -> Refusal:
    try:
        document = json.loads(data)
    except ValueError:
        return Refusal(status, data.decode(errors="replace")[:400])
    causes = (document.get("details") or {}).get("causes") or ()
    return Refusal(
        status,
        str(document.get("message")),
        str(document.get("reason")),
        tuple(
            Cause(str(each.get("field", "")).lstrip("."), str(each.get("reason")), str(each.get("message")))
            for each in causes
        ),
    )
