import dataclasses
import json

import kubernetes_validate
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.accelerator_pool import Taint
from infra.errors import ArgumentError
from infra.inference_service import InferenceServiceArgs
from infra.kubernetes.inference_service import InferenceService
from infra.kubernetes.pods import PodArgs
from infra.kubernetes.training_job import TrainingJob
from infra.training_job import TrainingJobArgs, Volume
from tests.unit.infra.cloud import Recording, run_program
from workloads.training.stopping import RESUMABLE_EXIT_CODE

KUBERNETES_VERSION = "1.34"
POD = PodArgs(
    image="registry.example.com/fusion/training@sha256:0",
    command=("python", "-m", "workloads.training"),
    args=("--config", "/etc/fusion/training.yaml"),
    env={"AWS_REGION": "us-east-1", "FUSION_BUCKET_URL": "s3://bucket"},
    cpus=3,
    memory_gib=12,
    device_resource="nvidia.com/gpu",
    devices=1,
    node_selector={"fusion.dev/pool": "train"},
    tolerations=(Taint(key="nvidia.com/gpu", value="present"),),
)
JOB = TrainingJobArgs(name="digits", namespace="workloads", pod=POD, service_account="digits", config={"epochs": 12})
SERVICE = InferenceServiceArgs(name="classify", namespace="workloads", pod=POD, service_account="classify")


def training(**changes):
    args = dataclasses.replace(JOB, **changes)
    return run_program(lambda: TrainingJob("t-digits", args), Recording()).objects()


def inference(**changes):
    args = dataclasses.replace(SERVICE, **changes)
    return run_program(lambda: InferenceService("t-classify", args), Recording()).objects()


def pods(objects):
    return [objects[kind]["spec"]["template"]["spec"] for kind in ("Job", "Deployment") if kind in objects]


def environment(pod):
    return {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}


@pytest.mark.parametrize("objects", [training(), training(nodes=4), inference()], ids=["one node", "four", "service"])
def test_every_object_is_what_the_kubernetes_api_takes(objects):
    for each in objects.values():
        kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize("objects", [training(), training(nodes=4), inference()], ids=["one node", "four", "service"])
def test_pods_pass_the_restricted_pod_security_standard(objects):
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            security = container["securityContext"]
            assert not security["allowPrivilegeEscalation"] and security["readOnlyRootFilesystem"]
            assert security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("objects", [training(), inference()], ids=["job", "service"])
def test_pods_get_what_they_ask_for_and_no_more(objects):
    for pod in pods(objects):
        (resources,) = [container["resources"] for container in pod["containers"]]
        assert resources["requests"] == resources["limits"]
        assert resources["limits"]["nvidia.com/gpu"] == "1"
        assert (resources["limits"]["cpu"], resources["limits"]["memory"]) == ("3", "12Gi")
        assert pod["nodeSelector"] == {"fusion.dev/pool": "train"}
        assert [each["key"] for each in pod["tolerations"]] == ["nvidia.com/gpu"]


@pytest.mark.parametrize(
    ("nodes", "volume", "access"),
    [(1, Volume(gib=50), "ReadWriteOnce"), (4, Volume(gib=50, storage_class="shared"), "ReadWriteMany")],
)
def test_checkpoints_may_be_kept_on_a_disk_of_the_cluster(nodes, volume, access):
    objects = training(nodes=nodes, checkpoint_volume=volume)
    for each in objects.values():
        kubernetes_validate.validate(each, KUBERNETES_VERSION, strict=True)
    claim, (pod,) = objects["PersistentVolumeClaim"], pods(objects)
    assert claim["spec"]["accessModes"] == [access] and claim["spec"]["resources"]["requests"]["storage"] == "50Gi"
    assert claim["spec"].get("storageClassName") == volume.storage_class
    claimed = [each for each in pod["volumes"] if "persistentVolumeClaim" in each]
    named = {each["persistentVolumeClaim"]["claimName"]: each["name"] for each in claimed}
    mounts = {each["mountPath"]: each["name"] for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["/checkpoints"] == named[claim["metadata"]["name"]]


def test_several_nodes_do_not_write_to_a_disk_that_one_can_mount():
    with pytest.raises(ArgumentError, match=r"4 pods write to one checkpoint_volume.* name a storage_class"):
        training(nodes=4, checkpoint_volume=Volume(gib=50))


@pytest.mark.parametrize("objects", [training(), inference()], ids=["job", "service"])
def test_what_can_be_written_to_has_a_place_and_a_size(objects):
    for pod in pods(objects):
        mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        sizes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
        assert {"/tmp", "/scratch", "/dev/shm"} <= set(mounted)
        assert all(each["sizeLimit"] for each in sizes.values())
        assert sizes[mounted["/dev/shm"]]["medium"] == "Memory"


def test_a_job_runs_the_workloads_own_command_with_its_config_file():
    objects = training()
    (pod,) = pods(objects)
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "workloads.training"]
    assert container["args"] == ["--config", "/etc/fusion/training.yaml"]
    volume = next(mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/etc/fusion")
    source = next(each["configMap"]["name"] for each in pod["volumes"] if each["name"] == volume)
    assert source == objects["ConfigMap"]["metadata"]["name"]
    assert yaml.safe_load(objects["ConfigMap"]["data"]["training.yaml"]) == {"epochs": 12}
    assert environment(pod)["FUSION_WORKLOAD"] == "digits"
    assert environment(pod)["FUSION_BUCKET_URL"] == "s3://bucket"


def test_a_changed_config_makes_a_new_run():
    digests = {
        training(config={"epochs": epochs})["Job"]["spec"]["template"]["metadata"]["annotations"]["fusion.dev/config"]
        for epochs in (1, 1, 2)
    }
    assert len(digests) == 2


def test_another_prediction_reaches_the_run_and_starts_no_new_one():
    jobs = [training(promise={"machine": "A10G", "usd_per_hour": price}) for price in (1.0, 2.0)]
    assert jobs[0]["Job"] == jobs[1]["Job"]
    files = [json.loads(each["ConfigMap"]["data"]["promise.json"]) for each in jobs]
    assert [each["usd_per_hour"] for each in files] == [1.0, 2.0]
    assert environment(*pods(jobs[0]))["FUSION_PREDICTION"] == "/etc/fusion/promise.json"
    assert "FUSION_PREDICTION" not in environment(*pods(training()))


def test_the_port_for_prometheus_has_a_name_that_a_pod_monitor_selects():
    (pod,) = pods(training(config={"metrics_port": 9400}))
    assert pod["containers"][0]["ports"] == [{"name": "metrics", "containerPort": 9400}]
    assert "ports" not in pods(training())[0]["containers"][0]


def test_what_the_cloud_takes_back_does_not_count_as_a_failure():
    spec = training()["Job"]["spec"]
    evicted, left = spec["podFailurePolicy"]["rules"]
    assert evicted["action"] == left["action"] == "Ignore"
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert left["onExitCodes"]["operator"] == "In" and left["onExitCodes"]["values"] == [RESUMABLE_EXIT_CODE]
    assert left["onExitCodes"]["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "a pod failure policy asks for it"


def test_an_update_does_not_wait_for_the_end_of_training():
    assert training()["Job"]["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true"


def test_one_pod_needs_no_rendezvous():
    objects = training()
    assert "Service" not in objects
    assert "PET_MASTER_ADDR" not in environment(*pods(objects))


@given(st.integers(2, 64), st.integers(1, 16))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_pods_of_a_job_find_each_other_through_the_first(nodes, devices):
    objects = training(nodes=nodes, pod=dataclasses.replace(POD, devices=devices))
    job, service = objects["Job"]["spec"], objects["Service"]
    (pod,) = pods(objects)
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"] == nodes
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"]
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"].items() <= job["template"]["metadata"]["labels"].items()
    env = environment(pod)
    assert env["PET_MASTER_ADDR"] == "digits-0.digits.workloads.svc"
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"]) == (str(nodes), str(devices))
    assert env["PET_MASTER_PORT"] == str(service["spec"]["ports"][0]["port"])
    assert any(each["name"] == "PET_NODE_RANK" and "valueFrom" in each for each in pod["containers"][0]["env"])


def test_a_service_is_bounded_and_its_size_left_to_the_autoscaler():
    objects = inference(replicas_min=2, replicas_max=8)
    scaler = objects["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 8)
    assert scaler["scaleTargetRef"]["name"] == objects["Deployment"]["metadata"]["name"]
    assert "replicas" not in objects["Deployment"]["spec"]


def test_a_service_is_probed_where_it_listens():
    (pod,) = pods(inference(port=9000, startup_seconds=95))
    (container,) = pod["containers"]
    assert container["ports"] == [{"name": "http", "containerPort": 9000}]
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: each["path"] for name, each in paths.items()} == {
        "startup": "/ready",
        "readiness": "/ready",
        "liveness": "/live",
    }
    assert all(each["port"] == "http" for each in paths.values())
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 95


def test_grpc_has_a_port_of_the_service_that_says_it_is_http_2_in_clear_text():
    objects = inference(port=9000, grpc_port=9001)
    (pod,) = pods(objects)
    assert [(each["name"], each["containerPort"]) for each in pod["containers"][0]["ports"]] == [
        ("http", 9000),
        ("grpc", 9001),
    ]
    http, grpc = objects["Service"]["spec"]["ports"]
    assert (http["port"], http["targetPort"]) == (80, "http")
    assert (grpc["port"], grpc["targetPort"], grpc["appProtocol"]) == (9001, "grpc", "kubernetes.io/h2c")
    assert environment(pod)["FUSION_GRPC_PORT"] == "9001"
    assert "FUSION_GRPC_PORT" not in environment(pods(inference())[0])


def test_requests_reach_ready_replicas_and_maintenance_takes_one_at_a_time():
    objects = inference()
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"].items() <= labels.items()
    budget = objects["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1 and budget["selector"]["matchLabels"].items() <= labels.items()
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_replica_that_leaves_finishes_what_it_has():
    (pod,) = pods(inference(drain_seconds=90))
    linger = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] == 90 + linger


def test_replicas_are_spread_over_zones_and_nodes():
    (pod,) = pods(inference())
    keys = [each["topologyKey"] for each in pod["topologySpreadConstraints"]]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_guardrails_see_the_workload():
    mocks = run_program(lambda: TrainingJob("t-digits", JOB), Recording())
    (facts,) = mocks.of_type("fusion:kubernetes:TrainingJob")
    assert (facts["workload"], facts["devices"], facts["nodes"]) == ("digits", 1, 1)
