"""With a queueing engine: what there is to queue for comes from the plan, and jobs start as gangs."""

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError
from infra.kubernetes.manifests import Manifests, ManifestsArgs
from infra.kubernetes.queue import Amounts, FlavorArgs, FlavorsArgs, Queue, QueueArgs, shares_of
from infra.queueing import QueueingSpec, QueueSpec
from infra.training_job import Queueing
from tests.custom_resources import problems
from tests.unit.infra.cloud import Cloud, Recording, run_program
from tests.unit.infra.conftest import refusal
from tests.unit.infra.test_config import config_of
from tests.unit.infra.test_kubernetes_workloads import POD, environment, training
from tests.unit.infra.whole_stack import built, job, of_kind, service

RESEARCH = Queueing(queue="research", priority_class="t-high", topology_level="topology.example.com/rack")
LEVELS = ("topology.k8s.aws/network-node-layer-1", "kubernetes.io/hostname")
EFA = {"instance_type": "p5.48xlarge", "accelerators": 8, "vcpus": 180, "memory_gib": 1500}
NODE = Amounts(cpus=3.5, memory_gib=13.6, disk_gib=80, devices={"nvidia.com/gpu": 1})


@pytest.fixture(scope="module")
def stack():
    """Two teams on a spot pool with its stand-in, one gang of whole nodes, and a service."""
    spot = {"price_model": "spot", "spot_fallback": True, "nodes": {"max": 3, "desired": 1}}
    config = {
        "workloads": [
            job(queue="research", priority="high", **spot),
            job("large", needs=EFA, nodes={"desired": 2, "max": 2}, disk_gib=500),
            service(),
        ],
        "cluster": {"queueing": "kueue", "topology_levels": LEVELS},
        "queues": [{"name": "product", "share": 0.5, "weight": 2, "lends": False}, {"name": "research", "share": 0.5}],
    }
    with built(**config) as cloud:
        yield cloud


def job_set(**changes):
    return training(queueing=RESEARCH, **changes)["JobSet"]


def test_every_object_is_what_kubernetes_kueue_and_jobset_take(stack: Cloud) -> None:
    kinds = {each["kind"] for each in stack.mocks.all_objects()}
    expected = {"ResourceFlavor", "Topology", "ClusterQueue", "LocalQueue", "WorkloadPriorityClass", "JobSet"}
    assert kinds >= expected and "Job" not in kinds
    assert [(each["kind"], problems(each)) for each in stack.mocks.all_objects() if problems(each)] == []


def test_a_flavor_has_all_labels_that_its_pools_pods_ask_for(stack: Cloud) -> None:
    for each in of_kind(stack, "JobSet").values():
        (replicated,) = each["spec"]["replicatedJobs"]
        affinity = replicated["template"]["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
        (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        asked = {one["key"]: one["values"][0] for one in term["matchExpressions"]}
        assert any(
            asked.items() <= flavor["spec"]["nodeLabels"].items()
            for flavor in of_kind(stack, "ResourceFlavor").values()
        )


def test_a_flavor_is_a_pool_of_the_plan_and_spot_comes_before_its_stand_in(stack: Cloud) -> None:
    pools = {pool["pool"]: pool for pool in stack.all_facts("fusion:aws:AcceleratorPool")}
    flavors = of_kind(stack, "ResourceFlavor")
    assert flavors.keys() == {f"t-{pool}" for pool in pools if pools[pool]["instance_type"] != "g6.xlarge"}
    (group,) = of_kind(stack, "ClusterQueue")["t-research"]["spec"]["resourceGroups"]
    bought = [
        pools[flavor["name"].removeprefix("t-")]["price_model"] for flavor in group["flavors"] if "g5" in flavor["name"]
    ]
    assert bought == ["spot", "on_demand"]
    labels = [flavors[each["name"]]["spec"]["nodeLabels"] for each in group["flavors"] if "g5" in each["name"]]
    assert labels[0]["fusion.dev/pool"] == labels[1]["fusion.dev/pool"], "the job's own selector finds both"
    assert [each["fusion.dev/price-model"] for each in labels] == ["spot", "on-demand"]
    assert all(each["spec"]["topologyName"] == "t-flavors" for each in flavors.values())


def test_quotas_are_the_pools_at_their_maximum_shared_out_in_whole_devices(stack: Cloud) -> None:
    queues = of_kind(stack, "ClusterQueue")
    quotas = {
        name: {
            flavor["name"]: {each["name"]: each for each in flavor["resources"]}
            for flavor in queue["spec"]["resourceGroups"][0]["flavors"]
        }
        for name, queue in queues.items()
    }
    for pool in stack.all_facts("fusion:aws:AcceleratorPool"):
        if (name := f"t-{pool['pool']}") in quotas["t-product"]:
            shares = [int(quotas[queue][name]["nvidia.com/gpu"]["nominalQuota"]) for queue in quotas]
            assert sum(shares) == pool["nodes_max"] * pool["accelerator_count"]
            assert max(shares) - min(shares) <= 1


def test_a_queue_says_who_may_borrow_and_who_is_put_out(stack: Cloud) -> None:
    queues = of_kind(stack, "ClusterQueue")
    product, research = queues["t-product"]["spec"], queues["t-research"]["spec"]
    assert product["cohort"] == research["cohort"] == "t"
    assert (product["fairSharing"]["weight"], research["fairSharing"]["weight"]) == ("2", "1")
    assert product["preemption"]["reclaimWithinCohort"] == "Never", "it lends nothing that it would have to get back"
    assert research["preemption"] == {
        "withinClusterQueue": "LowerPriority",
        "reclaimWithinCohort": "Any",
        "borrowWithinCohort": {"policy": "Never"},
    }
    lent = [each for flavor in product["resourceGroups"][0]["flavors"] for each in flavor["resources"]]
    assert {each["lendingLimit"] for each in lent} == {"0"} and not any("borrowingLimit" in each for each in lent)
    assert product["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "workloads"}}
    assert of_kind(stack, "LocalQueue")["product"]["spec"] == {"clusterQueue": "t-product"}


def test_a_job_is_in_the_queue_that_it_names_or_in_the_first(stack: Cloud) -> None:
    labels = {name: each["metadata"]["labels"] for name, each in of_kind(stack, "JobSet").items()}
    assert labels["digits"]["kueue.x-k8s.io/queue-name"] == "research"
    assert labels["digits"]["kueue.x-k8s.io/priority-class"] == "t-high"
    assert labels["large"]["kueue.x-k8s.io/queue-name"] == "product"
    assert set(of_kind(stack, "WorkloadPriorityClass")) == {"t-low", "t-normal", "t-high"}


def test_only_pods_that_talk_to_each_other_ask_to_be_close_together(stack: Cloud) -> None:
    templates = {
        name: each["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["metadata"]["annotations"]
        for name, each in of_kind(stack, "JobSet").items()
    }
    assert templates["large"]["kueue.x-k8s.io/podset-preferred-topology"] == LEVELS[0]
    assert "kueue.x-k8s.io/podset-preferred-topology" not in templates["digits"]
    (topology,) = of_kind(stack, "Topology").values()
    assert [each["nodeLabel"] for each in topology["spec"]["levels"]] == list(LEVELS)


def test_without_a_queueing_engine_a_job_stays_a_job() -> None:
    with built(workloads=[job()]) as cloud:
        kinds = {each["kind"] for each in cloud.mocks.all_objects()}
    assert "Job" in kinds and not kinds & {"JobSet", "ClusterQueue"}


def test_what_a_service_takes_at_its_most_is_no_quota() -> None:
    on_one_pool = {"workloads": [job(nodes={"desired": 1, "max": 1}), service(needs=job()["needs"])]}
    with built(**on_one_pool, cluster={"queueing": "kueue"}) as cloud:
        (pool,) = cloud.all_facts("fusion:aws:AcceleratorPool")
        (queue,) = of_kind(cloud, "ClusterQueue").values()
    assert queue["metadata"]["name"] == "t-training"
    (flavor,) = queue["spec"]["resourceGroups"][0]["flavors"]
    devices = next(each for each in flavor["resources"] if each["name"] == "nvidia.com/gpu")
    assert int(devices["nominalQuota"]) == pool["nodes_max"] - 4


def test_a_gang_is_one_indexed_job_whose_pods_find_the_first() -> None:
    spec = job_set(nodes=4, pod=dataclasses.replace(POD, devices=8))["spec"]
    (replicated,) = spec["replicatedJobs"]
    work = replicated["template"]["spec"]
    assert (work["completionMode"], work["completions"], work["parallelism"]) == ("Indexed", 4, 4)
    env = environment(work["template"]["spec"])
    host = f"digits-{replicated['name']}-0-0.{spec['network']['subdomain']}.workloads.svc"
    assert env["PET_MASTER_ADDR"] == host and spec["network"]["publishNotReadyAddresses"]
    assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"]) == ("4", "8")
    assert "Service" not in training(queueing=RESEARCH, nodes=4), "the JobSet's controller makes its own"


def test_what_kueue_writes_into_a_gangs_pods_is_left_to_it_and_the_rest_is_as_it_would_write_it() -> None:
    labels = {"fusion.dev/pool": "train", "cloud.google.com/gke-tpu-topology": "2x4"}
    pod = dataclasses.replace(POD, cpus=96, memory_gib=512, scratch_gib=2048, shared_memory_gib=1, node_selector=labels)
    (replicated,) = job_set(pod=pod)["spec"]["replicatedJobs"]
    spec = replicated["template"]["spec"]["template"]["spec"]
    assert "nodeSelector" not in spec
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {each["key"]: each["values"] for each in term["matchExpressions"]} == {k: [v] for k, v in labels.items()}
    (limits,) = (each["resources"]["limits"] for each in spec["containers"])
    assert (limits["cpu"], limits["memory"]) == ("96", "512Gi")
    sizes = {each["name"]: each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if "emptyDir" in each}
    assert (sizes["scratch"], sizes["shared-memory"]) == ("2Ti", "1Gi")


def test_kueue_alone_suspends_a_job() -> None:
    assert "suspend" not in job_set()["spec"], "written here, each update would stop the run"


def test_a_gang_tells_what_the_cloud_took_back_from_a_bug() -> None:
    spec = job_set(retries=5)["spec"]
    rules = {each["name"]: each for each in spec["failurePolicy"]["rules"]}
    assert rules["takenBack"]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rules["takenBack"]["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert rules["deadline"]["action"] == "FailJobSet"
    assert spec["failurePolicy"]["maxRestarts"] == 5
    work = spec["replicatedJobs"][0]["template"]["spec"]
    assert work["backoffLimit"] == 0, "a pod that fails by itself fails the gang, which restarts and is counted"
    evicted, left = work["podFailurePolicy"]["rules"]
    assert evicted["action"] == left["action"] == "FailJob"
    assert evicted["onPodConditions"][0]["type"] == "DisruptionTarget" and left["onExitCodes"]["values"] == [75]


def test_a_finished_run_is_kept_unless_it_is_told_otherwise() -> None:
    assert "ttlSecondsAfterFinished" not in job_set()["spec"]
    assert job_set(keep_finished_seconds=3600)["spec"]["ttlSecondsAfterFinished"] == 3600
    assert training(keep_finished_seconds=60)["Job"]["spec"]["ttlSecondsAfterFinished"] == 60


@given(
    devices=st.integers(0, 10_000),
    parts=st.lists(st.integers(1, 100), min_size=1, max_size=8),
    whole=st.booleans(),
)
def test_shares_never_give_more_devices_than_there_are_nor_lose_one(devices, parts, whole) -> None:
    total = sum(parts) * (1 if whole else 2)
    shares = [part / total for part in parts]
    cut = shares_of(Amounts(cpus=1, memory_gib=1, disk_gib=1, devices={"gpu": devices}), shares)
    given_out = [each.devices["gpu"] for each in cut]
    assert sum(given_out) == (devices if whole else devices // 2)
    assert all(abs(each - devices * share) < 1 for each, share in zip(given_out, shares, strict=True))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"queues": [{"name": "a"}]}, "fusion:queues: .* set fusion:cluster queueing to kueue"),
        ({"workloads": [job(queue="a")]}, "workload digits names the queue a; there is none"),
        (
            {"workloads": [job(queue="a")], "cluster": {"queueing": "kueue"}},
            "workload digits names the queue a; there is training",
        ),
        (
            {"cluster": {"queueing": "kueue"}, "queues": [{"name": "a", "share": 0.7}, {"name": "b", "share": 0.7}]},
            "the shares add up to 1.4; expected 1 or less",
        ),
        (
            {"cluster": {"queueing": "kueue"}, "queues": [{"name": "a", "share": 0.5}, {"name": "a", "share": 0.5}]},
            "the name a is used twice",
        ),
        ({"cluster": {"topology_levels": LEVELS}}, "fusion:cluster.topology_levels: .* set queueing to kueue"),
        (
            {"cluster": {"manifests": [{"path": "a.yaml", "sha256": "latest"}]}},
            r"fusion:cluster.manifests\[0\].sha256: got .latest.; expected 64 hexadecimal digits",
        ),
    ],
)
def test_a_config_that_can_not_be_queued_is_refused_in_one_sentence(config, says) -> None:
    with pytest.raises(ConfigError, match=says):
        config_of(**config)


@pytest.mark.parametrize(
    ("make", "args", "says"),
    [
        (QueueingSpec, {"queues": ()}, "queueing: no queue"),
        (QueueingSpec, {"queues": (QueueSpec(name="a"), QueueSpec(name="b"))}, "add up to 2"),
        (FlavorsArgs, {"stack": "t", "flavors": ()}, "0 pools for training; Kueue takes 1 to 16"),
        (FlavorArgs, {"name": "a", "node_labels": {}, "taints": (), "amounts": NODE}, "flavor a: no node_labels"),
        (
            QueueArgs,
            {"name": "a", "namespace": "w", "cohort": "c", "quotas": {"p": NODE}, "weight": -1},
            "queue a: weight -1; use 0 or more",
        ),
    ],
)
def test_args_that_make_no_queue_are_refused(make, args, says) -> None:
    assert says in refusal(make, **args)


def test_others_objects_are_applied_from_a_file_that_is_pinned(tmp_path: Path) -> None:
    file = tmp_path / "kueue.yaml"
    file.write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: controller, namespace: kueue-system}\n---\n"
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: kueue-system}\n---\n"
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b}\nstatus: {}\n"
    )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    args = ManifestsArgs(file=file, sha256=digest)
    made = run_program(lambda: Manifests("t-kueue", args), Recording()).all_objects()
    assert [each["kind"] for each in made] == ["Namespace", "CustomResourceDefinition", "Deployment"]
    assert "status" not in made[1]
    file.write_text("apiVersion: v1\n")
    assert f"{digest} is expected" in refusal(ManifestsArgs, file=file, sha256=digest)
    other = hashlib.sha256(file.read_bytes()).hexdigest()
    assert "no Kubernetes object" in refusal(ManifestsArgs, file=file, sha256=other)
    assert "is no file" in refusal(ManifestsArgs, file=tmp_path / "none.yaml", sha256=other)


def test_a_queue_says_how_many_devices_it_has_to_guardrails() -> None:
    args = QueueArgs(name="research", namespace="workloads", cohort="t", quotas={"train": NODE.times(3)})
    mocks = run_program(lambda: Queue("t-research", args), Recording())
    (facts,) = mocks.of_type("fusion:kubernetes:Queue")
    assert facts["devices"] == {"train": {"nvidia.com/gpu": 3}}
