"""EC2: launch templates, placement, reservations, instances and volumes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from localcloud.aws.api import (
    ACCOUNT_ID,
    Aws,
    ResourceType,
    between,
    camel,
    from_tag_list,
    matching,
    one_of,
    pascal,
    to_tag_list,
    words,
)
from localcloud.aws.resources.ec2_calls import delete_by, tag, tag_specification
from localcloud.provider import Properties
from localcloud.values import UNKNOWN

TEMPLATE_DATA = {
    "blockDeviceMappings": "BlockDeviceMappings",
    "capacityReservationSpecification": "CapacityReservationSpecification",
    "cpuOptions": "CpuOptions",
    "creditSpecification": "CreditSpecification",
    "disableApiStop": "DisableApiStop",
    "disableApiTermination": "DisableApiTermination",
    "enclaveOptions": "EnclaveOptions",
    "hibernationOptions": "HibernationOptions",
    "iamInstanceProfile": "IamInstanceProfile",
    "instanceInitiatedShutdownBehavior": "InstanceInitiatedShutdownBehavior",
    "instanceMarketOptions": "InstanceMarketOptions",
    "maintenanceOptions": "MaintenanceOptions",
    "privateDnsNameOptions": "PrivateDnsNameOptions",
    "ebsOptimized": "EbsOptimized",
    "imageId": "ImageId",
    "instanceType": "InstanceType",
    "keyName": "KeyName",
    "metadataOptions": "MetadataOptions",
    "monitoring": "Monitoring",
    "networkInterfaces": "NetworkInterfaces",
    "placement": "Placement",
    "tagSpecifications": "TagSpecifications",
    "userData": "UserData",
    "vpcSecurityGroupIds": "SecurityGroupIds",
}
INTERFACE_FIELDS = {"SecurityGroups": "Groups", "Ipv4AddressCount": "SecondaryPrivateIpAddressCount"}


def _template_data(inputs: Properties) -> dict[str, Any]:
    data = {api: _typed(pascal(inputs[name])) for name, api in TEMPLATE_DATA.items() if inputs.get(name) is not None}
    if "NetworkInterfaces" in data:
        data["NetworkInterfaces"] = [
            {INTERFACE_FIELDS.get(key, key): value for key, value in each.items()} for each in data["NetworkInterfaces"]
        ]
    if "TagSpecifications" in data:
        data["TagSpecifications"] = [
            {"ResourceType": each["resourceType"], "Tags": to_tag_list(each.get("tags"))}
            for each in inputs["tagSpecifications"]
        ]
    return data


def _typed(value: Any) -> Any:
    """pulumi-aws writes some booleans of launch templates as text."""
    if isinstance(value, Mapping):
        return {name: _typed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _create_template(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "ec2",
        "create_launch_template",
        LaunchTemplateName=inputs["name"],
        VersionDescription=inputs.get("description"),
        LaunchTemplateData=_template_data(inputs),
        TagSpecifications=tag_specification("launch-template", inputs),
    )
    return str(answer["LaunchTemplate"]["LaunchTemplateId"])


def _update_template(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if _template_data(old) != _template_data(new) or old.get("description") != new.get("description"):
        _add_version(aws, id, new)
    if (wanted := new.get("defaultVersion")) and old.get("defaultVersion") != wanted:
        aws.call("ec2", "modify_launch_template", LaunchTemplateId=id, DefaultVersion=str(wanted))


def _add_version(aws: Aws, id: str, new: Properties) -> None:
    version = aws.call(
        "ec2",
        "create_launch_template_version",
        LaunchTemplateId=id,
        VersionDescription=new.get("description"),
        LaunchTemplateData=_template_data(new),
    )["LaunchTemplateVersion"]["VersionNumber"]
    if new.get("updateDefaultVersion"):
        aws.call("ec2", "modify_launch_template", LaunchTemplateId=id, DefaultVersion=str(version))


def _read_template(aws: Aws, id: str) -> Properties | None:
    template = aws.find("ec2", "describe_launch_templates", "LaunchTemplates", 0, LaunchTemplateIds=[id])
    if template is None:
        return None
    version = aws.call("ec2", "describe_launch_template_versions", LaunchTemplateId=id, Versions=["$Latest"])
    latest = version["LaunchTemplateVersions"][0]
    data = latest["LaunchTemplateData"]
    interfaces = {api: name for name, api in INTERFACE_FIELDS.items()}
    found = {name: camel(data[api]) for name, api in TEMPLATE_DATA.items() if api in data}
    if "NetworkInterfaces" in data:
        found["networkInterfaces"] = camel(
            [{interfaces.get(key, key): value for key, value in each.items()} for each in data["NetworkInterfaces"]]
        )
    if "TagSpecifications" in data:
        found["tagSpecifications"] = [
            {"resourceType": each["ResourceType"], "tags": from_tag_list(each["Tags"])}
            for each in data["TagSpecifications"]
            if each["ResourceType"] != "launch-template"  # moto files the template's own tags here
        ]
    return found | {
        "arn": aws.arn("ec2", f"launch-template/{id}"),
        "name": template["LaunchTemplateName"],
        "description": latest.get("VersionDescription"),
        "latestVersion": int(template["LatestVersionNumber"]),
        "defaultVersion": int(template["DefaultVersionNumber"]),
        "tagsAll": from_tag_list(template.get("Tags")),
    }


def _create_placement(aws: Aws, inputs: Properties) -> str:
    aws.call(
        "ec2",
        "create_placement_group",
        GroupName=inputs["name"],
        Strategy=inputs["strategy"],
        PartitionCount=inputs.get("partitionCount"),
        SpreadLevel=inputs.get("spreadLevel"),
        TagSpecifications=tag_specification("placement-group", inputs),
    )
    return str(inputs["name"])


def _read_placement(aws: Aws, id: str) -> Properties | None:
    group = aws.find("ec2", "describe_placement_groups", "PlacementGroups", 0, GroupNames=[id])
    return group and {
        "arn": group["GroupArn"],
        "name": group["GroupName"],
        "strategy": group["Strategy"],
        "partitionCount": group.get("PartitionCount"),
        "spreadLevel": group.get("SpreadLevel"),
        "placementGroupId": group["GroupId"],
        "tagsAll": from_tag_list(group.get("Tags")),
    }


def _tag_placement(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    """Its id is its name; its tags go by the group's own id."""
    if found := _read_placement(aws, id):
        tag(aws, found["placementGroupId"], tags, removed)


def _create_reservation(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "ec2",
        "create_capacity_reservation",
        InstanceType=inputs["instanceType"],
        InstancePlatform=inputs["instancePlatform"],
        InstanceCount=inputs["instanceCount"],
        AvailabilityZone=inputs["availabilityZone"],
        InstanceMatchCriteria=inputs["instanceMatchCriteria"],
        EndDateType=inputs["endDateType"],
        EndDate=inputs.get("endDate"),
        Tenancy=inputs["tenancy"],
        EbsOptimized=inputs["ebsOptimized"],
        EphemeralStorage=inputs["ephemeralStorage"],
        TagSpecifications=tag_specification("capacity-reservation", inputs),
    )
    return str(answer["CapacityReservation"]["CapacityReservationId"])


def _read_reservation(aws: Aws, id: str) -> Properties | None:
    found = aws.find("ec2", "describe_capacity_reservations", "CapacityReservations", 0, CapacityReservationIds=[id])
    return found and {
        "arn": found["CapacityReservationArn"],
        "ownerId": ACCOUNT_ID,
        "instanceType": found["InstanceType"],
        "instancePlatform": found["InstancePlatform"],
        "instanceCount": found["TotalInstanceCount"],
        "availabilityZone": found["AvailabilityZone"],
        "instanceMatchCriteria": found["InstanceMatchCriteria"],
        "endDateType": found["EndDateType"],
        "endDate": found.get("EndDate") and found["EndDate"].isoformat().replace("+00:00", "Z"),
        "tenancy": found["Tenancy"],
        "ebsOptimized": found["EbsOptimized"],
        "ephemeralStorage": found["EphemeralStorage"],
        "tagsAll": from_tag_list(found.get("Tags")),
    }


def _update_reservation(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if any(old.get(name) != new.get(name) for name in ("instanceCount", "endDateType", "endDate")):
        aws.call(
            "ec2",
            "modify_capacity_reservation",
            CapacityReservationId=id,
            InstanceCount=new["instanceCount"],
            EndDateType=new["endDateType"],
            EndDate=new.get("endDate"),
        )


def architecture(instance_type: str) -> str:
    """What its processors run, told from its name as AWS names its types: `g5g.xlarge` → `arm64`."""
    family = instance_type.partition(".")[0]
    if family.startswith("mac"):
        return "x86_64_mac" if family == "mac1" else "arm64_mac"
    return "arm64" if re.match(r"[a-z]+\d+g|a1$|.*-gb", family) else "x86_64"


def _other_architecture(old: Properties, new: Properties) -> frozenset[str]:
    """An instance keeps its disk when its type changes, so the new type's processors have to run what is on it."""
    before, after = old.get("instanceType"), new.get("instanceType")
    if not isinstance(before, str) or not isinstance(after, str) or architecture(before) == architecture(after):
        return frozenset()
    return words("instanceType")


ROOT_DEVICE = "/dev/xvda"


def _create_instance(aws: Aws, inputs: Properties) -> str:
    market = inputs.get("instanceMarketOptions")
    disk = inputs.get("rootBlockDevice")
    answer = aws.call(
        "ec2",
        "run_instances",
        ImageId=inputs["ami"],
        InstanceType=inputs["instanceType"],
        **_placed(inputs),
        InstanceMarketOptions=market and {"MarketType": market["marketType"]},
        MetadataOptions=inputs.get("metadataOptions") and pascal(inputs["metadataOptions"]),
        BlockDeviceMappings=disk and [{"DeviceName": ROOT_DEVICE, "Ebs": pascal(disk)}],
        MinCount=1,
        MaxCount=1,
        TagSpecifications=tag_specification("instance", inputs),
    )
    return str(answer["Instances"][0]["InstanceId"])


def _placed(inputs: Properties) -> dict[str, Any]:
    """Where it is in the network; a public address is asked for, or not, on its interface."""
    subnet, groups = inputs.get("subnetId"), inputs.get("vpcSecurityGroupIds")
    has_address = inputs.get("associatePublicIpAddress")
    if has_address is None:
        return {"SubnetId": subnet, "SecurityGroupIds": groups}
    interface = {"DeviceIndex": 0, "AssociatePublicIpAddress": has_address, "SubnetId": subnet, "Groups": groups}
    return {"NetworkInterfaces": [{name: value for name, value in interface.items() if value is not None}]}


def _read_instance(aws: Aws, id: str) -> Properties | None:
    found = aws.find("ec2", "describe_instances", "Reservations", 0, "Instances", 0, InstanceIds=[id])
    if found is None or found["State"]["Name"] in ("terminated", "shutting-down"):
        return None
    return {
        "arn": aws.arn("ec2", f"instance/{id}"),
        "ami": found["ImageId"],
        "instanceType": found["InstanceType"],
        "instanceState": found["State"]["Name"],
        "subnetId": found.get("SubnetId"),
        "availabilityZone": found["Placement"]["AvailabilityZone"],
        "privateIp": found.get("PrivateIpAddress"),
        "publicIp": found.get("PublicIpAddress"),
        "associatePublicIpAddress": bool(found.get("PublicIpAddress")),
        "privateDns": found.get("PrivateDnsName"),
        "publicDns": found.get("PublicDnsName"),
        "vpcSecurityGroupIds": [group["GroupId"] for group in found.get("SecurityGroups", [])],
        "rootBlockDevice": _root_disk(aws, found),
        "instanceLifecycle": found.get("InstanceLifecycle"),
        "instanceMarketOptions": {"marketType": "spot"} if found.get("InstanceLifecycle") == "spot" else None,
        "metadataOptions": camel(found["MetadataOptions"]) if found.get("MetadataOptions") else None,
        "tagsAll": from_tag_list(found.get("Tags")),
    }


def _root_disk(aws: Aws, instance: Mapping[str, Any]) -> dict[str, Any] | None:
    disks = instance.get("BlockDeviceMappings") or ()
    disk = next((each["Ebs"] for each in disks if each["DeviceName"] == ROOT_DEVICE), None)
    if disk is None:
        return None
    volume = aws.find("ec2", "describe_volumes", "Volumes", 0, VolumeIds=[disk["VolumeId"]])
    return volume and {
        "volumeId": volume["VolumeId"],
        "volumeSize": volume["Size"],
        "volumeType": volume["VolumeType"],
        "encrypted": volume["Encrypted"],
        "kmsKeyId": volume.get("KmsKeyId"),
        "deleteOnTermination": disk["DeleteOnTermination"],
    }


def _update_instance(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old["instanceType"] != new["instanceType"]:  # AWS changes the type of a stopped instance only
        aws.call("ec2", "stop_instances", InstanceIds=[id])
        kind = {"Value": new["instanceType"]}
        aws.call("ec2", "modify_instance_attribute", InstanceId=id, InstanceType=kind)
        aws.call("ec2", "start_instances", InstanceIds=[id])
    groups = new.get("vpcSecurityGroupIds")
    if groups and old.get("vpcSecurityGroupIds") != groups:
        aws.call("ec2", "modify_instance_attribute", InstanceId=id, Groups=groups)
    options = new.get("metadataOptions")
    if options and old.get("metadataOptions") != options:
        aws.call("ec2", "modify_instance_metadata_options", InstanceId=id, **pascal(options))
    if old.get("rootBlockDevice") != new.get("rootBlockDevice"):
        _update_root_disk(aws, id, old.get("rootBlockDevice") or {}, new.get("rootBlockDevice") or {})


def _update_root_disk(aws: Aws, id: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    (found,) = aws.call("ec2", "describe_instances", InstanceIds=[id])["Reservations"][0]["Instances"]
    disk = next(each for each in found["BlockDeviceMappings"] if each["DeviceName"] == ROOT_DEVICE)
    size, kind = new.get("volumeSize"), new.get("volumeType")
    if (old.get("volumeSize"), old.get("volumeType")) != (size, kind):
        aws.call("ec2", "modify_volume", VolumeId=disk["Ebs"]["VolumeId"], Size=size, VolumeType=kind)
    if old.get("deleteOnTermination", True) != new.get("deleteOnTermination", True):
        kept = [{"DeviceName": ROOT_DEVICE, "Ebs": {"DeleteOnTermination": new.get("deleteOnTermination", True)}}]
        aws.call("ec2", "modify_instance_attribute", InstanceId=id, BlockDeviceMappings=kept)


def _delete_instance(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("ec2", "terminate_instances", InstanceIds=[id])


def _create_volume(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "ec2",
        "create_volume",
        AvailabilityZone=inputs["availabilityZone"],
        Size=inputs["size"],
        VolumeType=inputs.get("type"),
        Encrypted=inputs.get("encrypted"),
        KmsKeyId=inputs.get("kmsKeyId"),
        TagSpecifications=tag_specification("volume", inputs),
    )
    return str(answer["VolumeId"])


def _read_volume(aws: Aws, id: str) -> Properties | None:
    volume = aws.find("ec2", "describe_volumes", "Volumes", 0, VolumeIds=[id])
    return volume and {
        "arn": aws.arn("ec2", f"volume/{id}"),
        "availabilityZone": volume["AvailabilityZone"],
        "createTime": volume["CreateTime"].isoformat(),
        "size": volume["Size"],
        "type": volume["VolumeType"],
        "encrypted": volume["Encrypted"],
        "kmsKeyId": volume.get("KmsKeyId"),
        "tagsAll": from_tag_list(volume.get("Tags")),
    }


def _update_volume(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    size, kind = new.get("size"), new.get("type")
    if (old.get("size"), old.get("type")) != (size, kind):
        aws.call("ec2", "modify_volume", VolumeId=id, Size=size, VolumeType=kind)


METADATA_OPTIONS = words("httpEndpoint httpTokens httpPutResponseHopLimit httpProtocolIpv6 instanceMetadataTags")


def _metadata(value: Mapping[str, Any]) -> str | None:
    """Why the options of the instance metadata service are wrong."""
    for name, allowed in (
        ("httpEndpoint", ("enabled", "disabled")),
        ("httpTokens", ("optional", "required")),
        ("httpPutResponseHopLimit", range(1, 65)),
    ):
        if value.get(name) is not None and value[name] not in allowed:
            expected = "1 to 64" if isinstance(allowed, range) else " or ".join(allowed)
            return f"{name} {value[name]}: expected {expected}"
    return None


VOLUME_TYPES = ("standard", "gp2", "gp3", "io1", "io2", "st1", "sc1")
INSTANCE_TYPE = matching(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "an instance type such as p5.48xlarge")


def _of_its_strategy(inputs: Properties) -> Iterator[tuple[str, str]]:
    for name, strategy in (("partitionCount", "partition"), ("spreadLevel", "spread")):
        if inputs.get(name) is not None and inputs["strategy"] not in (strategy, UNKNOWN):
            yield name, f"only a placement group of the strategy {strategy} has it"


def _one_default_version(inputs: Properties) -> Iterator[tuple[str, str]]:
    if inputs.get("defaultVersion") is not None and inputs.get("updateDefaultVersion") is not None:
        yield "defaultVersion", "conflicts with updateDefaultVersion"


def _end_of_reservation(inputs: Properties) -> Iterator[tuple[str, str]]:
    if inputs["endDateType"] == "limited" and inputs.get("endDate") is None:
        yield "endDate", "required where endDateType is limited"
    if inputs["endDateType"] == "unlimited" and inputs.get("endDate") is not None:
        yield "endDate", "only with endDateType limited"


def _moment(value: Any) -> str | None:
    try:
        return None if datetime.fromisoformat(value).tzinfo else "expected a time with its zone: 2027-01-31T12:00:00Z"
    except ValueError:
        return "expected a time such as 2027-01-31T12:00:00Z"


def _base64(value: Any) -> str | None:
    try:
        base64.b64decode(value, validate=True)
    except ValueError as error:
        return f"expected base64: {error}"
    return None


TYPES = (
    ResourceType(
        token="aws:ec2/launchTemplate:LaunchTemplate",
        carried=frozenset(TEMPLATE_DATA) | words("name description defaultVersion updateDefaultVersion tags"),
        refused=frozenset(
            f"networkInterfaces.{name}" for name in ("ipv4Addresses", "ipv4Prefixes", "ipv6Addresses", "ipv6Prefixes")
        ),
        unread=words("updateDefaultVersion"),
        kept=words("defaultVersion metadataOptions") | {f"metadataOptions.{name}" for name in METADATA_OPTIONS},
        unordered=words("vpcSecurityGroupIds networkInterfaces.securityGroups"),
        changing=words("latestVersion defaultVersion"),
        replace_on=words("name"),
        named_by="name",
        create=_create_template,
        read=_read_template,
        update=_update_template,
        delete=partial(delete_by, "delete_launch_template", "LaunchTemplateId"),
        tag=tag,
        checks={
            "userData": _base64,
            "instanceType": INSTANCE_TYPE,
            "metadataOptions": _metadata,
            "description": matching("[^\n]{0,255}", "at most 255 characters"),
        },
        agree=_one_default_version,
    ),
    ResourceType(
        token="aws:ec2/placementGroup:PlacementGroup",
        carried=words("name strategy partitionCount spreadLevel tags"),
        replace_on=words("name strategy partitionCount spreadLevel"),
        kept=words("partitionCount spreadLevel"),
        named_by="name",
        create=_create_placement,
        read=_read_placement,
        delete=partial(delete_by, "delete_placement_group", "GroupName"),
        tag=_tag_placement,
        checks={
            "strategy": one_of("cluster", "partition", "spread"),
            "partitionCount": between(1, 7),
            "spreadLevel": one_of("host", "rack"),
        },
        agree=_of_its_strategy,
        served_by="added to moto",
    ),
    ResourceType(
        token="aws:ec2/capacityReservation:CapacityReservation",
        carried=words(
            "instanceType instancePlatform instanceCount availabilityZone instanceMatchCriteria endDateType endDate "
            "tenancy ebsOptimized ephemeralStorage tags"
        ),
        replace_on=words(
            "instanceType instancePlatform availabilityZone instanceMatchCriteria tenancy ebsOptimized ephemeralStorage"
        ),
        defaults={
            "instanceMatchCriteria": "open",
            "endDateType": "unlimited",
            "tenancy": "default",
            "ebsOptimized": False,
            "ephemeralStorage": False,
        },
        create=_create_reservation,
        read=_read_reservation,
        update=_update_reservation,
        delete=partial(delete_by, "cancel_capacity_reservation", "CapacityReservationId"),
        tag=tag,
        checks={
            "instanceMatchCriteria": one_of("open", "targeted"),
            "endDateType": one_of("unlimited", "limited"),
            "endDate": _moment,
            "tenancy": one_of("default", "dedicated"),
            "instanceType": INSTANCE_TYPE,
            "instanceCount": between(1, 1000, "instances"),
        },
        agree=_end_of_reservation,
        served_by="added to moto",
    ),
    ResourceType(
        token="aws:ec2/instance:Instance",
        carried=words(
            "ami instanceType subnetId associatePublicIpAddress vpcSecurityGroupIds instanceMarketOptions "
            "metadataOptions rootBlockDevice tags"
        ),
        refused=words("instanceMarketOptions.spotOptions")
        | {f"rootBlockDevice.{name}" for name in ("deviceName", "iops", "tags", "tagsAll", "throughput", "volumeId")},
        replace_on=words(
            "ami subnetId associatePublicIpAddress instanceMarketOptions "
            "rootBlockDevice.encrypted rootBlockDevice.kmsKeyId"
        ),
        replaces=_other_architecture,
        kept=words(
            "subnetId associatePublicIpAddress vpcSecurityGroupIds instanceMarketOptions metadataOptions "
            "rootBlockDevice"
        )
        | {f"metadataOptions.{name}" for name in METADATA_OPTIONS}
        | {f"rootBlockDevice.{name}" for name in ("volumeSize", "volumeType", "encrypted", "kmsKeyId")},
        unordered=words("vpcSecurityGroupIds"),
        changing=words("publicIp publicDns instanceState"),
        needs=words("ami instanceType"),
        create=_create_instance,
        read=_read_instance,
        update=_update_instance,
        delete=_delete_instance,
        tag=tag,
        checks={"instanceType": INSTANCE_TYPE, "metadataOptions": _metadata},
    ),
    ResourceType(
        token="aws:ebs/volume:Volume",
        carried=words("availabilityZone size type encrypted kmsKeyId tags"),
        replace_on=words("availabilityZone encrypted kmsKeyId"),
        kept=words("size type encrypted kmsKeyId"),
        needs=words("size"),
        create=_create_volume,
        read=_read_volume,
        update=_update_volume,
        delete=partial(delete_by, "delete_volume", "VolumeId"),
        tag=tag,
        checks={"type": one_of(*VOLUME_TYPES), "size": between(1, 65536, "GiB")},
    ),
)
