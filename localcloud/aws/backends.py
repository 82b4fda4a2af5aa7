"""What the components need of AWS and moto lacks, added to moto itself, so that boto3 sees it on the same server.

EKS add-ons, access entries, access policy associations, pod identity associations and the cluster's access config; EC2
placement groups and capacity reservations; changes, subscribers and tags of budgets; file systems of Lustre, in
`localcloud.aws.lustre`. Each keeps what was asked for and answers as the API reference describes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

Record = dict[str, Any]


def install() -> None:
    """Add the operations to moto's response classes; a second call changes nothing."""
    from moto.budgets.responses import BudgetsResponse
    from moto.ec2.models.launch_templates import LaunchTemplate
    from moto.ec2.models.security_groups import SecurityGroupRule
    from moto.ec2.responses import EC2Response
    from moto.ec2.utils import EC2_RESOURCE_TO_PREFIX
    from moto.eks import urls as eks_urls
    from moto.eks.responses import EKSResponse
    from moto.iam.models import IAMBackend
    from moto.iam.responses import IamResponse
    from moto.kms import models as kms_models
    from moto.kms.utils import generate_private_key
    from moto.logs.responses import LogsResponse
    from moto.s3.models import FakeBucket, FakeDeleteMarker

    from localcloud.aws import lustre

    lustre.install()
    for operation in (*_EKS_OPERATIONS, *_EKS_WRAPPERS):
        setattr(EKSResponse, operation.__name__, operation)
    for name, operation in _BUDGETS_OPERATIONS.items():
        setattr(BudgetsResponse, name, operation)
    for operation in _EC2_OPERATIONS:
        setattr(EC2Response, operation.__name__, operation)
    for operation in _IAM_OPERATIONS:
        setattr(IamResponse, operation.__name__, operation)
    for operation in _LOGS_OPERATIONS:
        setattr(LogsResponse, operation.__name__, operation)
    for changed, name, method in (
        (FakeBucket, "get_permission", _bucket_permission),
        (FakeDeleteMarker, "dispose", _nothing_to_dispose),
        (SecurityGroupRule, "description", property(_description_of_rule)),
        (LaunchTemplate, "tags", property(_tags_of_today, lambda template, tags: None)),
        (IAMBackend, "_init_aws_policies", _policies_of(IAMBackend._init_aws_policies)),
        (kms_models, "generate_private_key", _private_key_of(generate_private_key)),
    ):
        setattr(changed, name, method)
    EC2_RESOURCE_TO_PREFIX |= {"capacity-reservation": "cr", "placement-group": "pg"}  # so that CreateTags takes them
    for path in EKS_PATHS:
        eks_urls.url_paths[f"{{0}}{path}$"] = eks_urls.response.dispatch


def _bucket_permission(bucket: Any, action: str, resource: str) -> Any:
    """A bucket policy's verdict; moto knows no conditions, so "deny without TLS" would deny everything.

    A request over the loopback of this machine counts as one over TLS.
    """
    from moto.iam.access_control import IAMPolicy, PermissionResult

    if bucket.policy is None:
        return PermissionResult.NEUTRAL
    policy = json.loads(bucket.policy)
    policy["Statement"] = [each for each in policy["Statement"] if each.get("Condition") != WITHOUT_TLS]
    return IAMPolicy(json.dumps(policy)).is_action_permitted(action, resource)


def _tags_of_today(template: Any) -> list[Record]:
    """A launch template's own tags as they are now; moto keeps those of its creation."""
    found: list[Record] = template.get_tags()
    return found


def _policies_of(read: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """AWS's own policies, of the one partition that is served: moto asks the backends of all six whose an access key
    is, and each would read all 1,500."""
    return lambda backend: read(backend) if backend.region_name == "aws" else []


def _private_key_of(make: Callable[[str], Any]) -> Callable[[str], Any]:
    """Of a key in KMS; moto makes one of RSA, a tenth of a second long, for symmetric keys too, which have none."""
    return lambda key_spec: None if key_spec == "SYMMETRIC_DEFAULT" else make(key_spec)


def _description_of_rule(rule: Any) -> str | None:
    """Of a rule from addresses or from a group; moto keeps the latter's and does not show it."""
    return (rule.ip_range or {}).get("Description") or (rule.source_group or {}).get("Description")


def _nothing_to_dispose(marker: Any) -> None:
    """A delete marker holds no data; moto 5.2.5 asks it to let go of some, and fails on the last version of a key."""


WITHOUT_TLS = {"Bool": {"aws:SecureTransport": "false"}}

EKS_PATHS = (
    "/clusters/(?P<name>[^/]+)/encryption-config/associate",
    "/clusters/(?P<name>[^/]+)/updates",
    "/clusters/(?P<name>[^/]+)/node-groups/(?P<nodegroupName>[^/]+)/update-version",
    "/clusters/(?P<name>[^/]+)/addons",
    "/clusters/(?P<name>[^/]+)/addons/(?P<addonName>[^/]+)",
    "/clusters/(?P<name>[^/]+)/addons/(?P<addonName>[^/]+)/update",
    "/clusters/(?P<name>[^/]+)/access-entries",
    *(
        f"/clusters/(?P<name>[^/]+)/access-entries/(?P<principalArn>arn:[^/]+{'/[^/]+' * depth}){rest}"
        for depth in (1, 2, 3, 4)  # a role's name, and up to three folders of its path
        for rest in ("", "/access-policies", "/access-policies/(?P<policyArn>arn:.+)")
    ),
    "/clusters/(?P<name>[^/]+)/pod-identity-associations",
    "/clusters/(?P<name>[^/]+)/pod-identity-associations/(?P<associationId>[^/]+)",
)


def _now() -> str:
    from moto.core.utils import utcnow

    return utcnow().replace(tzinfo=UTC).isoformat()


def _records(backend: Any, kind: str) -> dict[str, Record]:
    """The records of one kind, kept on moto's own backend so that they live and are reset with it."""
    kept: dict[str, dict[str, Record]] = backend.__dict__.setdefault("fusion_records", {})
    return kept.setdefault(kind, {})


def _eks(response: Any, kind: str) -> dict[str, Record]:
    """The records of one kind of the cluster in the request; a missing cluster is moto's own error."""
    response.eks_backend.describe_cluster(name=response._get_param("name"))
    return _records(response.eks_backend, f"{kind}/{response._get_param('name')}")


def _result(value: Record) -> Any:
    from moto.core.responses import ActionResult

    return ActionResult(value)


def _body(response: Any) -> Record:
    parsed: Record = json.loads(response.body or "{}")
    return parsed


def _path_value(response: Any, name: str) -> str:
    from urllib.parse import unquote

    return unquote(str(response._get_param(name)))


def _found(records: dict[str, Record], key: str, kind: str) -> Record:
    if key not in records:
        _refuse("ResourceNotFoundException", f"No {kind} found for: {key}.", 404)
    return records[key]


def _new(records: dict[str, Record], key: str, kind: str, record: Record) -> Record:
    if key in records:
        _refuse("ResourceInUseException", f"{kind} already exists: {key}", 409)
    records[key] = record
    return record


def _refuse(code: str, message: str, status: int) -> None:
    from moto.core.exceptions import JsonRESTError

    error = JsonRESTError(code, message)
    error.code = status
    raise error


def _arn(response: Any, resource: str) -> str:
    return f"arn:aws:eks:{response.region}:{response.current_account}:{resource}"


def create_cluster(self: Any) -> Any:
    """moto's, keeping the access config that it drops; issuer and endpoint are each cluster's own, as in EKS."""
    from moto.moto_api._internal import mock_random

    answer = _MOTO_CREATE_CLUSTER(self)
    asked = _body(self).get("accessConfig") or {}
    cluster = self.eks_backend.describe_cluster(name=self._get_param("name"))
    own = mock_random.get_random_hex(32).upper()
    cluster.identity = {"oidc": {"issuer": f"https://oidc.eks.{self.region}.amazonaws.com/id/{own}"}}
    cluster.endpoint = f"https://{own}.gr7.{self.region}.eks.amazonaws.com"
    cluster.access_config = {
        "authenticationMode": asked.get("authenticationMode", "CONFIG_MAP"),
        "bootstrapClusterCreatorAdminPermissions": asked.get("bootstrapClusterCreatorAdminPermissions", True),
    }
    return answer


def update_cluster_version(self: Any) -> Any:
    """Set the version at once; EKS goes up by one minor version at a time."""
    cluster = self.eks_backend.describe_cluster(name=self._get_param("name"))
    before, after = cluster.version, _body(self)["version"]
    if int(after.partition(".")[2]) - int(before.partition(".")[2]) not in (0, 1):
        message = f"Unsupported Kubernetes minor version update from {before} to {after}"
        _refuse("InvalidParameterException", message, 400)
    cluster.version = after
    return _result({"update": {"id": f"update-{cluster.version}", "status": "Successful", "type": "VersionUpdate"}})


def update_cluster_config(self: Any) -> Any:
    """UpdateClusterConfig: what is asked for changes, the rest stays; moto's forgets it, and the access config."""
    cluster = self.eks_backend.describe_cluster(name=self._get_param("name"))
    asked = _body(self)
    # New objects: moto's defaults are shared by all clusters.
    cluster.resources_vpc_config = cluster.resources_vpc_config | (asked.get("resourcesVpcConfig") or {})
    network = asked.get("kubernetesNetworkConfig") or {}
    cluster.kubernetes_network_config = cluster.kubernetes_network_config | network
    cluster.logging = asked.get("logging") or cluster.logging
    if mode := (asked.get("accessConfig") or {}).get("authenticationMode"):
        before = cluster.access_config["authenticationMode"]
        if AUTHENTICATION_MODES.index(mode) < AUTHENTICATION_MODES.index(before):
            _refuse("InvalidParameterException", f"Unsupported authentication mode update from {before} to {mode}", 400)
        cluster.access_config["authenticationMode"] = mode
    return _result({"update": {"id": "update", "status": "Successful", "type": "ConfigUpdate"}})


AUTHENTICATION_MODES = ("CONFIG_MAP", "API_AND_CONFIG_MAP", "API")  # a cluster goes to the right only


def associate_encryption_config(self: Any) -> Any:
    """AssociateEncryptionConfig: once in a cluster's life."""
    cluster = self.eks_backend.describe_cluster(name=self._get_param("name"))
    if cluster.encryption_config:
        _refuse("ResourceInUseException", f"Cluster {cluster.name} already has an encryption config", 409)
    cluster.encryption_config = _body(self)["encryptionConfig"]
    return _result({"update": {"id": "update", "status": "Successful", "type": "AssociateEncryptionConfig"}})


def update_nodegroup_version(self: Any) -> Any:
    """Take the launch template's version, or the Kubernetes version, at once."""
    group = self.eks_backend.describe_nodegroup(
        cluster_name=self._get_param("name"), nodegroup_name=_path_value(self, "nodegroupName")
    )
    asked = _body(self)
    if asked.get("launchTemplate"):
        group.launch_template |= asked["launchTemplate"]
    group.version = asked.get("version") or group.version
    return _result({"update": {"id": "update", "status": "Successful", "type": "VersionUpdate"}})


def create_addon(self: Any) -> Any:
    """CreateAddon."""
    asked = _body(self)
    name = asked["addonName"]
    record = {
        "addonName": name,
        "clusterName": self._get_param("name"),
        "status": "ACTIVE",
        "addonVersion": asked.get("addonVersion", "v1.0.0-eksbuild.1"),
        "addonArn": _arn(self, f"addon/{self._get_param('name')}/{name}"),
        "createdAt": _now(),
        "modifiedAt": _now(),
        "tags": asked.get("tags", {}),
    } | {key: asked[key] for key in ("serviceAccountRoleArn", "configurationValues") if key in asked}
    return _result({"addon": _new(_eks(self, "addons"), name, "Addon", record)})


def describe_addon(self: Any) -> Any:
    """DescribeAddon."""
    return _result({"addon": _found(_eks(self, "addons"), _path_value(self, "addonName"), "addon")})


def list_addons(self: Any) -> Any:
    """ListAddons."""
    return _result({"addons": sorted(_eks(self, "addons"))})


def update_addon(self: Any) -> Any:
    """UpdateAddon."""
    record = _found(_eks(self, "addons"), _path_value(self, "addonName"), "addon")
    asked = _body(self)
    fields = ("addonVersion", "serviceAccountRoleArn", "configurationValues")
    record |= {key: asked[key] for key in fields if key in asked}
    return _result({"update": {"id": "update", "status": "Successful", "type": "AddonUpdate"}})


def delete_addon(self: Any) -> Any:
    """DeleteAddon."""
    records = _eks(self, "addons")
    record = _found(records, _path_value(self, "addonName"), "addon")
    return _result({"addon": records.pop(record["addonName"])})


def create_access_entry(self: Any) -> Any:
    """CreateAccessEntry."""
    asked = _body(self)
    principal = asked["principalArn"]
    record = {
        "clusterName": self._get_param("name"),
        "principalArn": principal,
        "kubernetesGroups": asked.get("kubernetesGroups", []),
        "accessEntryArn": _arn(self, f"access-entry/{self._get_param('name')}/{principal.partition(':iam::')[2]}"),
        "createdAt": _now(),
        "modifiedAt": _now(),
        "tags": asked.get("tags", {}),
        "username": asked.get("username", principal),
        "type": asked.get("type", "STANDARD"),
    }
    return _result({"accessEntry": _new(_eks(self, "access-entries"), principal, "Access entry", record)})


def describe_access_entry(self: Any) -> Any:
    """DescribeAccessEntry."""
    record = _found(_eks(self, "access-entries"), _path_value(self, "principalArn"), "access entry")
    return _result({"accessEntry": record})


def list_access_entries(self: Any) -> Any:
    """ListAccessEntries."""
    return _result({"accessEntries": sorted(_eks(self, "access-entries"))})


def update_access_entry(self: Any) -> Any:
    """UpdateAccessEntry."""
    record = _found(_eks(self, "access-entries"), _path_value(self, "principalArn"), "access entry")
    asked = _body(self)
    record |= {key: asked[key] for key in ("kubernetesGroups", "username") if key in asked}
    return _result({"accessEntry": record})


def delete_access_entry(self: Any) -> Any:
    """DeleteAccessEntry, with the policies associated to it."""
    records = _eks(self, "access-entries")
    principal = _found(records, _path_value(self, "principalArn"), "access entry")["principalArn"]
    del records[principal]
    associated = _eks(self, "access-policies")
    for key in [each for each in associated if each.startswith(f"{principal}|")]:
        del associated[key]
    return _result({})


def associate_access_policy(self: Any) -> Any:
    """AssociateAccessPolicy."""
    principal = _path_value(self, "principalArn")
    _found(_eks(self, "access-entries"), principal, "access entry")
    asked = _body(self)
    record = {
        "policyArn": asked["policyArn"],
        "accessScope": asked["accessScope"],
        "associatedAt": _now(),
        "modifiedAt": _now(),
    }
    _eks(self, "access-policies")[f"{principal}|{asked['policyArn']}"] = record
    name = self._get_param("name")
    return _result({"clusterName": name, "principalArn": principal, "associatedAccessPolicy": record})


def list_associated_access_policies(self: Any) -> Any:
    """ListAssociatedAccessPolicies."""
    principal = _path_value(self, "principalArn")
    _found(_eks(self, "access-entries"), principal, "access entry")
    associated = _eks(self, "access-policies").items()
    policies = [record for key, record in associated if key.startswith(f"{principal}|")]
    return _result(
        {"clusterName": self._get_param("name"), "principalArn": principal, "associatedAccessPolicies": policies}
    )


def disassociate_access_policy(self: Any) -> Any:
    """DisassociateAccessPolicy."""
    records = _eks(self, "access-policies")
    key = f"{_path_value(self, 'principalArn')}|{_path_value(self, 'policyArn')}"
    _found(records, key, "access policy association")
    del records[key]
    return _result({})


def create_pod_identity_association(self: Any) -> Any:
    """CreatePodIdentityAssociation."""
    from moto.moto_api._internal import mock_random

    asked = _body(self)
    records = _eks(self, "pod-identities")
    same = [
        record
        for record in records.values()
        if (record["namespace"], record["serviceAccount"]) == (asked["namespace"], asked["serviceAccount"])
    ]
    if same:
        account = f"{asked['namespace']}/{asked['serviceAccount']}"
        _refuse("ResourceInUseException", f"Association already exists: {same[0]['associationId']} for {account}", 409)
    name = self._get_param("name")
    id = f"a-{mock_random.get_random_hex(17)}"
    records[id] = {
        "clusterName": name,
        "namespace": asked["namespace"],
        "serviceAccount": asked["serviceAccount"],
        "roleArn": asked["roleArn"],
        **_target(self, asked),
        "associationArn": _arn(self, f"podidentityassociation/{name}/{id}"),
        "associationId": id,
        "createdAt": _now(),
        "modifiedAt": _now(),
        "tags": asked.get("tags", {}),
    }
    return _result({"association": records[id]})


def describe_pod_identity_association(self: Any) -> Any:
    """DescribePodIdentityAssociation."""
    record = _found(_eks(self, "pod-identities"), _path_value(self, "associationId"), "association")
    return _result({"association": record})


def list_pod_identity_associations(self: Any) -> Any:
    """ListPodIdentityAssociations."""
    return _result({"associations": list(_eks(self, "pod-identities").values())})


def update_pod_identity_association(self: Any) -> Any:
    """UpdatePodIdentityAssociation."""
    record = _found(_eks(self, "pod-identities"), _path_value(self, "associationId"), "association")
    asked = _body(self)
    record["roleArn"] = asked.get("roleArn", record["roleArn"])
    record |= _target(self, asked)
    return _result({"association": record})


def _target(response: Any, asked: Record) -> Record:
    """The role to be assumed further, with the id to expect of the caller; an empty one takes it away."""
    target = asked.get("targetRoleArn") or None
    external = f"{response.current_account}/{response._get_param('name')}/{asked.get('namespace', '')}"
    return {
        "disableSessionTags": bool(asked.get("disableSessionTags", False)),
        "targetRoleArn": target,
        "externalId": target and external,
    }


def delete_pod_identity_association(self: Any) -> Any:
    """DeletePodIdentityAssociation."""
    records = _eks(self, "pod-identities")
    record = _found(records, _path_value(self, "associationId"), "association")
    return _result({"association": records.pop(record["associationId"])})


def tag_resource(self: Any) -> Any:
    """TagResource of whatever has the ARN; moto's knows clusters only."""
    tags = _tags_by_arn(self)
    tags.update(_body(self)["tags"])
    return _result({})


def untag_resource(self: Any) -> Any:
    """UntagResource of whatever has the ARN."""
    tags = _tags_by_arn(self)
    for key in self.querystring.get("tagKeys", []):
        tags.pop(key, None)
    return _result({})


def _tags_by_arn(response: Any) -> dict[str, str]:
    arn = response._extract_arn_from_path()
    backend = response.eks_backend
    for cluster in backend.clusters.values():
        for owner in (cluster, *cluster.nodegroups.values()):
            if owner.arn == arn:
                tags: dict[str, str] = owner.tags
                return tags
    for records in backend.__dict__.get("fusion_records", {}).values():
        for record in records.values():
            if arn in (record.get("addonArn"), record.get("accessEntryArn"), record.get("associationArn")):
                kept: dict[str, str] = record["tags"]
                return kept
    _refuse("NotFoundException", f"Resource was not found: {arn}", 404)
    raise AssertionError(arn)


def _ec2_id(prefix: str) -> str:
    from moto.moto_api._internal import mock_random

    return f"{prefix}-{mock_random.get_random_hex(17)}"


def _keep_ec2_tags(response: Any, id: str) -> None:
    """Tags given at creation, kept where moto keeps those of every EC2 resource."""
    for specification in response.params.get("TagSpecifications", []):
        tags = {tag["Key"]: tag["Value"] for tag in specification.get("Tags", [])}
        response.ec2_backend.create_tags([id], tags)


def _with_ec2_tags(response: Any, record: Record, id: str) -> Record:
    tags = response.ec2_backend.tags[id]
    return record | {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _ec2_missing(code: str, key: str) -> None:
    from moto.ec2.exceptions import EC2ClientError

    raise EC2ClientError(code, f"{key} does not exist")


def modify_security_group_rules(self: Any) -> Any:
    """ModifySecurityGroupRules; moto's changes no rule between groups and wants ports where there are none."""
    from moto.ec2.exceptions import InvalidSecurityGroupNotFoundError, InvalidSecurityGroupRuleIdNotFoundError

    group = self.ec2_backend.get_security_group_by_name_or_id(self.params["GroupId"])
    if group is None:
        raise InvalidSecurityGroupNotFoundError(self.params["GroupId"])
    for change in self.params["SecurityGroupRules"]:
        rule = group.get_rule(change["SecurityGroupRuleId"])
        if rule is None:
            raise InvalidSecurityGroupRuleIdNotFoundError(change["SecurityGroupRuleId"])
        asked = change["SecurityGroupRule"]
        described = {"Description": asked["Description"]} if asked.get("Description") else {}
        rule.ip_protocol = asked["IpProtocol"]
        has_ports = asked["IpProtocol"] != "-1"
        rule.from_port, rule.to_port = (int(asked[end]) if has_ports else None for end in ("FromPort", "ToPort"))
        if "ReferencedGroupId" in asked:
            rule.source_group = {"GroupId": asked["ReferencedGroupId"], **described}
        else:
            rule.ip_range = {"CidrIp": asked["CidrIpv4"], **described}
    return _result({"Return": True})


def modify_vpc_endpoint(self: Any) -> Any:
    """moto's, with the private DNS that it leaves as it was."""
    answer = _MOTO_MODIFY_ENDPOINT(self)
    if (wanted := self.params.get("PrivateDnsEnabled")) is not None:
        self.ec2_backend.vpc_end_points[self.params["VpcEndpointId"]].private_dns_enabled = wanted
    return answer


def create_placement_group(self: Any) -> Any:
    """CreatePlacementGroup."""
    from moto.ec2.exceptions import EC2ClientError

    asked = dict(self.params)
    groups = _records(self.ec2_backend, "placement-groups")
    if asked["GroupName"] in groups:
        raise EC2ClientError("InvalidPlacementGroup.Duplicate", f"{asked['GroupName']} already exists")
    id = _ec2_id("pg")
    groups[asked["GroupName"]] = {
        "GroupName": asked["GroupName"],
        "State": "available",
        "Strategy": asked.get("Strategy", "cluster"),
        "PartitionCount": asked.get("PartitionCount"),
        "SpreadLevel": asked.get("SpreadLevel"),
        "GroupId": id,
        "GroupArn": f"arn:aws:ec2:{self.region}:{self.current_account}:placement-group/{asked['GroupName']}",
    }
    _keep_ec2_tags(self, id)
    return _result({"PlacementGroup": _with_ec2_tags(self, groups[asked["GroupName"]], id)})


def describe_placement_groups(self: Any) -> Any:
    """DescribePlacementGroups, by name, id or all."""
    asked = dict(self.params)
    groups = _records(self.ec2_backend, "placement-groups")
    chosen = list(groups.values())
    for key, field in (("GroupNames", "GroupName"), ("GroupIds", "GroupId")):
        for wanted in asked.get(key, []):
            if wanted not in {group[field] for group in groups.values()}:
                _ec2_missing("InvalidPlacementGroup.Unknown", wanted)
        if asked.get(key):
            chosen = [group for group in chosen if group[field] in asked[key]]
    return _result({"PlacementGroups": [_with_ec2_tags(self, group, group["GroupId"]) for group in chosen]})


def delete_placement_group(self: Any) -> Any:
    """DeletePlacementGroup."""
    groups = _records(self.ec2_backend, "placement-groups")
    name = self.params["GroupName"]
    if name not in groups:
        _ec2_missing("InvalidPlacementGroup.Unknown", name)
    del groups[name]
    return _result({})


def create_capacity_reservation(self: Any) -> Any:
    """CreateCapacityReservation."""
    asked = dict(self.params)
    id = _ec2_id("cr")
    count = int(asked["InstanceCount"])
    record = {
        "CapacityReservationId": id,
        "OwnerId": self.current_account,
        "CapacityReservationArn": f"arn:aws:ec2:{self.region}:{self.current_account}:capacity-reservation/{id}",
        "InstanceType": asked["InstanceType"],
        "InstancePlatform": asked["InstancePlatform"],
        "AvailabilityZone": asked.get("AvailabilityZone"),
        "Tenancy": asked.get("Tenancy", "default"),
        "TotalInstanceCount": count,
        "AvailableInstanceCount": count,
        "EbsOptimized": bool(asked.get("EbsOptimized", False)),
        "EphemeralStorage": bool(asked.get("EphemeralStorage", False)),
        "State": "active",
        "EndDate": asked.get("EndDate"),
        "EndDateType": asked.get("EndDateType", "unlimited"),
        "InstanceMatchCriteria": asked.get("InstanceMatchCriteria", "open"),
    }
    _records(self.ec2_backend, "capacity-reservations")[id] = record
    _keep_ec2_tags(self, id)
    return _result({"CapacityReservation": _with_ec2_tags(self, record, id)})


def describe_capacity_reservations(self: Any) -> Any:
    """DescribeCapacityReservations, by id or all."""
    records = _records(self.ec2_backend, "capacity-reservations")
    wanted: Iterable[str] = self.params.get("CapacityReservationIds") or list(records)
    for id in wanted:
        if id not in records:
            _ec2_missing("InvalidCapacityReservationId.NotFound", id)
    return _result({"CapacityReservations": [_with_ec2_tags(self, records[id], id) for id in wanted]})


def modify_capacity_reservation(self: Any) -> Any:
    """ModifyCapacityReservation."""
    records = _records(self.ec2_backend, "capacity-reservations")
    id = self.params["CapacityReservationId"]
    if id not in records:
        _ec2_missing("InvalidCapacityReservationId.NotFound", id)
    if "InstanceCount" in self.params:
        records[id]["TotalInstanceCount"] = records[id]["AvailableInstanceCount"] = int(self.params["InstanceCount"])
    records[id] |= {key: self.params[key] for key in ("EndDate", "EndDateType") if key in self.params}
    if records[id]["EndDateType"] == "unlimited":
        records[id]["EndDate"] = None
    return _result({"Return": True})


def cancel_capacity_reservation(self: Any) -> Any:
    """CancelCapacityReservation; a cancelled one is gone from the list at once."""
    records = _records(self.ec2_backend, "capacity-reservations")
    id = self.params["CapacityReservationId"]
    if id not in records:
        _ec2_missing("InvalidCapacityReservationId.NotFound", id)
    del records[id]
    return _result({"Return": True})


def _original(service: str, name: str) -> Callable[[Any], Any]:
    from moto.ec2.responses import EC2Response
    from moto.eks.responses import EKSResponse

    method: Callable[[Any], Any] = getattr({"ec2": EC2Response, "eks": EKSResponse}[service], name)
    return method


_MOTO_CREATE_CLUSTER = _original("eks", "create_cluster")
_MOTO_MODIFY_ENDPOINT = _original("ec2", "modify_vpc_endpoint")

_EKS_WRAPPERS = (create_cluster, update_cluster_config, update_cluster_version, update_nodegroup_version)
_EKS_OPERATIONS = (
    associate_encryption_config,
    create_addon,
    describe_addon,
    list_addons,
    update_addon,
    delete_addon,
    create_access_entry,
    describe_access_entry,
    list_access_entries,
    update_access_entry,
    delete_access_entry,
    associate_access_policy,
    list_associated_access_policies,
    disassociate_access_policy,
    create_pod_identity_association,
    describe_pod_identity_association,
    list_pod_identity_associations,
    update_pod_identity_association,
    delete_pod_identity_association,
    tag_resource,
    untag_resource,
)


def add_client_id_to_open_id_connect_provider(self: Any) -> Any:
    """AddClientIDToOpenIDConnectProvider; one that is there already is no error."""
    ids = self.backend.get_open_id_connect_provider(self._get_param("OpenIDConnectProviderArn")).client_id_list
    if (wanted := self._get_param("ClientID")) not in ids:
        ids.append(wanted)
    return _result({})


def remove_client_id_from_open_id_connect_provider(self: Any) -> Any:
    """RemoveClientIDFromOpenIDConnectProvider; one that is not there is no error."""
    ids = self.backend.get_open_id_connect_provider(self._get_param("OpenIDConnectProviderArn")).client_id_list
    if (unwanted := self._get_param("ClientID")) in ids:
        ids.remove(unwanted)
    return _result({})


def associate_kms_key(self: Any) -> Any:
    """AssociateKmsKey with a log group."""
    _log_group(self).kms_key_id = self._get_param("kmsKeyId")
    return _result({})


def disassociate_kms_key(self: Any) -> Any:
    """DisassociateKmsKey from a log group."""
    _log_group(self).kms_key_id = None
    return _result({})


def _log_group(response: Any) -> Any:
    from moto.logs.exceptions import ResourceNotFoundException

    groups = response.logs_backend.groups
    if (name := response._get_param("logGroupName")) not in groups:
        raise ResourceNotFoundException
    return groups[name]


def create_budget(self: Any) -> Any:
    """moto's, with a whole time period, and keeping the tags that it drops."""
    budget = self._get_param("Budget")
    _fill_period(budget)
    self.backend.create_budget(
        self._get_param("AccountId"), budget, self._get_param("NotificationsWithSubscribers") or []
    )
    _budget_tags(self)[_budget_arn(self, budget["BudgetName"])] = list(self._get_param("ResourceTags") or [])
    return _result({})


def update_budget(self: Any) -> Any:
    """UpdateBudget: the new one stands in the old one's place, with its alarms."""
    asked = self._get_param("NewBudget")
    _fill_period(asked)
    budget = _budget(self, asked["BudgetName"])
    budget.budget = asked | {"LastUpdatedTime": datetime.fromisoformat(_now()).timestamp()}
    return _result({})


def describe_subscribers_for_notification(self: Any) -> Any:
    """DescribeSubscribersForNotification."""
    asked = self._get_param("Notification")
    alarms = _budget(self, self._get_param("BudgetName")).notifications
    told = next((each.subscribers for each in alarms if _same_alarm(each.details, asked)), None)
    if told is None:
        _refuse("NotFoundException", "Unable to get subscribers - the notification doesn't exist.", 404)
    return _result({"Subscribers": told})


def list_tags_of_budget(self: Any) -> Any:
    """ListTagsForResource."""
    return _result({"ResourceTags": _budget_tags(self).get(self._get_param("ResourceARN"), [])})


def tag_budget(self: Any) -> Any:
    """TagResource."""
    tags, arn = _budget_tags(self), self._get_param("ResourceARN")
    added = self._get_param("ResourceTags")
    stay = [each for each in tags.get(arn, []) if each["Key"] not in {tag["Key"] for tag in added}]
    tags[arn] = [*stay, *added]
    return _result({})


def untag_budget(self: Any) -> Any:
    """UntagResource."""
    tags, arn, gone = _budget_tags(self), self._get_param("ResourceARN"), self._get_param("ResourceTagKeys")
    tags[arn] = [each for each in tags.get(arn, []) if each["Key"] not in gone]
    return _result({})


def _fill_period(budget: Record) -> None:
    """What AWS takes where it is not told: from this month's beginning, to 2087."""
    period = budget.setdefault("TimePeriod", {})
    month = datetime.fromisoformat(_now()).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    period.setdefault("Start", month.timestamp())
    period.setdefault("End", END_OF_BUDGETS)


def _budget(response: Any, name: str) -> Any:
    account = response._get_param("AccountId")
    response.backend.describe_budget(account, name)  # a missing one is moto's own error
    return response.backend.budgets[account][name]


def _budget_arn(response: Any, name: str) -> str:
    return f"arn:aws:budgets::{response.current_account}:budget/{name}"


def _budget_tags(response: Any) -> dict[str, list[dict[str, str]]]:
    kept: dict[str, list[dict[str, str]]] = response.backend.__dict__.setdefault("fusion_tags", {})
    return kept


def _same_alarm(one: Record, other: Record) -> bool:
    return {key: one.get(key) for key in ALARM_KEY} == {key: other.get(key) for key in ALARM_KEY}


END_OF_BUDGETS = 3706473600
"""2087-06-15, the API reference's default."""
ALARM_KEY = ("NotificationType", "ComparisonOperator", "Threshold", "ThresholdType")
_BUDGETS_OPERATIONS = {
    "create_budget": create_budget,
    "update_budget": update_budget,
    "describe_subscribers_for_notification": describe_subscribers_for_notification,
    "list_tags_for_resource": list_tags_of_budget,
    "tag_resource": tag_budget,
    "untag_resource": untag_budget,
}
_IAM_OPERATIONS = (add_client_id_to_open_id_connect_provider, remove_client_id_from_open_id_connect_provider)
_LOGS_OPERATIONS = (associate_kms_key, disassociate_kms_key)
_EC2_OPERATIONS = (
    modify_vpc_endpoint,
    modify_security_group_rules,
    create_placement_group,
    describe_placement_groups,
    delete_placement_group,
    create_capacity_reservation,
    describe_capacity_reservations,
    modify_capacity_reservation,
    cancel_capacity_reservation,
)
