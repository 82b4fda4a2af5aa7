"""Service accounts, grants of roles on whatever has a policy, and services of the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.gcp.inventory import PROJECT_NUMBER
from localcloud.gcp.kind import (
    AGENTS,
    Kind,
    Reference,
    RefusedError,
    World,
    at,
    matching,
    number_of,
    one_of,
    words,
)
from localcloud.provider import Properties

ACCOUNT = "gcp:serviceaccount/account:Account"
CUSTOM_ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
MEMBER = matching(
    r"(user|serviceAccount|group|domain|principal|principalSet):\S+|allUsers|allAuthenticatedUsers"
    r"|project(Owner|Editor|Viewer):\S+",
    "a member such as serviceAccount:name@project.iam.gserviceaccount.com",
)
ROLE = matching(
    r"roles/[a-zA-Z0-9_.]+|(projects|organizations)/[^/]+/roles/[a-zA-Z0-9_.]+",
    "a role such as roles/storage.objectViewer",
)


def _email(inputs: Properties) -> str:
    return f"{inputs['accountId']}@{inputs['project']}.iam.gserviceaccount.com"


def _account(world: World, inputs: Properties) -> Properties:
    email = _email(inputs)
    return {
        "email": email,
        "member": f"serviceAccount:{email}",
        "name": f"projects/{inputs['project']}/serviceAccounts/{email}",
        "uniqueId": number_of(email),
    }


def is_account(world: World, email: str) -> bool:
    """Whether a service account is there: the project's own, its default one, or an agent of Google's."""
    own = {each.assigned["email"] for each in world.of(ACCOUNT)}
    default = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
    return email in own or email == default or email in AGENTS.values() or not _is_of_project(world, email)


def _is_of_project(world: World, email: str) -> bool:
    """What belongs to other projects can't be looked at from here."""
    return email.endswith(f"@{world.project}.iam.gserviceaccount.com") or PROJECT_NUMBER in email


def _grant_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    """IAM refuses members and roles that are not there."""
    for member in (inputs.get("member"), *(inputs.get("members") or ())):
        if member:
            _is_member(world, member)
    role = inputs["role"]
    if role.startswith(f"projects/{world.project}/") and world.find(role) is None:
        raise RefusedError(400, f"Role ({role}) does not exist in the resource's hierarchy.", "badRequest")


def _is_member(world: World, member: str) -> None:
    kind, _, name = member.partition(":")
    pool = f"{world.project}.svc.id.goog"
    if pool in member:
        clusters = world.of("gcp:container/cluster:Cluster")
        if pool not in at([each.inputs for each in clusters], "workloadIdentityConfig.workloadPool"):
            raise RefusedError(
                400,
                f"Identity Pool does not exist ({pool}). Please check that you specified a valid "
                "resource name as returned in the `name` attribute in the configuration API.",
                "badRequest",
            )
    elif kind == "serviceAccount" and not is_account(world, name):
        raise RefusedError(400, f"Service account {name} does not exist.", "badRequest")


def grant(
    token: str,
    on: str,
    reference: Reference | None,
    *,
    of: str | None = None,
    more: str = "",
    region: str | None = None,
) -> Kind:
    """One role for one member on something.

    Args:
        on: the input that names it.
        reference: what that input names; None where it is the project.
        of: its place in the grant's id, where that is not the input as it is.
        more: further inputs.
    """
    many = token.endswith("Binding")
    who = "members" if many else "member"
    return Kind(
        token,
        f"{of or f'{{{on}}}'}/{{role}}" + ("" if many else "/{member}"),
        words(f"{on} {who} role condition {more}"),
        references={on: reference} if reference else {},
        region=region,
        name=None,
        checks={"role": ROLE, **({} if many else {"member": MEMBER})},
        rules=_grant_rules,
        assigned=lambda world, inputs: {"etag": ""},
    )


def _part_of(to: str, *, in_region: bool = False) -> Reference:
    return Reference(to, holds=False, is_whole=True, in_region=in_region)


def _service_identity(world: World, inputs: Properties) -> Properties:
    service = inputs["service"].removesuffix(".googleapis.com")
    email = AGENTS.get(service, f"service-{PROJECT_NUMBER}@gcp-sa-{service}.iam.gserviceaccount.com")
    return {"email": email, "member": f"serviceAccount:{email}"}


SERVICE = matching(r"[a-z0-9.-]+\.googleapis\.com", "a service such as container.googleapis.com")
GOOGLE: Mapping[str, Any] = {"name": None, "checks": {"service": SERVICE}}

KINDS = (
    Kind(
        ACCOUNT,
        "projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
        words("accountId description disabled displayName project"),
        defaults={"disabled": False},
        name="accountId",
        longest_name=30,
        name_form=r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
        assigned=_account,
    ),
    Kind(
        CUSTOM_ROLE,
        "projects/{project}/roles/{roleId}",
        words("description permissions project roleId stage title"),
        defaults={"stage": "GA"},
        name="roleId",
        longest_name=64,
        name_form=r"[a-zA-Z0-9_.]{3,64}",
        checks={"stage": one_of("ALPHA", "BETA", "GA", "DEPRECATED", "DISABLED", "EAP")},
        assigned=lambda world, inputs: {"name": "projects/{project}/roles/{roleId}".format(**inputs), "deleted": False},
    ),
    grant("gcp:serviceaccount/iAMMember:IAMMember", "serviceAccountId", _part_of("{name}")),
    grant("gcp:projects/iAMMember:IAMMember", "project", None),
    grant("gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember", "cryptoKeyId", _part_of("{name}")),
    grant("gcp:kms/cryptoKeyIAMBinding:CryptoKeyIAMBinding", "cryptoKeyId", _part_of("{name}")),
    grant("gcp:storage/bucketIAMMember:BucketIAMMember", "bucket", _part_of("{name}"), of="b/{bucket}"),
    grant(
        "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember",
        "repository",
        _part_of("projects/{project}/locations/{location}/repositories/{name}"),
        of="projects/{project}/locations/{location}/repositories/{repository}",
        more="location project",
        region="location",
    ),
    Kind(
        "gcp:projects/service:Service",
        "{project}/{service}",
        words("disableDependentServices disableOnDestroy project service"),
        defaults={"disableOnDestroy": False},
        **GOOGLE,
    ),
    Kind(
        "gcp:projects/serviceIdentity:ServiceIdentity",
        "projects/{project}/services/{service}",
        words("project service"),
        assigned=_service_identity,
        is_shared=True,
        **GOOGLE,
    ),
    Kind(
        "gcp:projects/iAMAuditConfig:IAMAuditConfig",
        "{project}/audit_config/{service}",
        words("auditLogConfigs project service"),
        name=None,
        assigned=lambda world, inputs: {"etag": ""},
        is_shared=True,
    ),
)
