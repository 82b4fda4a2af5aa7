"""The network of EC2: VPCs, subnets, gateways, routes, security groups, endpoints and flow logs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from localcloud.aws.api import (
    ACCOUNT_ID,
    Aws,
    ResourceType,
    between,
    camel,
    cidr,
    exactly_one,
    from_tag_list,
    network_cidr,
    one_of,
    words,
)
from localcloud.aws.resources.ec2_calls import delete_by, tag, tag_specification
from localcloud.provider import Properties, ProviderError


def _create_vpc(aws: Aws, inputs: Properties) -> str:
    vpc = aws.call(
        "ec2",
        "create_vpc",
        CidrBlock=inputs["cidrBlock"],
        InstanceTenancy=inputs["instanceTenancy"],
        TagSpecifications=tag_specification("vpc", inputs),
    )["Vpc"]
    id = aws.made(vpc["VpcId"])
    _update_vpc(aws, id, {}, inputs)
    return id


VPC_ATTRIBUTES = {"enableDnsSupport": "EnableDnsSupport", "enableDnsHostnames": "EnableDnsHostnames"}


def _update_vpc(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    for name, attribute in VPC_ATTRIBUTES.items():
        if name in new and old.get(name) != new[name]:
            aws.call("ec2", "modify_vpc_attribute", VpcId=id, **{attribute: {"Value": new[name]}})
    if old and old["instanceTenancy"] != new["instanceTenancy"]:
        aws.call("ec2", "modify_vpc_tenancy", VpcId=id, InstanceTenancy=new["instanceTenancy"])


def _tenancy_but_to_default(old: Properties, new: Properties) -> frozenset[str]:
    """AWS lets a dedicated VPC go back to the default tenancy, and no other way."""
    goes_back = (old.get("instanceTenancy"), new.get("instanceTenancy")) == ("dedicated", "default")
    return frozenset() if goes_back else words("instanceTenancy")


def _read_vpc(aws: Aws, id: str) -> Properties | None:
    vpc = aws.find("ec2", "describe_vpcs", "Vpcs", 0, VpcIds=[id])
    if vpc is None:
        return None
    attributes = {
        name: aws.call("ec2", "describe_vpc_attribute", VpcId=id, Attribute=attribute[0].lower() + attribute[1:])[
            attribute
        ]["Value"]
        for name, attribute in VPC_ATTRIBUTES.items()
    }
    of_vpc = [{"Name": "vpc-id", "Values": [id]}]
    group = aws.find(
        "ec2",
        "describe_security_groups",
        "SecurityGroups",
        0,
        Filters=[*of_vpc, {"Name": "group-name", "Values": ["default"]}],
    )
    table = aws.find(
        "ec2",
        "describe_route_tables",
        "RouteTables",
        0,
        Filters=[*of_vpc, {"Name": "association.main", "Values": ["true"]}],
    )
    table_id = table and table["RouteTableId"]
    acl = aws.find(
        "ec2", "describe_network_acls", "NetworkAcls", 0, Filters=[*of_vpc, {"Name": "default", "Values": ["true"]}]
    )
    return {
        "arn": aws.arn("ec2", f"vpc/{id}"),
        "cidrBlock": vpc["CidrBlock"],
        "instanceTenancy": vpc.get("InstanceTenancy", "default"),
        "ownerId": ACCOUNT_ID,
        "defaultSecurityGroupId": group and group["GroupId"],
        "defaultNetworkAclId": acl and acl["NetworkAclId"],
        "defaultRouteTableId": table_id,
        "mainRouteTableId": table_id,
        "dhcpOptionsId": vpc.get("DhcpOptionsId"),
        "tagsAll": from_tag_list(vpc.get("Tags")),
        **attributes,
    }


def _create_subnet(aws: Aws, inputs: Properties) -> str:
    subnet = aws.call(
        "ec2",
        "create_subnet",
        VpcId=inputs["vpcId"],
        CidrBlock=inputs["cidrBlock"],
        AvailabilityZone=inputs.get("availabilityZone"),
        TagSpecifications=tag_specification("subnet", inputs),
    )["Subnet"]
    id = aws.made(subnet["SubnetId"])
    _update_subnet(aws, id, {"mapPublicIpOnLaunch": False}, inputs)
    return id


def _update_subnet(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old.get("mapPublicIpOnLaunch") != new["mapPublicIpOnLaunch"]:
        value = {"Value": new["mapPublicIpOnLaunch"]}
        aws.call("ec2", "modify_subnet_attribute", SubnetId=id, MapPublicIpOnLaunch=value)


def _read_subnet(aws: Aws, id: str) -> Properties | None:
    subnet = aws.find("ec2", "describe_subnets", "Subnets", 0, SubnetIds=[id])
    return subnet and {
        "arn": aws.arn("ec2", f"subnet/{id}"),
        "vpcId": subnet["VpcId"],
        "cidrBlock": subnet["CidrBlock"],
        "availabilityZone": subnet["AvailabilityZone"],
        "availabilityZoneId": subnet.get("AvailabilityZoneId"),
        "mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"],
        "ownerId": ACCOUNT_ID,
        "tagsAll": from_tag_list(subnet.get("Tags")),
    }


def _create_gateway(aws: Aws, inputs: Properties) -> str:
    specification = tag_specification("internet-gateway", inputs)
    gateway = aws.call("ec2", "create_internet_gateway", TagSpecifications=specification)["InternetGateway"]
    id = aws.made(gateway["InternetGatewayId"])
    if inputs.get("vpcId"):
        aws.call("ec2", "attach_internet_gateway", InternetGatewayId=id, VpcId=inputs["vpcId"])
    return id


def _move_gateway(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    before, after = old.get("vpcId"), new.get("vpcId")
    if before == after:
        return
    if before:
        aws.gone("ec2", "detach_internet_gateway", InternetGatewayId=id, VpcId=before)
    if after:
        aws.call("ec2", "attach_internet_gateway", InternetGatewayId=id, VpcId=after)


def _read_gateway(aws: Aws, id: str) -> Properties | None:
    gateway = aws.find("ec2", "describe_internet_gateways", "InternetGateways", 0, InternetGatewayIds=[id])
    return gateway and {
        "arn": aws.arn("ec2", f"internet-gateway/{id}"),
        "ownerId": ACCOUNT_ID,
        "vpcId": (gateway["Attachments"] or [{}])[0].get("VpcId"),
        "tagsAll": from_tag_list(gateway.get("Tags")),
    }


def _delete_gateway(aws: Aws, id: str, inputs: Properties) -> None:
    found = _read_gateway(aws, id)
    if found and found["vpcId"]:
        aws.gone("ec2", "detach_internet_gateway", InternetGatewayId=id, VpcId=found["vpcId"])
    aws.gone("ec2", "delete_internet_gateway", InternetGatewayId=id)


def _create_eip(aws: Aws, inputs: Properties) -> str:
    specification = tag_specification("elastic-ip", inputs)
    answer = aws.call("ec2", "allocate_address", Domain="vpc", TagSpecifications=specification)
    return str(answer["AllocationId"])


def _read_eip(aws: Aws, id: str) -> Properties | None:
    address = aws.find("ec2", "describe_addresses", "Addresses", 0, AllocationIds=[id])
    domain = "compute-1" if aws.region == "us-east-1" else f"{aws.region}.compute"
    return address and {
        "arn": aws.arn("ec2", f"elastic-ip/{id}"),
        "allocationId": id,
        "associationId": address.get("AssociationId"),
        "domain": address.get("Domain", "vpc"),
        "publicIp": address["PublicIp"],
        "publicDns": f"ec2-{address['PublicIp'].replace('.', '-')}.{domain}.amazonaws.com",
        "privateIp": address.get("PrivateIpAddress"),
        "tagsAll": from_tag_list(address.get("Tags")),
    }


def _create_nat(aws: Aws, inputs: Properties) -> str:
    gateway = aws.call(
        "ec2",
        "create_nat_gateway",
        SubnetId=inputs["subnetId"],
        AllocationId=inputs.get("allocationId"),
        ConnectivityType=inputs["connectivityType"],
        TagSpecifications=tag_specification("natgateway", inputs),
    )
    return str(gateway["NatGateway"]["NatGatewayId"])


def _read_nat(aws: Aws, id: str) -> Properties | None:
    gateway = aws.find("ec2", "describe_nat_gateways", "NatGateways", 0, NatGatewayIds=[id])
    if gateway is None or gateway["State"] in ("deleted", "deleting"):
        return None
    address = (gateway.get("NatGatewayAddresses") or [{}])[0]
    return {
        "subnetId": gateway["SubnetId"],
        "connectivityType": gateway.get("ConnectivityType", "public"),
        "allocationId": address.get("AllocationId"),
        "publicIp": address.get("PublicIp"),
        "privateIp": address.get("PrivateIp"),
        "networkInterfaceId": address.get("NetworkInterfaceId"),
        "tagsAll": from_tag_list(gateway.get("Tags")),
    }


def _create_table(aws: Aws, inputs: Properties) -> str:
    specification = tag_specification("route-table", inputs)
    answer = aws.call("ec2", "create_route_table", VpcId=inputs["vpcId"], TagSpecifications=specification)
    return str(answer["RouteTable"]["RouteTableId"])


def _read_table(aws: Aws, id: str) -> Properties | None:
    table = aws.find("ec2", "describe_route_tables", "RouteTables", 0, RouteTableIds=[id])
    return table and {
        "arn": aws.arn("ec2", f"route-table/{id}"),
        "ownerId": ACCOUNT_ID,
        "vpcId": table["VpcId"],
        "tagsAll": from_tag_list(table.get("Tags")),
    }


ROUTE_TARGETS = {"gatewayId": "GatewayId", "natGatewayId": "NatGatewayId"}


def _create_route(aws: Aws, inputs: Properties) -> str:
    _route("create_route", aws, inputs)
    return f"{inputs['routeTableId']}_{inputs['destinationCidrBlock']}"


def _route(operation: str, aws: Aws, inputs: Properties) -> None:
    targets = {api: inputs[name] for name, api in ROUTE_TARGETS.items() if inputs.get(name)}
    table, destination = inputs["routeTableId"], inputs["destinationCidrBlock"]
    aws.call("ec2", operation, RouteTableId=table, DestinationCidrBlock=destination, **targets)


def _read_route(aws: Aws, id: str) -> Properties | None:
    table, _, destination = id.partition("_")
    routes = aws.find("ec2", "describe_route_tables", "RouteTables", 0, "Routes", RouteTableIds=[table]) or []
    route = next((each for each in routes if each.get("DestinationCidrBlock") == destination), None)
    return route and {
        "routeTableId": table,
        "destinationCidrBlock": destination,
        "state": route.get("State"),
        "origin": route.get("Origin"),
        **{name: route[api] for name, api in ROUTE_TARGETS.items() if route.get(api)},
    }


def _delete_route(aws: Aws, id: str, inputs: Properties) -> None:
    table, _, destination = id.partition("_")
    aws.gone("ec2", "delete_route", RouteTableId=table, DestinationCidrBlock=destination)


def _create_association(aws: Aws, inputs: Properties) -> str:
    table, subnet = inputs["routeTableId"], str(inputs["subnetId"])
    there = _association_of(aws, subnet)
    if there and there["RouteTableId"] != table:
        raise ProviderError(f"subnetId {subnet}: is associated with {there['RouteTableId']} already")
    aws.call("ec2", "associate_route_table", RouteTableId=table, SubnetId=subnet)
    return subnet


def _association_of(aws: Aws, id: str) -> dict[str, Any] | None:
    """The association of a subnet. A change in place gives it a new id in AWS, so its id here is the subnet's, of which
    there is one at most; `import` takes the official provider's form as well, subnet/table.
    """
    subnet = id.partition("/")[0]
    filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
    found = aws.find("ec2", "describe_route_tables", "RouteTables", 0, "Associations", Filters=filters) or ()
    return next((each for each in found if each.get("SubnetId") == subnet), None)


def _read_association(aws: Aws, id: str) -> Properties | None:
    found = _association_of(aws, id)
    return found and {"routeTableId": found["RouteTableId"], "subnetId": found["SubnetId"]}


def _move_association(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    found = _association_of(aws, id)
    if found is None:
        raise ProviderError(f"subnetId {id}: has no association any more; `pulumi refresh` finds what is gone")
    association = found["RouteTableAssociationId"]
    aws.call("ec2", "replace_route_table_association", AssociationId=association, RouteTableId=new["routeTableId"])


def _delete_association(aws: Aws, id: str, inputs: Properties) -> None:
    if found := _association_of(aws, id):
        aws.gone("ec2", "disassociate_route_table", AssociationId=found["RouteTableAssociationId"])


def _create_group(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "ec2",
        "create_security_group",
        GroupName=inputs["name"],
        Description=inputs["description"],
        VpcId=inputs.get("vpcId"),
        TagSpecifications=tag_specification("security-group", inputs),
    )
    # The real provider removes the rule that lets everything out, which EC2 adds by itself.
    id = aws.made(answer["GroupId"])
    _close(aws, id)
    return id


def _close(aws: Aws, id: str) -> None:
    group = aws.find("ec2", "describe_security_groups", "SecurityGroups", 0, GroupIds=[id])
    if group["IpPermissionsEgress"]:
        aws.call("ec2", "revoke_security_group_egress", GroupId=id, IpPermissions=group["IpPermissionsEgress"])
    if group["IpPermissions"]:
        aws.call("ec2", "revoke_security_group_ingress", GroupId=id, IpPermissions=group["IpPermissions"])


def _read_group(aws: Aws, id: str) -> Properties | None:
    group = aws.find("ec2", "describe_security_groups", "SecurityGroups", 0, GroupIds=[id])
    return group and {
        "arn": aws.arn("ec2", f"security-group/{id}"),
        "name": group["GroupName"],
        "description": group["Description"],
        "vpcId": group.get("VpcId"),
        "ownerId": ACCOUNT_ID,
        "tagsAll": from_tag_list(group.get("Tags")),
    }


def _delete_group(aws: Aws, id: str, inputs: Properties) -> None:
    if inputs.get("revokeRulesOnDelete") and _read_group(aws, id):
        _close(aws, id)
    aws.gone("ec2", "delete_security_group", GroupId=id)


def _adopt_default_group(aws: Aws, inputs: Properties) -> str:
    filters = [{"Name": "vpc-id", "Values": [inputs["vpcId"]]}, {"Name": "group-name", "Values": ["default"]}]
    id = str(aws.call("ec2", "describe_security_groups", Filters=filters)["SecurityGroups"][0]["GroupId"])
    _close(aws, id)
    tag(aws, id, inputs.get("tagsAll") or {}, [])
    return id


def _leave(aws: Aws, id: str, inputs: Properties) -> None:
    """The default group of a VPC can't be deleted; it goes with its VPC."""


def _create_rule(direction: str, aws: Aws, inputs: Properties) -> str:
    permission: dict[str, Any] = {"IpProtocol": inputs["ipProtocol"]}
    permission |= {
        api: inputs[name] for name, api in (("fromPort", "FromPort"), ("toPort", "ToPort")) if name in inputs
    }
    described = {"Description": inputs["description"]} if inputs.get("description") else {}
    if cidr_block := inputs.get("cidrIpv4"):
        permission["IpRanges"] = [{"CidrIp": cidr_block, **described}]
    if group := inputs.get("referencedSecurityGroupId"):
        permission["UserIdGroupPairs"] = [{"GroupId": group, **described}]
    answer = aws.call(
        "ec2",
        f"authorize_security_group_{direction}",
        GroupId=inputs["securityGroupId"],
        IpPermissions=[permission],
        TagSpecifications=tag_specification("security-group-rule", inputs),
    )
    return str(answer["SecurityGroupRules"][0]["SecurityGroupRuleId"])


def _read_rule(aws: Aws, id: str) -> Properties | None:
    rule = aws.find("ec2", "describe_security_group_rules", "SecurityGroupRules", 0, SecurityGroupRuleIds=[id])
    if rule is None:
        return None
    has_ports = rule["IpProtocol"] != "-1"  # AWS gives -1 for the ports of all protocols, and nobody declares them
    return {
        "arn": aws.arn("ec2", f"security-group-rule/{id}"),
        "securityGroupId": rule["GroupId"],
        "securityGroupRuleId": id,
        "ipProtocol": rule["IpProtocol"],
        "fromPort": rule.get("FromPort") if has_ports else None,
        "toPort": rule.get("ToPort") if has_ports else None,
        "cidrIpv4": rule.get("CidrIpv4"),
        "description": rule.get("Description") or None,
        "referencedSecurityGroupId": (rule.get("ReferencedGroupInfo") or {}).get("GroupId"),
        "tagsAll": from_tag_list(rule.get("Tags")),
    }


RULE_SOURCES = {"cidrIpv4": "CidrIpv4", "referencedSecurityGroupId": "ReferencedGroupId"}
PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}  # the same by number
RULE_FIELDS = words("ipProtocol fromPort toPort description") | RULE_SOURCES.keys()


def _update_rule(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if all(old.get(name) == new.get(name) for name in RULE_FIELDS):
        return
    rule = {
        "IpProtocol": new["ipProtocol"],
        "FromPort": new.get("fromPort", -1),
        "ToPort": new.get("toPort", -1),
        "Description": new.get("description") or "",
        **{api: new[name] for name, api in RULE_SOURCES.items() if new.get(name)},
    }
    aws.call(
        "ec2",
        "modify_security_group_rules",
        GroupId=new["securityGroupId"],
        SecurityGroupRules=[{"SecurityGroupRuleId": id, "SecurityGroupRule": rule}],
    )


def _other_kind_of_source(old: Properties, new: Properties) -> frozenset[str]:
    """A rule from addresses can't become one from a group, nor the other way round."""
    before, after = ({name for name in RULE_SOURCES if inputs.get(name)} for inputs in (old, new))
    return frozenset(before ^ after)


def _delete_rule(direction: str, aws: Aws, id: str, inputs: Properties) -> None:
    rule = _read_rule(aws, id)
    if rule:
        group = rule["securityGroupId"]
        aws.gone("ec2", f"revoke_security_group_{direction}", GroupId=group, SecurityGroupRuleIds=[id])


def _rule_type(direction: str) -> ResourceType:
    return ResourceType(
        token=f"aws:vpc/securityGroup{direction.title()}Rule:SecurityGroup{direction.title()}Rule",
        carried=words("securityGroupId ipProtocol fromPort toPort cidrIpv4 description referencedSecurityGroupId tags"),
        replace_on=words("securityGroupId"),
        replaces=_other_kind_of_source,
        create=partial(_create_rule, direction),
        read=_read_rule,
        update=_update_rule,
        delete=partial(_delete_rule, direction),
        tag=tag,
        alike={"ipProtocol": lambda found, declared: found == PROTOCOLS.get(declared, declared)},
        checks={"cidrIpv4": cidr, "fromPort": between(-1, 65535), "toPort": between(-1, 65535)},
        agree=exactly_one(*RULE_SOURCES),
    )


def _create_endpoint(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "ec2",
        "create_vpc_endpoint",
        VpcId=inputs["vpcId"],
        ServiceName=inputs["serviceName"],
        VpcEndpointType=inputs["vpcEndpointType"],
        RouteTableIds=inputs.get("routeTableIds"),
        SubnetIds=inputs.get("subnetIds"),
        SecurityGroupIds=inputs.get("securityGroupIds"),
        PrivateDnsEnabled=inputs.get("privateDnsEnabled"),
        PolicyDocument=inputs.get("policy"),
        TagSpecifications=tag_specification("vpc-endpoint", inputs),
    )
    return str(answer["VpcEndpoint"]["VpcEndpointId"])


def _read_endpoint(aws: Aws, id: str) -> Properties | None:
    endpoint = aws.find("ec2", "describe_vpc_endpoints", "VpcEndpoints", 0, VpcEndpointIds=[id])
    if endpoint is None or endpoint.get("State") == "deleted":
        return None
    return {
        "arn": aws.arn("ec2", f"vpc-endpoint/{id}"),
        "vpcId": endpoint["VpcId"],
        "serviceName": endpoint["ServiceName"],
        "vpcEndpointType": endpoint["VpcEndpointType"],
        "routeTableIds": endpoint.get("RouteTableIds", []),
        "subnetIds": endpoint.get("SubnetIds", []),
        "securityGroupIds": [group["GroupId"] for group in endpoint.get("Groups", [])],
        "privateDnsEnabled": endpoint.get("PrivateDnsEnabled", False),
        "policy": endpoint.get("PolicyDocument"),
        "state": endpoint.get("State", "available"),
        "networkInterfaceIds": endpoint.get("NetworkInterfaceIds", []),
        "dnsEntries": [camel(each) for each in endpoint.get("DnsEntries", [])],
        "requesterManaged": endpoint.get("RequesterManaged", False),
        "ownerId": ACCOUNT_ID,
        "tagsAll": from_tag_list(endpoint.get("Tags")),
    }


ENDPOINT_LISTS = {"routeTableIds": "RouteTableIds", "subnetIds": "SubnetIds", "securityGroupIds": "SecurityGroupIds"}


def _update_endpoint(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    changes: dict[str, Any] = {}
    for name, api in ENDPOINT_LISTS.items():
        before, after = set(old.get(name) or ()), set(new.get(name) or ())
        changes[f"Add{api}"] = sorted(after - before) or None
        changes[f"Remove{api}"] = sorted(before - after) or None
    for name, api in (("policy", "PolicyDocument"), ("privateDnsEnabled", "PrivateDnsEnabled")):
        if old.get(name) != new.get(name):
            changes[api] = new.get(name)
    if any(value is not None for value in changes.values()):
        aws.call("ec2", "modify_vpc_endpoint", VpcEndpointId=id, **changes)


def _private_dns_of_no_interface(old: Properties, new: Properties) -> frozenset[str]:
    """Only interface endpoints can change it."""
    return frozenset() if new["vpcEndpointType"] == "Interface" else words("privateDnsEnabled")


def _delete_endpoint(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("ec2", "delete_vpc_endpoints", VpcEndpointIds=[id])


WATCHED = {"vpcId": "VPC", "subnetId": "Subnet"}


def _create_flow_log(aws: Aws, inputs: Properties) -> str:
    watched = next(name for name in WATCHED if inputs.get(name))
    answer = aws.call(
        "ec2",
        "create_flow_logs",
        ResourceIds=[inputs[watched]],
        ResourceType=WATCHED[watched],
        TrafficType=inputs["trafficType"],
        LogDestinationType=inputs["logDestinationType"],
        LogDestination=inputs.get("logDestination", "").removesuffix(":*") or None,
        LogFormat=inputs.get("logFormat"),
        DeliverLogsPermissionArn=inputs.get("iamRoleArn"),
        MaxAggregationInterval=inputs["maxAggregationInterval"],
        TagSpecifications=tag_specification("vpc-flow-log", inputs),
    )
    if failed := answer.get("Unsuccessful"):
        raise ProviderError(f"flow log of {inputs[watched]}: {failed[0]['Error']['Message']}")
    return str(answer["FlowLogIds"][0])


def _read_flow_log(aws: Aws, id: str) -> Properties | None:
    log = aws.find("ec2", "describe_flow_logs", "FlowLogs", 0, FlowLogIds=[id])
    return log and {
        "arn": aws.arn("ec2", f"vpc-flow-log/{id}"),
        "vpcId" if log["ResourceId"].startswith("vpc-") else "subnetId": log["ResourceId"],
        "logFormat": log.get("LogFormat"),
        "trafficType": log["TrafficType"],
        "logDestinationType": log["LogDestinationType"],
        "logDestination": log.get("LogDestination"),
        "iamRoleArn": log.get("DeliverLogsPermissionArn"),
        "maxAggregationInterval": int(log.get("MaxAggregationInterval", 600)),
        "tagsAll": from_tag_list(log.get("Tags")),
    }


def _delete_flow_log(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("ec2", "delete_flow_logs", FlowLogIds=[id])


def _public_address(inputs: Properties) -> Iterator[tuple[str, str]]:
    if inputs["connectivityType"] == "public" and inputs.get("allocationId") is None:
        yield "allocationId", "required of a public NAT gateway"


FLOW_LOG = words(
    "vpcId subnetId trafficType logDestinationType logDestination logFormat iamRoleArn maxAggregationInterval"
)

TYPES = (
    ResourceType(
        token="aws:ec2/vpc:Vpc",
        carried=words("cidrBlock enableDnsSupport enableDnsHostnames instanceTenancy tags"),
        replace_on=words("cidrBlock"),
        replaces=_tenancy_but_to_default,
        kept=words("enableDnsHostnames"),
        needs=words("cidrBlock"),
        defaults={"enableDnsSupport": True, "instanceTenancy": "default"},
        create=_create_vpc,
        read=_read_vpc,
        update=_update_vpc,
        delete=partial(delete_by, "delete_vpc", "VpcId"),
        tag=tag,
        checks={"cidrBlock": network_cidr, "instanceTenancy": one_of("default", "dedicated")},
    ),
    ResourceType(
        token="aws:ec2/subnet:Subnet",
        carried=words("vpcId cidrBlock availabilityZone mapPublicIpOnLaunch tags"),
        replace_on=words("vpcId cidrBlock availabilityZone"),
        kept=words("availabilityZone"),
        needs=words("cidrBlock"),
        defaults={"mapPublicIpOnLaunch": False},
        create=_create_subnet,
        read=_read_subnet,
        update=_update_subnet,
        delete=partial(delete_by, "delete_subnet", "SubnetId"),
        tag=tag,
        checks={"cidrBlock": network_cidr},
    ),
    ResourceType(
        token="aws:ec2/internetGateway:InternetGateway",
        carried=words("vpcId tags"),
        kept=words("vpcId"),
        create=_create_gateway,
        read=_read_gateway,
        update=_move_gateway,
        delete=_delete_gateway,
        tag=tag,
    ),
    ResourceType(
        token="aws:ec2/eip:Eip",
        carried=words("domain tags"),
        replace_on=words("domain"),
        defaults={"domain": "vpc"},
        create=_create_eip,
        read=_read_eip,
        delete=partial(delete_by, "release_address", "AllocationId"),
        tag=tag,
        checks={"domain": one_of("vpc")},
    ),
    ResourceType(
        token="aws:ec2/natGateway:NatGateway",
        carried=words("subnetId allocationId connectivityType tags"),
        replace_on=words("subnetId allocationId connectivityType"),
        needs=words("subnetId"),
        agree=_public_address,
        defaults={"connectivityType": "public"},
        create=_create_nat,
        read=_read_nat,
        delete=partial(delete_by, "delete_nat_gateway", "NatGatewayId"),
        tag=tag,
        checks={"connectivityType": one_of("public", "private")},
    ),
    ResourceType(
        token="aws:ec2/routeTable:RouteTable",
        carried=words("vpcId tags"),
        replace_on=words("vpcId"),
        create=_create_table,
        read=_read_table,
        delete=partial(delete_by, "delete_route_table", "RouteTableId"),
        tag=tag,
    ),
    ResourceType(
        token="aws:ec2/route:Route",
        carried=words("routeTableId destinationCidrBlock gatewayId natGatewayId"),
        replace_on=words("routeTableId destinationCidrBlock"),
        create=_create_route,
        read=_read_route,
        update=lambda aws, id, old, new: _route("replace_route", aws, new),
        delete=_delete_route,
        needs=words("destinationCidrBlock"),
        agree=exactly_one(*ROUTE_TARGETS),
        checks={"destinationCidrBlock": cidr},
    ),
    ResourceType(
        token="aws:ec2/routeTableAssociation:RouteTableAssociation",
        carried=words("routeTableId subnetId"),
        replace_on=words("subnetId"),
        needs=words("subnetId"),
        create=_create_association,
        read=_read_association,
        update=_move_association,
        delete=_delete_association,
    ),
    ResourceType(
        token="aws:ec2/securityGroup:SecurityGroup",
        carried=words("name description vpcId revokeRulesOnDelete tags"),
        unread=words("revokeRulesOnDelete"),
        replace_on=words("name description vpcId"),
        kept=words("vpcId"),
        defaults={"description": "Managed by Pulumi", "revokeRulesOnDelete": False},
        named_by="name",
        create=_create_group,
        read=_read_group,
        delete=_delete_group,
        tag=tag,
    ),
    ResourceType(
        token="aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
        carried=words("vpcId tags"),
        replace_on=words("vpcId"),
        needs=words("vpcId"),
        create=_adopt_default_group,
        read=_read_group,
        delete=_leave,
        tag=tag,
    ),
    _rule_type("ingress"),
    _rule_type("egress"),
    ResourceType(
        token="aws:ec2/vpcEndpoint:VpcEndpoint",
        carried=words(
            "vpcId serviceName vpcEndpointType routeTableIds subnetIds securityGroupIds privateDnsEnabled policy tags"
        ),
        replace_on=words("vpcId serviceName vpcEndpointType"),
        replaces=_private_dns_of_no_interface,
        kept=words("routeTableIds subnetIds securityGroupIds privateDnsEnabled policy"),
        unordered=words("routeTableIds subnetIds securityGroupIds"),
        documents=words("policy"),
        needs=words("serviceName"),
        defaults={"vpcEndpointType": "Gateway"},
        create=_create_endpoint,
        read=_read_endpoint,
        update=_update_endpoint,
        delete=_delete_endpoint,
        tag=tag,
        checks={"vpcEndpointType": one_of("Gateway", "Interface", "GatewayLoadBalancer")},
    ),
    ResourceType(
        token="aws:ec2/flowLog:FlowLog",
        carried=FLOW_LOG | {"tags"},
        replace_on=FLOW_LOG,
        kept=words("logDestination logFormat"),
        needs=words("trafficType"),
        alike={"logDestination": lambda found, declared: found == declared.removesuffix(":*")},
        agree=exactly_one(*WATCHED),
        defaults={"logDestinationType": "cloud-watch-logs", "maxAggregationInterval": 600},
        create=_create_flow_log,
        read=_read_flow_log,
        delete=_delete_flow_log,
        tag=tag,
        checks={
            "trafficType": one_of("ACCEPT", "REJECT", "ALL"),
            "logDestinationType": one_of("cloud-watch-logs", "s3", "kinesis-data-firehose"),
            "maxAggregationInterval": lambda value: None if value in (60, 600) else "expected 60 or 600",
        },
    ),
)
