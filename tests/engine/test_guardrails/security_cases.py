"""For each guardrail of security: resources that it alone refuses, and resources that the whole pack lets pass.

Inputs are written as the engine sees them.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.engine.test_guardrails.programs import Made

KEY = f"arn:aws:kms:us-east-1:123456789012:key/{uuid.UUID(int=1)}"
GCP_KEY = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"
REGISTRY = "registry.example.com/fusion"
IMAGE = f"{REGISTRY}/app@sha256:{64 * 'a'}"
TEAM = {"team": "research"}
SETTINGS: dict[str, Any] = {
    "image_registries_allowed": [REGISTRY],
    "regions_allowed": ["us-east-1", "europe-west4"],
    "tags_required": ["team"],
    "pods_exempt": ["gpu/operator", "kube-system/*"],
    "hiding_types_exempt": ["aws:cloudformation/stackSet*"],
}

INSTANCE = "aws:ec2/instance:Instance"
LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
SUBNET = "aws:ec2/subnet:Subnet"
VOLUME = "aws:ebs/volume:Volume"
VPC = "aws:ec2/vpc:Vpc"
EKS = "aws:eks/cluster:Cluster"
RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
BUCKET = "aws:s3/bucket:Bucket"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
POLICY = "aws:iam/policy:Policy"
ROLE = "aws:iam/role:Role"
QUEUE = "aws:sqs/queue:Queue"
PARAMETER = "aws:ssm/parameter:Parameter"
POD = "kubernetes:core/v1:Pod"
CRON_JOB = "kubernetes:batch/v1:CronJob"
SERVICE = "kubernetes:core/v1:Service"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
SECRET = "kubernetes:core/v1:Secret"
INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
VOLUME_OF_CLUSTER = "kubernetes:core/v1:PersistentVolume"
RELEASE = "kubernetes:helm.sh/v3:Release"
BINDING = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding"
CLUSTER_ROLE = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole"
GCP_BUCKET = "gcp:storage/bucket:Bucket"
GCP_DISK = "gcp:compute/disk:Disk"
GCP_INSTANCE = "gcp:compute/instance:Instance"
GCP_FIREWALL = "gcp:compute/firewall:Firewall"
GKE = "gcp:container/cluster:Cluster"


@dataclass(frozen=True)
class Cases:
    """What a guardrail refuses, each for its reason alone, and what it lets pass."""

    refused: tuple[Made, ...]
    passing: tuple[Made, ...]


@dataclass(frozen=True)
class StackCases:
    """What a guardrail of the whole stack refuses, and what it lets pass: each a program's resources by name."""

    refused: tuple[dict[str, Made], ...]
    passing: tuple[dict[str, Made], ...]
    settings: dict[str, Any] = field(default_factory=dict)


def document(*statements: dict[str, Any]) -> str:
    """A policy of AWS; its statements allow unless they say otherwise."""
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **each} for each in statements]})


def instance(**changes: Any) -> Made:
    """An instance that passes every guardrail, but for the changes."""
    safe = {
        "ami": "ami-12c6146b",
        "instanceType": "m6i.large",
        "associatePublicIpAddress": False,
        "metadataOptions": {"httpTokens": "required"},
        "rootBlockDevice": {"volumeSize": 8, "encrypted": True, "kmsKeyId": KEY},
        "tags": TEAM,
    }
    return Made(INSTANCE, safe | changes)


def launch_template(**changes: Any) -> Made:
    """A launch template that passes every guardrail, but for the changes."""
    disk = {"deviceName": "/dev/xvda", "ebs": {"encrypted": "true", "kmsKeyId": KEY}}
    safe = {"blockDeviceMappings": [disk], "metadataOptions": {"httpTokens": "required"}, "tags": TEAM}
    return Made(LAUNCH_TEMPLATE, safe | changes)


def volume(**changes: Any) -> Made:
    """A volume that passes every guardrail, but for the changes."""
    safe = {"availabilityZone": "us-east-1a", "size": 1, "encrypted": True, "kmsKeyId": KEY, "tags": TEAM}
    return Made(VOLUME, safe | changes)


def bucket_policy(*statements: dict[str, Any], bucket: Any = "store") -> Made:
    """The policy of a bucket."""
    return Made(BUCKET_POLICY, {"bucket": bucket, "policy": document(*statements)})


def only_with_tls(bucket: str = "store", **changes: Any) -> dict[str, Any]:
    """The statement that refuses requests without TLS, but for the changes."""
    return {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        **changes,
    }


def container(**changes: Any) -> dict[str, Any]:
    """A container that passes every guardrail, but for the changes."""
    context = {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    safe = {
        "name": "main",
        "image": IMAGE,
        "securityContext": context | changes.pop("context", {}),
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    }
    return safe | changes


def pod(*containers: dict[str, Any], metadata: dict[str, Any] | None = None, **spec: Any) -> Made:
    """A pod of these containers."""
    inputs = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [*containers], **spec}}
    return Made(POD, inputs | ({"metadata": metadata} if metadata else {}))


def cron_job(*containers: dict[str, Any], **spec: Any) -> Made:
    """A job that a schedule starts; its containers are the second of two levels down."""
    template = {"spec": {"containers": [*containers], "restartPolicy": "Never", **spec}}
    inputs = {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": template}}}
    return Made(CRON_JOB, {"apiVersion": "batch/v1", "kind": "CronJob", "spec": inputs})


def kubernetes(type: str, **fields: Any) -> Made:
    """An object of Kubernetes."""
    api_version, kind = type.removeprefix("kubernetes:").removeprefix("core/").rsplit(":", 1)
    return Made(type, {"apiVersion": api_version, "kind": kind, **fields})


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Made:
    """A service of port 443."""
    fields = {"metadata": {"annotations": annotations}} if annotations else {}
    return kubernetes(SERVICE, spec={"ports": [{"port": 443}], "selector": {"app": "a"}, **spec}, **fields)


def volume_of_cluster(**source: Any) -> Made:
    """A persistent volume."""
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], **source}
    return kubernetes(VOLUME_OF_CLUSTER, spec=spec)


def gcp_bucket(**changes: Any) -> Made:
    """A bucket of Google Cloud that passes every guardrail, but for the changes."""
    safe = {
        "location": "EUROPE-WEST4",
        "publicAccessPrevention": "enforced",
        "uniformBucketLevelAccess": True,
        "encryption": {"defaultKmsKeyName": GCP_KEY},
        "labels": TEAM,
    }
    return Made(GCP_BUCKET, safe | changes)


def gcp_disk(**changes: Any) -> Made:
    """A disk of Google Cloud that passes every guardrail, but for the changes."""
    safe = {"zone": "europe-west4-a", "diskEncryptionKey": {"kmsKeySelfLink": GCP_KEY}, "labels": TEAM}
    return Made(GCP_DISK, safe | changes)


def gcp_instance(**changes: Any) -> Made:
    """An instance of Google Cloud that passes every guardrail, but for the changes."""
    safe = {
        "zone": "europe-west4-a",
        "machineType": "g2-standard-4",
        "bootDisk": {"kmsKeySelfLink": GCP_KEY},
        "networkInterfaces": [{"subnetwork": "nodes"}],
        "labels": TEAM,
    }
    return Made(GCP_INSTANCE, safe | changes)


def gke(**changes: Any) -> Made:
    """A cluster of Google Cloud that passes every guardrail, but for the changes."""
    safe = {
        "location": "europe-west4",
        "privateClusterConfig": {"enablePrivateNodes": True, "enablePrivateEndpoint": True},
        "databaseEncryption": {"state": "ENCRYPTED", "keyName": GCP_KEY},
        "nodeConfig": {"bootDiskKmsKey": GCP_KEY},
        "resourceLabels": TEAM,
    }
    return Made(GKE, safe | changes)


def eks(**vpc_config: Any) -> Made:
    """A cluster of AWS that passes every guardrail, but for where its endpoint is."""
    inputs = {
        "roleArn": "arn:aws:iam::123456789012:role/cluster",
        "encryptionConfig": {"provider": {"keyArn": KEY}, "resources": ["secrets"]},
        "vpcConfig": {"subnetIds": ["subnet-1"], **vpc_config},
        "tags": TEAM,
    }
    return Made(EKS, inputs)


def role(**statement: Any) -> Made:
    """A role that may be taken by whom the statement says."""
    return Made(ROLE, {"assumeRolePolicy": document({"Action": "sts:AssumeRole", **statement})})


def queue(**statement: Any) -> Made:
    """A queue that may be used by whom the statement says."""
    policy = document({"Action": "sqs:SendMessage", "Resource": "*", **statement})
    return Made(QUEUE, {"kmsMasterKeyId": KEY, "policy": policy, "tags": TEAM})


def policy(**statement: Any) -> Made:
    """A policy of an identity."""
    return Made(POLICY, {"policy": document(statement)})


def web_rule(**changes: Any) -> Made:
    """A rule that lets everybody in to port 443, but for the changes."""
    safe = {"securityGroupId": "sg-1", "cidrIpv4": "0.0.0.0/0", "ipProtocol": "tcp", "fromPort": 443, "toPort": 443}
    return Made(RULE, safe | changes)


def bucket(**changes: Any) -> Made:
    """A bucket, which needs its companions."""
    return Made(BUCKET, {"tags": TEAM} | changes)


def bucket_key(bucket: Any) -> Made:
    """The companion of a bucket that names its key."""
    default = {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEY}
    rules = [{"applyServerSideEncryptionByDefault": default}]
    kind = "BucketServerSideEncryptionConfiguration"
    return Made(f"aws:s3/b{kind[1:]}:{kind}", {"bucket": bucket, "rules": rules})


BY_SERVICE = {"Principal": {"Service": "ec2.amazonaws.com"}}
GROUP = {"$id": "no-open-node-ports-passing-1"}

CASES: dict[str, Cases] = {
    "encryption-with-customer-keys": Cases(
        refused=(
            volume(kmsKeyId="alias/aws/ebs"),
            gcp_disk(diskEncryptionKey={"rawKey": "x"}),
            gke(nodePools=[{"nodeConfig": {"machineType": "g2-standard-4"}}]),
        ),
        passing=(volume(), gcp_disk()),
    ),
    "tls-only": Cases(
        refused=(
            kubernetes(INGRESS, spec={"rules": [{"host": "a.example.com"}]}),
            Made("gcp:compute/sSLPolicy:SSLPolicy", {"minTlsVersion": "TLS_1_1"}),
        ),
        passing=(
            kubernetes(INGRESS, spec={"rules": [{"host": "a.example.com"}], "tls": [{"hosts": ["a.example.com"]}]}),
            Made("gcp:compute/sSLPolicy:SSLPolicy", {"minTlsVersion": "TLS_1_2"}),
        ),
    ),
    "buckets-tls-only": Cases(
        refused=(
            bucket_policy(only_with_tls(Effect="Allow", Principal={"AWS": "arn:aws:iam::123456789012:root"})),
            bucket_policy(only_with_tls(Resource="arn:aws:s3:::another/*")),
            bucket_policy(only_with_tls(Condition={"Bool": {"aws:SecureTransport": "true"}})),
        ),
        passing=(
            bucket(bucket="store"),
            bucket_key("store"),
            bucket_policy(only_with_tls()),
            bucket(bucket="another"),
            bucket_key("another"),
            bucket_policy(only_with_tls(Resource="*", Action=["s3:GetObject", "s3:PutObject"]), bucket="another"),
        ),
    ),
    "no-public-bucket": Cases(
        refused=(
            bucket_policy(
                only_with_tls(), {"Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::store/*"}
            ),
            gcp_bucket(publicAccessPrevention="inherited"),
            Made(
                "gcp:storage/bucketIAMMember:BucketIAMMember",
                {"bucket": "b", "role": "roles/storage.objectViewer", "member": "allUsers"},
            ),
        ),
        passing=(
            Made(
                "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
                {
                    "bucket": "store",
                    "blockPublicAcls": True,
                    "blockPublicPolicy": True,
                    "ignorePublicAcls": True,
                    "restrictPublicBuckets": True,
                },
            ),
            gcp_bucket(),
        ),
    ),
    "private-cluster-endpoint": Cases(
        refused=(
            eks(publicAccessCidrs=["198.51.100.0/24", "0.0.0.0/1"]),
            eks(endpointPrivateAccess=True),
            gke(privateClusterConfig={"enablePrivateNodes": True}),
        ),
        passing=(
            gke(),
            gke(
                privateClusterConfig={"enablePrivateNodes": True},
                masterAuthorizedNetworksConfig={"cidrBlocks": [{"cidrBlock": "198.51.100.0/24"}]},
            ),
        ),
    ),
    "no-public-nodes": Cases(
        refused=(
            instance(associatePublicIpAddress=True),
            gcp_instance(networkInterfaces=[{"subnetwork": "nodes", "accessConfigs": [{}]}]),
            gke(privateClusterConfig={"enablePrivateEndpoint": True}),
        ),
        passing=(instance(), gcp_instance()),
    ),
    "no-open-node-ports": Cases(
        refused=(
            web_rule(toPort=444),
            service(type="NodePort"),
            Made(GCP_FIREWALL, {"network": "n", "allows": [{"protocol": "tcp"}], "sourceRanges": ["::/0"]}),
        ),
        passing=(
            Made(VPC, {"cidrBlock": "10.0.0.0/16", "tags": TEAM}),
            Made(
                "aws:ec2/securityGroup:SecurityGroup",
                {"vpcId": {"$id": "no-open-node-ports-passing-0"}},
            ),
            web_rule(securityGroupId=GROUP),
            web_rule(securityGroupId=GROUP, cidrIpv4="10.0.0.0/8", fromPort=0, toPort=65535),
            service(type="LoadBalancer", loadBalancerSourceRanges=["203.0.113.0/24"]),
            Made(GCP_FIREWALL, {"network": "n", "allows": [{"protocol": "tcp"}], "sourceRanges": ["10.0.0.0/8"]}),
        ),
    ),
    "no-wildcard-permissions": Cases(
        refused=(policy(Action="s3:*", Resource="arn:aws:s3:::*"), policy(NotAction="iam:*", Resource="*")),
        passing=(
            policy(Action="s3:*", Resource="arn:aws:s3:::store/*"),
            policy(Action=["ec2:Describe*", "s3:ListAllMyBuckets"], Resource="*"),
        ),
    ),
    "no-administrators": Cases(
        refused=(
            Made(
                "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
                {"role": "r", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
            ),
            kubernetes(
                BINDING,
                roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            ),
            Made("gcp:projects/iAMMember:IAMMember", {"project": "p", "role": "roles/editor", "member": "user:a@b.c"}),
        ),
        passing=(
            kubernetes(CLUSTER_ROLE, rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]),
            Made("gcp:projects/iAMMember:IAMMember", {"project": "p", "role": "roles/viewer", "member": "user:a@b.c"}),
        ),
    ),
    "no-strangers": Cases(
        refused=(
            role(Principal={"AWS": "*"}),
            queue(Principal="*", Condition={"StringLike": {"aws:PrincipalArn": "*"}}),
        ),
        passing=(
            role(**BY_SERVICE),
            queue(Principal="*", Condition={"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}}),
        ),
    ),
    "imdsv2": Cases(
        refused=(
            launch_template(metadataOptions={"httpTokens": "optional"}),
            instance(metadataOptions={"httpTokens": "required", "httpPutResponseHopLimit": 3}),
        ),
        passing=(
            launch_template(),
            instance(metadataOptions={"httpTokens": "required", "httpPutResponseHopLimit": 2}),
        ),
    ),
    "volumes-not-of-the-node": Cases(
        refused=(
            volume_of_cluster(hostPath={"path": "/"}),
            volume_of_cluster(hostPath={"path": "/tmp/cache", "type": "DirectoryOrCreate"}),
        ),
        passing=(
            volume_of_cluster(csi={"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}),
            volume_of_cluster(nfs={"server": "files.example.com", "path": "/data"}),
        ),
    ),
    "helm-charts-are-rendered": Cases(
        refused=(
            kubernetes(RELEASE, chart="app", name="operator"),
            kubernetes(RELEASE, chart="app", name="operators", namespace="gpu"),
        ),
        passing=(
            kubernetes(RELEASE, chart="app", name="operator", namespace="gpu"),
            kubernetes(RELEASE, chart="app", name="any", namespace="kube-system"),
        ),
    ),
    "nothing-hidden": Cases(
        refused=(
            Made("aws:cloudformation/stack:Stack", {"templateBody": "{}"}),
            Made("aws:cloudcontrol/resource:Resource", {"typeName": "AWS::EC2::Instance", "desiredState": "{}"}),
        ),
        passing=(
            Made("aws:cloudformation/stackSet:StackSet", {"templateBody": "{}"}),
            Made("aws:cloudformation/stackSetInstance:StackSetInstance", {"stackSetName": "s"}),
        ),
    ),
    "pods-not-root": Cases(
        refused=(
            pod(container(context={"runAsUser": 0})),
            cron_job(container(), initContainers=[container(name="init", context={"runAsNonRoot": None})]),
        ),
        passing=(
            pod(container(context={"runAsUser": 1})),
            cron_job(container(context={"runAsNonRoot": None}), securityContext={"runAsNonRoot": True}),
        ),
    ),
    "pods-read-only-root": Cases(
        refused=(
            pod(container(context={"readOnlyRootFilesystem": None})),
            cron_job(container(), container(name="side", context={"readOnlyRootFilesystem": False})),
        ),
        passing=(pod(container()), cron_job(container(), container(name="side"))),
    ),
    "pods-no-privilege-escalation": Cases(
        refused=(
            pod(container(context={"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}})),
            cron_job(container(context={"allowPrivilegeEscalation": None})),
        ),
        passing=(
            pod(container(context={"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})),
            pod(container(context={"privileged": False})),
        ),
    ),
    "pods-seccomp": Cases(
        refused=(
            pod(container(context={"seccompProfile": {"type": "Unconfined"}})),
            cron_job(container(context={"seccompProfile": None})),
        ),
        passing=(
            pod(container(context={"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}})),
            pod(
                container(context={"seccompProfile": None}),
                securityContext={"seccompProfile": {"type": "RuntimeDefault"}},
            ),
        ),
    ),
    "pods-limits": Cases(
        refused=(
            pod(container(resources={"limits": {"cpu": "1"}})),
            cron_job(container(resources={"limits": {"cpu": "1", "memory": "0"}})),
        ),
        passing=(
            pod(container(resources={"limits": {"cpu": "100m", "memory": "64Mi", "nvidia.com/gpu": "1"}})),
            cron_job(container(resources={"limits": {"cpu": 1, "memory": 1e9}})),
        ),
    ),
    "pods-no-host-access": Cases(
        refused=(
            pod(container(), volumes=[{"name": "root", "hostPath": {"path": "/"}}]),
            cron_job(container(), hostPID=True),
        ),
        passing=(
            pod(container(), volumes=[{"name": "tmp", "emptyDir": {}}], hostNetwork=False),
            pod(container(ports=[{"containerPort": 8080}])),
        ),
    ),
    "images-by-digest": Cases(
        refused=(
            pod(container(image=f"{REGISTRY}/app:1.0")),
            cron_job(container(), initContainers=[container(name="init", image=f"{REGISTRY}/app@sha256:{63 * 'a'}")]),
        ),
        passing=(pod(container()), pod(container(image=f"{REGISTRY}/app:1.0@sha256:{64 * 'b'}"))),
    ),
    "image-registries": Cases(
        refused=(
            pod(container(image=f"registry.example.com/fusion-of-another/app@sha256:{64 * 'a'}")),
            cron_job(container(image=f"app@sha256:{64 * 'a'}")),
        ),
        passing=(pod(container()), cron_job(container(image=f"{REGISTRY}/a/b/c@sha256:{64 * 'a'}"))),
    ),
    "no-plain-secrets": Cases(
        refused=(
            pod(container(env=[{"name": "DB_PASSWORD", "value": {"$secret": "correct-horse"}}])),
            kubernetes(CONFIG_MAP, data={"config.yaml": f"key: AKIA{16 * 'Q'}"}),
            launch_template(userData="ZXhwb3J0IERCX1BBU1NXT1JEPWNvcnJlY3QtaG9yc2U="),
        ),
        passing=(
            pod(
                container(
                    env=[{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]
                )
            ),
            kubernetes(CONFIG_MAP, data={"max_tokens": "4096", "password_file": "/run/secrets/db"}),
        ),
    ),
    "secrets-are-marked": Cases(
        refused=(
            kubernetes(SECRET, stringData={"password": "correct-horse"}),
            Made(PARAMETER, {"type": "SecureString", "keyId": KEY, "value": "correct-horse"}),
        ),
        passing=(
            kubernetes(SECRET, stringData={"password": {"$secret": "correct-horse"}}),
            Made(PARAMETER, {"type": "String", "value": "plain", "name": "plain"}),
        ),
    ),
    "data-residency": Cases(
        refused=(volume(region="us-east-2", availabilityZone="us-east-2a"), gcp_bucket(location="EU")),
        passing=(volume(region="us-east-1"), gcp_bucket(location="europe-west4")),
    ),
    "required-tags": Cases(
        refused=(volume(tags={"Name": "data"}), gcp_bucket(labels={"team": ""})),
        passing=(volume(tags={"Team": "a"}), gcp_bucket(labels={"team": "a"})),
    ),
}


def bucket_log(bucket: Any) -> Made:
    """The companion of a bucket that keeps its access log."""
    return Made("aws:s3/bucketLogging:BucketLogging", {"bucket": bucket, "targetBucket": "logs", "targetPrefix": "a/"})


def endpoint(service: str) -> Made:
    """A private way to a service of AWS."""
    inputs = {"vpcId": "vpc-1", "serviceName": f"com.amazonaws.us-east-1.{service}", "tags": TEAM}
    return Made("aws:ec2/vpcEndpoint:VpcEndpoint", inputs)


def budget(**changes: Any) -> Made:
    """A budget of a month."""
    inputs = {"budgetType": "COST", "limitAmount": "100", "limitUnit": "USD", "timeUnit": "MONTHLY"}
    return Made("aws:budgets/budget:Budget", inputs | changes)


ID = {"$id": "data"}
CONFIDENTIAL = TEAM | {"data-class": "confidential"}
TLS = bucket_policy(only_with_tls(Resource="*"), bucket=ID)
WHOLE = {"key": bucket_key(ID), "policy": TLS}
ALARM = [{"threshold": 80, "thresholdType": "PERCENTAGE", "comparisonOperator": "GREATER_THAN"}]


TEAMS_LIST = [{"key": "team", "value": "research", "propagateAtLaunch": True}]
"""TEAM as an Auto Scaling group has it."""


def group(template: dict[str, Any]) -> Made:
    """Machines that a group starts from a launch template."""
    return Made(
        "aws:autoscaling/group:Group", {"minSize": 0, "maxSize": 1, "launchTemplate": template, "tags": TEAMS_LIST}
    )


def mixed(template: dict[str, Any], *overrides: dict[str, Any]) -> Made:
    """Machines of several types, some from launch templates of their own."""
    types = [{"instanceType": "g5.xlarge"}, *({"launchTemplateSpecification": each} for each in overrides)]
    policy = {"launchTemplate": {"launchTemplateSpecification": template, "overrides": types}}
    inputs = {"minSize": 0, "maxSize": 1, "mixedInstancesPolicy": policy, "tags": TEAMS_LIST}
    return Made("aws:autoscaling/group:Group", inputs)


def fleet(template: dict[str, Any]) -> Made:
    """A fleet of EC2."""
    capacity = {"defaultTargetCapacityType": "spot", "totalTargetCapacity": 1}
    inputs = {"targetCapacitySpecification": capacity, "tags": TEAM}
    return Made("aws:ec2/fleet:Fleet", inputs | {"launchTemplateConfigs": [{"launchTemplateSpecification": template}]})


OWN_TEMPLATE = {"$id": "template"}
OWN_LATEST = {"launchTemplateId": OWN_TEMPLATE, "version": "$Latest"}

STACK_CASES: dict[str, StackCases] = {
    "launch-templates-seen": StackCases(
        refused=(
            {"template": launch_template(), "group": group({"id": "lt-0abc", "version": "$Latest"})},
            {"template": launch_template(), "fleet": fleet({"launchTemplateName": "elsewhere", "version": "$Latest"})},
            {"template": launch_template(), "group": mixed({"launchTemplateId": OWN_TEMPLATE, "version": "1"})},
            {"template": launch_template(), "group": mixed(OWN_LATEST, {"launchTemplateId": "lt-0abc"})},
            {
                "template": launch_template(),
                "elsewhere": volume(),
                "group": mixed(OWN_LATEST, {"launchTemplateId": {"$id": "elsewhere"}}),
            },
        ),
        passing=(
            {"template": launch_template(), "group": group({"id": OWN_TEMPLATE, "version": "$Latest"})},
            {
                "template": launch_template(name="own"),
                "fleet": fleet({"launchTemplateName": "own", "version": "$Latest"}),
                "group": mixed({"launchTemplateId": OWN_TEMPLATE, "version": "$Default"}, OWN_LATEST),
            },
        ),
    ),
    "buckets-have-customer-keys": StackCases(
        refused=(
            {"data": bucket(), "policy": TLS},
            {"data": bucket(), **WHOLE, "other": bucket(bucket="other", policy=document(only_with_tls("other")))},
        ),
        passing=(
            {"data": bucket(), **WHOLE},
            {
                "data": bucket(bucket="named"),
                "key": bucket_key("named"),
                "policy": bucket_policy(only_with_tls("named"), bucket="named"),
            },
        ),
    ),
    "buckets-have-policies": StackCases(
        refused=(
            {"data": bucket(), "key": bucket_key(ID)},
            {"data": bucket(), **WHOLE, "other": bucket(bucket="other"), "other-key": bucket_key("other")},
        ),
        passing=(
            {"data": bucket(), **WHOLE},
            {"data": bucket(bucket="inline", policy=document(only_with_tls("inline"))), "key": bucket_key(ID)},
        ),
    ),
    "confidential-data": StackCases(
        refused=(
            {"data": bucket(tags=CONFIDENTIAL), **WHOLE, "way": endpoint("s3")},
            {"data": bucket(tags=CONFIDENTIAL), **WHOLE, "log": bucket_log(ID), "way": endpoint("ecr.api")},
            {"data": gcp_bucket(labels=CONFIDENTIAL)},
        ),
        passing=(
            {"data": bucket(tags=CONFIDENTIAL), **WHOLE, "log": bucket_log(ID), "way": endpoint("s3")},
            {"data": gcp_bucket(labels=CONFIDENTIAL, logging={"logBucket": "logs"})},
        ),
    ),
    "budget-with-alarms": StackCases(
        refused=({"data": volume()}, {"budget": budget()}),
        passing=(
            {"budget": budget(notifications=ALARM)},
            {"budget": Made("gcp:billing/budget:Budget", {"thresholdRules": [{"thresholdPercent": 0.8}]})},
        ),
        settings={"budget_required": True},
    ),
}
