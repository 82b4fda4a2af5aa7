"""boto3 against the local cloud, and what the declarations of resource types share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from localcloud.provider import Properties
from localcloud.server import STEP_HEADER

ACCOUNT_ID = "123456789012"
CREDENTIALS = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
MISSING = ("NotFound", "NoSuch", "Unknown", "NonExistent", "404")


@dataclass
class Creation:
    """A resource's creation under way. Its calls are numbered, so that one that was cut off can be gone through again:
    the server answers the steps it has served as it did before.
    """

    key: str
    written_down: Callable[[str], None]
    is_resumed: bool = False
    steps: int = 0


CURRENT_STEP: ContextVar[str | None] = ContextVar("CURRENT_STEP", default=None)


def _number_the_step(request: Any, **_: Any) -> None:
    if step := CURRENT_STEP.get():
        request.headers[STEP_HEADER] = step


@dataclass
class Aws:
    """Clients of one region; a client is made when it is first used."""

    endpoint: str
    region: str
    clients: dict[str, Any] = field(default_factory=dict)
    creation: Creation | None = None

    def client(self, service: str) -> Any:
        """The client of a service."""
        if service not in self.clients:
            import boto3
            from botocore.config import Config

            make: Callable[..., Any] = boto3.client  # its stubs know a client only by a literal name
            self.clients[service] = make(
                service,
                endpoint_url=self.endpoint,
                region_name=self.region,
                config=Config(retries={"max_attempts": 2}, s3={"addressing_style": "path"}, max_pool_connections=32),
                **CREDENTIALS,
            )
            self.clients[service].meta.events.register("before-sign", _number_the_step)
        return self.clients[service]

    def call(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """Call an operation; arguments that are None are left out. boto3's errors pass through."""
        given = {name: value for name, value in arguments.items() if value is not None}
        method = getattr(self.client(service), operation)
        if self.creation is None:
            answer: dict[str, Any] = method(**given)
            return answer
        self.creation.steps += 1
        step = CURRENT_STEP.set(f"{self.creation.key}/{self.creation.steps}")
        try:
            answer = method(**given)
        finally:
            CURRENT_STEP.reset(step)
        return answer

    def made(self, id: str) -> str:
        """Of a creation with several calls: the id is known. If a later call fails, the resource is removed again."""
        if self.creation:
            self.creation.written_down(id)
        return id

    def find(self, service: str, operation: str, *path: str | int, **arguments: Any) -> Any:
        """The value at a path of the answer; None where the resource, or the path, does not exist."""
        from botocore.exceptions import ClientError

        try:
            value: Any = self.call(service, operation, **arguments)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        for key in path:
            value = (value[key] if len(value) > key else None) if isinstance(key, int) else value.get(key)
            if value is None:
                return None
        return value

    def gone(self, service: str, operation: str, **arguments: Any) -> None:
        """Call a deletion; what is gone already is no error."""
        from botocore.exceptions import ClientError

        try:
            self.call(service, operation, **arguments)
        except ClientError as error:
            if not is_missing(error):
                raise

    def arn(self, service: str, resource: str, *, region: str | None = None) -> str:
        """The ARN of a resource of the local account."""
        return f"arn:aws:{service}:{self.region if region is None else region}:{ACCOUNT_ID}:{resource}"


def is_missing(error: Any) -> bool:
    """Whether an error says that the resource does not exist."""
    code = str(error.response["Error"]["Code"])
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return any(word in code for word in MISSING) or status == 404


Create = Callable[[Aws, Properties], str]
Read = Callable[[Aws, str], Properties | None]
Update = Callable[[Aws, str, Properties, Properties], None]
Delete = Callable[[Aws, str, Properties], None]
Replaces = Callable[[Properties, Properties], frozenset[str]]
Tag = Callable[[Aws, str, Mapping[str, str], list[str]], None]


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One resource type of pulumi-aws: how it is created, read, changed and deleted through boto3.

    Paths are those of fields, without positions in lists: `launchTemplate.id`, `rules.filter.prefix`.

    Attributes:
        carried: the inputs that are carried out; any other is refused.
        refused: paths inside carried inputs that are not carried out.
        read: the properties by pulumi-aws's names. What was asked for and does not come back ends the creation or
            update with an error, so that nothing is only pretended.
        unread: inputs that the API does not give back.
        replace_on: paths that force a replacement; ``replaces`` names more of them where it depends on the values.
        kept: paths that AWS fills in by itself; leaving one out changes nothing.
        unordered: paths of lists whose order means nothing.
        changing: outputs that a change in place may change; a preview does not know them.
        documents: inputs that are JSON text: checked as such, and the same if their JSON is.
        defaults: what the official provider fills in.
        needs: inputs that are required here, where pulumi-aws has other ways to say it.
        named_by: the input that gets an automatic name, which ``name_form`` brings into form.
        checks: why a value is wrong, by input.
        alike: whether what AWS says and what was declared are the same, by path, where that is no plain equality.
        agree: what is wrong with all inputs together, as (input, reason); values may be unknown.
    """

    token: str
    carried: frozenset[str]
    create: Create
    read: Read
    delete: Delete
    update: Update | None = None
    tag: Tag | None = None
    replace_on: frozenset[str] = frozenset()
    replaces: Replaces | None = None
    refused: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    unordered: frozenset[str] = frozenset()
    changing: frozenset[str] = frozenset()
    documents: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    named_by: str | None = None
    name_form: Callable[[str], str] = str
    delete_before_replace: bool = False
    checks: Mapping[str, Callable[[Any], str | None]] = field(default_factory=dict)
    alike: Mapping[str, Callable[[Any, Any], bool]] = field(default_factory=dict)
    agree: Callable[[Properties], Iterable[tuple[str, str]]] | None = None
    served_by: str = "moto"


def put_again(put: Create) -> Update:
    """The update of what is always put as a whole."""

    def update(aws: Aws, id: str, old: Properties, new: Properties) -> None:
        put(aws, new)

    return update


def tagging(
    service: str,
    tag: str,
    untag: str,
    of: Callable[[Aws, str], Mapping[str, str]],
    listed: Callable[[Mapping[str, str]], Any] | None = None,
) -> Tag:
    """Tags by a pair of calls that take `Tags` and `TagKeys`.

    Args:
        tag, untag: the operations of the service.
        of: what names the tagged resource in both.
        listed: the tags as the service takes them; Key and Value pairs unless said.
    """

    def put(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
        if tags:
            aws.call(service, tag, **of(aws, id), Tags=(listed or to_tag_list)(tags))
        if removed:
            aws.call(service, untag, **of(aws, id), TagKeys=removed)

    return put


def words(text: str) -> frozenset[str]:
    """`"a b c"` → the set of its words."""
    return frozenset(text.split())


def pascal(value: Any) -> Any:
    """pulumi-aws's names to those of the EC2 API: `volumeSize` → `VolumeSize`, through lists and objects."""
    if isinstance(value, Mapping):
        return {name[0].upper() + name[1:]: pascal(each) for name, each in value.items()}
    if isinstance(value, list):
        return [pascal(each) for each in value]
    return value


def camel(value: Any) -> Any:
    """The other way round."""
    if isinstance(value, Mapping):
        return {name[0].lower() + name[1:]: camel(each) for name, each in value.items()}
    if isinstance(value, list):
        return [camel(each) for each in value]
    return value


def from_tag_list(tags: Iterable[Mapping[str, str]] | None, key: str = "Key", value: str = "Value") -> dict[str, str]:
    """`[{"Key": k, "Value": v}]` → `{k: v}`."""
    return {each[key]: each[value] for each in tags or ()}


def to_tag_list(tags: Mapping[str, str] | None, key: str = "Key", value: str = "Value") -> list[dict[str, str]]:
    """`{k: v}` → `[{"Key": k, "Value": v}]`."""
    return [{key: name, value: text} for name, text in (tags or {}).items()]


def cidr(value: Any) -> str | None:
    """Why a value is no CIDR block; None when it is one."""
    import ipaddress

    try:
        ipaddress.ip_network(str(value))
    except ValueError as error:
        return f"expected a CIDR block such as 10.0.0.0/16: {error}"
    return None


def network_cidr(value: Any) -> str | None:
    """Why a value is no CIDR block of a VPC or subnet."""
    import ipaddress

    if reason := cidr(value):
        return reason
    network = ipaddress.ip_network(value)
    return None if network.version == 4 and 16 <= network.prefixlen <= 28 else "expected a block from /16 to /28"


def exactly_one(*names: str) -> Callable[[Properties], Iterable[tuple[str, str]]]:
    """A check of all inputs: one of these is set, and no other."""

    def check(inputs: Properties) -> Iterable[tuple[str, str]]:
        given = [name for name in names if inputs.get(name) is not None]
        if len(given) != 1:
            found = f"and there are {', '.join(given)}" if given else "and there is none"
            yield (given or names)[0], f"expected exactly one of {', '.join(names)}, {found}"

    return check


def one_of(*allowed: str) -> Callable[[Any], str | None]:
    """A check for an enumeration."""
    return lambda value: None if value in allowed else f"expected one of {', '.join(allowed)}"


def json_text(value: Any) -> str | None:
    """Why a value is no JSON document; None when it is one."""
    import json

    try:
        json.loads(value)
    except (TypeError, ValueError) as error:
        return f"expected a JSON document: {error}"
    return None


def between(low: int, high: int, unit: str = "") -> Callable[[Any], str | None]:
    """A check for a number's range."""
    return lambda value: None if low <= value <= high else f"expected {low} to {high} {unit}".rstrip()


def in_each(field: str, check: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """A check for a field of every block of a list, which may be empty."""
    return lambda blocks: next((reason for each in blocks if (reason := check(each[field]))), None)


def matching(pattern: str, expected: str) -> Callable[[Any], str | None]:
    """A check for a text's form."""
    import re

    return lambda value: None if re.fullmatch(pattern, value) else f"expected {expected}"
