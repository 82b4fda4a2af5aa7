"""Each guardrail of security and privacy: what it lets pass and what it refuses, at the edge."""

import base64
import dataclasses
import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.guardrail import Guardrail
from policies.plan import PLAN_TYPE
from policies.security import GUARDRAILS
from policies.security.encryption import ENCRYPTED
from policies.testing import UNKNOWN, Declared, judge, secret
from tests.unit.planner.test_plan import job, planned

RULES = {each.name: each for each in GUARDRAILS}
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
AWS_KEY = "alias/aws/ebs"
INSTANCE = "aws:ec2/instance:Instance"
GKE = "gcp:container/cluster:Cluster"
DIGEST = f"registry.example.com/team/app@sha256:{64 * 'a'}"


def document(**statement: Any) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


def pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", **(container or {})}], **spec}}


def context(**fields: Any) -> dict[str, Any]:
    return pod({"securityContext": fields})


RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
INGRESS_RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
POD = "kubernetes:core/v1:Pod"
SERVICE = "kubernetes:core/v1:Service"
TLS_STATEMENT = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": "*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}

PASS: list[tuple[str, str, dict[str, Any]]] = [
    (
        "no-strangers",
        "aws:sqs/queue:Queue",
        {"policy": document(Principal={"Service": "s3.amazonaws.com"}, Action="*")},
    ),
    ("volumes-not-of-the-node", "kubernetes:core/v1:PersistentVolume", {"spec": {"local": {"path": "/mnt"}}}),
    ("encryption-with-customer-keys", "aws:ebs/volume:Volume", {"encrypted": True, "kmsKeyId": UNKNOWN}),
    (
        "encryption-with-customer-keys",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {"blockDeviceMappings": [{"ebs": {"encrypted": "true", "kmsKeyId": KEY}}]},
    ),
    ("encryption-with-customer-keys", "aws:ssm/parameter:Parameter", {"type": "String", "value": "x"}),
    (
        "encryption-with-customer-keys",
        "aws:ecr/repository:Repository",
        {"encryptionConfigurations": [{"encryptionType": "KMS", "kmsKey": KEY}]},
    ),
    (
        "encryption-with-customer-keys",
        GKE,
        {"databaseEncryption": {"state": "ENCRYPTED", "keyName": "projects/p/locations/l/keyRings/r/cryptoKeys/k"}},
    ),
    ("no-public-bucket", "aws:s3/bucketAcl:BucketAcl", {"acl": "private"}),
    ("encryption-with-customer-keys", "aws:s3/bucketObjectv2:BucketObjectv2", {"key": "a"}),
    (
        "encryption-with-customer-keys",
        "aws:s3/bucketObjectv2:BucketObjectv2",
        {"serverSideEncryption": "aws:kms", "kmsKeyId": KEY},
    ),
    ("tls-only", "aws:elasticache/cluster:Cluster", {"replicationGroupId": "group"}),
    ("tls-only", "aws:memorydb/cluster:Cluster", {}),
    ("tls-only", "aws:msk/cluster:Cluster", {"encryptionInfo": {"encryptionInTransit": {"inCluster": True}}}),
    (
        "tls-only",
        "gcp:redis/cluster:Cluster",
        {"transitEncryptionMode": "TRANSIT_ENCRYPTION_MODE_SERVER_AUTHENTICATION"},
    ),
    ("no-public-nodes", "aws:mq/broker:Broker", {}),
    ("no-public-nodes", "gcp:workbench/instance:Instance", {"gceSetup": {"disablePublicIp": True}}),
    (
        "no-public-nodes",
        "gcp:dataproc/cluster:Cluster",
        {"clusterConfig": {"gceClusterConfig": {"internalIpOnly": True}}},
    ),
    (
        "no-public-bucket",
        "aws:s3/bucketPolicy:BucketPolicy",
        {"policy": document(Principal={"AWS": "arn:aws:iam::1:root"}, Action="s3:GetObject", Resource="*")},
    ),
    (
        "no-public-bucket",
        "aws:s3/bucketPolicy:BucketPolicy",
        {
            "policy": document(
                Principal="*", Action="s3:*", Resource="*", Condition={"StringEquals": {"aws:SourceVpce": "vpce-1"}}
            )
        },
    ),
    (
        "no-public-bucket",
        "gcp:storage/bucket:Bucket",
        {"publicAccessPrevention": "enforced", "uniformBucketLevelAccess": True},
    ),
    ("private-cluster-endpoint", "aws:eks/cluster:Cluster", {"vpcConfig": {"endpointPublicAccess": False}}),
    ("private-cluster-endpoint", "aws:eks/cluster:Cluster", {"vpcConfig": {"publicAccessCidrs": ["198.51.100.0/24"]}}),
    ("private-cluster-endpoint", GKE, {"privateClusterConfig": {"enablePrivateEndpoint": True}}),
    (
        "private-cluster-endpoint",
        GKE,
        {"masterAuthorizedNetworksConfig": {"cidrBlocks": [{"cidrBlock": "198.51.100.0/24"}]}},
    ),
    ("no-public-nodes", INSTANCE, {"associatePublicIpAddress": False}),
    ("no-public-nodes", "gcp:compute/instance:Instance", {"networkInterfaces": [{"network": "n"}]}),
    ("no-open-node-ports", RULE, {"type": "egress", "cidrBlocks": ["0.0.0.0/0"], "protocol": "-1"}),
    ("no-open-node-ports", RULE, {"type": "ingress", "cidrBlocks": ["10.0.0.0/8"], "protocol": "-1"}),
    (
        "no-open-node-ports",
        INGRESS_RULE,
        {"cidrIpv4": "0.0.0.0/0", "ipProtocol": "tcp", "fromPort": 443, "toPort": 443},
    ),
    ("no-open-node-ports", SERVICE, {"spec": {"type": "ClusterIP"}}),
    ("no-open-node-ports", SERVICE, {"spec": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24"]}}),
    ("no-open-node-ports", "gcp:compute/firewall:Firewall", {"allows": [{"protocol": "tcp"}], "sourceTags": ["a"]}),
    ("no-wildcard-permissions", "aws:iam/policy:Policy", {"policy": document(Action="s3:GetObject", Resource="*")}),
    (
        "no-wildcard-permissions",
        "aws:iam/policy:Policy",
        {"policy": document(Action="s3:*", Resource="arn:aws:s3:::b/*")},
    ),
    ("no-wildcard-permissions", "aws:iam/policy:Policy", {"policy": document(Action="ec2:Describe*", Resource="*")}),
    ("no-wildcard-permissions", "aws:iam/policy:Policy", {"policy": UNKNOWN}),
    (
        "no-administrators",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        {"policyArn": "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"},
    ),
    (
        "no-administrators",
        "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole",
        {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]},
    ),
    ("imdsv2", INSTANCE, {"metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 2}}),
    ("imdsv2", INSTANCE, {"metadataOptions": {"httpEndpoint": "disabled"}}),
    ("tls-only", "aws:lb/listener:Listener", {"protocol": "HTTPS", "sslPolicy": "ELBSecurityPolicy-TLS13-1-2-2021-06"}),
    (
        "tls-only",
        "aws:lb/listener:Listener",
        {"protocol": "HTTP", "defaultActions": [{"type": "redirect", "redirect": {"protocol": "HTTPS"}}]},
    ),
    ("buckets-tls-only", "aws:s3/bucketPolicy:BucketPolicy", {"policy": json.dumps({"Statement": TLS_STATEMENT})}),
    ("pods-not-root", POD, pod(securityContext={"runAsNonRoot": True})),
    ("pods-not-root", POD, context(runAsNonRoot=True, runAsUser=1)),
    ("pods-not-root", "kubernetes:apps/v1:DeploymentPatch", {"spec": {"template": pod()}}),
    ("pods-read-only-root", POD, context(readOnlyRootFilesystem=True)),
    (
        "pods-no-privilege-escalation",
        POD,
        context(allowPrivilegeEscalation=False, capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    ),
    ("pods-seccomp", POD, pod(securityContext={"seccompProfile": {"type": "RuntimeDefault"}})),
    ("pods-limits", POD, pod({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}})),
    ("pods-no-host-access", POD, pod(volumes=[{"name": "tmp", "emptyDir": {}}])),
    ("images-by-digest", POD, pod({"image": DIGEST})),
    ("no-plain-secrets", POD, pod({"env": [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db"}}}]})),
    ("no-plain-secrets", POD, pod({"env": [{"name": "TOKENIZERS_PARALLELISM", "value": "false"}]})),
    ("no-plain-secrets", POD, pod({"env": [{"name": "HF_TOKEN", "value": "/var/run/secrets/hf"}]})),
    ("no-plain-secrets", "kubernetes:core/v1:ConfigMap", {"data": {"epochs": "12", "max_tokens": "4096"}}),
    ("secrets-are-marked", "kubernetes:core/v1:Secret", {"stringData": {"password": secret("hunter2")}}),
    ("secrets-are-marked", "aws:ssm/parameter:Parameter", {"type": "String", "value": "plain"}),
]

REFUSE: list[tuple[str, str, dict[str, Any], str]] = [
    (
        "no-strangers",
        "aws:kms/key:Key",
        {"policy": document(Principal={"AWS": "*"}, Action="kms:*")},
        "everybody use it",
    ),
    (
        "no-strangers",
        "aws:iam/role:Role",
        {"assumeRolePolicy": document(Principal="*", Action="sts:AssumeRole")},
        "everybody",
    ),
    (
        "volumes-not-of-the-node",
        "kubernetes:core/v1:PersistentVolume",
        {"spec": {"hostPath": {"path": "/"}}},
        "a path of the node",
    ),
    ("helm-charts-are-rendered", "kubernetes:helm.sh/v3:Release", {"name": "app"}, "hides its objects"),
    ("encryption-with-customer-keys", "aws:ebs/volume:Volume", {"kmsKeyId": KEY}, "encrypted is not true"),
    ("encryption-with-customer-keys", "aws:ebs/volume:Volume", {"encrypted": True}, "kmsKeyId is not set"),
    (
        "encryption-with-customer-keys",
        "aws:ebs/volume:Volume",
        {"encrypted": True, "kmsKeyId": AWS_KEY},
        "the cloud's key",
    ),
    ("encryption-with-customer-keys", INSTANCE, {}, "rootBlockDevice is not set"),
    (
        "encryption-with-customer-keys",
        "aws:s3/bucketObject:BucketObject",
        {"serverSideEncryption": "AES256"},
        "serverSideEncryption AES256 takes a key of S3",
    ),
    (
        "encryption-with-customer-keys",
        "gcp:secretmanager/secret:Secret",
        {"replication": {"userManaged": {"replicas": [{"location": "europe-west4"}]}}},
        "replication.userManaged.replicas.0.customerManagedEncryption.kmsKeyName is not set",
    ),
    ("tls-only", "aws:elasticache/cluster:Cluster", {}, "transitEncryptionEnabled is not true"),
    ("tls-only", "aws:memorydb/cluster:Cluster", {"tlsEnabled": False}, "tlsEnabled is false"),
    ("tls-only", "aws:rds/proxy:Proxy", {}, "requireTls is not true"),
    (
        "tls-only",
        "aws:msk/cluster:Cluster",
        {"encryptionInfo": {"encryptionInTransit": {"clientBroker": "TLS_PLAINTEXT"}}},
        "clientBroker is not TLS",
    ),
    ("tls-only", "aws:apigateway/domainName:DomainName", {"securityPolicy": "TLS_1_0"}, "use TLS_1_2"),
    (
        "tls-only",
        "aws:cloudfront/distribution:Distribution",
        {"viewerCertificate": {"minimumProtocolVersion": "TLSv1.1_2016"}},
        "use TLSv1.2_2021",
    ),
    ("tls-only", "gcp:compute/regionSslPolicy:RegionSslPolicy", {}, "minTlsVersion is below TLS_1_2"),
    ("tls-only", "gcp:memorystore/instance:Instance", {}, "is not SERVER_AUTHENTICATION"),
    ("no-public-nodes", "aws:mq/broker:Broker", {"publiclyAccessible": True}, "set it to false"),
    ("no-public-nodes", "gcp:workbench/instance:Instance", {}, "disablePublicIp is not true"),
    ("no-public-nodes", "gcp:dataproc/cluster:Cluster", {}, "internalIpOnly is not true"),
    ("no-public-nodes", "gcp:looker/instance:Instance", {"publicIpEnabled": True}, "set it to false"),
    (
        "no-public-nodes",
        "gcp:alloydb/instance:Instance",
        {"networkConfig": {"enablePublicIp": True}},
        "enablePublicIp gives it a public address",
    ),
    ("pods-not-root", "kubernetes:apps/v1:DeploymentPatch", {"spec": UNKNOWN}, "spec decides this and is not known"),
    (
        "encryption-with-customer-keys",
        INSTANCE,
        {"rootBlockDevice": {"encrypted": True, "kmsKeyId": KEY}, "ebsBlockDevices": [{"deviceName": "/dev/sdb"}]},
        "ebsBlockDevices.0.encrypted is not true",
    ),
    ("encryption-with-customer-keys", "aws:eks/nodeGroup:NodeGroup", {}, "without a launch template"),
    ("encryption-with-customer-keys", "gcp:storage/bucket:Bucket", {}, "encryption.defaultKmsKeyName is not set"),
    ("encryption-with-customer-keys", "aws:ssm/parameter:Parameter", {"type": "SecureString"}, "keyId is not set"),
    ("no-public-bucket", "aws:s3/bucketAcl:BucketAcl", {"acl": "public-read"}, "opens it to everybody"),
    (
        "no-public-bucket",
        "aws:s3/bucketAcl:BucketAcl",
        {"accessControlPolicy": {"grants": [{"grantee": {"uri": "http://acs.amazonaws.com/groups/global/AllUsers"}}]}},
        "AllUsers",
    ),
    (
        "no-public-bucket",
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
        {"blockPublicAcls": True, "ignorePublicAcls": True, "restrictPublicBuckets": True},
        "leaves blockPublicPolicy off",
    ),
    *(
        (
            "no-public-bucket",
            "aws:s3/bucketPolicy:BucketPolicy",
            {"policy": document(Principal=everybody, Action="s3:GetObject", Resource="*", Condition=condition)},
            "allows everybody s3:GetObject",
        )
        for everybody in ("*", {"AWS": "*"}, {"AWS": ["arn:aws:iam::1:root", "*"]})
        for condition in (
            {},
            {"StringLike": {"aws:PrincipalArn": "*"}},
            {"StringNotEquals": {"aws:SourceVpce": "vpce-1"}},
            {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}},
        )
    ),
    (
        "no-public-bucket",
        "gcp:storage/bucketIAMMember:BucketIAMMember",
        {"member": "allUsers", "role": "r"},
        "to allUsers",
    ),
    ("no-public-bucket", "gcp:storage/bucket:Bucket", {"publicAccessPrevention": "inherited"}, "is not enforced"),
    ("private-cluster-endpoint", "aws:eks/cluster:Cluster", {"vpcConfig": {}}, "open to 0.0.0.0/0"),
    (
        "private-cluster-endpoint",
        "aws:eks/cluster:Cluster",
        {"vpcConfig": {"publicAccessCidrs": ["0.0.0.0/1"]}},
        "0.0.0.0/1",
    ),
    ("private-cluster-endpoint", GKE, {}, "open to everybody"),
    (
        "private-cluster-endpoint",
        GKE,
        {"masterAuthorizedNetworksConfig": {"cidrBlocks": [{"cidrBlock": "0.0.0.0/0"}]}},
        "to 0.0.0.0/0",
    ),
    ("no-public-nodes", INSTANCE, {"associatePublicIpAddress": True}, "public address"),
    (
        "no-public-nodes",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {"networkInterfaces": [{"associatePublicIpAddress": "true"}]},
        "public address",
    ),
    (
        "no-public-nodes",
        "gcp:compute/instance:Instance",
        {"networkInterfaces": [{"accessConfigs": [{}]}]},
        "accessConfigs",
    ),
    ("no-open-node-ports", RULE, {"type": "ingress", "cidrBlocks": ["0.0.0.0/0"], "protocol": "-1"}, "every port"),
    (
        "no-open-node-ports",
        RULE,
        {"type": "ingress", "ipv6CidrBlocks": ["::/0"], "protocol": "tcp", "fromPort": 22, "toPort": 22},
        "port 22",
    ),
    (
        "no-open-node-ports",
        INGRESS_RULE,
        {"cidrIpv4": "0.0.0.0/0", "ipProtocol": "tcp", "fromPort": 80, "toPort": 443},
        "80 to 443",
    ),
    (
        "no-open-node-ports",
        INGRESS_RULE,
        {"cidrIpv4": "128.0.0.0/1", "ipProtocol": "udp", "fromPort": 443, "toPort": 443},
        "(udp)",
    ),
    (
        "no-open-node-ports",
        "aws:ec2/securityGroup:SecurityGroup",
        {
            "ingress": [
                {"cidrBlocks": ["10.0.0.0/8", "0.0.0.0/0"], "protocol": "tcp", "fromPort": 30000, "toPort": 32767}
            ]
        },
        "30000 to 32767",
    ),
    ("no-open-node-ports", SERVICE, {"spec": {"type": "NodePort"}}, "NodePort"),
    ("no-open-node-ports", SERVICE, {"spec": {"type": "LoadBalancer"}}, "open to everybody"),
    ("no-open-node-ports", "gcp:compute/firewall:Firewall", {"allows": [{"protocol": "tcp"}]}, "lets 0.0.0.0/0 in"),
    *(
        ("no-wildcard-permissions", "aws:iam/policy:Policy", {"policy": document(**statement)}, "on every resource")
        for statement in (
            {"Action": "*", "Resource": "*"},
            {"Action": ["s3:GetObject", "iam:*"], "Resource": ["*"]},
            {"Action": "S3:*", "Resource": "arn:aws:s3:::*"},
            {"Action": "s3:Get*", "Resource": "*"},
            {"NotAction": "iam:*", "Resource": "*"},
            {"Action": "ec2:*", "NotResource": "arn:aws:ec2:::instance/i-1"},
            {"Action": "*", "Resource": "*", "Condition": {"StringLike": {"aws:userid": "*"}}},
        )
    ),
    ("no-wildcard-permissions", "aws:iam/policy:Policy", {"policy": "{"}, "can't be read"),
    (
        "no-wildcard-permissions",
        "aws:iam/role:Role",
        {"inlinePolicies": [{"name": "a", "policy": document(Action="*", Resource="*")}]},
        "on every resource",
    ),
    (
        "no-administrators",
        "aws:iam/role:Role",
        {"managedPolicyArns": ["arn:aws:iam::aws:policy/AdministratorAccess"]},
        "AdministratorAccess",
    ),
    ("no-administrators", "gcp:projects/iAMMember:IAMMember", {"role": "roles/editor"}, "roles/editor"),
    (
        "no-administrators",
        "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding",
        {"roleRef": {"name": "cluster-admin"}},
        "cluster-admin",
    ),
    (
        "no-administrators",
        "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole",
        {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]},
        "every verb",
    ),
    ("imdsv2", INSTANCE, {}, "httpTokens is not required"),
    ("imdsv2", INSTANCE, {"metadataOptions": {"httpTokens": "optional"}}, "httpTokens is not required"),
    ("imdsv2", INSTANCE, {"metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 3}}, "is 3; use 2"),
    ("imdsv2", INSTANCE, {"metadataOptions": {"httpTokens": UNKNOWN}}, "not known before the update"),
    ("tls-only", "aws:lb/listener:Listener", {"protocol": "HTTP"}, "answers without TLS"),
    (
        "tls-only",
        "aws:lb/listener:Listener",
        {"protocol": "HTTPS", "sslPolicy": "ELBSecurityPolicy-2016-08"},
        "below 1.2",
    ),
    ("tls-only", "kubernetes:networking.k8s.io/v1:Ingress", {"spec": {}}, "spec.tls is not set"),
    (
        "buckets-tls-only",
        "aws:s3/bucketPolicy:BucketPolicy",
        {"policy": json.dumps({"Statement": [TLS_STATEMENT | {"Action": "s3:PutObject"}]})},
        "does not refuse",
    ),
    ("pods-not-root", POD, pod(), "may run as root"),
    (
        "pods-not-root",
        POD,
        pod({"securityContext": {"runAsNonRoot": False}}, securityContext={"runAsNonRoot": True}),
        "may run",
    ),
    ("pods-not-root", POD, pod(securityContext={"runAsNonRoot": True, "runAsUser": 0}), "user 0"),
    (
        "pods-not-root",
        "kubernetes:batch/v1:CronJob",
        {"spec": {"jobTemplate": {"spec": {"template": pod(initContainers=[{"name": "init"}])}}}},
        "container init",
    ),
    (
        "pods-not-root",
        "kubernetes:jobset.x-k8s.io/v1alpha2:JobSet",
        {"spec": {"replicatedJobs": [{"template": {"spec": {"template": pod()}}}]}},
        "may run as root",
    ),
    ("pods-not-root", "kubernetes:core/v1:PodList", {"items": [pod()]}, "may run as root"),
    ("pods-not-root", "kubernetes:apps/v1:DeploymentPatch", {"spec": {"template": context(runAsUser=0)}}, "user 0"),
    ("pods-read-only-root", POD, context(), "can write"),
    ("pods-no-privilege-escalation", POD, context(privileged=True), "is privileged"),
    (
        "pods-no-privilege-escalation",
        POD,
        context(allowPrivilegeEscalation=False, capabilities={"drop": ["all"], "add": ["CAP_SYS_ADMIN"]}),
        "SYS_ADMIN",
    ),
    ("pods-no-privilege-escalation", POD, context(allowPrivilegeEscalation=False), "keeps capabilities"),
    ("pods-seccomp", POD, context(seccompProfile={"type": "Unconfined"}), "Unconfined"),
    ("pods-limits", POD, pod({"resources": {"limits": {"cpu": "1"}}}), "no limit of memory"),
    ("pods-no-host-access", POD, pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "volume v is /"),
    ("pods-no-host-access", POD, pod(hostNetwork=True), "hostNetwork"),
    ("pods-no-host-access", POD, pod({"ports": [{"hostPort": 80}]}), "port 80"),
    ("images-by-digest", POD, pod({"image": "registry.example.com/team/app:1.0"}), "can change"),
    ("images-by-digest", POD, pod({"image": "app@sha256:abc"}), "can change"),
    ("images-by-digest", POD, pod({"image": DIGEST}, initContainers=[{"name": "i", "image": "busybox"}]), "busybox"),
    (
        "no-plain-secrets",
        POD,
        pod({"env": [{"name": "DB_PASSWORD", "value": "hunter2"}]}),
        "DB_PASSWORD holds a secret",
    ),
    ("no-plain-secrets", POD, pod({"env": [{"name": "X", "value": "AKIA" + 16 * "Q"}]}), "an access key of AWS"),
    ("no-plain-secrets", POD, pod({"env": [{"name": "URL", "value": "postgres://me:pw@db/x"}]}), "a password in a URL"),
    ("no-plain-secrets", POD, pod({"env": [{"name": "X", "value": secret("v")}]}), "X holds a secret"),
    ("no-plain-secrets", INSTANCE, {"userData": "-----BEGIN RSA PRIVATE KEY-----"}, "userData holds a private key"),
    (
        "no-plain-secrets",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {"userData": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t"},
        "userData holds a private key",
    ),
    ("secrets-are-marked", "kubernetes:core/v1:Secret", {"stringData": {"password": "hunter2"}}, "stringData.password"),
    ("secrets-are-marked", "aws:rds/instance:Instance", {"password": "hunter2"}, "password is not marked"),
]


GITHUB = "token.actions.githubusercontent.com"


def federated(**condition: Any) -> dict[str, Any]:
    """The trust policy of a role for the pipelines of GitHub."""
    who = {"Federated": f"arn:aws:iam::123456789012:oidc-provider/{GITHUB}"}
    action = "sts:AssumeRoleWithWebIdentity"
    return {
        "assumeRolePolicy": document(Principal=who, Action=action, **({"Condition": condition} if condition else {}))
    }


ROLE = "aws:iam/role:Role"
POLICY = "aws:iam/policy:Policy"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
FIREWALL_RULE = "gcp:compute/networkFirewallPolicyRule:NetworkFirewallPolicyRule"
NODE_CLASS = "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
JOB_DEFINITION = "aws:batch/jobDefinition:JobDefinition"
REPOSITORY_MEMBER = "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember"
SECURE = {
    "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
}

PASS += [
    ("no-strangers", ROLE, federated(StringLike={f"{GITHUB}:sub": "repo:team/*"})),
    ("no-strangers", REPOSITORY_MEMBER, {"role": "roles/artifactregistry.reader", "member": "group:a@example.com"}),
    ("no-strangers", "aws:lambda/permission:Permission", {"principal": "*", "principalOrgId": "o-1"}),
    ("no-wildcard-permissions", POLICY, {"policy": document(Action="s3:*", Resource="arn:aws:s3:::data/*")}),
    ("no-open-node-ports", FIREWALL_RULE, {"action": "goto_next", "match": {"srcIpRanges": ["0.0.0.0/0"]}}),
    ("no-plain-secrets", POD, pod({"args": ["--max-token=4096", "--api-key=$(API_KEY)", "--password", "--verbose"]})),
    ("pods-no-privilege-escalation", POD, pod(SECURE, securityContext={"appArmorProfile": {"type": "RuntimeDefault"}})),
    ("pods-limits", POD, pod({"resources": {"limits": {"cpu": 0.5, "memory": "1e9"}}})),
    (
        "tls-only",
        "kubernetes:gateway.networking.k8s.io/v1:Gateway",
        {"spec": {"listeners": [{"name": "a", "protocol": "HTTPS"}]}},
    ),
    (
        "encryption-with-customer-keys",
        NODE_CLASS,
        {"spec": {"blockDeviceMappings": [{"ebs": {"encrypted": True, "kmsKeyID": KEY}}]}},
    ),
]

REFUSE += [
    ("no-strangers", ROLE, federated(), f"every identity of {GITHUB}"),
    ("no-strangers", ROLE, federated(StringEquals={f"{GITHUB}:aud": "sts.amazonaws.com"}), "every identity"),
    ("no-strangers", ROLE, federated(StringLike={f"{GITHUB}:sub": "*"}), "every identity"),
    ("no-strangers", REPOSITORY_MEMBER, {"role": "roles/artifactregistry.reader", "member": "allUsers"}, "to allUsers"),
    (
        "no-strangers",
        "gcp:cloudrunv2/serviceIamBinding:ServiceIamBinding",
        {"role": "roles/run.invoker", "members": ["allAuthenticatedUsers"]},
        "to allAuthenticatedUsers",
    ),
    (
        "no-strangers",
        "gcp:projects/iAMPolicy:IAMPolicy",
        {"policyData": json.dumps({"bindings": [{"role": "roles/viewer", "members": ["allusers"]}]})},
        "to allUsers",
    ),
    ("no-strangers", "aws:lambda/permission:Permission", {"principal": "*"}, "lets everybody use it"),
    ("no-strangers", "aws:lambda/functionUrl:FunctionUrl", {"authorizationType": "NONE"}, "lets everybody call it"),
    (
        "no-strangers",
        "gcp:iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
        {"oidc": {"issuerUri": f"https://{GITHUB}"}},
        "set attributeCondition",
    ),
    (
        "no-wildcard-permissions",
        POLICY,
        {"policy": document(Action="iam:*", Resource="arn:aws:iam::123456789012:role/*")},
        "on every resource",
    ),
    (
        "buckets-tls-only",
        BUCKET_POLICY,
        {"bucket": "a", "policy": json.dumps({"Statement": TLS_STATEMENT | {"Resource": "arn:aws:s3:::b/*"}})},
        "does not",
    ),
    (
        "buckets-tls-only",
        BUCKET_POLICY,
        {"bucket": "a", "policy": json.dumps({"Statement": TLS_STATEMENT | {"Resource": "arn:aws:s3:::a"}})},
        "does not",
    ),
    (
        "buckets-tls-only",
        "aws:s3/bucket:Bucket",
        {"bucket": "a", "policy": document(Principal={"AWS": "1"})},
        "does not",
    ),
    ("no-open-node-ports", "kubernetes:v1:Service", {"spec": {"type": "NodePort"}}, "NodePort"),
    (
        "no-open-node-ports",
        "kubernetes:core/v1:ConfigMap",
        {"apiVersion": "v1", "kind": "Service", "spec": {"type": "NodePort"}},
        "NodePort",
    ),
    (
        "no-open-node-ports",
        "kubernetes:core/v1:ServiceList",
        {"items": [{}, {"spec": {"type": "NodePort"}}]},
        "NodePort",
    ),
    (
        "no-open-node-ports",
        "kubernetes:core/v1:List",
        {
            "apiVersion": "v1",
            "kind": "List",
            "items": [{"apiVersion": "v1", "kind": "Service", "spec": {"type": "NodePort"}}],
        },
        "NodePort",
    ),
    ("no-open-node-ports", RULE, {"cidrBlocks": [f"{first}.0.0.0/8" for first in range(1, 9)]}, "every port"),
    ("no-open-node-ports", "aws:ec2/managedPrefixList:ManagedPrefixList", {"entries": [{"cidr": "::/0"}]}, "::/0"),
    (
        "no-administrators",
        "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBindingList",
        {"items": [{"roleRef": {"name": "cluster-admin"}}]},
        "cluster-admin",
    ),
    ("secrets-are-marked", "kubernetes:v1:Secret", {"data": {"key": "aHVudGVyMg=="}}, "data.key"),
    ("secrets-are-marked", "kubernetes:core/v1:SecretList", {"items": [{"data": {"key": "aHVudGVyMg=="}}]}, "items[0]"),
    ("tls-only", "kubernetes:networking.k8s.io/v1:IngressList", {"items": [{"spec": {}}]}, "spec.tls"),
    (
        "tls-only",
        "kubernetes:gateway.networking.k8s.io/v1:Gateway",
        {"spec": {"listeners": [{"name": "a", "protocol": "HTTP"}]}},
        "the listener a is HTTP",
    ),
    ("imdsv2", "aws:ec2/spotFleetRequest:SpotFleetRequest", {"launchSpecifications": [{"ami": "a"}]}, "can't ask for"),
    ("imdsv2", "aws:ec2/launchTemplate:LaunchTemplate", {}, "httpTokens is not required"),
    (
        "no-public-nodes",
        "aws:ec2/spotFleetRequest:SpotFleetRequest",
        {"launchSpecifications": [{"associatePublicIpAddress": True}]},
        "public address",
    ),
    (
        "no-public-nodes",
        "gcp:tpu/v2QueuedResource:V2QueuedResource",
        {"tpu": {"nodeSpec": [{"node": {"networkConfig": {"enableExternalIps": True}}}]}},
        "enableExternalIps",
    ),
    ("no-public-nodes", "gcp:container/nodePool:NodePool", {"networkConfig": {"enablePrivateNodes": False}}, "public"),
    ("encryption-with-customer-keys", NODE_CLASS, {"spec": {}}, "spec.blockDeviceMappings is not set"),
    ("encryption-with-customer-keys", "aws:ec2/launchConfiguration:LaunchConfiguration", {}, "use a launch template"),
    ("encryption-with-customer-keys", GKE, {"nodePools": [{"nodeConfig": {}}]}, "bootDiskKmsKey is not set"),
    ("encryption-with-customer-keys", "gcp:artifactregistry/repository:Repository", {}, "kmsKeyName is not set"),
    (
        "pods-no-privilege-escalation",
        POD,
        pod(SECURE, securityContext={"appArmorProfile": {"type": "Unconfined"}}),
        "AppArmor",
    ),
    ("pods-no-privilege-escalation", POD, pod(SECURE, securityContext={"seLinuxOptions": {"type": "spc_t"}}), "spc_t"),
    ("pods-no-host-access", POD, pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "kernel.msgmax"),
    ("pods-limits", POD, pod({"resources": {"limits": {"cpu": "1", "memory": "0Mi"}}}), "no limit of memory"),
    (
        "pods-not-root",
        "kubernetes:leaderworkerset.x-k8s.io/v1:LeaderWorkerSet",
        {"spec": {"leaderWorkerTemplate": {"workerTemplate": pod()}}},
        "may run",
    ),
    (
        "pods-not-root",
        "kubernetes:ray.io/v1:RayCluster",
        {"spec": {"workerGroupSpecs": [{"template": pod()}]}},
        "may run",
    ),
    ("pods-not-root", POD, {"spec": {"containers": [], "ephemeralContainers": [{"name": "debug"}]}}, "container debug"),
    (
        "pods-not-root",
        "kubernetes:core/v1:List",
        {"items": [{"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": pod()}}]},
        "may run as root",
    ),
    ("images-by-digest", JOB_DEFINITION, {"containerProperties": json.dumps({"image": "app"})}, "the image app"),
    (
        "no-plain-secrets",
        JOB_DEFINITION,
        {"containerProperties": json.dumps({"image": "a", "environment": [{"name": "API_KEY", "value": "hunter2"}]})},
        "API_KEY holds a secret",
    ),
    (
        "no-plain-secrets",
        "gcp:cloudrunv2/service:Service",
        {"template": {"containers": [{"image": "a"}, {"envs": [{"name": "DB_PASSWORD", "value": "hunter2"}]}]}},
        "DB_PASSWORD holds a secret",
    ),
    (
        "no-plain-secrets",
        "gcp:compute/instance:Instance",
        {"metadata": {"startup-script": "#!/bin/sh\nexport DB_PASSWORD=hunter2\n"}},
        "metadata.startup-script holds the secret DB_PASSWORD",
    ),
    (
        "no-plain-secrets",
        "aws:ec2/launchTemplate:LaunchTemplate",
        {"userData": base64.b64encode(gzip.compress(b"export DB_PASSWORD=hunter2")).decode()},
        "the secret DB_PASSWORD",
    ),
    (
        "no-plain-secrets",
        "kubernetes:core/v1:ConfigMap",
        {"binaryData": {"id_rsa": base64.b64encode(b"-----BEGIN RSA PRIVATE KEY-----").decode()}},
        "binaryData.id_rsa holds a private key",
    ),
    ("no-plain-secrets", POD, pod({"args": ["--db-password=hunter2"]}), "holds the secret db-password"),
    ("no-plain-secrets", POD, pod({"command": ["run", "--api-key", "hunter2"]}), "holds the secret api-key"),
]


@pytest.mark.parametrize(("name", "kind", "inputs"), PASS)
def test_it_passes(name: str, kind: str, inputs: dict[str, Any]) -> None:
    assert judge(RULES[name], Declared(kind, inputs)) == []


@pytest.mark.parametrize(("name", "kind", "inputs", "told"), REFUSE)
def test_it_is_refused(name: str, kind: str, inputs: dict[str, Any], told: str) -> None:
    messages = judge(RULES[name], Declared(kind, inputs))
    assert any(told in each for each in messages), messages


def nested(path: Sequence[str], value: Any) -> Any:
    return {path[0]: nested(path[1:], value)} if path else value


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {key: merged(one[key], other[key]) for key in one.keys() & other.keys() if isinstance(one[key], dict)}
    return one | other | both


def encrypted(kind: str) -> dict[str, Any]:
    """Inputs of a type that say all that its encryption takes."""
    found: dict[str, Any] = {}
    for rule in ENCRYPTED[kind]:
        found = merged(found, nested((*rule.blocks, *rule.key), KEY))
        if rule.switch:
            found = merged(found, nested((*rule.blocks, *rule.switch), rule.on))
    return found


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_what_keeps_data_names_a_key_and_no_key_of_the_clouds(kind: str) -> None:
    rule = RULES["encryption-with-customer-keys"]
    assert judge(rule, Declared(kind, encrypted(kind))) == []
    of_aws = json.loads(json.dumps(encrypted(kind)).replace(KEY, AWS_KEY))
    assert "name one of yours" in judge(rule, Declared(kind, of_aws))[0]
    if any(each.blocks_needed for each in ENCRYPTED[kind]):
        assert judge(rule, Declared(kind, {}))


def test_a_secret_is_never_shown() -> None:
    for name, kind, inputs, _ in REFUSE:
        for message in judge(RULES[name], Declared(kind, inputs)) if "secret" in name else ():
            for shown in ("hunter2", "AKIAQ", "me:pw", "BEGIN"):
                assert shown not in message


def test_every_guardrail_has_at_least_two_that_pass_or_are_refused() -> None:
    tried = {name for name, *_ in PASS} & {name for name, *_ in REFUSE}
    assert {each.name for each in GUARDRAILS if each.judge_stack is None} - tried == {
        "image-registries",
        "data-residency",
        "required-tags",
        "helm-charts-are-rendered",
        "nothing-hidden",
    }  # tried below, with their settings


def test_images_come_from_allowed_registries() -> None:
    def said(image: str) -> list[str]:
        allowed = ["registry.example.com/team", "docker.io/library"]
        return judge(RULES["image-registries"], Declared(POD, pod({"image": image})), image_registries_allowed=allowed)

    assert said(DIGEST) == []
    assert said("busybox") == [] or "docker.io" in said("busybox")[0]
    assert "allowed are" in said("registry.example.com/teams/app")[0]
    assert "allowed are" in said("registry.example.com.evil.org/team/app")[0]
    assert "allowed are" in said("ghcr.io/team/app")[0]


def test_data_stays_in_its_regions() -> None:
    def said(declared: Declared, **config: str) -> list[str]:
        return judge(
            RULES["data-residency"], declared, config=config or None, regions_allowed=["eu-central-1", "europe-west4"]
        )

    table = "aws:dynamodb/table:Table"
    inside = Declared(table, {"region": "eu-central-1"})
    assert said(inside) == []
    assert said(Declared(table, {}, provider={"region": "us-east-1"})) == [
        "it is in us-east-1; allowed are eu-central-1, europe-west4"
    ]
    assert said(Declared(table, {"region": "eu-central-1", "replicas": [{"regionName": "us-east-1"}]}))
    assert said(Declared("gcp:storage/bucket:Bucket", {"location": "EU"}))
    assert said(Declared("gcp:storage/bucket:Bucket", {"location": "EUROPE-WEST4"})) == []
    assert said(Declared("gcp:compute/disk:Disk", {"zone": "europe-west4-b"})) == []
    assert said(Declared("gcp:compute/disk:Disk", {"zone": "europe-west41-b"}))
    assert said(Declared("aws:iam/role:Role", {})) == []
    assert said(Declared(table, {}), **{"aws:region": ""}) == [
        "its region is not said, so the environment decides it; set aws:region, to one of eu-central-1, europe-west4"
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "aws:cloudformation/stack:Stack",
        "aws:cloudcontrol/resource:Resource",
        "command:local:Command",
        "pulumi-python:dynamic:Resource",
        "pulumi-python:dynamic/team:Machine",
        "aws-native:ec2:Instance",
        "azure-native:compute:VirtualMachine",
        "google:index/computeInstance:ComputeInstance",
        "aws:index/instance:Instance",
        "digitalocean:index/droplet:Droplet",
        "docker:index/container:Container",
    ],
)
def test_what_makes_things_unseen_is_refused_unless_its_type_is_exempt(kind: str) -> None:
    rule = RULES["nothing-hidden"]
    declared = Declared(kind, {}, provider={"region": "us-east-1"})  # which tells a resource from a component
    (told,) = judge(rule, declared)
    assert f"or name {kind} in fusion:guardrails hiding_types_exempt" in told
    assert judge(rule, declared, hiding_types_exempt=[kind]) == []


@pytest.mark.parametrize("kind", [INSTANCE, POD, "random:index/randomId:RandomId", "docker-build:index:Image"])
def test_what_is_judged_and_what_makes_only_values_and_images_is_not_hidden(kind: str) -> None:
    assert judge(RULES["nothing-hidden"], Declared(kind, {}, provider={"region": "us-east-1"})) == []


def test_a_component_of_any_package_is_judged_by_what_it_is_made_of() -> None:
    assert judge(RULES["nothing-hidden"], Declared("eks:index:Cluster", {})) == []


def test_a_single_container_of_a_custom_resource_is_judged() -> None:
    def workflow(kind: str, **context: object) -> Declared:
        template = {"name": "train", kind: {"image": DIGEST, "securityContext": context}}
        return Declared("kubernetes:argoproj.io/v1alpha1:Workflow", {"spec": {"templates": [template]}})

    for kind in ("container", "script"):
        (told,) = judge(RULES["pods-not-root"], workflow(kind))
        assert told == f"container {kind} may run as root; set securityContext.runAsNonRoot to true"
        assert judge(RULES["pods-not-root"], workflow(kind, runAsNonRoot=True)) == []


def test_required_tags_are_named_when_they_lack() -> None:
    rule = RULES["required-tags"]
    assert judge(rule, Declared("aws:ec2/vpc:Vpc", {})) == []
    assert judge(rule, Declared("aws:ec2/vpc:Vpc", {"tags": {"team": "a"}}), tags_required=["team"]) == []
    (told,) = judge(rule, Declared("aws:ec2/vpc:Vpc", {"tags": {"team": ""}}), tags_required=["team", "cost-center"])
    assert told.startswith("tags lacks team, cost-center")


def test_the_tags_of_an_auto_scaling_group_are_a_list() -> None:
    def lacks(*tags: dict[str, str]) -> list[str]:
        group = Declared("aws:autoscaling/group:Group", {"tags": list(tags)})
        return judge(RULES["required-tags"], group, tags_required=["team"])

    assert lacks({"key": "team", "value": "a"}, {"key": "Name", "value": "b"}) == []
    assert len(lacks()) == len(lacks({"key": "Name", "value": "b"})) == 1


def test_items_that_are_not_known_yet_are_judged_in_up() -> None:
    declared = Declared("kubernetes:core/v1:ServiceList", {"items": UNKNOWN})
    assert judge(RULES["no-open-node-ports"], declared) == []


def test_each_object_of_a_list_is_exempt_by_its_own_name() -> None:
    items = [pod() | {"metadata": {"name": name, "namespace": "kube-system"}} for name in ("plugin", "stranger")]
    told = judge(
        RULES["pods-not-root"],
        Declared("kubernetes:core/v1:PodList", {"items": items}),
        pods_exempt=["kube-system/plugin"],
    )
    assert len(told) == 1


BUCKET = Declared("aws:s3/bucket:Bucket", {}, name="store")


def companion(kind: str, **inputs: Any) -> Declared:
    return Declared(
        f"aws:s3/{kind[0].lower()}{kind[1:]}:{kind}",
        {"bucket": UNKNOWN, **inputs},
        references={"bucket": (BUCKET.urn,)},
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("buckets-have-customer-keys", "BucketServerSideEncryptionConfiguration"),
        ("buckets-have-policies", "BucketPolicy"),
    ],
)
def test_a_bucket_has_what_guards_it(name: str, kind: str) -> None:
    assert judge(RULES[name], BUCKET, companion(kind)) == []
    (told,) = judge(RULES[name], BUCKET)
    assert told.startswith("bucket store has no")


@pytest.mark.parametrize("name", ["buckets-have-customer-keys", "buckets-have-policies"])
def test_the_companion_of_another_bucket_guards_no_other(name: str) -> None:
    for kind in ("BucketServerSideEncryptionConfiguration", "BucketPolicy"):
        field = "rules" if kind != "BucketPolicy" else "policy"
        other = Declared(companion(kind).type, {"bucket": "another", field: UNKNOWN}, references={field: (BUCKET.urn,)})
        (told,) = judge(RULES[name], BUCKET, other)
        assert told.startswith("bucket store has no")
    unknown = Declared("aws:s3/bucket:Bucket", {"bucket": UNKNOWN}, name="unnamed")
    assert len(judge(RULES[name], unknown, companion("BucketPolicy"), companion("BucketEncryption"))) == 1


def test_confidential_data_has_logs_and_a_private_way() -> None:
    rule = RULES["confidential-data"]
    endpoint = Declared("aws:ec2/vpcEndpoint:VpcEndpoint", {"serviceName": "com.amazonaws.us-east-1.s3"})
    assert judge(rule, BUCKET) == []
    assert len(judge(rule, BUCKET, data_class="confidential")) == 2
    assert judge(rule, BUCKET, companion("BucketLogging"), endpoint, data_class="confidential") == []
    tagged = Declared("aws:s3/bucket:Bucket", {"tags": {"data-class": "confidential"}})
    assert len(judge(rule, tagged)) == 2


@pytest.mark.parametrize(
    ("version", "outputs", "is_seen"),
    [
        ("$Latest", {}, True),
        (UNKNOWN, {}, True),  # the version that this update makes
        ("2", {"latestVersion": 2, "defaultVersion": 1}, True),
        ("1", {"latestVersion": 2, "defaultVersion": 1}, False),
        ("1", {"latestVersion": UNKNOWN, "defaultVersion": 1}, False),
        (None, {}, True),  # not there yet: its first version is its default
        (None, {"latestVersion": 2, "defaultVersion": 2}, True),
        (None, {"latestVersion": 2, "defaultVersion": 1}, False),
        ("$Default", {"latestVersion": UNKNOWN, "defaultVersion": 1}, False),
    ],
)
def test_machines_start_from_the_launch_template_that_is_declared_now(
    version: str | None, outputs: dict[str, Any], is_seen: bool
) -> None:
    made = {"arn": "arn:aws:ec2:us-east-1:1:launch-template/lt-1"} | outputs
    template = Declared("aws:ec2/launchTemplate:LaunchTemplate", {"imageId": "ami-1"}, name="template", outputs=made)
    named = {"id": "lt-1"} | ({"version": version} if version else {})
    group = Declared(
        "aws:autoscaling/group:Group", {"launchTemplate": named}, references={"launchTemplate": [template.urn]}
    )
    told = judge(RULES["launch-templates-seen"], template, group)
    assert (told == []) is is_seen
    assert is_seen or "of the launch template template, which may differ from the one that is declared now" in told[0]


@pytest.mark.parametrize("arn", [UNKNOWN, "arn:aws:ec2:us-east-1:1:launch-template/lt-1"])
@pytest.mark.parametrize("foreign", [{"launchTemplateId": "lt-2"}, {"launchTemplateName": "elsewhere"}])
@pytest.mark.parametrize("kind", ["override", "fleet"])
def test_a_foreign_launch_template_does_not_hide_behind_one_of_the_stack(
    kind: str, foreign: dict[str, Any], arn: str
) -> None:
    template = Declared("aws:ec2/launchTemplate:LaunchTemplate", {"name": "own"}, name="template", outputs={"arn": arn})
    own = {"launchTemplateId": UNKNOWN if arn == UNKNOWN else "lt-1", "version": "$Latest"}
    other = foreign | {"version": "$Latest"}
    if kind == "fleet":
        made = {"launchTemplateConfigs": [{"launchTemplateSpecification": each} for each in (own, other)]}
        machines = Declared("aws:ec2/fleet:Fleet", made, references={"launchTemplateConfigs": [template.urn]})
    else:
        overrides = [{"instanceType": "m6i.large"}, {"launchTemplateSpecification": other}]
        policy = {"launchTemplate": {"launchTemplateSpecification": own, "overrides": overrides}}
        references = {"mixedInstancesPolicy": [template.urn]}
        machines = Declared("aws:autoscaling/group:Group", {"mixedInstancesPolicy": policy}, references=references)
    (told,) = judge(RULES["launch-templates-seen"], template, machines)
    assert f"starts from the launch template {next(iter(foreign.values()))}, which is not of this stack" in told


@pytest.mark.parametrize(
    ("ids", "references", "is_seen"),
    [
        (1, ["own"], True),
        (2, ["own"], True),
        (2, ["own", "second"], True),
        (2, ["own", "second", "subnet"], True),
        (1, ["own", "subnet"], True),
        (2, ["own", "subnet"], False),
        (2, ["own", "another-stack"], False),
        (2, ["own", "read"], False),
        (1, ["own", "read"], False),
        (1, ["another-stack"], False),
    ],
)
def test_of_several_ids_that_are_not_known_each_is_of_a_template_of_the_stack(
    ids: int, references: list[str], is_seen: bool
) -> None:
    kind = "aws:ec2/launchTemplate:LaunchTemplate"
    templates = [Declared(kind, {"name": name}, name=name, outputs={"arn": UNKNOWN}) for name in ("own", "second")]
    urns = {each.name: each.urn for each in templates} | {
        "read": Declared(kind, {}, name="read").urn,
        "subnet": Declared("aws:ec2/subnet:Subnet", {}, name="subnet").urn,
        "another-stack": Declared("pulumi:pulumi:StackReference", {}, name="another-stack").urn,
    }
    overrides = [{"launchTemplateSpecification": {"launchTemplateId": UNKNOWN}}] * (ids - 1)
    policy = {"launchTemplateSpecification": {"launchTemplateId": UNKNOWN}, "overrides": overrides}
    group = Declared(
        "aws:autoscaling/group:Group",
        {"mixedInstancesPolicy": {"launchTemplate": policy}},
        references={"mixedInstancesPolicy": [urns[each] for each in references]},
    )
    told = judge(RULES["launch-templates-seen"], *templates, group)
    assert (told == []) is is_seen, told


DATA_EVENTS = {"field": "eventCategory", "equals": ["Data"]}
OF_OBJECTS = {"field": "resources.type", "equals": ["AWS::S3::Object"]}


def starting_with(arn: str) -> dict[str, Any]:
    return {"field": "resources.ARN", "startsWiths": [arn]}


def selecting(*fields: dict[str, Any], **trail: Any) -> dict[str, Any]:
    return {"advancedEventSelectors": [{"fieldSelectors": list(fields)}]} | trail


def recording(*arns: str, **selector: Any) -> dict[str, Any]:
    return {"eventSelectors": [{"dataResources": [{"type": "AWS::S3::Object", "values": list(arns)}]} | selector]}


@pytest.mark.parametrize(
    ("trail", "is_log"),
    [
        (selecting(DATA_EVENTS, OF_OBJECTS, starting_with("arn:aws:s3:::data/")), True),
        (selecting(DATA_EVENTS, OF_OBJECTS), True),
        (selecting(DATA_EVENTS, OF_OBJECTS, starting_with(UNKNOWN)), True),  # made of the bucket's own ARN
        (recording("arn:aws:s3:::data/"), True),
        (recording("arn:aws:s3"), True),
        (selecting(DATA_EVENTS, OF_OBJECTS, starting_with("arn:aws:s3:::other/")), False),
        (selecting(DATA_EVENTS, OF_OBJECTS, starting_with("arn:aws:s3:::data/runs/")), False),
        (selecting(DATA_EVENTS, OF_OBJECTS, {"field": "readOnly", "equals": ["false"]}), False),
        (selecting({"field": "eventCategory", "equals": ["Management"]}), False),
        (selecting(DATA_EVENTS, OF_OBJECTS, enableLogging=False), False),
        (recording("arn:aws:s3:::data/", readWriteType="WriteOnly"), False),
        ({}, False),
    ],
)
def test_a_trail_is_a_buckets_access_log_where_it_records_every_read_and_write(
    trail: dict[str, Any], is_log: bool
) -> None:
    bucket = Declared("aws:s3/bucket:Bucket", {"bucket": "data"})
    endpoint = Declared("aws:ec2/vpcEndpoint:VpcEndpoint", {"serviceName": "com.amazonaws.us-east-1.s3"})
    log = Declared("aws:cloudtrail/trail:Trail", trail, references={key: (bucket.urn,) for key in trail})
    told = judge(RULES["confidential-data"], bucket, log, endpoint, data_class="confidential")
    assert (told == []) is is_log
    assert is_log or "bucket tested is confidential and keeps no access log; add one (a Trail" in told[0]


@pytest.mark.parametrize(
    ("service", "logs", "is_log"),
    [
        ("storage.googleapis.com", [{"logType": "DATA_READ"}, {"logType": "DATA_WRITE"}], True),
        ("allServices", [{"logType": "DATA_READ"}, {"logType": "DATA_WRITE"}], True),
        ("storage.googleapis.com", [{"logType": "DATA_WRITE"}], False),
        (
            "storage.googleapis.com",
            [{"logType": "DATA_READ", "exemptedMembers": ["user:a@b.c"]}, {"logType": "DATA_WRITE"}],
            False,
        ),
        ("container.googleapis.com", [{"logType": "DATA_READ"}, {"logType": "DATA_WRITE"}], False),
    ],
)
def test_the_projects_audit_config_is_the_access_log_of_its_buckets_where_it_records_everything_of_everybody(
    service: str, logs: list[dict[str, Any]], is_log: bool
) -> None:
    bucket = Declared("gcp:storage/bucket:Bucket", {"name": "data"})
    audit = Declared("gcp:projects/iAMAuditConfig:IAMAuditConfig", {"service": service, "auditLogConfigs": logs})
    told = judge(RULES["confidential-data"], bucket, audit, data_class="confidential")
    assert (told == []) is is_log
    in_s3 = Declared("aws:s3/bucket:Bucket", {"bucket": "data"})
    assert len(judge(RULES["confidential-data"], in_s3, audit, data_class="confidential")) == 2


def test_a_budget_with_alarms_where_one_is_asked_for() -> None:
    rule = RULES["budget-with-alarms"]
    assert judge(rule) == []
    assert judge(rule, budget_required=True) == [
        "the stack has no budget; add one with alarms, such as fusion:budget_alarms with emails"
    ]
    budget = Declared("aws:budgets/budget:Budget", {"notifications": [{"threshold": 80}]})
    assert judge(rule, budget, budget_required=True) == []
    assert "has no alarm" in judge(rule, Declared("aws:budgets/budget:Budget", {}), budget_required=True)[0]


def test_a_plan_that_declares_no_budget_is_told_before_anything_is_made() -> None:
    rule = RULES["budget-with-alarms"]
    told = "the stack declares no budget; name whom it tells under fusion:budget_alarms emails"
    plan = planned(job())
    for alarms, said in ((0, [told]), (2, []), (None, [])):
        shape = dataclasses.replace(plan.platform, budget_alarms=alarms)
        registered = Declared(PLAN_TYPE, dataclasses.replace(plan, platform=shape).as_props())
        budget = Declared("aws:budgets/budget:Budget", {"notifications": [{"threshold": 80}]})
        assert judge(rule, registered, budget, budget_required=True) == said
        assert judge(rule, registered, budget) == []


def test_config_in_plain_is_told_and_encrypted_config_is_not() -> None:
    stack = Declared("pulumi:pulumi:Stack", {})
    rule = RULES["no-plain-secrets"]
    assert judge(rule, stack, config={"fusion:workloads": '[{"max_tokens": 5}]'}) == []
    (told,) = judge(rule, stack, config={"app:dbPassword": "hunter2"})
    assert (
        told == "config app:dbPassword holds a secret in plain; set it with `pulumi config set --secret app:dbPassword`"
    )


def test_parts_of_the_system_are_exempt_by_name() -> None:
    plugin = pod() | {"metadata": {"name": "nvidia-device-plugin-abc", "namespace": "kube-system"}}
    declared = Declared("kubernetes:core/v1:Pod", plugin)
    assert judge(RULES["pods-not-root"], declared)
    release = Declared("kubernetes:helm.sh/v3:Release", {"name": "operator", "namespace": "gpu"})
    assert judge(RULES["helm-charts-are-rendered"], release, pods_exempt=["gpu/operator"]) == []
    assert judge(RULES["pods-not-root"], declared, pods_exempt=["kube-system/nvidia-device-plugin*"]) == []


WORDS = sorted(
    {word for _, _, inputs, _ in REFUSE for word in json.dumps(inputs).replace('"', " ").split() if word.isalnum()}
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.floats(allow_nan=False)
    | st.sampled_from(WORDS)
    | st.just(UNKNOWN),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inside, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize("rule", GUARDRAILS, ids=lambda each: each.name)
@settings(deadline=None)
@given(data=st.data())
def test_no_inputs_make_a_guardrail_fail(rule: Guardrail, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(rule.types - {PLAN_TYPE}) or [POD, INSTANCE]))
    of_kind = [inputs for _, each, inputs, _ in REFUSE if each == kind]
    inputs = data.draw(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5))
    if of_kind:
        changed = dict(data.draw(st.sampled_from(of_kind)))
        for key in data.draw(st.lists(st.sampled_from(sorted(changed)), max_size=2)) if changed else ():
            changed[key] = data.draw(VALUES)
        inputs |= changed
    asked = {"tags_required": ["team"], "regions_allowed": ["eu-central-1"], "budget_required": True}
    told = judge(rule, Declared(kind, inputs), image_registries_allowed=["a.b/c"], data_class="confidential", **asked)
    assert not [each for each in told if each.startswith("it could not be judged")]
