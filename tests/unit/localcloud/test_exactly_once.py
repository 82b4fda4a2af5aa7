"""However a creation is cut off, the next one of the same resource leaves exactly one, and none where it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localcloud.aws.api import Aws
from localcloud.aws.inventory import inventory
from tests.unit.localcloud.conftest import Provider, refused

VPC = "aws:ec2/vpc:Vpc"
NETWORK = {"cidrBlock": "10.0.0.0/16", "enableDnsHostnames": True}


class Killed(BaseException):
    """The plugin ends here, as by kill -9: nothing after this runs."""


@pytest.fixture
def empty(home: Any, aws: Aws) -> Iterator[Aws]:
    yield aws
    for vpc in vpcs(aws):
        aws.call("ec2", "delete_vpc", VpcId=vpc)


def vpcs(aws: Aws) -> list[str]:
    return [each["VpcId"] for each in aws.call("ec2", "describe_vpcs")["Vpcs"] if not each["IsDefault"]]


def kill_at(monkeypatch: pytest.MonkeyPatch, provider: Provider, step: int, *, after: bool) -> None:
    """Kill the plugin at one of its calls during a creation, before the call or after AWS has served it."""
    call: Callable[..., Any] = Aws.call
    calls = iter(range(1, 100))

    def watched(aws: Aws, service: str, operation: str, **arguments: Any) -> Any:
        now = aws.creation is not None and next(calls) == step
        if now and not after:
            raise Killed
        answer = call(aws, service, operation, **arguments)
        if now:
            raise Killed
        return answer

    monkeypatch.setattr(Aws, "call", watched)
    with pytest.raises(Killed):
        create_here(provider)
    monkeypatch.undo()
    provider.kill()


def create_here(provider: Provider) -> str:
    """Create in this thread, so that the kill ends it."""
    from localcloud.provider import Resource

    resource = Resource(provider.urn(VPC, "it"), VPC, "it")
    return provider.backend.create(resource, provider.checked(VPC, NETWORK), preview=False)[0]


@pytest.mark.parametrize("step", [1, 2])  # the network is made, then its DNS host names are switched on
@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
def test_a_creation_killed_at_any_of_its_calls_is_made_once(
    step: int, after: bool, empty: Aws, provider: Provider
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, provider, step, after=after)
    second = Provider()
    made = second.create(VPC, NETWORK)
    assert vpcs(empty) == [made.id]


def test_a_creation_that_the_engine_never_wrote_into_its_state_is_gone_on_with(empty: Aws, provider: Provider) -> None:
    lost = provider.create(VPC, NETWORK)
    provider.kill()  # and the engine with it, before its checkpoint
    assert Provider().create(VPC, NETWORK).id == lost.id
    assert vpcs(empty) == [lost.id]


def test_one_that_somebody_has_removed_since_is_made_afresh(empty: Aws, provider: Provider) -> None:
    lost = provider.create(VPC, NETWORK)
    provider.kill()
    empty.call("ec2", "delete_vpc", VpcId=lost.id)
    made = Provider().create(VPC, NETWORK)
    assert vpcs(empty) == [made.id]


def test_what_it_left_is_replaced_where_the_program_has_changed_since(empty: Aws, provider: Provider) -> None:
    lost = provider.create(VPC, NETWORK)
    provider.kill()  # and the engine with it, before its checkpoint
    made = Provider().create(VPC, NETWORK | {"cidrBlock": "10.1.0.0/16"})
    assert made.id != lost.id
    assert vpcs(empty) == [made.id]


def test_what_the_engine_knows_stays_beside_its_replacement(empty: Aws, provider: Provider) -> None:
    old = provider.create(VPC, NETWORK)
    provider.kill()
    later = Provider()
    wanted = later.checked(VPC, NETWORK | {"cidrBlock": "10.1.0.0/16"})
    assert later.diff(old, wanted).replaces == ["cidrBlock"]
    new = later.create(VPC, wanted)
    assert set(vpcs(empty)) == {old.id, new.id}, "the engine deletes the old one itself, after what depends on it"
    later.delete(old)
    assert vpcs(empty) == [new.id]


def test_what_the_state_once_had_is_nobodys_leftover(empty: Aws, provider: Provider) -> None:
    retained = provider.create(VPC, NETWORK)
    provider.diff(retained, retained.inputs)
    provider.kill()  # it leaves the program with retainOnDelete, and comes back
    made = Provider().create(VPC, NETWORK)
    assert set(vpcs(empty)) == {retained.id, made.id}


def test_a_creation_that_fails_half_way_leaves_nothing(empty: Aws, provider: Provider) -> None:
    before = inventory(empty.endpoint)
    sentence = refused(provider.create, "aws:ec2/internetGateway:InternetGateway", {"vpcId": "vpc-00000000"}, "way-out")
    assert "way-out (aws:ec2/internetGateway:InternetGateway): AttachInternetGateway" in sentence
    assert "vpc-00000000" in sentence
    assert inventory(empty.endpoint) == before
