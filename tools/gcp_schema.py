"""Writes `localcloud/gcp/schema.json`: what the official provider says of each Google Cloud type that the local cloud
serves, and the table of them in `docs/local-cloud-gcp-types.md`.

Names, types, required inputs and outputs are those of the installed pulumi-gcp. What replaces a resource, what Google
fills in, sets, defaults and enumerations are read from the Go source of the provider that pulumi-gcp is made from:
`python -m tools.gcp_schema <git repository of hashicorp/terraform-provider-google-beta> [<commit>]`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from localcloud.gcp.kinds import KINDS
from tools.aws_schema import properties, required

ROOT = Path(__file__).parent.parent
SERVICES = "google-beta/services"
TERRAFORM = {
    "gcp:compute/network:Network": "compute/resource_compute_network",
    "gcp:compute/subnetwork:Subnetwork": "compute/resource_compute_subnetwork",
    "gcp:compute/router:Router": "compute/resource_compute_router",
    "gcp:compute/routerNat:RouterNat": "compute/resource_compute_router_nat",
    "gcp:compute/firewall:Firewall": "compute/resource_compute_firewall",
    "gcp:compute/address:Address": "compute/resource_compute_address",
    "gcp:compute/resourcePolicy:ResourcePolicy": "compute/resource_compute_resource_policy",
    "gcp:compute/reservation:Reservation": "compute/resource_compute_reservation",
    "gcp:container/cluster:Cluster": "container/resource_container_cluster",
    "gcp:container/nodePool:NodePool": "container/resource_container_node_pool",
    "gcp:kms/keyRing:KeyRing": "kms/resource_kms_key_ring",
    "gcp:kms/cryptoKey:CryptoKey": "kms/resource_kms_crypto_key",
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": "logging/resource_logging_project_bucket_config",
    "gcp:logging/projectSink:ProjectSink": "logging/resource_logging_project_sink",
    "gcp:serviceaccount/account:Account": "resourcemanager/resource_google_service_account",
    "gcp:projects/iAMCustomRole:IAMCustomRole": "resourcemanager/resource_google_project_iam_custom_role",
    "gcp:projects/service:Service": "resourcemanager/resource_google_project_service",
    "gcp:projects/serviceIdentity:ServiceIdentity": "resourcemanager/resource_project_service_identity",
    "gcp:storage/bucket:Bucket": "storage/resource_storage_bucket",
    "gcp:storage/managedFolder:ManagedFolder": "storage/resource_storage_managed_folder",
    "gcp:artifactregistry/repository:Repository": "artifactregistry/resource_artifact_registry_repository",
    "gcp:billing/budget:Budget": "billingbudgets/resource_billing_budget",
    "gcp:monitoring/notificationChannel:NotificationChannel": "monitoring/resource_monitoring_notification_channel",
}
IAM = {"Member": frozenset[str](), "Binding": frozenset({"members"}), "AuditConfig": frozenset({"auditLogConfigs"})}
"""By the end of its name, what changes in place of a grant (`google-beta/tpgiamresource`): the rest replaces it."""

TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|`[^`]*`|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])+'|[A-Za-z_][\w.]*|\d[\w.]*|\s+|.""", re.DOTALL
)
OPEN = {"{": "}", "(": ")", "[": "]"}

Tokens = list[str]


@dataclass(eq=False)
class Go:
    """The Go source of a package of the provider, function by function."""

    repository: str
    commit: str

    @cache  # noqa: B019 - one for the whole run
    def functions(self, folder: str) -> dict[str, Tokens]:
        """The body of each function of a package by name; of variables that hold a schema too."""
        listed = self._git("ls-tree", "--name-only", self.commit, f"{SERVICES}/{folder}/").split()
        found: dict[str, Tokens] = {}
        for path in listed:
            if path.endswith(".go") and not path.endswith("_test.go"):
                found |= _functions(self._git("show", f"{self.commit}:{path}"))
        return found

    def resource(self, file: str) -> str:
        """The function that makes the resource of a file."""
        text = self._git("show", f"{self.commit}:{SERVICES}/{file}.go")
        found = re.search(r"^func (\w+)\(\) \*schema\.Resource \{$", text, re.MULTILINE)
        assert found, file
        return found[1]

    def _git(self, *args: str) -> str:
        done = subprocess.run(["git", "-C", self.repository, *args], check=True, capture_output=True, text=True)
        return done.stdout


def _functions(text: str) -> dict[str, Tokens]:
    found = {}
    for match in re.finditer(
        r"^(?:func (\w+)\(.*|var (\w+) = .*|\t(\w+) += (?:&schema|map\[string\]).*)\{$", text, re.MULTILINE
    ):
        end = text.index("\n\t}" if match[3] else "\n}", match.end())
        body = text[match.start() : end + (3 if match[3] else 2)]
        if "schema." in body:
            found[match[1] or match[2] or match[3]] = _tokens(body)
    return found


def _tokens(text: str) -> Tokens:
    return [each for each in TOKEN.findall(text) if not each.isspace() and not each.startswith(("//", "/*"))]


def _end(tokens: Tokens, start: int) -> int:
    """The position of the bracket that closes the one at ``start``."""
    depth = 0
    for index in range(start, len(tokens)):
        depth += tokens[index] in OPEN
        depth -= tokens[index] in OPEN.values()
        if depth == 0:
            return index
    raise ValueError("a bracket is never closed")


def _entries(tokens: Tokens) -> list[tuple[str, Tokens]]:
    """The elements of a composite literal's body: key (empty where there is none) and value."""
    found: list[Tokens] = [[]]
    index = 0
    while index < len(tokens):
        if tokens[index] in OPEN:
            end = _end(tokens, index)
            found[-1] += tokens[index : end + 1]
            index = end
        elif tokens[index] == ",":
            found.append([])
        else:
            found[-1].append(tokens[index])
        index += 1
    return [(each[0].strip('"'), each[2:]) if each[1:2] == [":"] else ("", each) for each in found if each]


def _body(value: Tokens) -> Tokens:
    """What is between the brackets that a value ends with."""
    start = next(index for index, token in enumerate(value) if token == "{" and _end(value, index) == len(value) - 1)
    return value[start + 1 : -1]


@dataclass
class Facts:
    """What the source says of one resource, by path of pulumi-gcp's names."""

    replaces: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    unnamed: list[str] = field(default_factory=list)


class Reader:
    """Reads the schema of a resource from the source."""

    def __init__(self, source: Go, folder: str, objects: dict[str, Any]) -> None:
        self.source, self.folder, self.objects = source, folder, objects

    def facts(self, function: str, inputs: dict[str, Any]) -> Facts:
        """Of the resource that a function makes."""
        found, returned, more = Facts(), self._returned(function), list[tuple[str, Tokens]]()
        if len(returned) == 1:
            returned, more = self._variable(function, returned[0])
        for key, value in _entries(_body(returned)):
            if key == "Schema":
                self._fields([*self._map(value), *more], inputs, "", found)
        return found

    def _variable(self, function: str, name: str) -> tuple[Tokens, list[tuple[str, Tokens]]]:
        """The literal that a variable of a function is made from, and the fields that are put into its schema."""
        tokens, made, fields = self.source.functions(self.folder)[function], list[str](), list[tuple[str, Tokens]]()
        for index, token in enumerate(tokens):
            end = _end(tokens, tokens.index("{", index)) + 1 if "{" in tokens[index:] else index
            if token == name and tokens[index + 1 : index + 3] == [":", "="]:
                made = tokens[index + 3 : end]
            elif token == f"{name}.Schema" and tokens[index + 1] == "[":
                fields.append((tokens[index + 2].strip('"'), tokens[index + 5 : end]))
        return made, fields

    def _returned(self, name: str) -> Tokens:
        """The literal that a function returns, or a variable holds."""
        tokens = self.source.functions(self.folder)[name]
        if tokens[0] != "func":
            return tokens[tokens.index("=") + 1 :]
        body = next(
            index for index, token in enumerate(tokens) if token == "{" and _end(tokens, index) == len(tokens) - 1
        )
        index = body + 1
        while tokens[index] != "return":
            index = _end(tokens, index) + 1 if tokens[index] in OPEN else index + 1
        return tokens[index + 1 : -1]

    def _map(self, value: Tokens) -> list[tuple[str, Tokens]]:
        """The fields of `map[string]*schema.Schema{…}`, or of a call that makes one."""
        if value[0] == "map":
            return _entries(_body(value))
        name = value[0]
        if name.endswith("MergeSchemas"):
            return [field for _, each in _entries(value[2:-1]) for field in self._map(each)]
        if value[1:2] == ["("] or len(value) == 1:
            return self._map(self._returned(name))
        raise ValueError(f"can't read {' '.join(value[:12])}")

    def _fields(self, fields: list[tuple[str, Tokens]], inputs: dict[str, Any], path: str, found: Facts) -> None:
        for name, value in fields:
            if name == "deletion_policy":
                continue  # what Pulumi's own options say
            if value[0] != "{" and value[0] != "&":
                value = self._returned(value[0])
            said = dict(_entries(_body(value)))
            wire = _wire(name, inputs)
            if wire is None:
                if self._is_input(said):
                    found.unnamed.append(f"{path}{name}")
                continue
            self._field(f"{path}{wire}", inputs[wire], said, found)

    def _is_input(self, said: dict[str, Tokens]) -> bool:
        return said.get("Optional") == ["true"] or said.get("Required") == ["true"]

    def _field(self, path: str, expected: Any, said: dict[str, Tokens], found: Facts) -> None:
        is_true = [name for name, value in said.items() if value == ["true"]]
        found.replaces += [path] if "ForceNew" in is_true else []
        found.kept += [path] if {"Optional", "Computed"} <= set(is_true) else []
        found.sets += [path] if said.get("Type") == ["schema.TypeSet"] else []
        if "." not in path and (default := _literal(said.get("Default"))) is not None:
            found.defaults[path] = default
        elem = said.get("Elem") or []
        is_scalar = elem[:3] == ["&", "schema.Schema", "{"]
        values = _enumeration((dict(_entries(_body(elem))) if is_scalar else said).get("ValidateFunc") or [])
        if values:
            found.values[path] = values
        if elem and not is_scalar:
            self._block(path, expected[1] if isinstance(expected, list) else expected, elem, found)

    def _block(self, path: str, expected: Any, elem: Tokens, found: Facts) -> None:
        """The fields of a block, whose object type is ``expected``."""
        literal = elem if elem[0] == "&" else self._returned(elem[0])
        if "schema.Resource" not in literal[:3] or not (isinstance(expected, str) and expected.startswith("#")):
            return
        fields = self._map(dict(_entries(_body(literal)))["Schema"])
        self._fields(fields, self.objects[expected[1:]]["properties"], f"{path}.", found)


def _wire(name: str, inputs: dict[str, Any]) -> str | None:
    """pulumi-gcp's name of a field of the provider: in camel case, lists in the plural."""
    first, *rest = name.split("_")
    camel = first + "".join(part[:1].upper() + part[1:] for part in rest)
    plural = [f"{camel[:-1]}ies" if camel.endswith("y") else f"{camel}s", f"{camel}es"]
    return next(
        (each for each in (camel, *plural, camel.removesuffix("s"), IRREGULAR.get(name, "")) if each in inputs), None
    )


IRREGULAR = {"cors": "cors", "detect_md5hash": "detectMd5hash"}


def _literal(tokens: Tokens | None) -> Any:
    if tokens is None or len(tokens) != 1:
        return None
    if tokens[0] in ("true", "false"):
        return tokens[0] == "true"
    if tokens[0].startswith('"'):
        return json.loads(tokens[0]) or None
    return int(tokens[0]) if tokens[0].isdigit() else None


def _enumeration(tokens: Tokens) -> list[str]:
    """The values that `verify.ValidateEnum` or `validation.StringInSlice` allows."""
    if tokens[:1] not in (["verify.ValidateEnum"], ["validation.StringInSlice"]) or "string" not in tokens[:6]:
        return []
    if tokens[0].endswith("StringInSlice") and tokens[-2:-1] == ["true"]:
        return []  # in any case
    return [json.loads(each) for each in tokens if each.startswith('"') and each != '""']


def _sdk(token: str, objects: dict[str, Any]) -> dict[str, Any]:
    """Inputs, required inputs and outputs of a type in pulumi-gcp."""
    _, path, name = token.split(":")
    module = importlib.import_module(f"pulumi_gcp.{path.split('/')[0]}")
    args, cls = getattr(module, f"{name}Args"), getattr(module, name)
    outputs = [
        getattr(member.fget, "_pulumi_name", key) for key, member in vars(cls).items() if isinstance(member, property)
    ]
    return {"inputs": properties(args, module, objects), "required": required(args), "outputs": sorted(outputs)}


def _facts(token: str, inputs: dict[str, Any], objects: dict[str, Any], source: Go) -> Facts:
    if token not in TERRAFORM:
        in_place = next(names for end, names in IAM.items() if token.lower().endswith(end.lower()))
        fields = sorted(inputs.keys() - in_place)
        return Facts(replaces=fields, sets=[name for name in ("members", "auditLogConfigs") if name in inputs])
    folder, _, file = TERRAFORM[token].partition("/")
    return Reader(source, folder, objects).facts(source.resource(f"{folder}/{file}"), inputs)


def main(repository: str, commit: str = "HEAD") -> None:
    """Write schema and table."""
    source = Go(repository, commit)
    objects: dict[str, Any] = {}
    resources = {}
    for token in sorted(KINDS):
        sdk = _sdk(token, objects)
        facts = _facts(token, sdk["inputs"], objects, source)
        for name in facts.unnamed:
            sys.stderr.write(f"{token}: {name} of the provider has no counterpart\n")
        resources[token] = sdk | {
            "replaces": sorted(facts.replaces),
            "kept": sorted(facts.kept),
            "sets": sorted(facts.sets),
            "values": dict(sorted(facts.values.items())),
            "defaults": dict(sorted(facts.defaults.items())),
            "source": f"{SERVICES}/{TERRAFORM[token]}.go" if token in TERRAFORM else "google-beta/tpgiamresource",
        }
    schema = {
        "pulumi_gcp": importlib.metadata.version("pulumi-gcp"),
        "provider": f"hashicorp/terraform-provider-google-beta {source._git('rev-parse', commit).strip()}",
        "objects": objects,
        "resources": resources,
    }
    (ROOT / "localcloud/gcp/schema.json").write_text(json.dumps(schema, indent=0, sort_keys=True) + "\n")
    (ROOT / "docs/local-cloud-gcp-types.md").write_text(table(schema))
    sys.stdout.write(f"{len(resources)} types, {len(objects)} object types\n")


HEAD = """# Google Cloud types of the local cloud

Written by `python -m tools.gcp_schema` from the declarations in `localcloud/gcp/kinds/`, the installed pulumi-gcp
({pulumi_gcp}) and the source of the provider that it is made from ({provider}). Inputs in **bold** replace the
resource when they change, and so do fields in bold in the brackets behind an input. What is refused ends the update
with the input's name; a type that is not here is refused as a whole.

| type | carried out | refused |
|---|---|---|
"""


def table(schema: dict[str, Any]) -> str:
    """What each type does with each input of pulumi-gcp, as Markdown."""
    rows = []
    for token, found in schema["resources"].items():
        kind, replaces = KINDS[token], set(found["replaces"])
        done = ", ".join(_shown(name, replaces) for name in sorted(kind.carried & found["inputs"].keys()))
        refused = ", ".join(sorted(found["inputs"].keys() - kind.carried)) or "—"
        rows.append(f"| `{token}` | {done} | {refused} |\n")
    return HEAD.format(**schema) + "".join(rows)


def _shown(name: str, replaces: set[str]) -> str:
    inside = sorted(path.removeprefix(f"{name}.") for path in replaces if path.startswith(f"{name}."))
    written = f"**{name}**" if name in replaces else name
    return f"{written} ({', '.join(f'**{each}**' for each in inside)})" if inside else written


if __name__ == "__main__":
    main(*sys.argv[1:])
