"""Guardrails on secrets: never in plain config, in an environment, or in the start-up script of a node.

The patterns are those of credentials whose issuers gave them a form; a value is never shown.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from policies.guardrail import guardrail
from policies.resource import Path, Props, Resource, is_unknown, said
from policies.security.images import found_at, text_containers
from policies.security.pods import pods_of
from policies.update import Update

CREDENTIALS: Mapping[str, re.Pattern[str]] = {
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY|client-key-data[\"']?:\s*[\"']?[A-Za-z0-9+/]{40}"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})"),
    "a token of GitLab": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "a token of Hugging Face": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a key of OpenAI or Anthropic": re.compile(r"\bsk-(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,}"),
    "a token of Slack": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "a key of Google Cloud": re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
    "a key of Stripe": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s:/@]*:[^\s:/@$<{][^\s/@]*@"),
}
MARKS = (
    *("AKIA", "ASIA", "PRIVATE KEY", "client-key-data", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "hf_", "sk-", "xox", "AIza", "k_live_", "eyJ", "://"),
)
"""One of these is in whatever the patterns find; to look for them takes a tenth of the time."""
SHORTEST = 12
"""Characters of the shortest credential: `a://:b@c.de`."""
NAMES = re.compile(
    r"(?:^|[_.-])(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)$"
    r"|(?:^|[_.-])secret[_-]?(?:access[_-]?)?key(?:$|[_.-])",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
REFERENCES = re.compile(
    r"^(?:|true|false|/[\w./-]+|<[\w|/]*>|\[[A-Z_]+\]|\$[({].*[)}]|\{\{.*\}\}|(?:arn|projects|alias|file|https?|s3|gs|vault|ssm)[:/].*)$",
    re.I,
)
"""Values that name where a secret is, or are none: paths, ARNs, URLs, variables, flags, words of a tokenizer."""
NUMBERED = re.compile(r"(?:token|key)$", re.IGNORECASE)
"""Names whose value may be the number of a token or of a key."""
ARGUMENT = re.compile(r"^--?([A-Za-z][\w-]*)=(.+)$", re.DOTALL)
ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=[\"']?([^\s\"']*)", re.MULTILINE)
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "aws:lambda/function:Function": ("environment", "variables"),
    "aws:codebuild/project:Project": ("environment", "environmentVariables"),
    "aws:sagemaker/model:Model": ("primaryContainer", "environment"),
    "gcp:cloudfunctionsv2/function:Function": ("serviceConfig", "environmentVariables"),
    "gcp:cloudrunv2/service:Service": ("template", "containers", "envs"),
    "gcp:cloudrunv2/job:Job": ("template", "template", "containers", "envs"),
    "gcp:compute/instance:Instance": ("metadata",),
    "gcp:compute/instanceTemplate:InstanceTemplate": ("metadata",),
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": ("metadata",),
    "gcp:compute/projectMetadata:ProjectMetadata": ("metadata",),
    "gcp:container/nodePool:NodePool": ("nodeConfig", "metadata"),
    "gcp:tpu/v2Vm:V2Vm": ("metadata",),
    "kubernetes:core/v1:ConfigMap": ("data",),
    "kubernetes:core/v1:ConfigMapPatch": ("data",),
}
STARTED_WITH = frozenset({"startup-script", "shutdown-script", "user-data", "windows-startup-script-ps1"})
"""Keys of the metadata of Google Cloud's machines whose values are scripts."""
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "aws:ec2/instance:Instance": ("userData", "userDataBase64"),
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": ("userData", "userDataBase64"),
    "aws:ec2/launchTemplate:LaunchTemplate": ("userData",),
    "aws:ec2/launchConfiguration:LaunchConfiguration": ("userData", "userDataBase64"),
    "gcp:compute/instance:Instance": ("metadataStartupScript",),
    "gcp:compute/instanceTemplate:InstanceTemplate": ("metadataStartupScript",),
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": ("metadataStartupScript",),
}
CONFIG_MAPS = ("kubernetes:core/v1:ConfigMap", "kubernetes:core/v1:ConfigMapPatch")
GZIP = b"\x1f\x8b"
UNPACKED_BYTES_MAX = 1 << 20
FROM_A_SECRET = "read it from a Secret with valueFrom"
STACK = "pulumi:pulumi:Stack"
KEPT: Mapping[str, tuple[str, ...]] = {
    "kubernetes:core/v1:Secret": ("data", "stringData"),
    "kubernetes:core/v1:SecretPatch": ("data", "stringData"),
    "aws:ssm/parameter:Parameter": ("value",),
    "aws:secretsmanager/secretVersion:SecretVersion": ("secretString", "secretBinary"),
    "aws:rds/instance:Instance": ("password",),
    "aws:rds/cluster:Cluster": ("masterPassword",),
    "aws:elasticache/replicationGroup:ReplicationGroup": ("authToken",),
    "gcp:secretmanager/secretVersion:SecretVersion": ("secretData",),
    "gcp:sql/user:User": ("password",),
}
"""Fields that hold a secret by nature: in Pulumi's state they are encrypted only where the program marks them."""


def credential(text: str) -> str | None:
    """What kind of credential a text holds, in words; None where it holds none."""
    if not any(each in text for each in MARKS):
        return None
    return next((kind for kind, pattern in CREDENTIALS.items() if pattern.search(text)), None)


def _tells(name: str, value: object) -> bool:
    """Whether a setting of this name and value tells a secret."""
    text = str(value)
    if not is_secret_name(name) or isinstance(value, bool) or REFERENCES.match(text):
        return False
    return not (re.fullmatch(r"\d+(?:\.0)?", text) and NUMBERED.search(name))


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret, such as `DB_PASSWORD` or `hfToken`."""
    return bool(NAMES.search(CAMEL.sub("_", name)))


@guardrail("no-plain-secrets", unknown="judged in up")
def no_plain_secrets(resource: Resource, update: Update) -> Iterator[str]:
    """No secret stands in plain config, in an environment, in a start-up script or in any other plain input."""
    if resource.type == STACK:
        yield from _in_config(update)
    for field in SCRIPTS.get(resource.type, ()):
        yield from _in_script(field, _script(resource.props.part(field)))
    texts = "\n".join(_every_text(resource.props.value))
    if any(each in texts for each in MARKS):
        yield from _in_texts(resource)
    yield from _in_pods(resource)
    if resource.type in CONFIG_MAPS:
        for each in _leaves(resource.props.part("binaryData")):
            yield from _in_script(said(each.path), _script(each))
    for container in text_containers(resource):
        yield from _in_variables(container.part("environment"))
    if path := ENVIRONMENTS.get(resource.type):
        for variables in found_at(resource.props, path):
            yield from _in_variables(variables)


def _every_text(value: Any) -> Iterator[str]:
    """Marked as secret or not, in any order: most hold nothing like a credential."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)


def _in_texts(resource: Resource) -> Iterator[str]:
    for where, text in _texts(resource.props.value, resource.props.path, resource.props.secrets):
        if where[0] not in SCRIPTS.get(resource.type, ()) and (kind := credential(text)):
            yield f"{said(where)} holds {kind}; keep it in a secret store, or mark it with Output.secret"


def _in_config(update: Update) -> Iterator[str]:
    """The stack's config: keys that are encrypted in its file are known to the engine."""
    for key, value in update.config.items():
        if key in update.secret_keys:
            continue
        if kind := credential(value):
            yield f"config {key} holds {kind} in plain; set it with `pulumi config set --secret {key}`"
        elif any(_tells(name, each) for name, each in _settings(key.partition(":")[2], value)):
            yield f"config {key} holds a secret in plain; set it with `pulumi config set --secret {key}`"


def _settings(name: str, value: str) -> Iterator[tuple[str, object]]:
    """A setting, and those inside of a structured one, which is JSON text."""
    try:
        inside = json.loads(value)
    except (ValueError, RecursionError):
        inside = None
    yield from _leaves_named(name, inside) if isinstance(inside, dict | list) else ((name, value),)


def _leaves_named(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves_named(key, each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves_named(name, each)
    elif value is not None:
        yield name, value


def _texts(value: Any, path: Path, secrets: frozenset[Path]) -> Iterator[tuple[Path, str]]:
    """Every text of the inputs that is not marked as secret."""
    if path in secrets:
        return
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(each, (*path, key), secrets)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _texts(each, (*path, index), secrets)
    elif isinstance(value, str) and len(value) >= SHORTEST and not is_unknown(value):
        yield path, value


def _in_script(field: str, text: str) -> Iterator[str]:
    way_out = "let the program fetch it from a secret store with its identity"
    if kind := credential(text):
        yield f"{field} holds {kind}; {way_out}"
    for name, value in ASSIGNMENT.findall(text):
        if _tells(name, value):
            yield f"{field} holds the secret {name} in plain; {way_out}"


def _in_pods(resource: Resource) -> Iterator[str]:
    for pod in pods_of(resource):
        for container in pod.containers():
            for variable in container.each("env"):
                name = str(variable.get("name", default=""))
                yield from _in_variable(name, variable.part("value"), FROM_A_SECRET)
            for field in ("command", "args"):
                yield from _in_arguments(container.part(field))


def _in_arguments(arguments: Props) -> Iterator[str]:
    """`--db-password=…`, and the text after `--db-password`."""
    before = ""
    for each in arguments.each():
        text = "" if each.is_unknown() else str(each.value)
        found = ARGUMENT.match(text)
        if found and _tells(found[1], found[2]):
            yield f"{said(each.path)} holds the secret {found[1]} in plain; {FROM_A_SECRET}"
        elif before.startswith("--") and not text.startswith("-") and _tells(before.lstrip("-"), text):
            yield f"{said(each.path)} holds the secret {before.lstrip('-')} in plain; {FROM_A_SECRET}"
        before = text


def _in_variables(variables: Props) -> Iterator[str]:
    """Variables as a mapping, or as a list of blocks with name and value."""
    if isinstance(variables.value, Mapping):
        for name in variables.value:
            value = variables.inside(name)
            if name in STARTED_WITH and not value.is_unknown():
                yield from _in_script(said(value.path), str(value.value))
            else:
                yield from _in_variable(str(name), value, "keep it in a secret store")
        return
    for each in variables.each():
        if each.get("type", default="PLAINTEXT") == "PLAINTEXT":
            yield from _in_variable(str(each.get("name", default="")), each.part("value"), "keep it in a secret store")


def _in_variable(name: str, value: Props, way_out: str) -> Iterator[str]:
    given = value.get(default="")
    if _tells(name, given) or (value.is_secret() and given != ""):
        yield f"{name} holds a secret in plain; {way_out}"


def _script(part: Props) -> str:
    """A script as it is, and what its base64 holds, unpacked where it is gzip, as cloud-init does."""
    text = str(part.get(default=""))
    try:
        held = base64.b64decode(text, validate=True)
        if held.startswith(GZIP):
            held = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(held, UNPACKED_BYTES_MAX)
    except (binascii.Error, ValueError, zlib.error):
        return text
    return text + "\n" + held.decode(errors="replace")


@guardrail("secrets-are-marked", *KEPT, unknown="judged in up")
def secrets_are_marked(resource: Resource, _: Update) -> Iterator[str]:
    """What is a secret by nature is marked as one, so that Pulumi's state holds it encrypted."""
    props = resource.props
    if resource.type == "aws:ssm/parameter:Parameter" and props.get("type") != "SecureString":
        return
    for field in KEPT[resource.type]:
        for value in _leaves(props.part(field)):
            if value.value and not value.is_unknown() and not value.is_secret():
                yield f"{said(value.path)} is not marked as secret, so the state holds it in plain; use Output.secret"


def _leaves(part: Props) -> Iterator[Props]:
    if isinstance(part.value, Mapping):
        yield from (part.inside(key) for key in part.value)
    elif part.value is not None:
        yield part


GUARDRAILS = [no_plain_secrets, secrets_are_marked]
