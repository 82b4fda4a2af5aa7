"""Guardrails on what identities may do: no wildcard action on a wildcard resource, and no role that has one."""

from __future__ import annotations

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
    r":policy/(?:job-function/)?(AdministratorAccess|PowerUserAccess|IAMFullAccess|SystemAdministrator)$"
)
"""AWS managed policies that allow everything, or to give oneself that (AWS managed policy reference guide)."""
EVERY_RESOURCE = re.compile(r"^([*?]+|arn:[^:]*:[^:]*:[^:]*:[^:]*:[*?/]+)$")
READS_METADATA = re.compile(r"^[a-z0-9-]+:(describe|list)[a-z]*\*$", re.IGNORECASE)
GCP_BASIC_ROLES = frozenset({"roles/owner", "roles/editor", "roles/admin", "roles/writer"})
"""Basic roles (Google Cloud IAM, "Basic and predefined roles reference")."""
GCP_ROLES = tuple(
    f"gcp:{module}/iAM{kind}:IAM{kind}"
    for module in ("projects", "folder", "organizations")
    for kind in ("Member", "Binding")
)


def _rbac(*kinds: str) -> Iterator[str]:
    for version in ("v1", "v1beta1", "v1alpha1"):
        for kind in kinds:
            yield from (f"kubernetes:rbac.authorization.k8s.io/{version}:{kind}{patch}" for patch in ("", "Patch"))


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


def _attachment(props: Props) -> Iterator[str]:
    for field in ("policyArn", "managedPolicyArn", "policyArns", "managedPolicyArns"):
        for arn in _texts(props, field):
            if found := ADMINISTRATION.search(arn):
                yield f"{found[1]} may do everything, or give itself that; attach a policy with the actions needed"


def _gcp_role(props: Props) -> Iterator[str]:
    if props.get("role") in GCP_BASIC_ROLES:
        yield f"{props.get('role')} may change everything below it; grant predefined roles for what is needed"


def _rbac_role(props: Props) -> Iterator[str]:
    for rule in props.each("rules"):
        if all("*" in rule.get(field, default=[]) for field in ("apiGroups", "resources", "verbs")):
            yield "a rule allows every verb on every resource of every group; name those that are needed"


def _rbac_binding(props: Props) -> Iterator[str]:
    if props.get("roleRef", "name") == "cluster-admin":
        yield "cluster-admin may do everything in the cluster; bind a role with the verbs that are needed"


ROLES: Mapping[str, Callable[[Props], Iterator[str]]] = {
    **dict.fromkeys(ATTACHMENTS, _attachment),
    **dict.fromkeys(GCP_ROLES, _gcp_role),
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
    if not (statement.not_resources or any(EVERY_RESOURCE.match(each) for each in statement.resources)):
        return
    wild = [each for each in statement.actions if "*" in each and not READS_METADATA.match(each)]
    if statement.not_actions:
        wild.append(f"everything but {', '.join(statement.not_actions)}")
    if wild:
        yield (
            f"{statement.name} allows {', '.join(wild)} on every resource; name the actions, or the resources, that "
            "are needed"
        )


GUARDRAILS = [no_wildcard_permissions, no_administrators]
