"""Guardrails on what identities may do: no wildcard action on a wildcard resource, and no role that has one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Props, Resource
from policies.security.documents import Statement, WrongDocument, statements
from policies.update import Update

DOCUMENTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "aws:iam/policy:Policy": (("policy",),),
    "aws:iam/rolePolicy:RolePolicy": (("policy",),),
    "aws:iam/userPolicy:UserPolicy": (("policy",),),
    "aws:iam/groupPolicy:GroupPolicy": (("policy",),),
    "aws:iam/role:Role": (("inlinePolicies", "policy"),),
    "aws:ssoadmin/permissionSetInlinePolicy:PermissionSetInlinePolicy": (("inlinePolicy",),),
}
"""Where the policies of identities stand."""
ATTACHMENTS = (
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:iam/userPolicyAttachment:UserPolicyAttachment",
    "aws:iam/groupPolicyAttachment:GroupPolicyAttachment",
    "aws:iam/policyAttachment:PolicyAttachment",
    "aws:iam/role:Role",
    "aws:iam/rolePolicyAttachmentsExclusive:RolePolicyAttachmentsExclusive",
    "aws:ssoadmin/managedPolicyAttachment:ManagedPolicyAttachment",
)
ADMINISTRATION = re.compile(
    r":policy/(?:[\w-]+/)*(AdministratorAccess|PowerUserAccess|SystemAdministrator|\w*FullAccess)(?:-[\w-]+)?$"
)
"""AWS managed policies that allow every action, of AWS or of one service, on every resource (AWS managed policy
reference guide)."""
WILD = re.compile(r"[*?]")
READS_METADATA = re.compile(r"^[a-z0-9-]+:(describe|list)[a-z]*\*$", re.IGNORECASE)
GCP_BASIC_ROLES = frozenset({"roles/owner", "roles/editor", "roles/admin", "roles/writer"})
"""Basic roles (Google Cloud IAM, "Basic and predefined roles reference")."""
GCP_ROLES = tuple(
    f"gcp:{module}/iAM{kind}:IAM{kind}"
    for module in ("projects", "folder", "organizations", "serviceaccount")
    for kind in ("Member", "Binding")
)
GCP_POLICIES = tuple(f"gcp:{module}/iAMPolicy:IAMPolicy" for module in ("projects", "folder", "organizations"))
TRUST: Mapping[str, str] = {
    "aws:iam/role:Role": "assumeRolePolicy",
    "aws:kms/key:Key": "policy",
    "aws:kms/keyPolicy:KeyPolicy": "policy",
    "aws:sqs/queue:Queue": "policy",
    "aws:sqs/queuePolicy:QueuePolicy": "policy",
    "aws:sns/topic:Topic": "policy",
    "aws:sns/topicPolicy:TopicPolicy": "policy",
    "aws:ecr/repositoryPolicy:RepositoryPolicy": "policy",
    "aws:ecr/registryPolicy:RegistryPolicy": "policy",
    "aws:secretsmanager/secret:Secret": "policy",
    "aws:secretsmanager/secretPolicy:SecretPolicy": "policy",
    "aws:dynamodb/resourcePolicy:ResourcePolicy": "policy",
    "aws:kinesis/resourcePolicy:ResourcePolicy": "policy",
    "aws:backup/vaultPolicy:VaultPolicy": "policy",
    "aws:opensearch/domain:Domain": "accessPolicies",
    "aws:opensearch/domainPolicy:DomainPolicy": "accessPolicies",
}
"""Where the policies stand that say who may use a thing."""
STRANGERS = frozenset({"system:anonymous", "system:unauthenticated", "system:authenticated"})
"""Subjects of Kubernetes that are everybody (kubernetes.io, "Using RBAC Authorization")."""


def _rbac(*kinds: str) -> Iterator[str]:
    for version in ("v1", "v1beta1", "v1alpha1"):
        for kind in kinds:
            yield from (f"kubernetes:rbac.authorization.k8s.io/{version}:{kind}{end}" for end in ("", "List", "Patch"))


@guardrail("no-wildcard-permissions", *DOCUMENTS, unknown="judged in up")
def no_wildcard_permissions(resource: Resource, _: Update) -> Iterator[str]:
    """No identity of AWS is allowed wildcard actions on wildcard resources."""
    for path in DOCUMENTS[resource.type]:
        for policy in _documents(resource.props, path):
            try:
                for statement in statements(policy):
                    yield from _wide(statement)
            except WrongDocument as error:
                yield f"{'.'.join(path)} can't be read: {error}"


@guardrail("no-strangers", *TRUST, unknown="judged in up")
def no_strangers(resource: Resource, _: Update) -> Iterator[str]:
    """No role, key, queue or secret is open to every account of AWS."""
    field = TRUST[resource.type]
    try:
        for statement in statements(resource.props.part(field)):
            if statement.is_public and not statement.is_bounded:
                yield f"{field}: {statement.name} lets everybody use it; name the principals"
    except WrongDocument as error:
        yield f"{field} can't be read: {error}"


def _attachment(props: Props) -> Iterator[str]:
    for field in ("policyArn", "managedPolicyArn", "policyArns", "managedPolicyArns"):
        for arn in _texts(props, field):
            if found := ADMINISTRATION.search(arn):
                yield f"{found[1]} allows every action on every resource; attach a policy with the actions needed"


def _gcp_role(props: Props) -> Iterator[str]:
    if str(props.get("role")) in GCP_BASIC_ROLES:
        yield f"{props.get('role')} may change everything below it; grant predefined roles for what is needed"


def _gcp_policy(props: Props) -> Iterator[str]:
    """A whole policy, as `getIAMPolicy` makes its text."""
    try:
        document = json.loads(props.get("policyData", default="{}"))
    except (TypeError, ValueError, RecursionError) as error:
        yield f"policyData can't be read: {error}"
        return
    for binding in Props(document).each("bindings"):
        yield from _gcp_role(binding)


def _rbac_role(props: Props) -> Iterator[str]:
    for each in props.each("items"):
        yield from _rbac_role(each)
    for rule in props.each("rules"):
        resources = {*_texts(rule, "resources"), *_texts(rule, "nonResourceURLs")}
        if "*" in _texts(rule, "verbs") and resources & {"*", "*/*"}:
            yield "a rule allows every verb on every resource; name those that are needed"


def _rbac_binding(props: Props) -> Iterator[str]:
    for each in props.each("items"):
        yield from _rbac_binding(each)
    if props.get("roleRef", "name") == "cluster-admin":
        yield "cluster-admin may do everything in the cluster; bind a role with the verbs that are needed"
    for subject in props.each("subjects"):
        if str(subject.get("name")) in STRANGERS:
            yield f"it grants its role to {subject.get('name')}, which is everybody; name the subjects"


ROLES: Mapping[str, Callable[[Props], Iterator[str]]] = {
    **dict.fromkeys(ATTACHMENTS, _attachment),
    **dict.fromkeys(GCP_ROLES, _gcp_role),
    **dict.fromkeys(GCP_POLICIES, _gcp_policy),
    **dict.fromkeys(_rbac("ClusterRole", "Role"), _rbac_role),
    **dict.fromkeys(_rbac("ClusterRoleBinding", "RoleBinding"), _rbac_binding),
}


@guardrail("no-administrators", *ROLES, unknown="judged in up")
def no_administrators(resource: Resource, _: Update) -> Iterator[str]:
    """No identity gets a role that may do everything."""
    yield from ROLES[resource.type](resource.props)


def _documents(props: Props, path: tuple[str, ...]) -> Iterator[Props]:
    if len(path) == 1:
        yield props.part(*path)
    else:
        yield from (block.part(*path[1:]) for block in props.each(path[0]))


def _texts(props: Props, key: str) -> list[str]:
    found = props.get(key, default=[])
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]


def _wide(statement: Statement) -> Iterator[str]:
    """What a statement allows by a wildcard on resources that are a wildcard.

    A condition makes it no narrower: one that always holds is easily written. To list and describe everything is
    allowed, since most such actions know no resource (Service Authorization Reference).
    """
    if not statement.allows:
        return
    if not (statement.not_resources or any(map(_is_every_resource, statement.resources))):
        return
    wild = [each for each in statement.actions if WILD.search(each) and not READS_METADATA.match(each)]
    if statement.not_actions:
        wild.append(f"everything but {', '.join(statement.not_actions)}")
    if wild:
        yield (
            f"{statement.name} allows {', '.join(wild)} on every resource; name the actions, or the resources, that "
            "are needed"
        )


def _is_every_resource(arn: str) -> bool:
    """Whether a pattern names no resource: `*`, `arn:aws:s3:::*`, `arn:aws:*`."""
    name = arn.split(":", 5)
    return bool(WILD.search(arn)) and (len(name) < 6 or not name[5].strip("*?/:"))


GUARDRAILS = [no_wildcard_permissions, no_administrators, no_strangers]
