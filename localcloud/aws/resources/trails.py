"""CloudTrail: who did what with the data of a stack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from localcloud.aws.api import Aws, ResourceType, from_tag_list, matching, to_tag_list, words
from localcloud.provider import Properties

SETTINGS: dict[str, str] = {
    "s3BucketName": "S3BucketName",
    "s3KeyPrefix": "S3KeyPrefix",
    "kmsKeyId": "KmsKeyId",
    "enableLogFileValidation": "EnableLogFileValidation",
    "includeGlobalServiceEvents": "IncludeGlobalServiceEvents",
    "isMultiRegionTrail": "IsMultiRegionTrail",
}
READ_AS: Mapping[str, str] = SETTINGS | {"enableLogFileValidation": "LogFileValidationEnabled"}
OPERATORS: Mapping[str, str] = {
    "equals": "Equals",
    "startsWiths": "StartsWith",
    "endsWiths": "EndsWith",
    "notEquals": "NotEquals",
    "notStartsWiths": "NotStartsWith",
    "notEndsWiths": "NotEndsWith",
}


def _create(aws: Aws, inputs: Properties) -> str:
    given = {api: inputs.get(name) for name, api in SETTINGS.items()}
    tags = to_tag_list(inputs.get("tagsAll"))
    arn = str(aws.call("cloudtrail", "create_trail", Name=inputs["name"], TagsList=tags, **given)["TrailARN"])
    aws.made(arn)
    _select(aws, arn, inputs)
    _log(aws, arn, inputs)
    return arn


def _select(aws: Aws, arn: str, inputs: Properties) -> None:
    if selectors := inputs.get("advancedEventSelectors"):
        asked = [_selector(each) for each in selectors]
        aws.call("cloudtrail", "put_event_selectors", TrailName=arn, AdvancedEventSelectors=asked)


def _selector(declared: Mapping[str, Any]) -> dict[str, Any]:
    fields = [
        {"Field": each["field"], **{api: each[name] for name, api in OPERATORS.items() if each.get(name)}}
        for each in declared["fieldSelectors"]
    ]
    return {"Name": declared.get("name") or "", "FieldSelectors": fields}


def _log(aws: Aws, arn: str, inputs: Properties) -> None:
    aws.call("cloudtrail", "start_logging" if inputs.get("enableLogging") else "stop_logging", Name=arn)


def _read(aws: Aws, id: str) -> Properties | None:
    found = aws.find("cloudtrail", "get_trail", "Trail", Name=id)
    if found is None:
        return None
    selected = aws.call("cloudtrail", "get_event_selectors", TrailName=id).get("AdvancedEventSelectors")
    tagged = aws.call("cloudtrail", "list_tags", ResourceIdList=[id])["ResourceTagList"]
    return {
        "arn": id,
        "name": found["Name"],
        "homeRegion": aws.region,
        **{name: found.get(api) or None for name, api in READ_AS.items() if name not in FLAGS},
        **{name: bool(found.get(READ_AS[name])) for name in FLAGS},
        "enableLogging": aws.call("cloudtrail", "get_trail_status", Name=id)["IsLogging"],
        "advancedEventSelectors": [*_declared(selected or ())] or None,
        "tagsAll": from_tag_list(tagged[0]["TagsList"] if tagged else ()),
    }


FLAGS = words("enableLogFileValidation includeGlobalServiceEvents isMultiRegionTrail")


def _declared(selectors: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for each in selectors:
        fields = [
            {"field": one["Field"], **{name: one[api] for name, api in OPERATORS.items() if one.get(api)}}
            for one in each["FieldSelectors"]
        ]
        yield {"fieldSelectors": fields} | ({"name": each["Name"]} if each.get("Name") else {})


def _update(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if any(old.get(name) != new.get(name) for name in SETTINGS):
        given = {api: new.get(name) for name, api in SETTINGS.items()}
        cleared = {SETTINGS[name]: "" for name in ("s3KeyPrefix", "kmsKeyId") if old.get(name) and not new.get(name)}
        aws.call("cloudtrail", "update_trail", Name=id, **(given | cleared))
    if old.get("advancedEventSelectors") != new.get("advancedEventSelectors"):
        _select(aws, id, new)
    if old.get("enableLogging") != new.get("enableLogging"):
        _log(aws, id, new)


def _tag(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    if tags:
        aws.call("cloudtrail", "add_tags", ResourceId=id, TagsList=to_tag_list(tags))
    if removed:
        aws.call("cloudtrail", "remove_tags", ResourceId=id, TagsList=[{"Key": key} for key in removed])


def _delete(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("cloudtrail", "delete_trail", Name=id.rpartition("/")[2])


TYPES = (
    ResourceType(
        token="aws:cloudtrail/trail:Trail",
        carried=words("name enableLogging advancedEventSelectors tags") | SETTINGS.keys(),
        replace_on=words("name"),
        unordered=words("advancedEventSelectors.fieldSelectors"),
        needs=words("s3BucketName"),
        defaults={
            "enableLogging": True,
            "enableLogFileValidation": False,
            "includeGlobalServiceEvents": True,
            "isMultiRegionTrail": False,
        },
        named_by="name",
        create=_create,
        read=_read,
        update=_update,
        delete=_delete,
        tag=_tag,
        checks={"name": matching(r"[A-Za-z0-9][\w.-]{1,126}[A-Za-z0-9]", "3 to 128 letters, digits, and any of _ . -")},
    ),
)
