"""Programs run without an engine: what they register is kept, and what is of AWS exists in moto, in this process."""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks
from werkzeug.serving import make_server

from localcloud import server
from localcloud.aws.api import ACCOUNT_ID, Aws
from localcloud.aws.plugin import AwsBackend
from localcloud.provider import Resource
from tests.unit.infra.conftest import REGION


class Recording(Mocks):
    """Hands resources of AWS to `aws` and keeps everything that is registered."""

    def __init__(self, aws: Mocks | None = None) -> None:
        self._aws = aws
        self.registered: list[MockResourceArgs] = []

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        self.registered.append(args)
        if self._aws and args.typ.startswith("aws:"):
            return self._aws.new_resource(args)
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: MockCallArgs) -> Any:
        return self._aws.call(args) if self._aws else {}

    def of_type(self, typ: str) -> list[dict[str, Any]]:
        """The inputs of all resources of a type, with whole numbers as such."""
        return [whole(args.inputs) for args in self.registered if args.typ == typ]

    def objects(self) -> dict[str, dict[str, Any]]:
        """The Kubernetes objects by kind; the tests make one of each."""
        return {each["kind"]: each for each in self.all_objects()}

    def all_objects(self) -> list[dict[str, Any]]:
        """All Kubernetes objects, in the order in which they were registered."""
        return [whole(args.inputs) for args in self.registered if args.typ.startswith("kubernetes:")]


def run_program(program: Callable[[], object], mocks: Recording) -> Recording:
    """Run a program to its end, all registrations included."""
    pulumi.runtime.set_mocks(mocks, project="fusion", stack="test", preview=False)
    pulumi.runtime.test(lambda: program() and None)()
    return mocks


def whole(value: Any) -> Any:
    """Numbers travel as floating point; what is whole was written as an integer."""
    return json.loads(
        json.dumps(value), parse_float=lambda text: int(float(text)) if float(text).is_integer() else float(text)
    )


class Moto(Mocks):
    """Creates resources of AWS with the local provider's own code; what it refuses fails the program."""

    def __init__(self, endpoint: str) -> None:
        self._backend = AwsBackend(endpoint)
        self._backend.configure({"region": REGION})

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        resource = Resource(urn=f"urn:pulumi:test::fusion::{args.typ}::{args.name}", type=args.typ, name=args.name)
        inputs, failures = self._backend.check(resource, {}, whole(args.inputs), b"")
        if failures:
            raise AssertionError(f"{args.name}: {failures}")
        return self._backend.create(resource, inputs, preview=False)

    def call(self, args: MockCallArgs) -> Any:
        return self._backend.invoke(args.token, whole(args.args))


class Cloud:
    """A program deployed into an empty account on a moto server of its own, and what boto3 finds there afterwards.

    Attributes:
        result: what the program returned.
        outputs: the resolved values of those of its outputs that were asked for.
    """

    account_id = ACCOUNT_ID

    def __init__(self, program: Callable[[], Any], outputs: Callable[[Any], Mapping[str, Any]] = lambda result: {}):
        self._program = program
        self._outputs = outputs

    def __enter__(self) -> Self:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
        self._server = make_server("127.0.0.1", 0, server.application(Path(os.devnull)), threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._reset()  # moto keeps its state by process
        self.mocks = run_program(self._deploy, Recording(Moto(self.endpoint)))
        return self

    def __exit__(self, *error: object) -> None:
        self._reset()
        self._server.shutdown()
        self._server.server_close()

    def client(self, service: str) -> Any:
        return Aws(self.endpoint, REGION).client(service)

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def eks(self) -> Any:
        return self.client("eks")

    @property
    def vpc_id(self) -> str:
        vpcs = self.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"]
        return str(vpcs[0]["VpcId"])

    def tags(self, found: Mapping[str, Any]) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}

    def all_facts(self, typ: str) -> list[dict[str, Any]]:
        """What policies see of the components of a type."""
        return self.mocks.of_type(typ)

    def facts(self, typ: str) -> dict[str, Any]:
        (only,) = self.all_facts(typ)
        return only

    def keys_made(self) -> int:
        return len([key for key in self.client("kms").list_keys()["Keys"] if self._is_ours(key["KeyId"])])

    def key_rotates(self, key: str) -> bool:
        return bool(self.client("kms").get_key_rotation_status(KeyId=self._key_id(key))["KeyRotationEnabled"])

    def key_policy(self, key: str) -> dict[str, Any]:
        text = self.client("kms").get_key_policy(KeyId=self._key_id(key), PolicyName="default")["Policy"]
        return json.loads(text)

    def trust(self, role: str) -> dict[str, Any]:
        return self.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]

    def role_policy(self, role: str) -> dict[str, Any]:
        """The document of the role's only inline policy."""
        (name,) = self.client("iam").list_role_policies(RoleName=role)["PolicyNames"]
        return self.client("iam").get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]

    def inline_policies(self) -> dict[str, dict[str, Any]]:
        """By role, for all roles that have one."""
        iam = self.client("iam")
        roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
        return {role: self.role_policy(role) for role in roles if iam.list_role_policies(RoleName=role)["PolicyNames"]}

    def attached(self, role: str) -> set[str]:
        found = self.client("iam").list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        return {policy["PolicyName"] for policy in found}

    def launch_template(self, name: str) -> dict[str, Any]:
        versions = self.ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Latest"])
        return versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]

    def _deploy(self) -> object:
        self.result = self._program()

        def keep(values: Mapping[str, Any]) -> None:
            self.outputs = dict(values)

        return pulumi.Output.from_input(self._outputs(self.result)).apply(keep)

    def _is_ours(self, key_id: str) -> bool:
        return bool(self.client("kms").list_aliases(KeyId=key_id)["Aliases"])

    def _key_id(self, key: str) -> str:
        """Rotation and policy are asked for by id: of an alias, moto finds neither."""
        return str(self.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyId"])

    def _reset(self) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")).close()
