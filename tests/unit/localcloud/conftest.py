"""The local AWS, served from a folder that only the test has, and its provider as the engine sees it: over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2 as pb
from pulumi.runtime.proto import provider_pb2_grpc

from localcloud import server
from localcloud.aws.api import Aws
from localcloud.aws.plugin import AwsBackend
from localcloud.provider import Backend, Servicer
from localcloud.values import from_struct, to_struct

REGION = "us-east-1"


@dataclass
class Made:
    """A resource after its creation."""

    urn: str
    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]


class Provider:
    """One process of the provider: what it remembers ends with it, as when the plugin is killed."""

    def __init__(self, backend: Backend | None = None, **config: Any) -> None:
        self.backend = backend or AwsBackend()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(Servicer(self.backend), self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.stub = provider_pb2_grpc.ResourceProviderStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
        self.stub.Configure(pb.ConfigureRequest(args=to_struct(config if backend else {"region": REGION} | config)))

    def urn(self, token: str, name: str) -> str:
        return f"urn:pulumi:test::fusion::{token}::{name}"

    def check(
        self, token: str, inputs: dict[str, Any], name: str = "it", old: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        request = pb.CheckRequest(
            urn=self.urn(token, name), olds=to_struct(old or {}), news=to_struct(inputs), randomSeed=b"\x01" * 32
        )
        answer = self.stub.Check(request)
        return from_struct(answer.inputs), {each.property: each.reason for each in answer.failures}

    def checked(self, token: str, inputs: dict[str, Any], name: str = "it", **old: Any) -> dict[str, Any]:
        found, failures = self.check(token, inputs, name, **old)
        assert not failures, failures
        return found

    def create(self, token: str, inputs: dict[str, Any], name: str = "it", *, preview: bool = False) -> Made:
        checked = self.checked(token, inputs, name)
        urn = self.urn(token, name)
        answer = self.stub.Create(pb.CreateRequest(urn=urn, properties=to_struct(checked), preview=preview))
        return Made(urn, answer.id, checked, from_struct(answer.properties))

    def diff(self, made: Made, inputs: dict[str, Any]) -> Any:
        return self.stub.Diff(
            pb.DiffRequest(urn=made.urn, id=made.id, old_inputs=to_struct(made.inputs), news=to_struct(inputs))
        )

    def read(self, made: Made, *, is_import: bool = False) -> Made | None:
        inputs = {} if is_import else made.inputs
        answer = self.stub.Read(pb.ReadRequest(urn=made.urn, id=made.id, inputs=to_struct(inputs)))
        found = Made(made.urn, answer.id, from_struct(answer.inputs), from_struct(answer.properties))
        return found if found.id else None

    def update(self, made: Made, inputs: dict[str, Any], *, preview: bool = False) -> Made:
        request = pb.UpdateRequest(
            urn=made.urn,
            id=made.id,
            olds=to_struct(made.outputs),
            old_inputs=to_struct(made.inputs),
            news=to_struct(inputs),
            preview=preview,
        )
        return Made(made.urn, made.id, inputs, from_struct(self.stub.Update(request).properties))

    def delete(self, made: Made) -> None:
        self.stub.Delete(pb.DeleteRequest(urn=made.urn, id=made.id, old_inputs=to_struct(made.inputs)))

    def invoke(self, token: str, **args: Any) -> dict[str, Any]:
        answer = self.stub.Invoke(pb.InvokeRequest(tok=token, args=to_struct(args)))
        return from_struct(getattr(answer, "return"))

    def kill(self) -> None:
        self._server.stop(None)


def refused(call: Any, *args: Any, **more: Any) -> str:
    """The sentence with which the provider refuses."""
    with pytest.raises(grpc.RpcError) as error:
        call(*args, **more)
    return str(error.value.details())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A local cloud of the test module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fusion")
        patch.setenv("FUSION_HOME", str(folder))
        server.ensure()
        yield folder
        server.stop()


@pytest.fixture
def provider(home: Path) -> Iterator[Provider]:
    running = Provider()
    yield running
    running.kill()


@pytest.fixture
def aws(home: Path) -> Aws:
    return Aws(server.ensure(), REGION)
