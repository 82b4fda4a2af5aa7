"""`pulumi-resource-aws`: on a local stack it serves the local cloud, on any other it hands over to the official
plugin.
"""

from __future__ import annotations

import json
import secrets
import threading
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from localcloud import server
from localcloud.aws.api import ACCOUNT_ID, Aws, Creation, ResourceType, camel, json_text
from localcloud.aws.comparison import comparable, completed, drifted, unmet
from localcloud.aws.resources import RESOURCE_TYPES
from localcloud.aws.schema import as_declared, inputs_of, schema, wrong_names, wrong_types
from localcloud.comparison import by_whole_sets
from localcloud.official import official_version, serve_or_hand_over
from localcloud.provider import (
    Backend,
    Change,
    Failure,
    Found,
    Properties,
    ProviderError,
    Resource,
    changes,
    resource_of,
)
from localcloud.values import UNKNOWN, Unknown, has_unknown

LOCAL_PROFILE = "fusion-local"
EVEN_IF_FULL: Properties = {"forceDestroy": True, "forceDelete": True}


def main() -> None:
    """Run the plugin."""
    serve_or_hand_over("aws", AwsBackend, is_local=lambda config: config.get("profile") == LOCAL_PROFILE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A creation that Pulumi's state is not known to have yet, kept by the local cloud's server."""

    urn: str
    key: str
    region: str
    inputs: Properties
    id: str = ""
    steps: int = 0


class AwsBackend(Backend):
    """AWS resources through boto3 against the local cloud's server."""

    package = "aws"
    version = official_version("pulumi-aws")

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = endpoint
        self.region = "us-east-1"
        self.default_tags: dict[str, str] = {}
        self.unconfirmed: dict[str, Entry] | None = None
        self.apis: dict[str, Aws] = {}
        self.lock = threading.Lock()

    def configure(self, variables: Properties) -> None:
        """Take region and default tags; objects may come as JSON text."""
        self.region = str(variables.get("region") or self.region)
        given = variables.get("defaultTags") or {}
        parsed = json.loads(given) if isinstance(given, str) else given
        self.default_tags = dict(parsed.get("tags") or {})
        if self.endpoint is None:
            self.endpoint = server.ensure()

    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Names, types, ranges and enumerations; then defaults, the automatic name and the joined tags."""
        kind = _kind(resource.type)
        failures = [*wrong_names(kind, new), *wrong_types(kind, new)]
        failures += _wrong_values(kind, new, {_input_of(failure.property) for failure in failures})
        if failures:
            return new, failures
        inputs = {**kind.defaults, **{name: value for name, value in new.items() if value is not None}}
        failures = [Failure(name, reason) for name, reason in (kind.agree(inputs) if kind.agree else ())]
        if kind.named_by and not inputs.get(kind.named_by):
            inputs[kind.named_by] = old.get(kind.named_by) or kind.name_form(_automatic_name(resource.name, seed))
        if "tags" in kind.carried:
            tags = inputs.get("tags") or {}
            inputs["tagsAll"] = UNKNOWN if isinstance(tags, Unknown) else {**self.default_tags, **tags}
        return inputs, failures

    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """Update, or replace where the real provider would."""
        kind = _kind(resource.type)
        was_in = resource.outputs.get("region")
        if was_in and "region" in inputs_of(kind.token):  # identities have none
            old, new = {**old, "region": was_in}, {**new, "region": new.get("region") or self.region}
        new = completed(kind, old, new)
        old, new = comparable(kind, old), comparable(kind, new)
        conditional = kind.replaces(old, new) if kind.replaces else frozenset()
        change = changes(old, new, kind.replace_on | conditional | {"region"})
        # A name that stays can't be held twice, so the old resource has to go first.
        same_name = kind.named_by is not None and old.get(kind.named_by) == new.get(kind.named_by)
        first = bool(change.replaced_by) and (kind.delete_before_replace or same_name)
        return by_whole_sets(replace(change, delete_before_replace=first), kind.unordered)

    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Create it, or go on with the creation that an interrupted update began."""
        kind = _kind(resource.type)
        if preview:
            return "", _preview(kind, inputs)
        region = str(inputs.get("region") or self.region)
        entry = self._interrupted(resource, kind, region, inputs)
        if entry is None:
            entry = Entry(urn=resource.urn, key=secrets.token_hex(8), region=region, inputs=inputs)
            self._write_down(entry)
        id = self._made(resource, kind, entry)
        try:
            return id, self._outputs(resource, kind, self._aws(inputs), id, inputs)
        except ProviderError:
            self._roll_back(kind, entry)
            raise

    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """Refresh (inputs given) or import (none)."""
        kind = _kind(resource.type)
        with _sentence(resource):
            found = kind.read(self._aws({"region": self._region(resource, inputs)}), id)
        if found is None:
            return None
        found = as_declared(kind, _without_none(found))
        if not inputs:
            inputs = self._imported(kind, found)
        else:
            inputs = drifted(kind, found, inputs)
            if "tagsAll" in found and "tags" in kind.carried:
                added = {key: value for key, value in found["tagsAll"].items() if key not in self.default_tags}
                own = {key: found["tagsAll"].get(key, value) for key, value in self.default_tags.items()}
                inputs["tagsAll"] = found["tagsAll"]
                inputs["tags"] = added | {key: value for key, value in own.items() if self.default_tags[key] != value}
                if not inputs["tags"]:
                    del inputs["tags"]
        return Found(id, inputs, self._merged(resource, kind, found, inputs))

    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Change it in place."""
        kind = _kind(resource.type)
        if preview:
            stay = {name: value for name, value in resource.outputs.items() if name not in kind.changing}
            filled = completed(kind, {name: value for name, value in old.items() if name not in kind.changing}, new)
            return _preview(kind, filled, stay)
        aws = self._aws(new)
        declared, new = new, completed(kind, old, new)
        with _sentence(resource):
            if kind.update:
                kind.update(aws, id, old, new)
            before, after = old.get("tagsAll") or {}, new.get("tagsAll") or {}
            if kind.tag and before != after:
                kind.tag(aws, id, after, sorted(before.keys() - after.keys()))
        return self._outputs(resource, kind, aws, id, declared)

    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Delete it."""
        with _sentence(resource):
            _kind(resource.type).delete(self._aws({"region": self._region(resource, inputs)}), id, inputs)

    def invoke(self, token: str, args: Properties) -> Properties:
        """The functions that programs ask for account, region, partition, zones, quotas, clusters and node groups."""
        region = str(args.get("region") or self.region)
        aws = self._aws({"region": region})
        match token:
            case "aws:index/getCallerIdentity:getCallerIdentity":
                arn = f"arn:aws:iam::{ACCOUNT_ID}:user/local"
                return {"accountId": ACCOUNT_ID, "arn": arn, "id": ACCOUNT_ID, "userId": "AIDALOCAL"}
            case "aws:index/getRegion:getRegion":
                return {"id": region, "name": region, "region": region, "description": region}
            case "aws:index/getPartition:getPartition":
                return {
                    "id": "aws",
                    "partition": "aws",
                    "dnsSuffix": "amazonaws.com",
                    "reverseDnsPrefix": "com.amazonaws",
                }
            case "aws:index/getAvailabilityZones:getAvailabilityZones":
                zones = aws.call("ec2", "describe_availability_zones")["AvailabilityZones"]
                names = [zone["ZoneName"] for zone in zones]
                return {"id": region, "names": names, "zoneIds": [zone["ZoneId"] for zone in zones], "region": region}
            case "aws:servicequotas/getServiceQuota:getServiceQuota":
                return {"region": region, **_quota(aws, args)}
            case "aws:ec2/getInstances:getInstances":
                return {"id": region, "region": region, "ids": _instances(aws, args)}
            case "aws:eks/getClusters:getClusters":
                return {"id": region, "names": aws.call("eks", "list_clusters")["clusters"], "region": region}
            case "aws:eks/getNodeGroups:getNodeGroups":
                groups = aws.call("eks", "list_nodegroups", clusterName=args["clusterName"])["nodegroups"]
                return {"id": args["clusterName"], "clusterName": args["clusterName"], "names": groups}
            case "aws:eks/getNodeGroup:getNodeGroup":
                return {"region": region, **_node_group(aws, args)}
        raise ProviderError(f"function {token}: the local cloud does not serve it; see docs/local-cloud.md")

    def known(self, resource: Resource, id: str) -> None:
        """The state has this id: its creation is over, and it is no leftover."""
        for entry in self._entries(resource.urn):
            if entry.id == id:
                self._forget(entry)

    def remove_leftovers_of(self, stack: str, ids_in_state: Collection[str]) -> list[str]:
        """Delete what an interrupted update of a stack made and its state never heard of; the URNs, newest first.

        The engine asks for a URN again when it goes on, and never when it destroys: then this has to come first.
        """
        urns = []
        for entry in reversed(self._all_entries()):
            if entry.urn.startswith(f"urn:pulumi:{stack}::") and entry.id not in ids_in_state:
                resource = resource_of(entry.urn)
                self._remove_leftover(resource, _kind(resource.type), entry)
                urns.append(entry.urn)
        return urns

    def _aws(self, inputs: Properties) -> Aws:
        region = str(inputs.get("region") or self.region)
        with self.lock:
            if region not in self.apis:
                self.apis[region] = Aws(self._endpoint, region)
            return self.apis[region]

    def _outputs(self, resource: Resource, kind: ResourceType, aws: Aws, id: str, inputs: Properties) -> Properties:
        with _sentence(resource):
            found = kind.read(aws, id)
        if found is None:
            raise ProviderError(f"{resource.name} ({resource.type}): created as {id}, but AWS does not show it")
        found = as_declared(kind, _without_none(found))
        if missed := list(unmet(kind, found, inputs)):
            what = f"{resource.name} ({resource.type})"
            raise ProviderError(f"{what}: the local cloud does not carry this out: {'; '.join(missed)}")
        return self._merged(resource, kind, found, inputs)

    def _merged(self, resource: Resource, kind: ResourceType, found: Properties, inputs: Properties) -> Properties:
        """What AWS says, what it does not give back, and the region that every resource of pulumi-aws has."""
        kept = {name: value for name, value in inputs.items() if name in kind.unread or name == "tags"}
        return {"region": self._region(resource, inputs), **found, **kept}

    def _region(self, resource: Resource, inputs: Properties) -> str:
        """Where a resource is by its state, else by its inputs, else by the provider, whose region may have changed."""
        return str(resource.outputs.get("region") or inputs.get("region") or self.region)

    def _imported(self, kind: ResourceType, found: Properties) -> Properties:
        inputs = {name: value for name, value in found.items() if name in kind.carried and value not in ([], {}, "")}
        inputs = {**{name: value for name, value in kind.defaults.items() if name in kind.carried}, **inputs}
        if "tags" in kind.carried:
            inputs["tagsAll"] = found.get("tagsAll") or {}
            tags = {key: value for key, value in inputs["tagsAll"].items() if self.default_tags.get(key) != value}
            inputs |= {"tags": tags} if tags else {}
        return inputs

    def _made(self, resource: Resource, kind: ResourceType, entry: Entry) -> str:
        """Create what an entry says, or finish its creation; where that fails, what was made of it is removed."""
        aws = Aws(self._endpoint, entry.region, self._aws(entry.inputs).clients)
        aws.creation = Creation(
            entry.key, lambda id: self._write_down(replace(entry, id=id)), is_resumed=entry.steps > 0
        )
        from botocore.exceptions import ClientError

        with _sentence(resource):
            try:
                id = kind.create(aws, entry.inputs)
            except (ClientError, ProviderError):
                self._roll_back(kind, entry)
                raise
        self._write_down(replace(entry, id=id))
        return id

    def _roll_back(self, kind: ResourceType, entry: Entry) -> None:
        """Remove what a failed creation made; where that fails as well, the next `up` tries again."""
        from botocore.exceptions import ClientError

        made = next(each for each in self._entries(entry.urn) if each.key == entry.key)
        try:
            if made.id:
                kind.delete(self._aws(entry.inputs), made.id, entry.inputs | EVEN_IF_FULL)
        except ClientError:
            return
        self._forget(entry)

    def _interrupted(self, resource: Resource, kind: ResourceType, region: str, inputs: Properties) -> Entry | None:
        """The creation of this URN that never reached the state, because the engine or the plugin was killed.

        It counts with the same inputs only; what others left is removed.
        """
        same = None
        for entry in self._entries(resource.urn):
            if same is None and (entry.region, entry.inputs) == (region, inputs) and self._is_there(kind, entry):
                same = entry
            else:
                self._remove_leftover(resource, kind, entry)
        return same

    def _is_there(self, kind: ResourceType, entry: Entry) -> bool:
        """Whether what an entry made still exists; without an id nobody can have removed it."""
        return not entry.id or kind.read(self._aws(entry.inputs), entry.id) is not None

    def _remove_leftover(self, resource: Resource, kind: ResourceType, entry: Entry) -> None:
        """Delete what an entry made. A creation that was cut off is finished first: only then its id is known."""
        if entry.id or entry.steps:  # otherwise nothing was made
            id = entry.id or self._made(resource, kind, entry)
            with _sentence(resource):
                kind.delete(self._aws(entry.inputs), id, entry.inputs | EVEN_IF_FULL)
        self._forget(entry)

    @property
    def _endpoint(self) -> str:
        assert self.endpoint is not None, "the engine configures a provider before it uses it"
        return self.endpoint

    def _entries(self, urn: str) -> list[Entry]:
        return [entry for entry in self._all_entries() if entry.urn == urn]

    def _all_entries(self) -> list[Entry]:
        """Creations that the state is not known to have, oldest first."""
        with self.lock:
            if self.unconfirmed is None:
                self.unconfirmed = {each["key"]: Entry(**each) for each in self._ledger("GET")}
            return list(self.unconfirmed.values())

    def _write_down(self, entry: Entry) -> None:
        self._ledger("PUT", asdict(entry))
        with self.lock:
            if self.unconfirmed is not None:
                self.unconfirmed[entry.key] = entry

    def _forget(self, entry: Entry) -> None:
        self._ledger("DELETE", {"key": entry.key})
        with self.lock:
            if self.unconfirmed is not None:
                self.unconfirmed.pop(entry.key, None)

    def _ledger(self, method: str, entry: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        body = None if entry is None else json.dumps(entry).encode()
        request = urllib.request.Request(f"{self._endpoint}{server.LEDGER_PATH}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            parsed: list[dict[str, Any]] = json.load(answer)
            return parsed


def _quota(aws: Aws, args: Properties) -> Properties:
    quota = aws.find(
        "service-quotas", "get_service_quota", "Quota", ServiceCode=args["serviceCode"], QuotaCode=args.get("quotaCode")
    )
    if quota is None:
        raise ProviderError(f"Service Quotas: {args['serviceCode']} has no quota {args.get('quotaCode')}")
    names = ("Adjustable", "GlobalQuota", "QuotaCode", "QuotaName", "ServiceCode", "ServiceName", "Value")
    return {"id": quota["QuotaArn"], "arn": quota["QuotaArn"], **camel({name: quota[name] for name in names})}


def _instances(aws: Aws, args: Properties) -> list[str]:
    """Ids of those that pass the filters, running ones unless states are named; moto fails on the one of lifecycles."""
    asked = {each["name"]: each["values"] for each in args.get("filters") or ()}
    lifecycles = asked.pop("instance-lifecycle", None)
    asked["instance-state-name"] = args.get("instanceStateNames") or ["running"]
    filters = [{"Name": name, "Values": values} for name, values in asked.items()]
    reserved = aws.call("ec2", "describe_instances", Filters=filters)["Reservations"]
    found = [each for one in reserved for each in one["Instances"]]
    return [each["InstanceId"] for each in found if lifecycles is None or each.get("InstanceLifecycle") in lifecycles]


def _node_group(aws: Aws, args: Properties) -> Properties:
    cluster, name = args["clusterName"], args["nodeGroupName"]
    group = aws.find("eks", "describe_nodegroup", "nodegroup", clusterName=cluster, nodegroupName=name)
    if group is None:
        raise ProviderError(f"EKS: cluster {cluster} has no node group {name}")
    return {
        "id": f"{cluster}:{name}",
        "clusterName": cluster,
        "nodeGroupName": name,
        "scalingConfigs": [group["scalingConfig"]],
        "status": group["status"],
    }


def _kind(token: str) -> ResourceType:
    kind = RESOURCE_TYPES.get(token)
    if kind is None:
        raise ProviderError(
            f"{token}: the local cloud does not serve this type; docs/local-cloud.md lists those that it does"
        )
    return kind


def _input_of(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _wrong_values(kind: ResourceType, new: Properties, mistyped: Collection[str]) -> Iterator[Failure]:
    """Values out of range, of what is known and of the right type."""
    checks = dict.fromkeys(kind.documents, json_text) | dict(kind.checks)
    for name, check in checks.items():
        is_readable = name not in mistyped and new.get(name) is not None and not has_unknown(new[name])
        if is_readable and (reason := check(new[name])):
            yield Failure(name, f"{new[name]}: {reason}" if _is_short(new[name]) else reason)


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float) and len(str(value)) < 80


def _automatic_name(name: str, seed: bytes) -> str:
    """pulumi-aws's automatic names: the resource's name and seven hexadecimal digits."""
    return f"{name}-{seed.hex()[:7] if seed else secrets.token_hex(4)[:7]}"


def _preview(kind: ResourceType, inputs: Properties, stay: Mapping[str, Any] | None = None) -> Properties:
    """Outputs as far as they are known before the update: inputs, and those that stay as they are."""
    names = set(schema()["resources"][kind.token]["outputs"])
    known = {**(stay or {}), **inputs}
    names -= inputs_of(kind.token).keys() if stay else set()  # an input that is left out is not to come
    return {name: known.get(name, UNKNOWN) for name in names} | inputs


def _without_none(found: Properties) -> Properties:
    return {name: value for name, value in found.items() if value is not None}


class _sentence:
    """Turns boto3's errors into one sentence that names the resource."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, ProviderError) or not isinstance(error, Exception):
            return
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"{self.resource.name} ({self.resource.type})"
        if isinstance(error, ClientError):
            detail = error.response["Error"]
            raise ProviderError(f"{what}: {error.operation_name}: {detail['Code']}: {detail['Message']}") from None
        if isinstance(error, BotoCoreError):
            raise ProviderError(f"{what}: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    main()
