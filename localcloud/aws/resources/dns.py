"""Route 53: zones, records and health checks; the checks are kept, and nobody carries them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from localcloud.aws.api import (
    Aws,
    ResourceType,
    Tag,
    between,
    from_tag_list,
    in_each,
    matching,
    one_of,
    to_tag_list,
    words,
)
from localcloud.provider import Properties, ProviderError

SERVICE = "route53"
OWN = ("NS", "SOA")
"""Records that a zone has at its own name, and that go with it."""


def _tagging(kind: str) -> Tag:
    def put(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
        added = to_tag_list(tags) or None
        named = {"ResourceType": kind, "ResourceId": id}
        aws.call(SERVICE, "change_tags_for_resource", **named, AddTags=added, RemoveTagKeys=removed or None)

    return put


def _tags(aws: Aws, kind: str, id: str) -> dict[str, str]:
    found = aws.call(SERVICE, "list_tags_for_resource", ResourceType=kind, ResourceId=id)
    return from_tag_list(found["ResourceTagSet"].get("Tags"))


def _arn(kind: str, id: str) -> str:
    return f"arn:aws:route53:::{kind}/{id}"


_tag_zone, _tag_check = _tagging("hostedzone"), _tagging("healthcheck")


def _create_zone(aws: Aws, inputs: Properties) -> str:
    reference = aws.creation.key if aws.creation else inputs["name"]
    config = {"Comment": inputs["comment"]}
    made = aws.call(
        SERVICE, "create_hosted_zone", Name=inputs["name"], CallerReference=reference, HostedZoneConfig=config
    )
    id = aws.made(str(made["HostedZone"]["Id"]).removeprefix("/hostedzone/"))
    if tags := inputs.get("tagsAll"):
        _tag_zone(aws, id, tags, [])
    return id


def _read_zone(aws: Aws, id: str) -> Properties | None:
    found = aws.find(SERVICE, "get_hosted_zone", Id=id)
    if found is None:
        return None
    servers = found["DelegationSet"]["NameServers"]
    return {
        "arn": _arn("hostedzone", id),
        "zoneId": id,
        "name": found["HostedZone"]["Name"].removesuffix("."),
        "comment": found["HostedZone"]["Config"].get("Comment"),
        "nameServers": sorted(servers),
        "primaryNameServer": servers[0],
        "tagsAll": _tags(aws, "hostedzone", id),
    }


def _update_zone(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old.get("comment") != new.get("comment"):
        aws.call(SERVICE, "update_hosted_zone_comment", Id=id, Comment=new["comment"])


def _delete_zone(aws: Aws, id: str, inputs: Properties) -> None:
    if inputs.get("forceDestroy"):
        for record in _records(aws, id):
            if record["Type"] not in OWN or record["Name"].removesuffix(".") != inputs["name"].removesuffix("."):
                _change(aws, id, "DELETE", record)
    aws.gone(SERVICE, "delete_hosted_zone", Id=id)


def _records(aws: Aws, zone: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = aws.find(
        SERVICE, "list_resource_record_sets", "ResourceRecordSets", HostedZoneId=zone
    )
    return found or []


def _change(aws: Aws, zone: str, action: str, record: Mapping[str, Any]) -> None:
    batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
    aws.call(SERVICE, "change_resource_record_sets", HostedZoneId=zone, ChangeBatch=batch)


def _record(inputs: Properties) -> dict[str, Any]:
    """As the API has it."""
    policies = inputs.get("failoverRoutingPolicies") or inputs.get("weightedRoutingPolicies") or [{}]
    asked = {
        "Name": inputs["name"],
        "Type": inputs["type"],
        "TTL": inputs["ttl"],
        "ResourceRecords": [{"Value": each} for each in inputs["records"]],
        "SetIdentifier": inputs.get("setIdentifier"),
        "HealthCheckId": inputs.get("healthCheckId"),
        "Failover": policies[0].get("type"),
        "Weight": policies[0].get("weight"),
    }
    return {name: value for name, value in asked.items() if value is not None}


def _record_id(zone: str, record: Mapping[str, Any]) -> str:
    """As the official provider writes it."""
    parts = [zone, record["Name"].removesuffix(".").lower(), record["Type"], record.get("SetIdentifier")]
    return "_".join(each for each in parts if each)


def _create_record(aws: Aws, inputs: Properties) -> str:
    record = _record(inputs)
    if check := inputs.get("healthCheckId"):
        aws.call(SERVICE, "get_health_check", HealthCheckId=check)  # AWS refuses one that is none
    _change(aws, inputs["zoneId"], "CREATE", record)
    return _record_id(inputs["zoneId"], record)


def _found(aws: Aws, id: str) -> dict[str, Any] | None:
    zone = id.partition("_")[0]
    return next((each for each in _records(aws, zone) if _record_id(zone, each) == id), None)


def _read_record(aws: Aws, id: str) -> Properties | None:
    found = _found(aws, id)
    if found is None:
        return None
    name = found["Name"].removesuffix(".")
    return {
        "zoneId": id.partition("_")[0],
        "name": name,
        "fqdn": name,
        "type": found["Type"],
        "ttl": int(found["TTL"]),
        "records": [each["Value"] for each in found["ResourceRecords"]],
        "setIdentifier": found.get("SetIdentifier"),
        "healthCheckId": found.get("HealthCheckId"),
        "failoverRoutingPolicies": [{"type": found["Failover"]}] if found.get("Failover") else None,
        "weightedRoutingPolicies": [{"weight": found["Weight"]}] if "Weight" in found else None,
    }


def _update_record(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    changed = [name for name in ("type", "setIdentifier") if old.get(name) != new.get(name)]
    if changed:
        raise ProviderError(
            f"{', '.join(changed)}: the local cloud can't change it in place; give the record another name"
        )
    _change(aws, new["zoneId"], "UPSERT", _record(new))


def _delete_record(aws: Aws, id: str, inputs: Properties) -> None:
    if found := _found(aws, id):
        _change(aws, id.partition("_")[0], "DELETE", found)


def _record_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    policies = [name for name in ("failoverRoutingPolicies", "weightedRoutingPolicies") if inputs.get(name)]
    if len(policies) > 1:
        yield policies[1], f"conflicts with {policies[0]}"
    if policies and not inputs.get("setIdentifier"):
        yield "setIdentifier", f"required with {policies[0]}"
    if inputs.get("setIdentifier") and not policies:
        yield "setIdentifier", "only for records with a routing policy"
    records = inputs.get("records")
    if inputs.get("type") == "CNAME" and isinstance(records, list) and len(records) != 1:
        yield "records", "a CNAME record has exactly one value"


CHECK_FIELDS = {
    "type": "Type",
    "fqdn": "FullyQualifiedDomainName",
    "ipAddress": "IPAddress",
    "port": "Port",
    "resourcePath": "ResourcePath",
    "searchString": "SearchString",
    "requestInterval": "RequestInterval",
    "failureThreshold": "FailureThreshold",
    "enableSni": "EnableSNI",
    "measureLatency": "MeasureLatency",
    "disabled": "Disabled",
    "invertHealthcheck": "Inverted",
}
CHECK_FIXED = words("type requestInterval measureLatency")
"""Of `CHECK_FIELDS`, those that a check keeps as long as it lives."""


def _create_check(aws: Aws, inputs: Properties) -> str:
    config = {api: inputs[name] for name, api in CHECK_FIELDS.items() if inputs.get(name) is not None}
    reference = aws.creation.key if aws.creation else "fusion-local"
    made = aws.call(SERVICE, "create_health_check", CallerReference=reference, HealthCheckConfig=config)
    id = aws.made(str(made["HealthCheck"]["Id"]))
    if tags := inputs.get("tagsAll"):
        _tag_check(aws, id, tags, [])
    return id


def _read_check(aws: Aws, id: str) -> Properties | None:
    found = aws.find(SERVICE, "get_health_check", "HealthCheck", "HealthCheckConfig", HealthCheckId=id)
    if found is None:
        return None
    read = {name: found.get(api) for name, api in CHECK_FIELDS.items()}
    return {"arn": _arn("healthcheck", id), **read, "tagsAll": _tags(aws, "healthcheck", id)}


def _update_check(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    moved = {
        api: new.get(name)
        for name, api in CHECK_FIELDS.items()
        if name not in CHECK_FIXED and old.get(name) != new.get(name)
    }
    if moved:
        aws.call(SERVICE, "update_health_check", HealthCheckId=id, **moved)


def _delete_check(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone(SERVICE, "delete_health_check", HealthCheckId=id)


def _check_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    if not inputs.get("fqdn") and not inputs.get("ipAddress"):
        yield "fqdn", "required, or ipAddress"
    if str(inputs.get("type")).endswith("STR_MATCH") != bool(inputs.get("searchString")):
        yield "searchString", "of HTTP_STR_MATCH and HTTPS_STR_MATCH, and of these alone"


NAME = matching(r"(\*\.)?([\w-]{1,63}\.)*[\w-]{1,63}\.?", "a domain name such as models.example.com")

TYPES = (
    ResourceType(
        token="aws:route53/zone:Zone",
        carried=words("name comment forceDestroy tags"),
        unread=words("forceDestroy"),
        replace_on=words("name"),
        named_by="name",
        defaults={"comment": "Managed by Pulumi", "forceDestroy": False},
        create=_create_zone,
        read=_read_zone,
        update=_update_zone,
        delete=_delete_zone,
        tag=_tag_zone,
        checks={"name": NAME},
    ),
    ResourceType(
        token="aws:route53/record:Record",
        carried=words(
            "zoneId name type ttl records setIdentifier healthCheckId failoverRoutingPolicies weightedRoutingPolicies"
        ),
        replace_on=words("zoneId name"),
        unordered=words("records"),
        needs=words("ttl records"),
        create=_create_record,
        read=_read_record,
        update=_update_record,
        delete=_delete_record,
        agree=_record_agrees,
        checks={
            "name": NAME,
            "type": one_of("A", "AAAA", "CAA", "CNAME", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF", "SRV", "TXT"),
            "ttl": between(0, 2_147_483_647, "seconds"),
            "failoverRoutingPolicies": in_each("type", one_of("PRIMARY", "SECONDARY")),
            "weightedRoutingPolicies": in_each("weight", between(0, 255)),
        },
    ),
    ResourceType(
        token="aws:route53/healthCheck:HealthCheck",
        carried=words("tags") | CHECK_FIELDS.keys(),
        replace_on=CHECK_FIXED,
        kept=words("enableSni failureThreshold port requestInterval invertHealthcheck"),
        defaults={"disabled": False, "measureLatency": False},
        create=_create_check,
        read=_read_check,
        update=_update_check,
        delete=_delete_check,
        tag=_tag_check,
        agree=_check_agrees,
        checks={
            "type": one_of("HTTP", "HTTPS", "HTTP_STR_MATCH", "HTTPS_STR_MATCH", "TCP"),
            "port": between(1, 65_535),
            "requestInterval": lambda value: None if value in (10, 30) else "expected 10 or 30 seconds",
            "failureThreshold": between(1, 10),
        },
    ),
)
