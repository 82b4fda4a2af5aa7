"""S3, ECR and CloudWatch Logs: buckets with their settings, repositories, log groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from localcloud.aws.api import (
    ACCOUNT_ID,
    Aws,
    ResourceType,
    from_tag_list,
    json_text,
    matching,
    one_of,
    put_again,
    to_tag_list,
    words,
)
from localcloud.provider import Properties, ProviderError


def _create_bucket(aws: Aws, inputs: Properties) -> str:
    name = inputs["bucket"]
    elsewhere = None if aws.region == "us-east-1" else {"LocationConstraint": aws.region}
    is_ours = aws.creation is not None and aws.creation.is_resumed
    if not is_ours and aws.find("s3", "head_bucket", Bucket=name) is not None:
        raise ProviderError(f"bucket {name} exists already; choose another name or import it")
    aws.call("s3", "create_bucket", Bucket=name, CreateBucketConfiguration=elsewhere)
    aws.made(name)
    _tag_bucket(aws, name, inputs.get("tagsAll") or {}, [])
    return str(name)


def _tag_bucket(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    """S3 knows only whole sets of tags."""
    present = from_tag_list(aws.find("s3", "get_bucket_tagging", "TagSet", Bucket=id))
    wanted = {key: value for key, value in (present | dict(tags)).items() if key not in removed}
    if wanted:
        aws.call("s3", "put_bucket_tagging", Bucket=id, Tagging={"TagSet": to_tag_list(wanted)})
    elif present:
        aws.call("s3", "delete_bucket_tagging", Bucket=id)


def _read_bucket(aws: Aws, id: str) -> Properties | None:
    if aws.find("s3", "head_bucket", Bucket=id) is None:
        return None
    region = aws.call("s3", "get_bucket_location", Bucket=id).get("LocationConstraint") or "us-east-1"
    return {
        "arn": f"arn:aws:s3:::{id}",
        "bucket": id,
        "bucketRegion": region,
        "region": region,
        "bucketDomainName": f"{id}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{id}.s3.{region}.amazonaws.com",
        "hostedZoneId": None,
        "tagsAll": from_tag_list(aws.find("s3", "get_bucket_tagging", "TagSet", Bucket=id)),
    }


def _delete_bucket(aws: Aws, id: str, inputs: Properties) -> None:
    if aws.find("s3", "head_bucket", Bucket=id) is None:
        return
    versions = aws.client("s3").get_paginator("list_object_versions").paginate(Bucket=id)
    objects = [
        {"Key": each["Key"], "VersionId": each["VersionId"]}
        for page in versions
        for each in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
    ]
    if objects and not inputs.get("forceDestroy"):
        raise ProviderError(
            f"bucket {id} is not empty ({len(objects)} object versions); empty it, or set forceDestroy and update first"
        )
    for start in range(0, len(objects), 1000):
        aws.call("s3", "delete_objects", Bucket=id, Delete={"Objects": objects[start : start + 1000], "Quiet": True})
    aws.gone("s3", "delete_bucket", Bucket=id)


def _put_versioning(aws: Aws, inputs: Properties) -> str:
    status = inputs["versioningConfiguration"]["status"]
    if status != "Disabled":
        aws.call("s3", "put_bucket_versioning", Bucket=inputs["bucket"], VersioningConfiguration={"Status": status})
    return str(inputs["bucket"])


def _read_versioning(aws: Aws, id: str) -> Properties | None:
    found = aws.find("s3", "get_bucket_versioning", Bucket=id)
    return found and {"bucket": id, "versioningConfiguration": {"status": found.get("Status", "Disabled")}}


def _suspend_versioning(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("s3", "put_bucket_versioning", Bucket=id, VersioningConfiguration={"Status": "Suspended"})


def _put_encryption(aws: Aws, inputs: Properties) -> str:
    rules = []
    for rule in inputs["rules"]:
        default = rule.get("applyServerSideEncryptionByDefault") or {}
        applied = {"SSEAlgorithm": default.get("sseAlgorithm", "AES256")}
        if key := default.get("kmsMasterKeyId"):
            applied["KMSMasterKeyID"] = key
        enabled = bool(rule.get("bucketKeyEnabled"))
        rules.append({"ApplyServerSideEncryptionByDefault": applied, "BucketKeyEnabled": enabled})
    configuration = {"Rules": rules}
    aws.call("s3", "put_bucket_encryption", Bucket=inputs["bucket"], ServerSideEncryptionConfiguration=configuration)
    return str(inputs["bucket"])


def _read_encryption(aws: Aws, id: str) -> Properties | None:
    found = aws.find("s3", "get_bucket_encryption", "ServerSideEncryptionConfiguration", "Rules", Bucket=id)
    if found is None:
        return None
    rules = []
    for rule in found:
        default = rule["ApplyServerSideEncryptionByDefault"]
        applied = {"sseAlgorithm": default["SSEAlgorithm"], "kmsMasterKeyId": default.get("KMSMasterKeyID")}
        rules.append(
            {
                "applyServerSideEncryptionByDefault": {key: value for key, value in applied.items() if value},
                "bucketKeyEnabled": rule.get("BucketKeyEnabled", False),
            }
        )
    return {"bucket": id, "rules": rules}


def _delete_encryption(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("s3", "delete_bucket_encryption", Bucket=id)


BLOCKS = {
    "blockPublicAcls": "BlockPublicAcls",
    "blockPublicPolicy": "BlockPublicPolicy",
    "ignorePublicAcls": "IgnorePublicAcls",
    "restrictPublicBuckets": "RestrictPublicBuckets",
}


def _put_block(aws: Aws, inputs: Properties) -> str:
    configuration = {api: bool(inputs.get(name)) for name, api in BLOCKS.items()}
    aws.call("s3", "put_public_access_block", Bucket=inputs["bucket"], PublicAccessBlockConfiguration=configuration)
    return str(inputs["bucket"])


def _read_block(aws: Aws, id: str) -> Properties | None:
    found = aws.find("s3", "get_public_access_block", "PublicAccessBlockConfiguration", Bucket=id)
    return found and {"bucket": id, **{name: found[api] for name, api in BLOCKS.items()}}


def _delete_block(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("s3", "delete_public_access_block", Bucket=id)


def _put_policy(aws: Aws, inputs: Properties) -> str:
    aws.call("s3", "put_bucket_policy", Bucket=inputs["bucket"], Policy=inputs["policy"])
    return str(inputs["bucket"])


def _read_policy(aws: Aws, id: str) -> Properties | None:
    found = aws.find("s3", "get_bucket_policy", "Policy", Bucket=id)
    return found and {"bucket": id, "policy": found}


def _delete_policy(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("s3", "delete_bucket_policy", Bucket=id)


def _put_ownership(aws: Aws, inputs: Properties) -> str:
    rules = {"Rules": [{"ObjectOwnership": inputs["rule"]["objectOwnership"]}]}
    aws.call("s3", "put_bucket_ownership_controls", Bucket=inputs["bucket"], OwnershipControls=rules)
    return str(inputs["bucket"])


def _read_ownership(aws: Aws, id: str) -> Properties | None:
    found = aws.find("s3", "get_bucket_ownership_controls", "OwnershipControls", "Rules", 0, Bucket=id)
    return found and {"bucket": id, "rule": {"objectOwnership": found["ObjectOwnership"]}}


def _delete_ownership(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("s3", "delete_bucket_ownership_controls", Bucket=id)


RULE_NAMES = {"id": "ID", "and": "And"}


def _rule_to_api(value: Any, name: str = "") -> Any:
    """A lifecycle rule, or a part of it, by S3's names; tags of an `and` are a list there."""
    if name == "tags":
        return to_tag_list(value)
    if isinstance(value, Mapping):
        return {
            RULE_NAMES.get(key) or key[0].upper() + key[1:]: _rule_to_api(part, key)
            for key, part in value.items()
            if part is not None
        }
    return [_rule_to_api(each) for each in value] if isinstance(value, list) else value


def _rule_from_api(value: Any, name: str = "") -> Any:
    """The other way round."""
    if name == "Tags":
        return from_tag_list(value)
    if isinstance(value, Mapping):
        names = {api: ours for ours, api in RULE_NAMES.items()}
        return {names.get(key) or key[0].lower() + key[1:]: _rule_from_api(part, key) for key, part in value.items()}
    if isinstance(value, list):
        return [_rule_from_api(each) for each in value]
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _lifecycle(value: list[Mapping[str, Any]]) -> str | None:
    """Why rules are wrong."""
    for rule in value:
        if rule.get("status") not in ("Enabled", "Disabled"):
            return f"status {rule.get('status')}: expected Enabled or Disabled"
        if len(rule.get("filter") or {}) > 1:
            return f"filter {sorted(rule['filter'])}: expected one condition; several go into `and`"
        if not rule.keys() & ACTIONS:
            return f"rule {rule.get('id')}: expected at least one of {', '.join(sorted(ACTIONS))}"
    return None


ACTIONS = words(
    "expiration transitions noncurrentVersionExpiration noncurrentVersionTransitions abortIncompleteMultipartUpload"
)


def _put_lifecycle(aws: Aws, inputs: Properties) -> str:
    rules = {"Rules": [{"Filter": {"Prefix": ""}} | _rule_to_api(rule) for rule in inputs["rules"]]}
    aws.call("s3", "put_bucket_lifecycle_configuration", Bucket=inputs["bucket"], LifecycleConfiguration=rules)
    return str(inputs["bucket"])


def _read_lifecycle(aws: Aws, id: str) -> Properties | None:
    found = aws.find("s3", "get_bucket_lifecycle_configuration", "Rules", Bucket=id)
    return found and {"bucket": id, "rules": [_rule_from_api(rule) for rule in found]}


def _delete_lifecycle(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("s3", "delete_bucket_lifecycle", Bucket=id)


OBJECT_FIELDS = {
    "cacheControl": "CacheControl",
    "contentDisposition": "ContentDisposition",
    "contentEncoding": "ContentEncoding",
    "contentLanguage": "ContentLanguage",
    "contentType": "ContentType",
    "metadata": "Metadata",
    "storageClass": "StorageClass",
}


def _put_object(aws: Aws, inputs: Properties) -> str:
    aws.call(
        "s3",
        "put_object",
        Bucket=inputs["bucket"],
        Key=inputs["key"],
        Body=_contents(inputs),
        Tagging=urlencode(inputs.get("tagsAll") or {}) or None,
        **{api: inputs.get(name) for name, api in OBJECT_FIELDS.items()},
    )
    return f"{inputs['bucket']}/{inputs['key']}"


def _contents(inputs: Properties) -> bytes:
    """From the text, or from a file or text asset."""
    if (asset := inputs.get("source")) is None:
        return str(inputs.get("content", "")).encode()
    if asset.get("text") is not None:
        return str(asset["text"]).encode()
    if not asset.get("path"):
        raise ProviderError("source: the local cloud takes file and text assets only")
    return Path(asset["path"]).read_bytes()


def _tag_object(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    bucket, _, key = id.partition("/")
    aws.call("s3", "put_object_tagging", Bucket=bucket, Key=key, Tagging={"TagSet": to_tag_list(tags)})


def _read_object(aws: Aws, id: str) -> Properties | None:
    bucket, _, key = id.partition("/")
    found = aws.find("s3", "get_object", Bucket=bucket, Key=key)
    return found and {
        "arn": f"arn:aws:s3:::{id}",
        "bucket": bucket,
        "key": key,
        "content": _text_of(found["Body"].read()),
        **{name: found.get(api) for name, api in OBJECT_FIELDS.items()},
        "storageClass": found.get("StorageClass", "STANDARD"),
        "tagsAll": from_tag_list(aws.call("s3", "get_object_tagging", Bucket=bucket, Key=key)["TagSet"]),
        "etag": found["ETag"].strip('"'),
        "versionId": found.get("VersionId"),
    }


def _text_of(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _delete_object(aws: Aws, id: str, inputs: Properties) -> None:
    """With all its versions, as the official provider does."""
    bucket, _, key = id.partition("/")
    if aws.find("s3", "head_bucket", Bucket=bucket) is None:
        return
    found = aws.call("s3", "list_object_versions", Bucket=bucket, Prefix=key)
    for each in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())):
        if each["Key"] == key:
            aws.gone("s3", "delete_object", Bucket=bucket, Key=key, VersionId=each["VersionId"])


def _one_source(inputs: Properties) -> Iterator[tuple[str, str]]:
    if inputs.get("content") is not None and inputs.get("source") is not None:
        yield "source", "conflicts with content"


def _setting(kind: str, carried: str, put: Any, read: Any, delete: Any, **more: Any) -> ResourceType:
    """A setting of a bucket: it is put as a whole, so an update is a put, and another bucket is a replacement."""
    return ResourceType(
        token=f"aws:s3/{kind[0].lower()}{kind[1:]}:{kind}",
        carried=words(f"bucket {carried}"),
        replace_on=words("bucket"),
        create=put,
        read=read,
        update=put_again(put),
        delete=delete,
        **more,
    )


RETENTIONS = (
    0,
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)
BUCKET_NAME = matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "3 to 63 lower-case letters, digits, dots and hyphens")


def _retention(value: Any) -> str | None:
    return None if value in RETENTIONS else f"expected one of {', '.join(map(str, RETENTIONS))} days"


def _algorithms(value: list[Mapping[str, Any]]) -> str | None:
    for rule in value:
        algorithm = (rule.get("applyServerSideEncryptionByDefault") or {}).get("sseAlgorithm", "AES256")
        if algorithm not in ("AES256", "aws:kms", "aws:kms:dsse"):
            return f"sseAlgorithm {algorithm}: expected AES256, aws:kms or aws:kms:dsse"
    return None


def _field_of(name: str, *allowed: str) -> Callable[[Any], str | None]:
    """A check for an enumeration in a field of an object."""
    check = one_of(*allowed)
    return lambda value: (reason := check(value.get(name))) and f"{name} {value.get(name)}: {reason}"


def _create_repository(aws: Aws, inputs: Properties) -> str:
    encryption = (inputs.get("encryptionConfigurations") or [{}])[0]
    configuration = {"encryptionType": encryption.get("encryptionType", "AES256")}
    if encryption.get("kmsKey"):
        configuration["kmsKey"] = encryption["kmsKey"]
    answer = aws.call(
        "ecr",
        "create_repository",
        repositoryName=inputs["name"],
        imageTagMutability=inputs["imageTagMutability"],
        imageScanningConfiguration=inputs.get("imageScanningConfiguration"),
        encryptionConfiguration=configuration,
        tags=to_tag_list(inputs.get("tagsAll")),
    )
    return str(answer["repository"]["repositoryName"])


def _read_repository(aws: Aws, id: str) -> Properties | None:
    found = aws.find("ecr", "describe_repositories", "repositories", 0, repositoryNames=[id])
    return found and {
        "arn": found["repositoryArn"],
        "name": id,
        "registryId": found["registryId"],
        "repositoryUrl": found["repositoryUri"],
        "imageTagMutability": found["imageTagMutability"],
        "imageScanningConfiguration": found["imageScanningConfiguration"],
        "encryptionConfigurations": [found["encryptionConfiguration"]],
        "tagsAll": from_tag_list(aws.call("ecr", "list_tags_for_resource", resourceArn=found["repositoryArn"])["tags"]),
    }


def _update_repository(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old["imageTagMutability"] != new["imageTagMutability"]:
        mutability = new["imageTagMutability"]
        aws.call("ecr", "put_image_tag_mutability", repositoryName=id, imageTagMutability=mutability)
    scanning = new.get("imageScanningConfiguration") or {"scanOnPush": False}
    if old.get("imageScanningConfiguration") != new.get("imageScanningConfiguration"):
        aws.call("ecr", "put_image_scanning_configuration", repositoryName=id, imageScanningConfiguration=scanning)


def _delete_repository(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("ecr", "delete_repository", repositoryName=id, force=bool(inputs.get("forceDelete")))


def _tag_repository(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    arn = aws.arn("ecr", f"repository/{id}")
    if tags:
        aws.call("ecr", "tag_resource", resourceArn=arn, tags=to_tag_list(tags))
    if removed:
        aws.call("ecr", "untag_resource", resourceArn=arn, tagKeys=removed)


def _put_lifecycle_policy(aws: Aws, inputs: Properties) -> str:
    aws.call("ecr", "put_lifecycle_policy", repositoryName=inputs["repository"], lifecyclePolicyText=inputs["policy"])
    return str(inputs["repository"])


def _read_lifecycle_policy(aws: Aws, id: str) -> Properties | None:
    found = aws.find("ecr", "get_lifecycle_policy", "lifecyclePolicyText", repositoryName=id)
    return found and {"repository": id, "policy": found, "registryId": ACCOUNT_ID}


def _delete_lifecycle_policy(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("ecr", "delete_lifecycle_policy", repositoryName=id)


def _create_log_group(aws: Aws, inputs: Properties) -> str:
    name = inputs["name"]
    aws.call(
        "logs",
        "create_log_group",
        logGroupName=name,
        kmsKeyId=inputs.get("kmsKeyId"),
        tags=inputs.get("tagsAll") or None,
    )
    aws.made(name)
    _retain(aws, name, {}, inputs)
    return str(name)


def _update_log_group(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    _retain(aws, id, old, new)
    if old.get("kmsKeyId") != (key := new.get("kmsKeyId")):
        aws.call("logs", "associate_kms_key" if key else "disassociate_kms_key", logGroupName=id, kmsKeyId=key)


def _retain(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    before, after = old.get("retentionInDays") or 0, new.get("retentionInDays") or 0
    if after and before != after:
        aws.call("logs", "put_retention_policy", logGroupName=id, retentionInDays=after)
    elif before and not after:
        aws.call("logs", "delete_retention_policy", logGroupName=id)


def _read_log_group(aws: Aws, id: str) -> Properties | None:
    groups = aws.call("logs", "describe_log_groups", logGroupNamePrefix=id)["logGroups"]
    found = next((each for each in groups if each["logGroupName"] == id), None)
    if found is None:
        return None
    arn = found["arn"].removesuffix(":*")
    return {
        "arn": arn,
        "name": id,
        "retentionInDays": found.get("retentionInDays", 0),
        "kmsKeyId": found.get("kmsKeyId"),
        "tagsAll": aws.call("logs", "list_tags_log_group", logGroupName=id)["tags"],
    }


def _delete_log_group(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("logs", "delete_log_group", logGroupName=id)


def _tag_log_group(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    if tags:
        aws.call("logs", "tag_log_group", logGroupName=id, tags=dict(tags))
    if removed:
        aws.call("logs", "untag_log_group", logGroupName=id, tags=removed)


def _document(value: Any) -> str | None:
    wrong = json_text(value)
    if wrong is None and "rules" not in json.loads(value):
        return "expected a document with rules"
    return wrong


TYPES = (
    ResourceType(
        token="aws:s3/bucket:Bucket",
        carried=words("bucket forceDestroy tags"),
        unread=words("forceDestroy"),
        replace_on=words("bucket"),
        defaults={"forceDestroy": False},
        named_by="bucket",
        name_form=str.lower,
        create=_create_bucket,
        read=_read_bucket,
        delete=_delete_bucket,
        tag=_tag_bucket,
        checks={"bucket": BUCKET_NAME},
    ),
    _setting(
        "BucketVersioning",
        "versioningConfiguration",
        _put_versioning,
        _read_versioning,
        _suspend_versioning,
        refused=words("versioningConfiguration.mfaDelete"),
        checks={"versioningConfiguration": _field_of("status", "Enabled", "Suspended", "Disabled")},
    ),
    _setting(
        "BucketServerSideEncryptionConfiguration",
        "rules",
        _put_encryption,
        _read_encryption,
        _delete_encryption,
        refused=words("rules.blockedEncryptionTypes"),
        checks={"rules": _algorithms},
    ),
    _setting("BucketPublicAccessBlock", " ".join(BLOCKS), _put_block, _read_block, _delete_block),
    _setting("BucketPolicy", "policy", _put_policy, _read_policy, _delete_policy, documents=words("policy")),
    _setting(
        "BucketOwnershipControls",
        "rule",
        _put_ownership,
        _read_ownership,
        _delete_ownership,
        checks={"rule": _field_of("objectOwnership", "BucketOwnerPreferred", "ObjectWriter", "BucketOwnerEnforced")},
    ),
    _setting(
        "BucketLifecycleConfiguration",
        "rules",
        _put_lifecycle,
        _read_lifecycle,
        _delete_lifecycle,
        needs=words("rules"),
        refused=words("rules.prefix")
        | {f"rules.filter.{place}objectSize{end}" for place in ("", "and.") for end in ("GreaterThan", "LessThan")},
        kept=words("rules.filter"),
        checks={"rules": _lifecycle},
    ),
    ResourceType(
        token="aws:s3/bucketObjectv2:BucketObjectv2",
        carried=words("bucket key content source tags") | OBJECT_FIELDS.keys(),
        unread=words("source"),
        replace_on=words("bucket key"),
        kept=words("contentType storageClass content"),
        changing=words("etag versionId content"),
        needs=words("key"),
        agree=_one_source,
        tag=_tag_object,
        create=_put_object,
        read=_read_object,
        update=put_again(_put_object),
        delete=_delete_object,
    ),
    ResourceType(
        token="aws:ecr/repository:Repository",
        carried=words("name imageTagMutability imageScanningConfiguration encryptionConfigurations forceDelete tags"),
        unread=words("forceDelete"),
        replace_on=words("name encryptionConfigurations"),
        kept=words("imageScanningConfiguration encryptionConfigurations"),
        defaults={"imageTagMutability": "MUTABLE", "forceDelete": False},
        named_by="name",
        name_form=str.lower,
        create=_create_repository,
        read=_read_repository,
        update=_update_repository,
        delete=_delete_repository,
        tag=_tag_repository,
        checks={
            "imageTagMutability": one_of("MUTABLE", "IMMUTABLE"),
            "name": matching(r"[a-z0-9]+([._/-][a-z0-9]+)*", "lower-case letters and digits, with . _ - and / between"),
        },
    ),
    ResourceType(
        token="aws:ecr/lifecyclePolicy:LifecyclePolicy",
        carried=words("repository policy"),
        replace_on=words("repository policy"),
        documents=words("policy"),
        delete_before_replace=True,
        create=_put_lifecycle_policy,
        read=_read_lifecycle_policy,
        delete=_delete_lifecycle_policy,
        checks={"policy": _document},
    ),
    ResourceType(
        token="aws:cloudwatch/logGroup:LogGroup",
        carried=words("name retentionInDays kmsKeyId tags"),
        replace_on=words("name"),
        defaults={"retentionInDays": 0},
        named_by="name",
        create=_create_log_group,
        read=_read_log_group,
        update=_update_log_group,
        delete=_delete_log_group,
        tag=_tag_log_group,
        checks={"retentionInDays": _retention},
    ),
)
