"""`pulumi-resource-gcp`: on a local stack it serves the local cloud, on any other it hands over to the official
plugin.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.gcp import comparison, emulator, quotas
from localcloud.gcp.inventory import PROJECT_NUMBER, Inventory, Record, Records
from localcloud.gcp.kind import AGENTS, Kind, RefusedError, World, at, missing, region_of
from localcloud.gcp.kinds import KINDS
from localcloud.gcp.kinds.container import VERSIONS
from localcloud.gcp.kinds.storage import BUCKET
from localcloud.gcp.schema import SCHEMA, defaults_of, facts, wrong_names
from localcloud.official import official_version, serve_or_hand_over
from localcloud.provider import Backend, Change, Failure, Found, Properties, ProviderError, Resource
from localcloud.server import home
from localcloud.values import UNKNOWN, Unknown, has_unknown

LOCAL_PROJECT = "fusion-local"
ATTRIBUTION = {"goog-pulumi-provisioned": "true"}
"""The label that pulumi-gcp puts on what it makes ("addPulumiAttributionLabel", provider's options)."""
LABEL_KEY = r"[a-z][a-z0-9_-]{0,62}"
BILLING_ACCOUNT = "012345-6789AB-CDEF01"
LABEL_VALUE = r"[a-z0-9_-]{0,63}"


def main() -> None:
    """Run the plugin."""
    serve_or_hand_over("gcp", GcpBackend, is_local=lambda config: config.get("project") == LOCAL_PROJECT)


@dataclass(frozen=True, slots=True)
class Settings:
    """The provider's own config, as far as it is followed."""

    project: str = LOCAL_PROJECT
    region: str | None = None
    zone: str | None = None
    labels: Mapping[str, str] | None = None
    attribution: bool = True


class GcpBackend(Backend):
    """Google Cloud's resources in the local cloud's inventory; buckets are made on the emulator as well."""

    package = "gcp"
    version = official_version("pulumi-gcp")

    def __init__(self) -> None:
        self.settings = Settings()

    @property
    def inventory(self) -> Inventory:
        """Where the records are."""
        return Inventory(home())

    def configure(self, variables: Properties) -> None:
        """Take project, region, zone and default labels; objects may come as JSON text."""
        labels = variables.get("defaultLabels") or {}
        self.settings = Settings(
            project=str(variables.get("project") or LOCAL_PROJECT),
            region=variables.get("region"),
            zone=variables.get("zone"),
            labels=json.loads(labels) if isinstance(labels, str) else labels,
            attribution=str(variables.get("addPulumiAttributionLabel", "true")).lower() == "true",
        )

    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Names, types, ranges and enumerations; then the automatic name."""
        kind = _kind(resource.type)
        new = {name: value for name, value in new.items() if value is not None}
        failures = [*wrong_names(kind, new), *SCHEMA.wrong_types(kind.token, new)]
        failures += _wrong_values(kind, new, {_input_of(failure.property) for failure in failures})
        if failures:
            return new, failures
        inputs = dict(new)
        if kind.name and not inputs.get(kind.name):
            inputs[kind.name] = old.get(kind.name) or _automatic_name(resource.name, seed, kind.longest_name)
        failures = list(_wrong_name(kind, inputs))
        failures += _disagreements(kind, self._placed(kind, inputs))
        return inputs, failures

    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """Update, or replace where the real provider would."""
        return comparison.change_of(_kind(resource.type), old, new)

    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Create it, or take over what an interrupted update of the same inputs made."""
        kind = _kind(resource.type)
        if preview:
            return "", self._preview(kind, inputs)
        filled = self._placed(kind, inputs)
        with self._sentence(resource), self.inventory.transaction() as records:
            self._remove_leftovers(resource, records, filled)
            world = World(self.settings.project, records)
            record = next((each for each in records.values() if each.urn == resource.urn and not each.is_known), None)
            record = record or _joined(kind, world, filled, resource.urn)
            if record is None:
                record = self._made(kind, world, filled, resource.urn)
                records[record.id] = record
            if kind.token == BUCKET:
                emulator.make_bucket(record.inputs["name"])
        return record.id, self._outputs(kind, record)

    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """Refresh (inputs given) or import (none)."""
        kind = _kind(resource.type)
        world = World(self.settings.project, self.inventory.records())
        record = world.find(id) or (None if inputs else self._imported(kind, world, id))
        if record is None or record.token != kind.token or not self._is_on_emulator(kind, record):
            return None
        outputs = self._outputs(kind, record)
        declared = {name: record.inputs[name] for name in kind.carried if name in record.inputs}
        if inputs:
            declared = comparison.drifted(kind, inputs, declared, self._placed(kind, inputs))
        return Found(record.id, declared, outputs)

    def _imported(self, kind: Kind, world: World, id: str) -> Record | None:
        """What a shorter id of an import means: a link, or the last parts of the id where the config says the rest."""
        defaults = (self.settings.project, self.settings.region, self.settings.zone)
        for record in world.of(kind.token):
            names = _names_of(record.id)
            short = {
                "/".join(names[start:])
                for start in range(len(names))
                if all(name in defaults for name in names[:start])
            }
            if id.replace(" ", "/") in (record.id, *short, record.assigned.get("selfLink")):  # grants have spaces there
                return record
        return None

    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Change it in place."""
        kind = _kind(resource.type)
        if preview:
            stay = {name: value for name, value in resource.outputs.items() if name not in new}
            return self._preview(kind, comparison.completed(kind, old, new), stay)
        with self._sentence(resource), self.inventory.transaction() as records:
            world = World(self.settings.project, records)
            record = world.find(id)
            if record is None:
                raise missing(id)
            filled = {**self._placed(kind, new), **_numbered(record.inputs)}
            self._refer(kind, world, record, filled)
            if kind.rules:
                kind.rules(world, filled, record.inputs)
            record.inputs = filled
            record.assigned = {**record.assigned, **kind.assigned(world, filled)}
        return self._outputs(kind, record)

    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Delete it; refused while something is there that uses it, or where it is protected."""
        kind = _kind(resource.type)
        with self._sentence(resource), self.inventory.transaction() as records:
            world = World(self.settings.project, records)
            record = world.find(id)
            if record is not None and record.more_urns:
                urns = [each for each in (record.urn, *record.more_urns) if each != resource.urn]
                record.urn, record.more_urns = urns[0], urns[1:]
                return
            self._remove(kind, world, id)

    def invoke(self, token: str, args: Properties) -> Properties:
        """The functions that programs ask for project, client, service agents, zones, versions of GKE and quotas."""
        project = str(args.get("project") or args.get("projectId") or self.settings.project)
        match token:
            case "gcp:organizations/getProject:getProject":
                return {
                    "id": f"projects/{project}",
                    "projectId": project,
                    "number": PROJECT_NUMBER,
                    "name": project,
                    "billingAccount": BILLING_ACCOUNT,
                }
            case "gcp:organizations/getClientConfig:getClientConfig":
                place = {"region": self.settings.region or "", "zone": self.settings.zone or ""}
                return {"id": f"projects/{project}", "project": project, "accessToken": "local", **place}
            case "gcp:storage/getProjectServiceAccount:getProjectServiceAccount":
                email = AGENTS["storage"]
                return {"id": email, "emailAddress": email, "member": f"serviceAccount:{email}", "project": project}
            case "gcp:logging/getProjectSettings:getProjectSettings":
                agent = AGENTS["logging"]
                named = {"id": f"projects/{project}/settings", "name": f"projects/{project}/settings"}
                return {**named, "project": project, "kmsServiceAccountId": agent, "loggingServiceAccountId": agent}
            case "gcp:compute/getDefaultServiceAccount:getDefaultServiceAccount":
                email = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
                return {"id": email, "email": email, "member": f"serviceAccount:{email}", "project": project}
            case "gcp:compute/getZones:getZones":
                region = str(args.get("region") or self.settings.region)
                names = [f"{region}-{each}" for each in "abc"]
                return {
                    "id": f"projects/{project}/regions/{region}",
                    "names": names,
                    "project": project,
                    "region": region,
                }
            case "gcp:container/getEngineVersions:getEngineVersions":
                return {"id": str(args.get("location")), "project": project, **VERSIONS}
            case "gcp:cloudquota/getSQuotaInfo:getSQuotaInfo":
                parent, service, quota_id = (str(args[key]) for key in ("parent", "service", "quotaId"))
                return quotas.info(parent, service, quota_id, str(self.settings.region))
        raise ProviderError(f"function {token}: the local cloud does not serve it; see docs/local-cloud.md")

    def known(self, resource: Resource, id: str) -> None:
        """The state has this id: its creation is over, and it is no leftover."""
        record = self.inventory.records().get(id)
        if record is not None and not record.is_known and record.urn == resource.urn:
            with self.inventory.transaction() as records:
                if id in records:
                    records[id].is_known = True

    def remove_leftovers_of(self, stack: str, ids_in_state: Collection[str]) -> list[str]:
        """Delete what an interrupted update of a stack made and its state never heard of; the URNs, newest first."""
        removed = []
        with self.inventory.transaction() as records:
            world = World(self.settings.project, records)
            for record in reversed(list(records.values())):
                is_ours = record.urn.startswith(f"urn:pulumi:{stack}::") and not record.is_known
                if is_ours and record.id not in ids_in_state and world.find(record.id):
                    self._remove(KINDS[record.token], world, record.id, even_if_protected=True)
                    removed.append(record.urn)
        return removed

    def _placed(self, kind: Kind, inputs: Properties) -> Properties:
        """Inputs with the project, the place and Google's defaults where they are left out."""
        filled = {**defaults_of(kind), "project": self.settings.project, **inputs}
        if kind.region in ("region", "location") and not filled.get(kind.region):
            filled[kind.region] = self.settings.region or (self.settings.zone and region_of(self.settings.zone))
        if kind.region == "zone" and not filled.get("zone"):
            filled["zone"] = self.settings.zone
        if kind.region and not filled.get(kind.region):
            raise ProviderError(
                f"{kind.token}: {kind.region}: not set, and gcp:{kind.region} neither; set one of the two"
            )
        if kind.region in ("location", "zone") and "region" not in kind.carried:
            place = filled[kind.region]
            filled.setdefault("region", region_of(place) if isinstance(place, str) else place)
        return filled

    def _made(self, kind: Kind, world: World, filled: Properties, urn: str) -> Record:
        filled = filled | ({"number": str(secrets.randbelow(10**18))} if "{number}" in kind.id else {})
        id = _id_of(kind, filled)
        if id in world.records:
            gone = world.records[id].is_gone
            raise RefusedError(
                409,
                f"{id} already exists"
                + ("; it was deleted, and Cloud KMS keeps its name for ever: choose another" if gone else ""),
                "alreadyExists",
            )
        record = Record(id, kind.token, urn, filled)
        self._refer(kind, world, record, filled)
        if kind.rules:
            kind.rules(world, filled, None)
        record.assigned = kind.assigned(world, filled)
        return record

    def _refer(self, kind: Kind, world: World, record: Record, filled: Properties) -> None:
        """Look that everything is there that the inputs name, and note what can't go meanwhile."""
        record.uses, record.part_of = [], []
        for path, reference in kind.references.items():
            for value in _texts(at(filled, path)):
                target = reference.resolved(value, filled)
                if world.find(target) is None:
                    raise missing(target)
                _same_region(target, filled.get("region"), path, in_region=reference.in_region)
                record.uses += [target] if reference.holds else []
                record.part_of += [target] if reference.is_whole else []

    def _remove(self, kind: Kind, world: World, id: str, *, even_if_protected: bool = False) -> None:
        record = world.find(id)
        if record is None:
            return
        if kind.may_go and not even_if_protected:
            kind.may_go(world, record)
        parts = [each for each in world.records.values() if id in each.part_of]
        for user in world.records.values():
            if id in user.uses and user not in parts and not user.is_gone:
                raise RefusedError(
                    400,
                    f"The {kind.token.rpartition(':')[2].lower()} resource '{id}' is already being used by '{user.id}'",
                    "resourceInUseByAnotherResource",
                )
        for part in parts:
            self._remove(KINDS[part.token], world, part.id, even_if_protected=True)
        if kind.token == BUCKET:
            emulator.remove_bucket(record.inputs["name"])
        if kind.outlives:
            record.is_gone = True
        else:
            del world.records[id]

    def _remove_leftovers(self, resource: Resource, records: Records, filled: Properties) -> None:
        """Remove what an interrupted update made for this URN of other inputs."""
        world = World(self.settings.project, records)
        for record in list(records.values()):
            is_left = record.urn == resource.urn and not record.is_known and not record.is_gone
            if is_left and {**record.inputs, "number": None} != {**filled, "number": None}:
                self._remove(KINDS[record.token], world, record.id, even_if_protected=True)

    def _is_on_emulator(self, kind: Kind, record: Record) -> bool:
        return kind.token != BUCKET or record.inputs["name"] in emulator.buckets()

    def _outputs(self, kind: Kind, record: Record) -> Properties:
        """Inputs, what Google fills in, and what it assigned, as far as pulumi-gcp has outputs of those names."""
        names = set(facts(kind.token)["outputs"])
        labels = self._labels(kind, record.inputs)
        found = {**record.inputs, **record.assigned, **labels}
        return {name: value for name, value in found.items() if name in names and value is not None}

    def _labels(self, kind: Kind, inputs: Properties) -> Properties:
        """What a resource carries: the user's labels, the provider's, and pulumi-gcp's own."""
        name = next((each for each in ("labels", "resourceLabels") if each in kind.carried), None)
        if name is None or kind.token.endswith("NotificationChannel"):
            return {}
        own = ATTRIBUTION if self.settings.attribution else {}
        all_of_them = {**own, **(self.settings.labels or {}), **(inputs.get(name) or {})}
        return {"effectiveLabels": all_of_them, "pulumiLabels": all_of_them}

    def _preview(self, kind: Kind, inputs: Properties, stay: Mapping[str, Any] | None = None) -> Properties:
        """Outputs as far as they are known before the update."""
        names = set(facts(kind.token)["outputs"])
        known = {**defaults_of(kind), **(stay or {}), **inputs}
        return {name: known.get(name, UNKNOWN) for name in names} | inputs

    def _sentence(self, resource: Resource) -> _Sentence:
        return _Sentence(f"{resource.name} ({resource.type})")


class _Sentence:
    """Turns a refusal into one sentence that names the resource."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, RefusedError | RuntimeError):
            raise ProviderError(f"{self.what}: {error}") from None


def _joined(kind: Kind, world: World, filled: Properties, urn: str) -> Record | None:
    """What is there already and is given to whoever makes it again; None for all that is one's own."""
    record = world.find(_id_of(kind, filled)) if kind.is_shared else None
    if record is not None and urn not in record.more_urns:
        record.more_urns.append(urn)
    return record


def _kind(token: str) -> Kind:
    kind = KINDS.get(token)
    if kind is None:
        raise ProviderError(
            f"{token}: the local cloud does not serve this type; docs/local-cloud.md lists those that it does"
        )
    return kind


def _numbered(inputs: Properties) -> Properties:
    return {"number": inputs["number"]} if "number" in inputs else {}


def _texts(values: Iterator[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, list):
            yield from _texts(iter(value))
        elif isinstance(value, str):
            yield value


def _id_of(kind: Kind, filled: Properties) -> str:
    """The id; what is named by a URL or a path in it is there by its own last name, unless the id begins with it.

    Grants of one role to one member are told apart by their conditions (`conditionKey` in the provider).
    """
    own = dict(filled)
    for path, reference in kind.references.items():
        value = filled.get(path)
        if isinstance(value, str) and reference.is_whole and reference.to != "{name}":
            own[path] = value.rpartition("/")[2]
    condition = filled.get("condition") or {}
    further = [condition[each] for each in ("title", "description", "expression") if condition.get(each)]
    return "/".join((kind.id.format(**own), *further))


def _names_of(id: str) -> list[str]:
    """What an id names one after the other: `projects/p/global/networks/n` → p and n."""
    parts = id.replace("/global/", "/").split("/")
    return parts[1::2] if parts[0] in ("projects", "billingAccounts") else parts


def _same_region(target: str, region: str | None, path: str, *, in_region: bool) -> None:
    found = re.search(r"/(?:regions|locations)/([^/]+)/", target)
    if in_region and found and region and region_of(found[1]) != region:
        raise RefusedError(
            400, f"Invalid value for field 'resource.{path}': '{target}'. It is not in region {region}", "invalid"
        )


def _input_of(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]


def _wrong_values(kind: Kind, new: Properties, mistyped: Collection[str]) -> Iterator[Failure]:
    """Values out of range, of what is known and of the right type."""
    for name, check in kind.checks.items():
        is_readable = name not in mistyped and new.get(name) is not None and not has_unknown(new[name])
        if is_readable and (reason := check(new[name])):
            shown = isinstance(new[name], str | int | float) and not isinstance(new[name], bool)
            yield Failure(name, f"{new[name]}: {reason}" if shown else reason)
    for path, allowed in facts(kind.token)["values"].items():
        if _input_of(path) in kind.carried and _input_of(path) not in mistyped:
            for value in _texts(at(new, path)):
                if value not in allowed:
                    yield Failure(path, f"{value}: expected one of {', '.join(allowed)}")
    for name in ("labels", "resourceLabels"):
        if name in kind.carried and kind.token != "gcp:monitoring/notificationChannel:NotificationChannel":
            yield from _wrong_labels(name, new.get(name))


def _disagreements(kind: Kind, filled: Properties) -> Iterator[Failure]:
    """What does not go together; an input that is not wholly known yet may still turn out right."""
    for path, reason in kind.agree(filled) if kind.agree else ():
        if not has_unknown(filled.get(_input_of(path))):
            yield Failure(path, reason)


def _wrong_labels(name: str, labels: Any) -> Iterator[Failure]:
    for key, value in labels.items() if isinstance(labels, Mapping) else ():
        if not re.fullmatch(LABEL_KEY, key):
            yield Failure(
                f"{name}.{key}", "expected a key of lower-case letters, digits, - and _, a letter first, up to 63"
            )
        elif isinstance(value, str) and not re.fullmatch(LABEL_VALUE, value):
            yield Failure(f"{name}.{key}", f"{value}: expected up to 63 lower-case letters, digits, - and _")


def _wrong_name(kind: Kind, inputs: Properties) -> Iterator[Failure]:
    name = inputs.get(kind.name) if kind.name else None
    if not kind.name or isinstance(name, Unknown) or name is None:
        return
    if len(name) > kind.longest_name:
        yield Failure(kind.name, f"{name}: expected up to {kind.longest_name} characters, and there are {len(name)}")
    elif not re.fullmatch(kind.name_form, name):
        yield Failure(kind.name, f"{name}: expected a name of the form {kind.name_form}")


def _automatic_name(name: str, seed: bytes, longest: int) -> str:
    """pulumi-gcp's automatic names: the resource's name and seven hexadecimal digits."""
    ending = seed.hex()[:7] if seed else secrets.token_hex(4)[:7]
    return f"{name.lower()[: longest - 8]}-{ending}"


if __name__ == "__main__":
    main()
