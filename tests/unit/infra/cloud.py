"""Programs run without an engine: what they register is kept, and what is of AWS exists in moto, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks


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
        found = [whole(args.inputs) for args in self.registered if args.typ.startswith("kubernetes:")]
        return {each["kind"]: each for each in found}


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


class Cloud:
    """A program deployed into an empty account, and what boto3 finds there afterwards.

    Attributes:
        result: what the program returned, with its outputs resolved where it is a component.
    """

    result: Any
