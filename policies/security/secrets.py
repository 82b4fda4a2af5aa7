"""Guardrails on secrets: never in plain config, in an environment, or in the start-up script of a node.

The patterns are those of credentials whose issuers gave them a form; a value is never shown.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Props, Resource, said
from policies.security.pods import pods_of
from policies.update import Update

CREDENTIALS: Mapping[str, re.Pattern[str]] = {
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})"),
    "a token of GitLab": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "a token of Hugging Face": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "a key of OpenAI or Anthropic": re.compile(r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}"),
    "a token of Slack": re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "a key of Google Cloud": re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
    "a key of Stripe": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    "a JSON web token": re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s:/@]+:[^\s:/@$<{][^\s/@]*@"),
}
NAMES = re.compile(
    r"(?:^|[_.-])(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)$"
    r"|(?:^|[_.-])secret[_-]?(?:access[_-]?)?key(?:$|[_.-])",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
REFERENCES = re.compile(
    r"^(?:|true|false|\d+|/[\w./-]+|\$[({].*[)}]|\{\{.*\}\}|(?:arn|projects|alias|file|https?|s3|gs|vault|ssm)[:/].*)$",
    re.I,
)
"""Values that name where a secret is, or are none: paths, ARNs, URLs, variables, flags."""
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "aws:lambda/function:Function": ("environment", "variables"),
    "aws:codebuild/project:Project": ("environment", "environmentVariables"),
    "aws:sagemaker/model:Model": ("primaryContainer", "environment"),
    "gcp:cloudfunctionsv2/function:Function": ("serviceConfig", "environmentVariables"),
    "gcp:compute/instance:Instance": ("metadata",),
    "gcp:compute/instanceTemplate:InstanceTemplate": ("metadata",),
    "kubernetes:core/v1:ConfigMap": ("data",),
    "kubernetes:core/v1:ConfigMapPatch": ("data",),
}
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "aws:ec2/instance:Instance": ("userData", "userDataBase64"),
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": ("userData", "userDataBase64"),
    "aws:ec2/launchTemplate:LaunchTemplate": ("userData",),
    "aws:ec2/launchConfiguration:LaunchConfiguration": ("userData", "userDataBase64"),
    "gcp:compute/instance:Instance": ("metadataStartupScript",),
    "gcp:compute/instanceTemplate:InstanceTemplate": ("metadataStartupScript",),
    "aws:ecs/taskDefinition:TaskDefinition": ("containerDefinitions",),
}
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
    return next((kind for kind, pattern in CREDENTIALS.items() if pattern.search(text)), None)


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret, such as `DB_PASSWORD` or `hfToken`."""
    return bool(NAMES.search(CAMEL.sub("_", name)))


@guardrail("no-plain-secrets", unknown="judged in up")
def no_plain_secrets(resource: Resource, update: Update) -> Iterator[str]:
    """No secret stands in plain config, in an environment or in a start-up script."""
    if resource.type == STACK:
        yield from _in_config(update)
    yield from _in_pods(resource)
    if path := ENVIRONMENTS.get(resource.type):
        yield from _in_variables(resource.props.part(*path))
    for field in SCRIPTS.get(resource.type, ()):
        if kind := credential(_script(resource.props.part(field))):
            yield f"{field} holds {kind}; let the program fetch it from a secret store with its identity"


def _in_config(update: Update) -> Iterator[str]:
    """The stack's config: keys that are encrypted in its file are known to the engine."""
    for key, value in update.config.items():
        if key in update.secret_keys:
            continue
        if kind := credential(value):
            yield f"config {key} holds {kind} in plain; set it with `pulumi config set --secret {key}`"
        elif is_secret_name(key.partition(":")[2]) and not REFERENCES.match(value):
            yield f"config {key} is in plain; set it with `pulumi config set --secret {key}`"


def _in_pods(resource: Resource) -> Iterator[str]:
    for pod in pods_of(resource):
        for container in pod.containers():
            for variable in container.each("env"):
                name = str(variable.get("name", default=""))
                yield from _in_variable(name, variable.part("value"), "read it from a Secret with valueFrom")


def _in_variables(variables: Props) -> Iterator[str]:
    """Variables as a mapping, or as a list of blocks with name and value."""
    if isinstance(variables.value, Mapping):
        for name in variables.value:
            yield from _in_variable(str(name), variables.inside(name), "keep it in a secret store")
        return
    for each in variables.each():
        if each.get("type", default="PLAINTEXT") == "PLAINTEXT":
            yield from _in_variable(str(each.get("name", default="")), each.part("value"), "keep it in a secret store")


def _in_variable(name: str, value: Props, way_out: str) -> Iterator[str]:
    text = str(value.get(default=""))
    if kind := credential(text):
        yield f"{name} holds {kind}; {way_out}"
    elif (is_secret_name(name) and not REFERENCES.match(text)) or (value.is_secret() and text):
        yield f"{name} holds a secret in plain; {way_out}"


def _script(part: Props) -> str:
    """A script as it is, and as base64 where it is that."""
    text = str(part.get(default=""))
    try:
        return text + "\n" + base64.b64decode(text, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return text


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
