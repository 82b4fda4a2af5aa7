"""What stands beside a platform: queues, topics, parameters, alarms and tables.

The smallest examples of a declaration: `aws:sns/topic:Topic` and `aws:ssm/parameter:Parameter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from localcloud.aws.api import (
    ACCOUNT_ID,
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
from localcloud.values import UNKNOWN, has_unknown

QUEUE_ATTRIBUTES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "delaySeconds": ("DelaySeconds", int),
    "fifoQueue": ("FifoQueue", lambda text: text == "true"),
    "kmsMasterKeyId": ("KmsMasterKeyId", str),
    "maxMessageSize": ("MaximumMessageSize", int),
    "messageRetentionSeconds": ("MessageRetentionPeriod", int),
    "policy": ("Policy", str),
    "receiveWaitTimeSeconds": ("ReceiveMessageWaitTimeSeconds", int),
    "redrivePolicy": ("RedrivePolicy", str),
    "visibilityTimeoutSeconds": ("VisibilityTimeout", int),
}


def _queue_attributes(inputs: Properties) -> dict[str, str]:
    """As text; an attribute that is false is left out, as a standard queue refuses to be told that it is no FIFO."""
    given = {api: inputs.get(name) for name, (api, _) in QUEUE_ATTRIBUTES.items()}
    return {api: str(value).replace("True", "true") for api, value in given.items() if value not in (None, False)}


def _create_queue(aws: Aws, inputs: Properties) -> str:
    attributes, tags = _queue_attributes(inputs), inputs.get("tagsAll") or None
    aws.call("sqs", "create_queue", QueueName=inputs["name"], Attributes=attributes, tags=tags)
    return f"https://sqs.{aws.region}.amazonaws.com/{ACCOUNT_ID}/{inputs['name']}"


def _read_queue(aws: Aws, id: str) -> Properties | None:
    found = aws.find("sqs", "get_queue_attributes", "Attributes", QueueUrl=id, AttributeNames=["All"])
    return found and {
        "arn": found["QueueArn"],
        "name": id.rpartition("/")[2],
        "url": id,
        "fifoQueue": False,
        **{name: read(found[api]) for name, (api, read) in QUEUE_ATTRIBUTES.items() if found.get(api)},
        "tagsAll": aws.call("sqs", "list_queue_tags", QueueUrl=id).get("Tags", {}),
    }


def _update_queue(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    before, after = _queue_attributes(old), _queue_attributes(new)
    if before != after:  # all at once: moto forgets the policy where it is not told again
        asked = dict.fromkeys(before, "") | {name: text for name, text in after.items() if name != "FifoQueue"}
        aws.call("sqs", "set_queue_attributes", QueueUrl=id, Attributes=asked)


_tag_queue = tagging("sqs", "tag_queue", "untag_queue", lambda _, id: {"QueueUrl": id}, dict)


def _fifo_name(inputs: Properties) -> Iterator[tuple[str, str]]:
    name, is_fifo = inputs.get("name"), inputs.get("fifoQueue") or False
    if isinstance(name, str) and is_fifo is not UNKNOWN and name.endswith(".fifo") != is_fifo:
        yield "name", f"{name}: the name of a FIFO queue ends in .fifo, and only that of one"


TOPIC_ATTRIBUTES = {"displayName": "DisplayName", "kmsMasterKeyId": "KmsMasterKeyId", "policy": "Policy"}


def _create_topic(aws: Aws, inputs: Properties) -> str:
    attributes = {api: inputs[name] for name, api in TOPIC_ATTRIBUTES.items() if inputs.get(name)}
    tags = to_tag_list(inputs.get("tagsAll"))
    return str(aws.call("sns", "create_topic", Name=inputs["name"], Attributes=attributes, Tags=tags)["TopicArn"])


def _read_topic(aws: Aws, id: str) -> Properties | None:
    found = aws.find("sns", "get_topic_attributes", "Attributes", TopicArn=id)
    return found and {
        "arn": id,
        "name": id.rpartition(":")[2],
        "owner": ACCOUNT_ID,
        **{name: found.get(api) or None for name, api in TOPIC_ATTRIBUTES.items()},
        "tagsAll": from_tag_list(aws.call("sns", "list_tags_for_resource", ResourceArn=id)["Tags"]),
    }


def _update_topic(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    for name, api in TOPIC_ATTRIBUTES.items():
        if old.get(name) != new.get(name):
            value = new.get(name) or ""
            aws.call("sns", "set_topic_attributes", TopicArn=id, AttributeName=api, AttributeValue=value)


_tag_topic = tagging("sns", "tag_resource", "untag_resource", lambda _, id: {"ResourceArn": id})


def _delete_topic(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("sns", "delete_topic", TopicArn=id)


def _put_parameter(aws: Aws, inputs: Properties, *, is_new: bool = True) -> str:
    aws.call(
        "ssm",
        "put_parameter",
        Name=inputs["name"],
        Type=inputs["type"],
        Value=inputs["value"],
        Description=inputs.get("description"),
        KeyId=inputs.get("keyId"),
        Overwrite=not is_new,
        Tags=to_tag_list(inputs.get("tagsAll")) if is_new else None,
    )
    return str(inputs["name"])


def _read_parameter(aws: Aws, id: str) -> Properties | None:
    found = aws.find("ssm", "get_parameter", "Parameter", Name=id, WithDecryption=True)
    if found is None:
        return None
    of_name = [{"Key": "Name", "Values": [id]}]
    (described,) = aws.call("ssm", "describe_parameters", ParameterFilters=of_name)["Parameters"]
    tags = aws.call("ssm", "list_tags_for_resource", ResourceType="Parameter", ResourceId=id)["TagList"]
    return {
        "arn": found["ARN"],
        "name": id,
        "type": found["Type"],
        "value": found["Value"],
        "version": found["Version"],
        "dataType": found.get("DataType", "text"),
        "description": described.get("Description") or None,
        "keyId": described.get("KeyId"),
        "tagsAll": from_tag_list(tags),
    }


def _update_parameter(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if any(old.get(name) != new.get(name) for name in ("type", "value", "description", "keyId")):
        _put_parameter(aws, new, is_new=False)


_tag_parameter = tagging(
    "ssm",
    "add_tags_to_resource",
    "remove_tags_from_resource",
    lambda _, id: {"ResourceType": "Parameter", "ResourceId": id},
)


def _delete_parameter(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("ssm", "delete_parameter", Name=id)


ALARM_FIELDS = {
    "actionsEnabled": "ActionsEnabled",
    "alarmActions": "AlarmActions",
    "alarmDescription": "AlarmDescription",
    "comparisonOperator": "ComparisonOperator",
    "datapointsToAlarm": "DatapointsToAlarm",
    "evaluationPeriods": "EvaluationPeriods",
    "insufficientDataActions": "InsufficientDataActions",
    "metricName": "MetricName",
    "namespace": "Namespace",
    "okActions": "OKActions",
    "period": "Period",
    "statistic": "Statistic",
    "threshold": "Threshold",
    "treatMissingData": "TreatMissingData",
    "unit": "Unit",
}


def _put_alarm(aws: Aws, inputs: Properties) -> str:
    dimensions = to_tag_list(inputs.get("dimensions"), "Name", "Value")
    fields = {api: inputs.get(name) for name, api in ALARM_FIELDS.items()}
    tags = to_tag_list(inputs.get("tagsAll"))
    aws.call("cloudwatch", "put_metric_alarm", AlarmName=inputs["name"], Dimensions=dimensions, Tags=tags, **fields)
    return str(inputs["name"])


def _read_alarm(aws: Aws, id: str) -> Properties | None:
    found = aws.find("cloudwatch", "describe_alarms", "MetricAlarms", 0, AlarmNames=[id])
    return found and {
        "arn": found["AlarmArn"],
        "name": id,
        "dimensions": from_tag_list(found.get("Dimensions"), "Name", "Value"),
        **{name: found.get(api) for name, api in ALARM_FIELDS.items()},
        "tagsAll": from_tag_list(
            aws.call("cloudwatch", "list_tags_for_resource", ResourceARN=found["AlarmArn"])["Tags"]
        ),
    }


_tag_alarm = tagging(
    "cloudwatch",
    "tag_resource",
    "untag_resource",
    lambda aws, id: {"ResourceARN": aws.arn("cloudwatch", f"alarm:{id}")},
)


def _delete_alarm(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("cloudwatch", "delete_alarms", AlarmNames=[id])


def _keys(inputs: Properties) -> list[dict[str, str]]:
    names = (("hashKey", "HASH"), ("rangeKey", "RANGE"))
    return [{"AttributeName": inputs[name], "KeyType": kind} for name, kind in names if inputs.get(name)]


def _capacity(inputs: Properties) -> dict[str, int] | None:
    if inputs["billingMode"] != "PROVISIONED":
        return None
    return {"ReadCapacityUnits": inputs["readCapacity"], "WriteCapacityUnits": inputs["writeCapacity"]}


def _create_table(aws: Aws, inputs: Properties) -> str:
    aws.call(
        "dynamodb",
        "create_table",
        TableName=inputs["name"],
        AttributeDefinitions=[
            {"AttributeName": each["name"], "AttributeType": each["type"]} for each in inputs["attributes"]
        ],
        KeySchema=_keys(inputs),
        BillingMode=inputs["billingMode"],
        ProvisionedThroughput=_capacity(inputs),
        DeletionProtectionEnabled=inputs["deletionProtectionEnabled"],
        Tags=to_tag_list(inputs.get("tagsAll")),
    )
    id = aws.made(inputs["name"])
    _update_recovery(aws, id, {}, inputs)
    return id


def _read_table(aws: Aws, id: str) -> Properties | None:
    table = aws.find("dynamodb", "describe_table", "Table", TableName=id)
    if table is None:
        return None
    keys = {each["KeyType"]: each["AttributeName"] for each in table["KeySchema"]}
    backups = aws.call("dynamodb", "describe_continuous_backups", TableName=id)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
    capacity = table.get("ProvisionedThroughput") or {}
    return {
        "arn": table["TableArn"],
        "name": id,
        "attributes": [
            {"name": each["AttributeName"], "type": each["AttributeType"]} for each in table["AttributeDefinitions"]
        ],
        "hashKey": keys["HASH"],
        "rangeKey": keys.get("RANGE"),
        "billingMode": (table.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED"),
        "readCapacity": capacity.get("ReadCapacityUnits", 0),
        "writeCapacity": capacity.get("WriteCapacityUnits", 0),
        "deletionProtectionEnabled": table.get("DeletionProtectionEnabled", False),
        "pointInTimeRecovery": {"enabled": recovery == "ENABLED"},
        "tagsAll": from_tag_list(aws.call("dynamodb", "list_tags_of_resource", ResourceArn=table["TableArn"])["Tags"]),
    }


def _update_recovery(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    before, after = ((inputs.get("pointInTimeRecovery") or {}).get("enabled", False) for inputs in (old, new))
    if before != after:
        wanted = {"PointInTimeRecoveryEnabled": after}
        aws.call("dynamodb", "update_continuous_backups", TableName=id, PointInTimeRecoverySpecification=wanted)


def _update_table(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    names = ("billingMode", "readCapacity", "writeCapacity")
    if any(old.get(name) != new.get(name) for name in names):
        mode, capacity = new["billingMode"], _capacity(new)
        aws.call("dynamodb", "update_table", TableName=id, BillingMode=mode, ProvisionedThroughput=capacity)
    if old["deletionProtectionEnabled"] != (wanted := new["deletionProtectionEnabled"]):
        aws.call("dynamodb", "update_table", TableName=id, DeletionProtectionEnabled=wanted)
    _update_recovery(aws, id, old, new)


_tag_table = tagging(
    "dynamodb", "tag_resource", "untag_resource", lambda aws, id: {"ResourceArn": aws.arn("dynamodb", f"table/{id}")}
)


def _delete_table(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("dynamodb", "delete_table", TableName=id)


def _keys_and_capacity(inputs: Properties) -> Iterator[tuple[str, str]]:
    described, keys = inputs.get("attributes"), [inputs.get("hashKey"), inputs.get("rangeKey")]
    if isinstance(described, list) and UNKNOWN not in keys:
        names = {str(each.get("name")) for each in described if isinstance(each, Mapping)}
        if not has_unknown(described) and names != {key for key in keys if key}:
            yield "attributes", f"expected hashKey and rangeKey, each once, and no other, and found {sorted(names)}"
    for name in ("readCapacity", "writeCapacity"):
        if inputs["billingMode"] == "PROVISIONED" and not inputs.get(name):
            yield name, "required with the billing mode PROVISIONED"


def _period(value: Any) -> str | None:
    return None if value in (10, 20, 30) or value % 60 == 0 else "expected 10, 20, 30, or a multiple of 60 seconds"


def _delete_queue(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("sqs", "delete_queue", QueueUrl=id)


EVENT_BUS = "default"


def _rule_arn(aws: Aws, name: str) -> str:
    return f"arn:aws:events:{aws.region}:{ACCOUNT_ID}:rule/{name}"


def _create_rule(aws: Aws, inputs: Properties) -> str:
    _put_rule(aws, inputs)
    if tags := to_tag_list(inputs.get("tagsAll")):
        aws.call("events", "tag_resource", ResourceARN=_rule_arn(aws, inputs["name"]), Tags=tags)
    return str(inputs["name"])


def _put_rule(aws: Aws, inputs: Properties) -> str:
    asked = {"EventPattern": inputs.get("eventPattern"), "ScheduleExpression": inputs.get("scheduleExpression")}
    aws.call("events", "put_rule", Name=inputs["name"], Description=inputs.get("description") or "", **asked)
    return str(inputs["name"])


def _read_rule(aws: Aws, id: str) -> Properties | None:
    found = aws.find("events", "describe_rule", Name=id)
    return found and {
        "arn": found["Arn"],
        "name": id,
        "description": found.get("Description") or None,
        "eventBusName": EVENT_BUS,
        "eventPattern": found.get("EventPattern") or None,
        "scheduleExpression": found.get("ScheduleExpression") or None,
        "tagsAll": from_tag_list(aws.call("events", "list_tags_for_resource", ResourceARN=found["Arn"])["Tags"]),
    }


_tag_rule = tagging("events", "tag_resource", "untag_resource", lambda aws, id: {"ResourceARN": _rule_arn(aws, id)})


def _delete_rule(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("events", "delete_rule", Name=id)


def _pattern_or_schedule(inputs: Properties) -> Iterator[tuple[str, str]]:
    if not inputs.get("eventPattern") and not inputs.get("scheduleExpression"):
        yield "eventPattern", "expected an eventPattern or a scheduleExpression"


def _put_target(aws: Aws, inputs: Properties) -> str:
    target = {"Id": inputs["targetId"], "Arn": inputs["arn"]}
    aws.call("events", "put_targets", Rule=inputs["rule"], Targets=[target])
    return f"{inputs['rule']}-{inputs['targetId']}"


def _read_target(aws: Aws, id: str) -> Properties | None:
    """A rule's name may hold dashes, as a target's may: the rule is the one that has such a target."""
    for at in (index for index, letter in enumerate(id) if letter == "-"):
        rule, target_id = id[:at], id[at + 1 :]
        targets = aws.find("events", "list_targets_by_rule", "Targets", Rule=rule) or ()
        for each in targets:
            if each["Id"] == target_id:
                return {"rule": rule, "targetId": target_id, "arn": each["Arn"], "eventBusName": EVENT_BUS}
    return None


def _remove_target(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("events", "remove_targets", Rule=inputs["rule"], Ids=[inputs["targetId"]])


TYPES = (
    ResourceType(
        token="aws:cloudwatch/eventRule:EventRule",
        carried=words("name description eventPattern scheduleExpression tags"),
        replace_on=words("name"),
        documents=words("eventPattern"),
        named_by="name",
        create=_create_rule,
        read=_read_rule,
        update=put_again(_put_rule),
        delete=_delete_rule,
        tag=_tag_rule,
        agree=_pattern_or_schedule,
        checks={"name": matching(r"[\w.-]{1,64}", "1 to 64 letters, digits, and any of _ . -")},
    ),
    ResourceType(
        token="aws:cloudwatch/eventTarget:EventTarget",
        carried=words("rule targetId arn"),
        replace_on=words("rule targetId"),
        named_by="targetId",
        create=_put_target,
        read=_read_target,
        update=put_again(_put_target),
        delete=_remove_target,
        checks={"targetId": matching(r"[\w.-]{1,64}", "1 to 64 letters, digits, and any of _ . -")},
    ),
    ResourceType(
        token="aws:sns/topic:Topic",
        carried=words("name tags") | TOPIC_ATTRIBUTES.keys(),
        replace_on=words("name"),
        kept=words("policy"),
        documents=words("policy"),
        named_by="name",
        create=_create_topic,
        read=_read_topic,
        update=_update_topic,
        delete=_delete_topic,
        tag=_tag_topic,
        checks={"name": matching(r"[\w-]{1,256}", "1 to 256 letters, digits, _ and -")},
    ),
    ResourceType(
        token="aws:ssm/parameter:Parameter",
        carried=words("name type value description keyId tags"),
        replace_on=words("name"),
        kept=words("keyId"),
        needs=words("value"),
        changing=words("version"),
        named_by="name",
        create=_put_parameter,
        read=_read_parameter,
        update=_update_parameter,
        delete=_delete_parameter,
        tag=_tag_parameter,
        checks={
            "name": matching(r"[\w./-]{1,1011}", "letters, digits, and any of _ . - /"),
            "type": one_of("String", "StringList", "SecureString"),
        },
    ),
    ResourceType(
        token="aws:sqs/queue:Queue",
        carried=words("name tags") | QUEUE_ATTRIBUTES.keys(),
        replace_on=words("name fifoQueue"),
        kept=words("policy redrivePolicy"),
        documents=words("policy redrivePolicy"),
        defaults={
            "delaySeconds": 0,
            "fifoQueue": False,
            "maxMessageSize": 262144,
            "messageRetentionSeconds": 345600,
            "receiveWaitTimeSeconds": 0,
            "visibilityTimeoutSeconds": 30,
        },
        named_by="name",
        create=_create_queue,
        read=_read_queue,
        update=_update_queue,
        delete=_delete_queue,
        tag=_tag_queue,
        agree=_fifo_name,
        checks={
            "name": matching(r"[\w-]{1,75}(\.fifo)?", "1 to 80 letters, digits, _ and -"),
            "delaySeconds": between(0, 900, "seconds"),
            "maxMessageSize": between(1024, 1048576, "bytes"),
            "messageRetentionSeconds": between(60, 1209600, "seconds"),
            "receiveWaitTimeSeconds": between(0, 20, "seconds"),
            "visibilityTimeoutSeconds": between(0, 43200, "seconds"),
        },
    ),
    ResourceType(
        token="aws:cloudwatch/metricAlarm:MetricAlarm",
        carried=words("name dimensions tags") | ALARM_FIELDS.keys(),
        replace_on=words("name"),
        needs=words("comparisonOperator evaluationPeriods metricName namespace period statistic threshold"),
        unordered=words("alarmActions insufficientDataActions okActions"),
        defaults={"actionsEnabled": True, "treatMissingData": "missing"},
        named_by="name",
        create=_put_alarm,
        read=_read_alarm,
        update=put_again(_put_alarm),
        delete=_delete_alarm,
        tag=_tag_alarm,
        checks={
            "comparisonOperator": one_of(
                "GreaterThanOrEqualToThreshold",
                "GreaterThanThreshold",
                "LessThanThreshold",
                "LessThanOrEqualToThreshold",
            ),
            "evaluationPeriods": between(1, 8640),
            "period": _period,
            "statistic": one_of("SampleCount", "Average", "Sum", "Minimum", "Maximum"),
            "treatMissingData": one_of("breaching", "notBreaching", "ignore", "missing"),
        },
    ),
    ResourceType(
        token="aws:dynamodb/table:Table",
        carried=words(
            "name attributes hashKey rangeKey billingMode readCapacity writeCapacity deletionProtectionEnabled "
            "pointInTimeRecovery tags"
        ),
        refused=words("pointInTimeRecovery.recoveryPeriodInDays"),
        replace_on=words("name hashKey rangeKey"),
        unordered=words("attributes"),
        kept=words("pointInTimeRecovery readCapacity writeCapacity"),
        needs=words("attributes hashKey"),
        defaults={"billingMode": "PROVISIONED", "deletionProtectionEnabled": False},
        named_by="name",
        create=_create_table,
        read=_read_table,
        update=_update_table,
        delete=_delete_table,
        tag=_tag_table,
        agree=_keys_and_capacity,
        checks={
            "name": matching(r"[\w.-]{3,255}", "3 to 255 letters, digits, and any of _ . -"),
            "billingMode": one_of("PROVISIONED", "PAY_PER_REQUEST"),
        },
    ),
)
