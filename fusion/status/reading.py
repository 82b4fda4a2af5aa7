"""The state of a cluster, from the objects that its API server has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fusion.nodes import DEVICE_RESOURCES, TPU_NAMES
from localcloud.kubernetes.cluster import Cluster, Refusal
from planner.catalog import Catalog, UnknownOffer
from planner.catalog.tpus import TpuSlice, chips_of

Object = Mapping[str, Any]

JOBSET_LABEL, JOB_LABEL = "jobset.sigs.k8s.io/jobset-name", "batch.kubernetes.io/job-name"
DEVICES = ("nvidia.com/gpu", "amd.com/gpu", *DEVICE_RESOURCES.values())
SYSTEM_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease", "kueue-system", "jobset-system"})
UNPOOLED = "-"


@dataclass(frozen=True, slots=True)
class Workload:
    """A job or service in the cluster.

    Attributes:
        kind: `training` for jobs, `inference` for deployments.
        state: `queued`, `admitted` (it has quota and no pod runs yet), `running`, `degraded`, `succeeded`, `failed`, or
            `suspended`.
        queue, position: its LocalQueue and place in that queue's ClusterQueue, from 1; None where it does not wait.
        pods_ready, pods_wanted: pods that serve or compute, and how many there should be.
        restarts: times that the whole job began again.
        message: why it is in that state, in the words of who put it there.
    """

    namespace: str
    name: str
    kind: str
    state: str
    queue: str | None
    position: int | None
    pods_ready: int
    pods_wanted: int
    restarts: int
    age_s: float
    message: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of one pool and instance type that are bought in one way.

    Attributes:
        device: what Kubernetes calls their chips; None without any.
        usd_per_hour: of all of them; None where the catalog does not have the offer.
    """

    pool: str
    instance_type: str
    price_model: str
    ready: int
    count: int
    device: str | None
    devices_used: int
    devices: int
    usd_per_hour: float | None


@dataclass(frozen=True, slots=True)
class State:
    """Everything that was read, at one time."""

    workloads: tuple[Workload, ...]
    nodes: tuple[Nodes, ...]

    @property
    def usd_per_hour(self) -> float:
        """Of the nodes that have a price."""
        return sum(each.usd_per_hour or 0.0 for each in self.nodes)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Instance types that the catalog does not have."""
        return tuple(sorted({each.instance_type for each in self.nodes if each.usd_per_hour is None}))


def read(cluster: Cluster, catalog: Catalog, cloud: str, region: str) -> State:
    """Read workloads and nodes.

    Args:
        cloud: of nodes that do not say it.
        region: of nodes that do not say it.

    Raises:
        ProviderError: the server can't be reached or does not allow it.
    """
    pods = _list(cluster, "/api/v1/pods")
    return State(
        tuple(_workloads(cluster, pods)),
        tuple(_nodes(_list(cluster, "/api/v1/nodes"), pods, catalog, cloud, region)),
    )


def _list(cluster: Cluster, path: str) -> list[Object]:
    """The objects at a path; none where the server does not know the kind."""
    try:
        found: list[Object] = cluster.request("GET", path)["items"]
    except Refusal as refusal:
        if refusal.status != 404:
            raise
        return []
    return found


def _workloads(cluster: Cluster, pods: Sequence[Object]) -> Iterator[Workload]:
    queued = _list(cluster, "/apis/kueue.x-k8s.io/v1beta1/workloads")
    queues = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["spec"]["clusterQueue"]
        for each in _list(cluster, "/apis/kueue.x-k8s.io/v1beta1/localqueues")
    }
    admission = _Admission(queued, queues)
    ready: dict[tuple[str, str, str], int] = defaultdict(int)
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        for label in (JOBSET_LABEL, JOB_LABEL):
            if label in labels and (pod.get("status") or {}).get("phase") == "Running" and _is_ready(pod):
                ready[pod["metadata"]["namespace"], label, labels[label]] += 1
    for jobset in _of_users(_list(cluster, "/apis/jobset.x-k8s.io/v1alpha2/jobsets")):
        wanted = sum(
            each.get("replicas", 1) * each["template"]["spec"].get("parallelism", 1)
            for each in jobset["spec"]["replicatedJobs"]
        )
        restarts = (jobset.get("status") or {}).get("restarts", 0)
        yield _job(jobset, wanted, ready[_key(jobset, JOBSET_LABEL)], restarts, admission)
    for job in _of_users(_list(cluster, "/apis/batch/v1/jobs")):
        if not job["metadata"].get("ownerReferences"):
            wanted = job["spec"].get("parallelism", 1)
            restarts = (job.get("status") or {}).get("failed", 0)
            yield _job(job, wanted, ready[_key(job, JOB_LABEL)], restarts, admission)
    for deployment in _of_users(_list(cluster, "/apis/apps/v1/deployments")):
        yield _service(deployment)


def _of_users(objects: Iterable[Object]) -> Iterator[Object]:
    return (each for each in objects if each["metadata"]["namespace"] not in SYSTEM_NAMESPACES)


def _key(value: Object, label: str) -> tuple[str, str, str]:
    return value["metadata"]["namespace"], label, value["metadata"]["name"]


class _Admission:
    """What Kueue says of the jobs, by their owner's uid."""

    def __init__(self, workloads: Sequence[Object], queues: Mapping[tuple[str, str], str]) -> None:
        self._of = {owner["uid"]: each for each in workloads for owner in each["metadata"].get("ownerReferences") or ()}
        waiting: dict[str, list[Object]] = defaultdict(list)
        for each in workloads:
            queue = queues.get((each["metadata"]["namespace"], each["spec"].get("queueName", "")))
            if queue and not _is_true(each, "QuotaReserved") and not _is_true(each, "Finished"):
                waiting[queue].append(each)
        self._positions = {
            each["metadata"]["uid"]: position
            for group in waiting.values()
            for position, each in enumerate(sorted(group, key=_order), start=1)
        }

    def of(self, job: Object) -> tuple[Object | None, int | None]:
        """A job's Workload, and its place among those that wait."""
        found = self._of.get(job["metadata"]["uid"])
        return found, self._positions.get(found["metadata"]["uid"]) if found else None


def _order(workload: Object) -> tuple[int, str]:
    """As Kueue orders a queue: by priority, then by when it came or was evicted for pods that did not become ready."""
    evicted = _condition(workload, "Evicted")
    since = workload["metadata"]["creationTimestamp"]
    if evicted.get("status") == "True" and evicted.get("reason") == "PodsReadyTimeout":
        since = evicted["lastTransitionTime"]
    return -workload["spec"].get("priority", 0), since


def _job(job: Object, wanted: int, ready: int, restarts: int, admission: _Admission) -> Workload:
    workload, position = admission.of(job)
    state, message = _job_state(job, workload, wanted, ready)
    return Workload(
        namespace=job["metadata"]["namespace"],
        name=job["metadata"]["name"],
        kind="training",
        state=state,
        queue=workload["spec"].get("queueName") if workload else None,
        position=position if state == "queued" else None,
        pods_ready=ready,
        pods_wanted=wanted,
        restarts=restarts,
        age_s=_age_s(job),
        message=message,
    )


def _job_state(job: Object, workload: Object | None, wanted: int, ready: int) -> tuple[str, str]:
    for kind, state in (("Complete", "succeeded"), ("Completed", "succeeded"), ("Failed", "failed")):
        if _is_true(job, kind):
            return state, str(_condition(job, kind).get("message", ""))
    if workload is not None and not _is_true(workload, "QuotaReserved"):
        return "queued", str(_condition(workload, "QuotaReserved").get("message", ""))
    if job["spec"].get("suspend"):
        return "suspended", ""
    if ready >= wanted:
        return "running", ""
    if ready:
        return "degraded", f"{ready} of {wanted} pods run"
    return "admitted", "its pods wait for nodes"


def _service(deployment: Object) -> Workload:
    wanted = deployment["spec"].get("replicas", 1)
    status = deployment.get("status") or {}
    ready = status.get("readyReplicas", 0)
    stuck = _condition(deployment, "Available")
    return Workload(
        namespace=deployment["metadata"]["namespace"],
        name=deployment["metadata"]["name"],
        kind="inference",
        state="running" if ready >= wanted else "degraded",
        queue=None,
        position=None,
        pods_ready=ready,
        pods_wanted=wanted,
        restarts=0,
        age_s=_age_s(deployment),
        message="" if ready >= wanted else str(stuck.get("message", "")),
    )


def _nodes(
    nodes: Sequence[Object], pods: Sequence[Object], catalog: Catalog, cloud: str, region: str
) -> Iterator[Nodes]:
    groups: dict[tuple[str, str, str], list[Object]] = defaultdict(list)
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        groups[_pool_of(labels), labels.get("node.kubernetes.io/instance-type", "?"), _price_model_of(labels)].append(
            node
        )
    used: Counter[tuple[str, str]] = Counter()
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in ("Pending", "Running"):
            for container in pod["spec"]["containers"]:
                for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
                    if name in DEVICES:
                        used[pod["spec"].get("nodeName", ""), name] += int(amount)
    for (pool, instance_type, price_model), members in sorted(groups.items()):
        allocatable = [(node.get("status") or {}).get("allocatable") or {} for node in members]
        device = next((name for name in DEVICES if any(name in each for each in allocatable)), None)
        prices = [_price_of(node, price_model, catalog, cloud, region) for node in members]
        yield Nodes(
            pool=pool,
            instance_type=instance_type,
            price_model=price_model,
            ready=sum(_is_ready(node) for node in members),
            count=len(members),
            device=device,
            devices_used=sum(used[node["metadata"]["name"], device] for node in members) if device else 0,
            devices=sum(int(each.get(device, 0)) for each in allocatable) if device else 0,
            usd_per_hour=None if None in prices else sum(price or 0.0 for price in prices),
        )


def _pool_of(labels: Mapping[str, str]) -> str:
    keys = ("fusion.dev/pool", "karpenter.sh/nodepool", "eks.amazonaws.com/nodegroup", "cloud.google.com/gke-nodepool")
    return next((labels[key] for key in keys if key in labels), UNPOOLED)


def _price_model_of(labels: Mapping[str, str]) -> str:
    keys = ("karpenter.sh/capacity-type", "fusion.dev/price-model", "eks.amazonaws.com/capacityType")
    said = next((labels[key] for key in keys if key in labels), "")
    if labels.get("cloud.google.com/gke-spot") == "true":
        said = "spot"
    return said.lower().replace("-", "_") or "on_demand"


def _price_of(node: Object, price_model: str, catalog: Catalog, cloud: str, region: str) -> float | None:
    """USD by hour of one node; of a node of a TPU slice its part of the slice's price."""
    labels = node["metadata"].get("labels") or {}
    place = labels.get("topology.kubernetes.io/region", region)
    name, hosts = labels.get("node.kubernetes.io/instance-type", ""), 1
    if topology := labels.get("cloud.google.com/gke-tpu-topology"):
        names = {said: accelerator for accelerator, said in TPU_NAMES.items()}
        accelerator = names.get(labels.get("cloud.google.com/gke-tpu-accelerator", ""), "")
        name = TpuSlice(accelerator, chips_of(topology)).instance_type
        slices = [each for each in catalog.topologies(accelerator) if each.topology == topology]
        hosts = slices[0].hosts if slices else 1
    is_google = any(key.startswith("cloud.google.com/") for key in labels)
    try:
        offer = catalog.offer("gcp" if is_google else cloud, place, name)
    except UnknownOffer:
        return None
    price = offer.spot_price_usd_per_hour if price_model == "spot" else offer.price_usd_per_hour
    return None if price is None else price / hosts


def _is_ready(value: Object) -> bool:
    return _is_true(value, "Ready") and not value["metadata"].get("deletionTimestamp")


def _is_true(value: Object, kind: str) -> bool:
    return _condition(value, kind).get("status") == "True"


def _condition(value: Object, kind: str) -> Mapping[str, Any]:
    found = (value.get("status") or {}).get("conditions") or ()
    return next((each for each in found if each["type"] == kind), {})


def _age_s(value: Object) -> float:
    created = datetime.fromisoformat(value["metadata"]["creationTimestamp"])
    return (datetime.now(UTC) - created).total_seconds()
