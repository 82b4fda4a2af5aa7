"""EKS: clusters, node groups, add-ons, access entries and pod identities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from localcloud import capacity
from localcloud.aws.api import Aws, Read, ResourceType, Tag, matching, one_of, words
from localcloud.provider import Properties, ProviderError


def tag_by_arn(aws: Aws, arn: str, tags: Mapping[str, str], removed: list[str]) -> None:
    """Tags of any EKS resource, by its ARN."""
    if tags:
        aws.call("eks", "tag_resource", resourceArn=arn, tags=dict(tags))
    if removed:
        aws.call("eks", "untag_resource", resourceArn=arn, tagKeys=removed)


def _tag_cluster(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    tag_by_arn(aws, aws.arn("eks", f"cluster/{id}"), tags, removed)


def _tag_node_group(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    found = _node_group(aws, id)
    if found is not None:
        tag_by_arn(aws, found["nodegroupArn"], tags, removed)


def _tag_by(read: Read, arn: str) -> Tag:
    """Tags by the ARN that a resource is read with."""

    def change(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
        if found := read(aws, id):
            tag_by_arn(aws, found[arn], tags, removed)

    return change


def _vpc_config(inputs: Properties) -> dict[str, Any]:
    asked = inputs["vpcConfig"]
    return {
        "subnetIds": asked["subnetIds"],
        "securityGroupIds": asked.get("securityGroupIds", []),
        **_endpoint_access(inputs),
    }


def _endpoint_access(inputs: Properties) -> dict[str, Any]:
    asked = inputs["vpcConfig"]
    access = {
        "endpointPublicAccess": asked.get("endpointPublicAccess", True),
        "endpointPrivateAccess": asked.get("endpointPrivateAccess", False),
    }
    if access["endpointPublicAccess"]:
        access["publicAccessCidrs"] = asked.get("publicAccessCidrs") or ["0.0.0.0/0"]
    return access


def _logging(inputs: Properties) -> dict[str, Any]:
    return {"clusterLogging": [{"types": inputs.get("enabledClusterLogTypes") or [], "enabled": True}]}


def _create_cluster(aws: Aws, inputs: Properties) -> str:
    network = inputs.get("kubernetesNetworkConfig") or {}
    encryption = inputs.get("encryptionConfig")
    access = inputs.get("accessConfig")
    answer = aws.call(
        "eks",
        "create_cluster",
        name=inputs["name"],
        version=inputs.get("version"),
        roleArn=inputs["roleArn"],
        resourcesVpcConfig=_vpc_config(inputs),
        kubernetesNetworkConfig=network or None,
        encryptionConfig=encryption and [encryption],
        accessConfig=access,
        logging=_logging(inputs),
        bootstrapSelfManagedAddons=inputs["bootstrapSelfManagedAddons"],
        tags=inputs.get("tagsAll"),
    )
    return str(answer["cluster"]["name"])


def _read_cluster(aws: Aws, id: str) -> Properties | None:
    cluster = aws.find("eks", "describe_cluster", "cluster", name=id)
    if cluster is None:
        return None
    vpc = cluster["resourcesVpcConfig"]
    encryption = (cluster.get("encryptionConfig") or [None])[0]
    enabled = [each for each in (cluster.get("logging") or {}).get("clusterLogging", []) if each.get("enabled")]
    return {
        "arn": cluster["arn"],
        "name": cluster["name"],
        "clusterId": None,
        "version": cluster["version"],
        "roleArn": cluster["roleArn"],
        "endpoint": cluster["endpoint"],
        "status": cluster["status"],
        "platformVersion": cluster.get("platformVersion"),
        "createdAt": str(cluster["createdAt"]),
        "certificateAuthority": {"data": cluster["certificateAuthority"]["data"]},
        "identities": [{"oidcs": [{"issuer": cluster["identity"]["oidc"]["issuer"]}]}],
        "vpcConfig": {
            "subnetIds": vpc.get("subnetIds", []),
            "securityGroupIds": vpc.get("securityGroupIds", []),
            "clusterSecurityGroupId": vpc.get("clusterSecurityGroupId") or f"sg-{_stable(cluster['arn'])}",
            "endpointPublicAccess": vpc.get("endpointPublicAccess", True),
            "endpointPrivateAccess": vpc.get("endpointPrivateAccess", False),
            "publicAccessCidrs": vpc.get("publicAccessCidrs", []) if vpc.get("endpointPublicAccess", True) else [],
            "vpcId": vpc.get("vpcId"),
        },
        "kubernetesNetworkConfig": {
            "serviceIpv4Cidr": cluster["kubernetesNetworkConfig"].get("serviceIpv4Cidr"),
            "ipFamily": cluster["kubernetesNetworkConfig"].get("ipFamily", "ipv4"),
            "elasticLoadBalancing": cluster["kubernetesNetworkConfig"].get("elasticLoadBalancing", {"enabled": False}),
        },
        "encryptionConfig": encryption,
        "accessConfig": cluster.get("accessConfig"),
        "enabledClusterLogTypes": [name for each in enabled for name in each["types"]],
        "tagsAll": cluster.get("tags", {}),
    }


def _stable(text: str) -> str:
    """17 hexadecimal digits for what moto has no security group of its own for."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:17]


def _update_cluster(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if _endpoint_access(old) != _endpoint_access(new):
        aws.call("eks", "update_cluster_config", name=id, resourcesVpcConfig=_endpoint_access(new))
    for name in ("subnetIds", "securityGroupIds"):  # EKS takes one of them at a time
        if old["vpcConfig"].get(name) != (wanted := new["vpcConfig"].get(name)):
            aws.call("eks", "update_cluster_config", name=id, resourcesVpcConfig={name: wanted or []})
    if _mode(old) != _mode(new) and _mode(new):
        aws.call("eks", "update_cluster_config", name=id, accessConfig={"authenticationMode": _mode(new)})
    balancing = (new.get("kubernetesNetworkConfig") or {}).get("elasticLoadBalancing")
    if balancing and (old.get("kubernetesNetworkConfig") or {}).get("elasticLoadBalancing") != balancing:
        config = {"elasticLoadBalancing": balancing}
        aws.call("eks", "update_cluster_config", name=id, kubernetesNetworkConfig=config)
    if new.get("encryptionConfig") and not old.get("encryptionConfig"):
        aws.call("eks", "associate_encryption_config", clusterName=id, encryptionConfig=[new["encryptionConfig"]])
    if _logging(old) != _logging(new):
        aws.call("eks", "update_cluster_config", name=id, logging=_logging(new))
    if new.get("version") and old.get("version") != new["version"]:
        aws.call("eks", "update_cluster_version", name=id, version=new["version"])


def _mode(inputs: Properties) -> Any:
    return (inputs.get("accessConfig") or {}).get("authenticationMode")


def _other_cluster(old: Properties, new: Properties) -> frozenset[str]:
    """Encryption can't be taken off a cluster, and what AWS chose by itself may be left out or written down.

    Another key is an update, as in the official provider; EKS can't carry it out, and the update says so.
    """
    is_taken_off = old.get("encryptionConfig") and not new.get("encryptionConfig")
    replaced = set(words("encryptionConfig")) if is_taken_off else set()
    for block, name, chosen in (
        ("accessConfig", "bootstrapClusterCreatorAdminPermissions", True),
        ("kubernetesNetworkConfig", "ipFamily", "ipv4"),
    ):
        before, after = ((inputs.get(block) or {}).get(name, chosen) for inputs in (old, new))
        if before != after:
            replaced.add(f"{block}.{name}")
    return frozenset(replaced)


def _delete_cluster(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("eks", "delete_cluster", name=id)


TAINT_EFFECTS = ("NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE")


def _has_capacity(aws: Aws, inputs: Properties) -> None:
    """The nodes that are made at once; those that a zone has not are looked for in the others."""
    subnets = aws.call("ec2", "describe_subnets", SubnetIds=inputs["subnetIds"])["Subnets"]
    zones = sorted({each["AvailabilityZone"] for each in subnets})
    model = "spot" if inputs.get("capacityType") == "SPOT" else "on_demand"
    wanted = int(inputs["scalingConfig"]["desiredSize"])
    reservation = _reservation_of(aws, inputs.get("launchTemplate"))
    kinds = [reservation] if reservation else inputs.get("instanceTypes") or ()
    if not wanted or not kinds or any(_is_enough(kind, zones, model, wanted) for kind in kinds):
        return
    why = (
        "ReservationCapacityExceeded - The requested reservation does not have sufficient compatible and available "
        "capacity for this request."
        if reservation
        else f"InsufficientInstanceCapacity - We currently do not have sufficient {', '.join(kinds)} capacity in the "
        f"Availability Zone you requested ({', '.join(zones)})."
    )
    raise ProviderError(
        f"waiting for EKS Node Group ({inputs['clusterName']}:{inputs['nodeGroupName']}) create: unexpected state "
        "'CREATE_FAILED', wanted target 'ACTIVE'. last error: AsgInstanceLaunchFailures: Could not launch "
        f"{'Spot' if model == 'spot' else 'On-Demand'} Instances. {why}"
    )


def _reservation_of(aws: Aws, template: Mapping[str, Any] | None) -> str | None:
    """The id of the reservation or Capacity Block that a launch template's instances come from."""
    if not template:
        return None
    (found,) = aws.call(
        "ec2",
        "describe_launch_template_versions",
        **{field: template.get(name) for name, field in (("id", "LaunchTemplateId"), ("name", "LaunchTemplateName"))},
        Versions=[str(template.get("version") or "$Default")],
    )["LaunchTemplateVersions"]
    specified = found["LaunchTemplateData"].get("CapacityReservationSpecification") or {}
    id: str | None = (specified.get("CapacityReservationTarget") or {}).get("CapacityReservationId")
    return id


def _is_enough(kind: str, zones: list[str], model: str, wanted: int) -> bool:
    known = [each for zone in zones if (each := capacity.left("aws", kind, zone, model)) is not None]
    return len(known) < len(zones) or sum(known) >= wanted


def _create_node_group(aws: Aws, inputs: Properties) -> str:
    _has_capacity(aws, inputs)
    template = inputs.get("launchTemplate")
    aws.call(
        "eks",
        "create_nodegroup",
        clusterName=inputs["clusterName"],
        nodegroupName=inputs["nodeGroupName"],
        nodeRole=inputs["nodeRoleArn"],
        subnets=inputs["subnetIds"],
        scalingConfig=inputs["scalingConfig"],
        amiType=inputs.get("amiType"),
        capacityType=inputs.get("capacityType"),
        instanceTypes=inputs.get("instanceTypes"),
        diskSize=inputs.get("diskSize"),
        launchTemplate=template and {key: str(value) for key, value in template.items()},
        labels=inputs.get("labels"),
        taints=inputs.get("taints"),
        version=inputs.get("version"),
        tags=inputs.get("tagsAll"),
    )
    id = aws.made(f"{inputs['clusterName']}:{inputs['nodeGroupName']}")
    if inputs.get("updateConfig"):
        _configure_node_group(aws, id, updateConfig=inputs["updateConfig"])
    return id


def _configure_node_group(aws: Aws, id: str, **changes: Any) -> None:
    cluster, _, name = id.partition(":")
    aws.call("eks", "update_nodegroup_config", clusterName=cluster, nodegroupName=name, **changes)


def _node_group(aws: Aws, id: str) -> dict[str, Any] | None:
    cluster, _, name = id.partition(":")
    found: dict[str, Any] | None = aws.find(
        "eks", "describe_nodegroup", "nodegroup", clusterName=cluster, nodegroupName=name
    )
    return found


def _read_node_group(aws: Aws, id: str) -> Properties | None:
    group = _node_group(aws, id)
    if group is None:
        return None
    return {
        "arn": group["nodegroupArn"],
        "clusterName": group["clusterName"],
        "nodeGroupName": group["nodegroupName"],
        "nodeRoleArn": group["nodeRole"],
        "subnetIds": group["subnets"],
        "scalingConfig": group["scalingConfig"],
        "amiType": group.get("amiType"),
        "capacityType": group.get("capacityType"),
        "instanceTypes": group.get("instanceTypes"),
        "diskSize": group.get("diskSize"),
        "launchTemplate": group.get("launchTemplate"),
        "labels": group.get("labels", {}),
        "taints": group.get("taints", []),
        "updateConfig": group.get("updateConfig"),
        "resources": [
            {"autoscalingGroups": [{"name": each["name"]} for each in group["resources"]["autoScalingGroups"]]}
        ],
        "status": group["status"],
        "version": group.get("version"),
        "releaseVersion": group.get("releaseVersion"),
        "tagsAll": group.get("tags", {}),
    }


def _update_node_group(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if old["scalingConfig"] != new["scalingConfig"]:
        _configure_node_group(aws, id, scalingConfig=new["scalingConfig"])
    if old.get("updateConfig") != new.get("updateConfig") and new.get("updateConfig"):
        _configure_node_group(aws, id, updateConfig=new["updateConfig"])
    before, after = old.get("labels") or {}, new.get("labels") or {}
    if before != after:
        removed = sorted(before.keys() - after.keys())
        _configure_node_group(aws, id, labels={"addOrUpdateLabels": after, "removeLabels": removed})
    taints, wanted = old.get("taints") or [], new.get("taints") or []
    if taints != wanted:
        dropped = [each for each in taints if each not in wanted]
        added = [each for each in wanted if each not in taints]
        changes = {key: value for key, value in (("addOrUpdateTaints", added), ("removeTaints", dropped)) if value}
        _configure_node_group(aws, id, taints=changes)
    template, version = new.get("launchTemplate"), new.get("version")
    new_template = template if old.get("launchTemplate") != template else None
    new_version = version if old.get("version") != version else None
    if new_template or new_version:
        cluster, _, name = id.partition(":")
        aws.call(
            "eks",
            "update_nodegroup_version",
            clusterName=cluster,
            nodegroupName=name,
            version=new_version,
            launchTemplate=new_template and {key: str(value) for key, value in new_template.items()},
        )


def _delete_node_group(aws: Aws, id: str, inputs: Properties) -> None:
    cluster, _, name = id.partition(":")
    aws.gone("eks", "delete_nodegroup", clusterName=cluster, nodegroupName=name)


def _scaling(value: Mapping[str, Any]) -> str | None:
    low, wanted, high = (value.get(name, 0) for name in ("minSize", "desiredSize", "maxSize"))
    if not all(isinstance(each, int) for each in (low, wanted, high)):
        return None  # not known yet
    return (
        None
        if 0 <= low <= wanted <= high and high >= 1
        else "expected 0 ≤ minSize ≤ desiredSize ≤ maxSize, maxSize ≥ 1"
    )


def _taints(value: list[Mapping[str, Any]]) -> str | None:
    wrong = [each.get("effect") for each in value if each.get("effect") not in TAINT_EFFECTS]
    return f"effect {wrong[0]}: expected one of {', '.join(TAINT_EFFECTS)}" if wrong else None


def _create_addon(aws: Aws, inputs: Properties) -> str:
    aws.call(
        "eks",
        "create_addon",
        clusterName=inputs["clusterName"],
        addonName=inputs["addonName"],
        addonVersion=inputs.get("addonVersion"),
        configurationValues=inputs.get("configurationValues"),
        serviceAccountRoleArn=inputs.get("serviceAccountRoleArn"),
        resolveConflicts=inputs.get("resolveConflictsOnCreate"),
        tags=inputs.get("tagsAll"),
    )
    return f"{inputs['clusterName']}:{inputs['addonName']}"


def _read_addon(aws: Aws, id: str) -> Properties | None:
    cluster, _, name = id.partition(":")
    addon = aws.find("eks", "describe_addon", "addon", clusterName=cluster, addonName=name)
    return addon and {
        "arn": addon["addonArn"],
        "clusterName": cluster,
        "addonName": name,
        "addonVersion": addon["addonVersion"],
        "configurationValues": addon.get("configurationValues"),
        "serviceAccountRoleArn": addon.get("serviceAccountRoleArn"),
        "createdAt": str(addon["createdAt"]),
        "modifiedAt": str(addon["modifiedAt"]),
        "tagsAll": addon.get("tags", {}),
    }


def _update_addon(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    cluster, _, name = id.partition(":")
    aws.call(
        "eks",
        "update_addon",
        clusterName=cluster,
        addonName=name,
        addonVersion=new.get("addonVersion"),
        configurationValues=new.get("configurationValues"),
        serviceAccountRoleArn=new.get("serviceAccountRoleArn"),
        resolveConflicts=new.get("resolveConflictsOnUpdate"),
    )


def _delete_addon(aws: Aws, id: str, inputs: Properties) -> None:
    cluster, _, name = id.partition(":")
    aws.gone("eks", "delete_addon", clusterName=cluster, addonName=name, preserve=inputs.get("preserve"))


def _create_entry(aws: Aws, inputs: Properties) -> str:
    aws.call(
        "eks",
        "create_access_entry",
        clusterName=inputs["clusterName"],
        principalArn=inputs["principalArn"],
        kubernetesGroups=inputs.get("kubernetesGroups"),
        type=inputs["type"],
        username=inputs.get("userName"),
        tags=inputs.get("tagsAll"),
    )
    return f"{inputs['clusterName']}:{inputs['principalArn']}"


def _read_entry(aws: Aws, id: str) -> Properties | None:
    cluster, _, principal = id.partition(":")
    entry = aws.find("eks", "describe_access_entry", "accessEntry", clusterName=cluster, principalArn=principal)
    return entry and {
        "accessEntryArn": entry["accessEntryArn"],
        "clusterName": cluster,
        "principalArn": principal,
        "kubernetesGroups": entry.get("kubernetesGroups", []),
        "type": entry["type"],
        "userName": entry["username"],
        "createdAt": str(entry["createdAt"]),
        "modifiedAt": str(entry["modifiedAt"]),
        "tagsAll": entry.get("tags", {}),
    }


def _update_entry(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    cluster, _, principal = id.partition(":")
    aws.call(
        "eks",
        "update_access_entry",
        clusterName=cluster,
        principalArn=principal,
        kubernetesGroups=new.get("kubernetesGroups") or [],
        username=new.get("userName"),
    )


def _delete_entry(aws: Aws, id: str, inputs: Properties) -> None:
    cluster, _, principal = id.partition(":")
    aws.gone("eks", "delete_access_entry", clusterName=cluster, principalArn=principal)


def _scope(inputs: Properties) -> dict[str, Any]:
    scope = inputs["accessScope"]
    return {"type": scope["type"], "namespaces": scope.get("namespaces") or []}


def _associate(aws: Aws, inputs: Properties) -> str:
    cluster, principal, policy = inputs["clusterName"], inputs["principalArn"], inputs["policyArn"]
    aws.call(
        "eks",
        "associate_access_policy",
        clusterName=cluster,
        principalArn=principal,
        policyArn=policy,
        accessScope=_scope(inputs),
    )
    return f"{cluster}#{principal}#{policy}"


def _read_associated(aws: Aws, id: str) -> Properties | None:
    if id.count("#") != 2:
        raise ProviderError(f"{id!r} is no id of an access policy association: expected cluster#principal#policy")
    cluster, principal, policy = id.split("#")
    policies = aws.find(
        "eks",
        "list_associated_access_policies",
        "associatedAccessPolicies",
        clusterName=cluster,
        principalArn=principal,
    )
    found = next((each for each in policies or () if each["policyArn"] == policy), None)
    return found and {
        "clusterName": cluster,
        "principalArn": principal,
        "policyArn": policy,
        "accessScope": found["accessScope"],
        "associatedAt": str(found["associatedAt"]),
        "modifiedAt": str(found["modifiedAt"]),
    }


def _disassociate(aws: Aws, id: str, inputs: Properties) -> None:
    cluster, principal, policy = id.split("#")
    aws.gone("eks", "disassociate_access_policy", clusterName=cluster, principalArn=principal, policyArn=policy)


def _create_identity(aws: Aws, inputs: Properties) -> str:
    answer = aws.call(
        "eks",
        "create_pod_identity_association",
        clusterName=inputs["clusterName"],
        namespace=inputs["namespace"],
        serviceAccount=inputs["serviceAccount"],
        roleArn=inputs["roleArn"],
        targetRoleArn=inputs.get("targetRoleArn"),
        disableSessionTags=inputs["disableSessionTags"],
        tags=inputs.get("tagsAll"),
    )
    return str(answer["association"]["associationId"])


def _cluster_of(aws: Aws, association: str) -> str | None:
    """The cluster of an association: its id does not name it."""
    for cluster in aws.call("eks", "list_clusters")["clusters"]:
        found = aws.call("eks", "list_pod_identity_associations", clusterName=cluster)["associations"]
        if any(each["associationId"] == association for each in found):
            return str(cluster)
    return None


def _read_identity(aws: Aws, id: str) -> Properties | None:
    """By the association's id, or, on import, by cluster and id with a comma between."""
    named, _, association = id.rpartition(",")
    cluster = named or _cluster_of(aws, association)
    found = cluster and aws.find(
        "eks", "describe_pod_identity_association", "association", clusterName=cluster, associationId=association
    )
    if not found:
        return None
    return {
        "associationArn": found["associationArn"],
        "associationId": association,
        "clusterName": cluster,
        "namespace": found["namespace"],
        "serviceAccount": found["serviceAccount"],
        "roleArn": found["roleArn"],
        "targetRoleArn": found.get("targetRoleArn"),
        "externalId": found.get("externalId"),
        "disableSessionTags": found["disableSessionTags"],
        "tagsAll": found.get("tags", {}),
    }


IDENTITY_FIELDS = ("roleArn", "targetRoleArn", "disableSessionTags")


def _update_identity(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if any(old.get(name) != new.get(name) for name in IDENTITY_FIELDS):
        aws.call(
            "eks",
            "update_pod_identity_association",
            clusterName=new["clusterName"],
            associationId=id.rpartition(",")[2],
            roleArn=new["roleArn"],
            targetRoleArn=new.get("targetRoleArn") or "",
            disableSessionTags=new["disableSessionTags"],
        )


def _delete_identity(aws: Aws, id: str, inputs: Properties) -> None:
    association = id.rpartition(",")[2]
    aws.gone("eks", "delete_pod_identity_association", clusterName=inputs["clusterName"], associationId=association)


LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")


def _log_types(value: list[str]) -> str | None:
    wrong = [each for each in value if each not in LOG_TYPES]
    return f"{wrong[0]}: expected any of {', '.join(LOG_TYPES)}" if wrong else None


def _version_problem(value: str) -> str | None:
    from localcloud.kubernetes.validation import known_versions  # what the local cluster's objects can be held to

    known = known_versions()
    return None if value in known else f"expected a minor version of Kubernetes from {known[0]} to {known[-1]}"


def _scope_problem(value: Mapping[str, Any]) -> str | None:
    kind, namespaces = value["type"], value.get("namespaces")
    if kind not in ("cluster", "namespace"):
        return f"type {kind}: expected cluster or namespace"
    if bool(namespaces) != (kind == "namespace"):
        return f"namespaces {namespaces}: expected with the type namespace, and only there"
    return None


def _one_disk_size(inputs: Properties) -> Iterator[tuple[str, str]]:
    if inputs.get("diskSize") is not None and inputs.get("launchTemplate") is not None:
        yield "diskSize", "with a launch template the disk's size belongs into the template"


TYPES = (
    ResourceType(
        token="aws:eks/cluster:Cluster",
        carried=words(
            "name version roleArn vpcConfig kubernetesNetworkConfig encryptionConfig accessConfig "
            "enabledClusterLogTypes bootstrapSelfManagedAddons tags"
        ),
        unread=words("bootstrapSelfManagedAddons"),
        replace_on=words("name roleArn kubernetesNetworkConfig.serviceIpv4Cidr bootstrapSelfManagedAddons"),
        replaces=_other_cluster,
        refused=words(
            "vpcConfig.clusterSecurityGroupId vpcConfig.vpcId vpcConfig.controlPlaneEgressMode "
            "kubernetesNetworkConfig.serviceIpv6Cidr"
        ),
        kept=words(
            "version accessConfig accessConfig.authenticationMode accessConfig.bootstrapClusterCreatorAdminPermissions "
            "kubernetesNetworkConfig kubernetesNetworkConfig.serviceIpv4Cidr kubernetesNetworkConfig.ipFamily "
            "kubernetesNetworkConfig.elasticLoadBalancing vpcConfig.publicAccessCidrs"
        ),
        unordered=words(
            "vpcConfig.subnetIds vpcConfig.securityGroupIds vpcConfig.publicAccessCidrs encryptionConfig.resources "
            "enabledClusterLogTypes"
        ),
        changing=words("platformVersion status vpcConfig"),
        checks={
            "name": matching(r"[0-9A-Za-z][\w-]{0,99}", "1 to 100 letters, digits, _ and -, a letter or digit first"),
            "version": _version_problem,
            "enabledClusterLogTypes": _log_types,
        },
        defaults={"bootstrapSelfManagedAddons": True},
        named_by="name",
        create=_create_cluster,
        read=_read_cluster,
        update=_update_cluster,
        delete=_delete_cluster,
        tag=_tag_cluster,
        served_by="moto; access config, encryption and version updates added",
    ),
    ResourceType(
        token="aws:eks/nodeGroup:NodeGroup",
        carried=words(
            "clusterName nodeGroupName nodeRoleArn subnetIds scalingConfig amiType capacityType instanceTypes diskSize "
            "launchTemplate labels taints updateConfig version tags"
        ),
        replace_on=words(
            "clusterName nodeGroupName nodeRoleArn subnetIds amiType capacityType instanceTypes diskSize "
            "launchTemplate.id launchTemplate.name"
        ),
        named_by="nodeGroupName",
        create=_create_node_group,
        read=_read_node_group,
        update=_update_node_group,
        delete=_delete_node_group,
        tag=_tag_node_group,
        kept=words(
            "amiType capacityType diskSize instanceTypes version updateConfig launchTemplate.id launchTemplate.name"
        ),
        unordered=words("subnetIds taints"),
        changing=words("releaseVersion status"),
        agree=_one_disk_size,
        checks={
            "amiType": matching(
                r"(AL2|AL2023|BOTTLEROCKET|WINDOWS)_\w+|CUSTOM", "an EKS image such as AL2023_x86_64_NVIDIA"
            ),
            "capacityType": one_of("ON_DEMAND", "SPOT", "CAPACITY_BLOCK"),
            "scalingConfig": _scaling,
            "taints": _taints,
        },
    ),
    ResourceType(
        token="aws:eks/addon:Addon",
        carried=words(
            "clusterName addonName addonVersion configurationValues serviceAccountRoleArn resolveConflictsOnCreate "
            "resolveConflictsOnUpdate preserve tags"
        ),
        unread=words("resolveConflictsOnCreate resolveConflictsOnUpdate preserve"),
        replace_on=words("clusterName addonName"),
        kept=words("addonVersion configurationValues"),
        changing=words("modifiedAt"),
        create=_create_addon,
        read=_read_addon,
        tag=_tag_by(_read_addon, "arn"),
        update=_update_addon,
        delete=_delete_addon,
        checks={
            "addonVersion": matching(r"v\d+\.\d+\.\d+([-+][\w.+-]+)?", "a version such as v1.20.0-eksbuild.1"),
            "resolveConflictsOnCreate": one_of("NONE", "OVERWRITE"),
            "resolveConflictsOnUpdate": one_of("NONE", "OVERWRITE", "PRESERVE"),
        },
        served_by="added to moto",
    ),
    ResourceType(
        token="aws:eks/accessEntry:AccessEntry",
        carried=words("clusterName principalArn kubernetesGroups type userName tags"),
        replace_on=words("clusterName principalArn type"),
        kept=words("kubernetesGroups userName"),
        unordered=words("kubernetesGroups"),
        changing=words("modifiedAt"),
        defaults={"type": "STANDARD"},
        create=_create_entry,
        read=_read_entry,
        tag=_tag_by(_read_entry, "accessEntryArn"),
        update=_update_entry,
        delete=_delete_entry,
        checks={
            "type": one_of(
                "STANDARD", "EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "EC2", "HYBRID_LINUX", "HYPERPOD_LINUX"
            )
        },
        served_by="added to moto",
    ),
    ResourceType(
        token="aws:eks/accessPolicyAssociation:AccessPolicyAssociation",
        carried=words("clusterName principalArn policyArn accessScope"),
        replace_on=words("clusterName principalArn policyArn accessScope"),
        unordered=words("accessScope.namespaces"),
        checks={"accessScope": _scope_problem},
        create=_associate,
        read=_read_associated,
        delete=_disassociate,
        served_by="added to moto",
    ),
    ResourceType(
        token="aws:eks/podIdentityAssociation:PodIdentityAssociation",
        carried=words("clusterName namespace serviceAccount roleArn targetRoleArn disableSessionTags tags"),
        defaults={"disableSessionTags": False},
        changing=words("externalId"),
        replace_on=words("clusterName namespace serviceAccount"),
        delete_before_replace=True,
        create=_create_identity,
        read=_read_identity,
        tag=_tag_by(_read_identity, "associationArn"),
        update=_update_identity,
        delete=_delete_identity,
        served_by="added to moto",
    ),
)
