"""IAM and KMS: roles, policies, OIDC providers and keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from localcloud.aws.api import (
    Aws,
    ResourceType,
    between,
    from_tag_list,
    matching,
    one_of,
    put_again,
    tagging,
    to_tag_list,
    words,
)
from localcloud.provider import Properties


def _text(document: Any) -> str:
    """A policy document as text, however IAM gives it back."""
    return json.dumps(document) if isinstance(document, Mapping) else unquote(str(document))


_tag_role = tagging("iam", "tag_role", "untag_role", lambda _, id: {"RoleName": id})


def _create_role(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "iam",
        "create_role",
        RoleName=inputs["name"],
        AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
        Description=inputs.get("description"),
        Path=inputs["path"],
        MaxSessionDuration=inputs["maxSessionDuration"],
        PermissionsBoundary=inputs.get("permissionsBoundary"),
        Tags=to_tag_list(inputs.get("tagsAll")),
    )
    return str(answer["Role"]["RoleName"])


def _read_role(aws: Aws, id: str) -> Properties | None:
    role = aws.find("iam", "get_role", "Role", RoleName=id)
    return role and {
        "arn": role["Arn"],
        "name": role["RoleName"],
        "uniqueId": role["RoleId"],
        "path": role["Path"],
        "assumeRolePolicy": _text(role["AssumeRolePolicyDocument"]),
        "description": role.get("Description") or None,
        "maxSessionDuration": role.get("MaxSessionDuration", 3600),
        "permissionsBoundary": (role.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn"),
        "createDate": str(role["CreateDate"]),
        "tagsAll": from_tag_list(role.get("Tags")),
    }


def _update_role(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old["assumeRolePolicy"] != new["assumeRolePolicy"]:
        aws.call("iam", "update_assume_role_policy", RoleName=id, PolicyDocument=new["assumeRolePolicy"])
    if old.get("permissionsBoundary") != (boundary := new.get("permissionsBoundary")):
        operation = "put_role_permissions_boundary" if boundary else "delete_role_permissions_boundary"
        aws.call("iam", operation, RoleName=id, PermissionsBoundary=boundary)
    if any(old.get(name) != new.get(name) for name in ("description", "maxSessionDuration")):
        description, seconds = new.get("description", ""), new["maxSessionDuration"]
        aws.call("iam", "update_role", RoleName=id, Description=description, MaxSessionDuration=seconds)


def _delete_role(aws: Aws, id: str, inputs: Properties) -> None:
    if inputs.get("forceDetachPolicies"):
        for policy in aws.find("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=id) or ():
            aws.gone("iam", "detach_role_policy", RoleName=id, PolicyArn=policy["PolicyArn"])
        for name in aws.find("iam", "list_role_policies", "PolicyNames", RoleName=id) or ():
            aws.gone("iam", "delete_role_policy", RoleName=id, PolicyName=name)
    aws.gone("iam", "delete_role", RoleName=id)


def _put_role_policy(aws: Aws, inputs: Properties) -> str:
    aws.call(
        "iam", "put_role_policy", RoleName=inputs["role"], PolicyName=inputs["name"], PolicyDocument=inputs["policy"]
    )
    return f"{inputs['role']}:{inputs['name']}"


def _read_role_policy(aws: Aws, id: str) -> Properties | None:
    role, _, name = id.partition(":")
    found = aws.find("iam", "get_role_policy", RoleName=role, PolicyName=name)
    return found and {"role": role, "name": name, "policy": _text(found["PolicyDocument"])}


def _delete_role_policy(aws: Aws, id: str, inputs: Properties) -> None:
    role, _, name = id.partition(":")
    aws.gone("iam", "delete_role_policy", RoleName=role, PolicyName=name)


def _create_policy(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "iam",
        "create_policy",
        PolicyName=inputs["name"],
        PolicyDocument=inputs["policy"],
        Path=inputs["path"],
        Description=inputs.get("description"),
        Tags=to_tag_list(inputs.get("tagsAll")),
    )
    return str(answer["Policy"]["Arn"])


def _read_policy(aws: Aws, id: str) -> Properties | None:
    policy = aws.find("iam", "get_policy", "Policy", PolicyArn=id)
    if policy is None:
        return None
    version = aws.call("iam", "get_policy_version", PolicyArn=id, VersionId=policy["DefaultVersionId"])
    return {
        "arn": id,
        "name": policy["PolicyName"],
        "path": policy["Path"],
        "description": policy.get("Description"),
        "policyId": policy["PolicyId"],
        "attachmentCount": policy["AttachmentCount"],
        "policy": _text(version["PolicyVersion"]["Document"]),
        "tagsAll": from_tag_list(policy.get("Tags")),
    }


def _update_policy(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old["policy"] == new["policy"]:
        return
    versions = aws.call("iam", "list_policy_versions", PolicyArn=id)["Versions"]
    for version in [each for each in versions if not each["IsDefaultVersion"]][3:]:
        aws.call("iam", "delete_policy_version", PolicyArn=id, VersionId=version["VersionId"])
    aws.call("iam", "create_policy_version", PolicyArn=id, PolicyDocument=new["policy"], SetAsDefault=True)


def _delete_policy(aws: Aws, id: str, inputs: Properties) -> None:
    for version in aws.find("iam", "list_policy_versions", "Versions", PolicyArn=id) or ():
        if not version["IsDefaultVersion"]:
            aws.gone("iam", "delete_policy_version", PolicyArn=id, VersionId=version["VersionId"])
    aws.gone("iam", "delete_policy", PolicyArn=id)


_tag_policy = tagging("iam", "tag_policy", "untag_policy", lambda _, id: {"PolicyArn": id})


def _attach(aws: Aws, inputs: Properties) -> str:
    aws.call("iam", "attach_role_policy", RoleName=inputs["role"], PolicyArn=inputs["policyArn"])
    return f"{inputs['role']}/{inputs['policyArn']}"


def _read_attached(aws: Aws, id: str) -> Properties | None:
    role, _, policy = id.partition("/")
    attached = aws.find("iam", "list_attached_role_policies", "AttachedPolicies", RoleName=role) or ()
    found = any(each["PolicyArn"] == policy for each in attached)
    return {"role": role, "policyArn": policy} if found else None


def _detach(aws: Aws, id: str, inputs: Properties) -> None:
    role, _, policy = id.partition("/")
    aws.gone("iam", "detach_role_policy", RoleName=role, PolicyArn=policy)


def _create_oidc(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "iam",
        "create_open_id_connect_provider",
        Url=inputs["url"],
        ClientIDList=inputs["clientIdLists"],
        ThumbprintList=inputs.get("thumbprintLists") or [],
        Tags=to_tag_list(inputs.get("tagsAll")),
    )
    return str(answer["OpenIDConnectProviderArn"])


def _read_oidc(aws: Aws, id: str) -> Properties | None:
    provider = aws.find("iam", "get_open_id_connect_provider", OpenIDConnectProviderArn=id)
    return provider and {
        "arn": id,
        "url": f"https://{provider['Url'].removeprefix('https://')}",
        "clientIdLists": provider["ClientIDList"],
        "thumbprintLists": provider["ThumbprintList"],
        "tagsAll": from_tag_list(provider.get("Tags")),
    }


def _update_oidc(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    before, after = old["clientIdLists"], new["clientIdLists"]
    for operation, ids in (
        ("add_client_id_to_open_id_connect_provider", [each for each in after if each not in before]),
        ("remove_client_id_from_open_id_connect_provider", [each for each in before if each not in after]),
    ):
        for each in ids:
            aws.call("iam", operation, OpenIDConnectProviderArn=id, ClientID=each)
    prints = new.get("thumbprintLists")
    if prints and old.get("thumbprintLists") != prints:
        operation = "update_open_id_connect_provider_thumbprint"
        aws.call("iam", operation, OpenIDConnectProviderArn=id, ThumbprintList=prints)


_tag_oidc = tagging(
    "iam",
    "tag_open_id_connect_provider",
    "untag_open_id_connect_provider",
    lambda _, id: {"OpenIDConnectProviderArn": id},
)


def _delete_oidc(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("iam", "delete_open_id_connect_provider", OpenIDConnectProviderArn=id)


def _create_key(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "kms",
        "create_key",
        Description=inputs.get("description"),
        Policy=inputs.get("policy"),
        KeyUsage=inputs["keyUsage"],
        KeySpec=inputs["customerMasterKeySpec"],
        MultiRegion=inputs.get("multiRegion"),
        Tags=to_tag_list(inputs.get("tagsAll"), "TagKey", "TagValue"),
    )
    id = aws.made(answer["KeyMetadata"]["KeyId"])
    if inputs["enableKeyRotation"]:
        aws.call("kms", "enable_key_rotation", KeyId=id)
    if not inputs["isEnabled"]:
        aws.call("kms", "disable_key", KeyId=id)
    return id


def _read_key(aws: Aws, id: str) -> Properties | None:
    key = aws.find("kms", "describe_key", "KeyMetadata", KeyId=id)
    if key is None or key["KeyState"] == "PendingDeletion":
        return None
    return {
        "arn": key["Arn"],
        "keyId": key["KeyId"],
        "description": key.get("Description") or None,
        "isEnabled": key["Enabled"],
        "keyUsage": key["KeyUsage"],
        "customerMasterKeySpec": key["KeySpec"],
        "multiRegion": key.get("MultiRegion", False),
        "enableKeyRotation": aws.call("kms", "get_key_rotation_status", KeyId=id)["KeyRotationEnabled"],
        "policy": aws.call("kms", "get_key_policy", KeyId=id, PolicyName="default")["Policy"],
        "tagsAll": from_tag_list(aws.call("kms", "list_resource_tags", KeyId=id)["Tags"], "TagKey", "TagValue"),
    }


def _update_key(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if new["isEnabled"] and not old["isEnabled"]:  # AWS changes nothing else of a disabled key
        aws.call("kms", "enable_key", KeyId=id)
    if old["enableKeyRotation"] != new["enableKeyRotation"]:
        aws.call("kms", "enable_key_rotation" if new["enableKeyRotation"] else "disable_key_rotation", KeyId=id)
    if old.get("policy") != new.get("policy") and new.get("policy"):
        aws.call("kms", "put_key_policy", KeyId=id, PolicyName="default", Policy=new["policy"])
    if old.get("description") != new.get("description"):
        aws.call("kms", "update_key_description", KeyId=id, Description=new.get("description") or "")
    if old["isEnabled"] and not new["isEnabled"]:
        aws.call("kms", "disable_key", KeyId=id)


def _delete_key(aws: Aws, id: str, inputs: Properties) -> None:
    if _read_key(aws, id) is not None:
        days = inputs.get("deletionWindowInDays") or 30
        aws.gone("kms", "schedule_key_deletion", KeyId=id, PendingWindowInDays=days)


_tag_key = tagging(
    "kms",
    "tag_resource",
    "untag_resource",
    lambda _, id: {"KeyId": id},
    lambda tags: to_tag_list(tags, "TagKey", "TagValue"),
)


def _create_alias(aws: Aws, inputs: Properties) -> str:
    aws.call("kms", "create_alias", AliasName=inputs["name"], TargetKeyId=inputs["targetKeyId"])
    return str(inputs["name"])


def _read_alias(aws: Aws, id: str) -> Properties | None:
    aliases = aws.call("kms", "list_aliases")["Aliases"]
    found = next((each for each in aliases if each["AliasName"] == id), None)
    target = found and found.get("TargetKeyId")
    return found and {
        "arn": found["AliasArn"],
        "name": id,
        "targetKeyId": target,
        "targetKeyArn": aws.arn("kms", f"key/{target}"),
    }


def _update_alias(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    aws.call("kms", "update_alias", AliasName=id, TargetKeyId=new["targetKeyId"])


def _delete_alias(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("kms", "delete_alias", AliasName=id)


def _same_key(found: Any, declared: Any) -> bool:
    """An alias names its key by id; it may be declared by ARN."""
    return bool(found == str(declared).rpartition("/")[2])


PATH = matching(r"/([!-~]+/)?", "a path that begins and ends with /")
NAME = matching(r"[\w+=,.@-]{1,128}", "1 to 128 letters, digits and any of _+=,.@-")


def _create_profile(aws: Aws, inputs: Properties) -> str:
    tags = to_tag_list(inputs.get("tagsAll"))
    aws.call("iam", "create_instance_profile", InstanceProfileName=inputs["name"], Path=inputs["path"], Tags=tags)
    _give_role(aws, inputs["name"], inputs.get("role"))
    return str(inputs["name"])


def _give_role(aws: Aws, profile: str, role: str | None) -> None:
    if role:
        aws.call("iam", "add_role_to_instance_profile", InstanceProfileName=profile, RoleName=role)


def _take_role(aws: Aws, profile: str, role: str | None) -> None:
    if role:
        aws.gone("iam", "remove_role_from_instance_profile", InstanceProfileName=profile, RoleName=role)


def _read_profile(aws: Aws, id: str) -> Properties | None:
    found = aws.find("iam", "get_instance_profile", "InstanceProfile", InstanceProfileName=id)
    return found and {
        "arn": found["Arn"],
        "name": id,
        "path": found["Path"],
        "role": next((each["RoleName"] for each in found["Roles"]), None),
        "uniqueId": found["InstanceProfileId"],
        "createDate": str(found["CreateDate"]),
        "tagsAll": from_tag_list(found.get("Tags")),
    }


def _update_profile(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old.get("role") != new.get("role"):
        _take_role(aws, id, old.get("role"))
        _give_role(aws, id, new.get("role"))


_tag_profile = tagging(
    "iam", "tag_instance_profile", "untag_instance_profile", lambda _, id: {"InstanceProfileName": id}
)


def _delete_profile(aws: Aws, id: str, inputs: Properties) -> None:
    _take_role(aws, id, inputs.get("role"))
    aws.gone("iam", "delete_instance_profile", InstanceProfileName=id)


TYPES = (
    ResourceType(
        token="aws:iam/instanceProfile:InstanceProfile",
        carried=words("name path role tags"),
        replace_on=words("name path"),
        defaults={"path": "/"},
        named_by="name",
        create=_create_profile,
        read=_read_profile,
        update=_update_profile,
        delete=_delete_profile,
        tag=_tag_profile,
        checks={"name": NAME, "path": PATH},
    ),
    ResourceType(
        token="aws:iam/role:Role",
        carried=words(
            "name path assumeRolePolicy description maxSessionDuration permissionsBoundary forceDetachPolicies tags"
        ),
        unread=words("forceDetachPolicies"),
        documents=words("assumeRolePolicy"),
        replace_on=words("name path"),
        defaults={"path": "/", "maxSessionDuration": 3600, "forceDetachPolicies": False},
        named_by="name",
        create=_create_role,
        read=_read_role,
        update=_update_role,
        delete=_delete_role,
        tag=_tag_role,
        checks={
            "name": matching(r"[\w+=,.@-]{1,64}", "1 to 64 letters, digits and any of _+=,.@-"),
            "maxSessionDuration": between(3600, 43200, "seconds"),
            "path": PATH,
        },
    ),
    ResourceType(
        token="aws:iam/rolePolicy:RolePolicy",
        carried=words("name role policy"),
        replace_on=words("name role"),
        documents=words("policy"),
        named_by="name",
        create=_put_role_policy,
        read=_read_role_policy,
        update=put_again(_put_role_policy),
        delete=_delete_role_policy,
        checks={"name": NAME},
    ),
    ResourceType(
        token="aws:iam/policy:Policy",
        carried=words("name path description policy tags"),
        replace_on=words("name path description"),
        documents=words("policy"),
        defaults={"path": "/"},
        named_by="name",
        create=_create_policy,
        read=_read_policy,
        update=_update_policy,
        delete=_delete_policy,
        tag=_tag_policy,
        changing=words("attachmentCount"),
        checks={"name": NAME, "path": PATH},
    ),
    ResourceType(
        token="aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        carried=words("role policyArn"),
        replace_on=words("role policyArn"),
        create=_attach,
        read=_read_attached,
        delete=_detach,
    ),
    ResourceType(
        token="aws:iam/openIdConnectProvider:OpenIdConnectProvider",
        carried=words("url clientIdLists thumbprintLists tags"),
        replace_on=words("url"),
        kept=words("thumbprintLists"),
        unordered=words("clientIdLists"),
        checks={"url": matching(r"https://[^/?#]+(/[^?#]*)?", "an address that begins with https://")},
        create=_create_oidc,
        read=_read_oidc,
        update=_update_oidc,
        delete=_delete_oidc,
        tag=_tag_oidc,
    ),
    ResourceType(
        token="aws:kms/key:Key",
        carried=words(
            "description policy enableKeyRotation deletionWindowInDays isEnabled keyUsage customerMasterKeySpec "
            "multiRegion tags"
        ),
        unread=words("deletionWindowInDays"),
        replace_on=words("keyUsage customerMasterKeySpec multiRegion"),
        kept=words("description policy multiRegion"),
        documents=words("policy"),
        defaults={
            "enableKeyRotation": False,
            "isEnabled": True,
            "keyUsage": "ENCRYPT_DECRYPT",
            "customerMasterKeySpec": "SYMMETRIC_DEFAULT",
        },
        create=_create_key,
        read=_read_key,
        update=_update_key,
        delete=_delete_key,
        tag=_tag_key,
        checks={
            "deletionWindowInDays": between(7, 30, "days"),
            "keyUsage": one_of("ENCRYPT_DECRYPT", "SIGN_VERIFY", "GENERATE_VERIFY_MAC", "KEY_AGREEMENT"),
        },
    ),
    ResourceType(
        token="aws:kms/alias:Alias",
        carried=words("name targetKeyId"),
        replace_on=words("name"),
        named_by="name",
        name_form="alias/{}".format,
        alike={"targetKeyId": _same_key},
        changing=words("targetKeyArn"),
        checks={"name": matching(r"alias/(?!aws/)[\w/-]{1,250}", "alias/ and a name, and not one of alias/aws/")},
        create=_create_alias,
        read=_read_alias,
        update=_update_alias,
        delete=_delete_alias,
    ),
)
