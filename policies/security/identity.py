"""Guardrails on what identities may do: no wildcard action on a wildcard resource, and no role that has one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from policies.guardrail import guardrail
from policies.resource import Props, Resource
from policies.security.documents import Statement, WrongDocument, statements
from policies.security.exposure import BUCKETS
from policies.security.google import WrongPolicy, bindings, grants_to_everybody
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
EVERY_OF_A_KIND = re.compile(r"^[a-z-]+[/:][*?/:]+$")
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
    "aws:efs/fileSystemPolicy:FileSystemPolicy": "policy",
    "aws:cloudwatch/eventBusPolicy:EventBusPolicy": "policy",
    "aws:cloudwatch/logResourcePolicy:LogResourcePolicy": "policyDocument",
    "aws:opensearch/domain:Domain": "accessPolicies",
    "aws:opensearch/domainPolicy:DomainPolicy": "accessPolicies",
}
"""Where the policies stand that say who may use a thing."""
GCP_BINDING = re.compile(r"^gcp:.*:\w*(?:IAM|Iam)(?:Member|Binding|Policy)$")
"""Resources that bind members to roles, of whatever service of Google Cloud."""
OPENID_PROVIDER = re.compile(r":oidc-provider/(.+)$")
SHARED_ISSUERS = ("token.actions.githubusercontent.com", "gitlab.com", "app.terraform.io", "agent.buildkite.com")
"""Issuers of tokens for everybody's pipelines."""
STRANGERS = frozenset({"system:anonymous", "system:unauthenticated", "system:authenticated"})
"""Subjects of Kubernetes that are everybody (kubernetes.io, "Using RBAC Authorization")."""


def _rbac(*kinds: str) -> Iterator[str]:
    for version in ("v1", "v1beta1", "v1alpha1"):
        for kind in kinds:
            yield from (f"kubernetes:rbac.authorization.k8s.io/{version}:{kind}{end}" for end in ("", "Patch"))


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


@guardrail("no-strangers", unknown="judged in up")
def no_strangers(resource: Resource, _: Update) -> Iterator[str]:
    """No role, key, queue, function, repository or secret is open to whoever asks."""
    if field := TRUST.get(resource.type):
        yield from _trust(field, resource.props)
    elif judge := OPENED.get(resource.type):
        yield from judge(resource.props)
    elif GCP_BINDING.search(resource.type) and resource.type not in BUCKETS:  # those are no-public-bucket's
        yield from grants_to_everybody(resource.props)


def _trust(field: str, props: Props) -> Iterator[str]:
    try:
        for statement in statements(props.part(field)):
            if statement.is_public and not statement.is_bounded:
                yield f"{field}: {statement.name} lets everybody use it; name the principals"
            for issuer in _issuers_without_subject(statement):
                yield (
                    f"{field}: {statement.name} lets every identity of {issuer} in; add a condition StringEquals or "
                    f"StringLike on {issuer}:sub"
                )
    except WrongDocument as error:
        yield f"{field} can't be read: {error}"


def _issuers_without_subject(statement: Statement) -> Iterator[str]:
    """OpenID providers all of whose identities a statement lets in: no condition says which subjects."""
    subjects = {
        str(key).lower()
        for operator, each in statement.conditions.items()
        if operator.lower().removeprefix("foranyvalue:") in ("stringequals", "stringlike", "stringequalsignorecase")
        for key, values in each.items()
        if all(str(value).strip("*?:") for value in (values if isinstance(values, list) else [values]))
    }
    for principal in statement.principals if statement.allows else ():
        found = OPENID_PROVIDER.search(principal)
        if found and f"{found[1].lower()}:sub" not in subjects:
            yield found[1]


def _invoked(props: Props) -> Iterator[str]:
    """Who may call a function of Lambda or use its layer; a service is anybody's without its source."""
    bounds = ("sourceArn", "sourceAccount", "principalOrgId", "organizationId")
    if str(props.get("principal")) == "*" and not any(props.has(each) for each in bounds):
        yield "principal * lets everybody use it; name the account, or set the organization or the source"


def _function_url(props: Props) -> Iterator[str]:
    if props.get("authorizationType", default="NONE") == "NONE":
        yield "authorizationType NONE lets everybody call it; set it to AWS_IAM"


def _image_shared(props: Props) -> Iterator[str]:
    if props.get("group") == "all":
        yield "group all lets every account start it; name the accounts"


def _pool_provider(props: Props) -> Iterator[str]:
    issuer = str(props.get("oidc", "issuerUri", default=""))
    if any(each in issuer for each in SHARED_ISSUERS) and not props.has("attributeCondition"):
        yield f"it lets every identity of {issuer} in; set attributeCondition to those of yours"


OPENED: Mapping[str, Callable[[Props], Iterator[str]]] = {
    "aws:lambda/permission:Permission": _invoked,
    "aws:lambda/layerVersionPermission:LayerVersionPermission": _invoked,
    "aws:lambda/functionUrl:FunctionUrl": _function_url,
    "aws:ec2/amiLaunchPermission:AmiLaunchPermission": _image_shared,
    "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider": _pool_provider,
}


def _attachment(props: Props) -> Iterator[str]:
    for field in ("policyArn", "managedPolicyArn", "policyArns", "managedPolicyArns"):
        for arn in _texts(props, field):
            if found := ADMINISTRATION.search(arn):
                yield f"{found[1]} allows every action on every resource; attach a policy with the actions needed"


def _gcp_role(props: Props) -> Iterator[str]:
    if str(props.get("role")) in GCP_BASIC_ROLES:
        yield f"{props.get('role')} may change everything below it; grant predefined roles for what is needed"


def _gcp_policy(props: Props) -> Iterator[str]:
    try:
        for binding in bindings(props):
            yield from _gcp_role(binding)
    except WrongPolicy as error:
        yield str(error)


def _rbac_role(props: Props) -> Iterator[str]:
    for rule in props.each("rules"):
        resources = {*_texts(rule, "resources"), *_texts(rule, "nonResourceURLs")}
        if "*" in _texts(rule, "verbs") and resources & {"*", "*/*"}:
            yield "a rule allows every verb on every resource; name those that are needed"


def _rbac_binding(props: Props) -> Iterator[str]:
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
    """Whether a pattern names no resource: `*`, `arn:aws:s3:::*`, `arn:aws:iam::123456789012:role/*`."""
    name = arn.split(":", 5)
    if not WILD.search(arn):
        return False
    return len(name) < 6 or not name[5].strip("*?/:") or (name[2] != "s3" and bool(EVERY_OF_A_KIND.match(name[5])))


GUARDRAILS = [no_wildcard_permissions, no_administrators, no_strangers]
