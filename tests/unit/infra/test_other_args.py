import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.aws.cluster import check as check_on_aws
from infra.budget import BudgetArgs
from infra.cluster import ClusterArgs, SystemPoolArgs
from infra.errors import ArgumentError
from infra.inference_service import InferenceServiceArgs
from infra.kubernetes.pods import PodArgs
from infra.names import short_name, versioned_name
from infra.object_store import ObjectStoreArgs
from infra.registry import RegistryArgs
from infra.training_job import TrainingJobArgs
from infra.workload_identity import StoreAccess, WorkloadIdentityArgs
from tests.unit.infra.conftest import REGION, refusal

POD = PodArgs(image="registry.example.com/training:1", cpus=2, memory_gib=8)


def cluster(**changes):
    return ClusterArgs(region=REGION, **changes)


def pod(**changes):
    return PodArgs(**({"image": "registry.example.com/training:1", "cpus": 2, "memory_gib": 8} | changes))


def job(**changes):
    return TrainingJobArgs(**({"name": "digits", "namespace": "workloads", "pod": POD} | changes))


def service(**changes):
    return InferenceServiceArgs(**({"name": "classify", "namespace": "workloads", "pod": POD} | changes))


def registry(*names, **changes):
    return RegistryArgs(region=REGION, repositories=names, **changes)


def budget(*emails, **changes):
    return BudgetArgs(**({"stack": "t", "limit_usd_per_month": 100, "emails": emails} | changes))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: budget("a@example.com", limit_usd_per_month=0), "limit_usd_per_month 0: use more than 0"),
        (lambda: budget(), "emails (none): name at least one"),
        (lambda: budget("a@example.com", "a@example.com"), "each once"),
        (lambda: budget("somebody"), "'somebody' is no address"),
        (lambda: budget("a@example.com", forecast_percent=0), "forecast_percent 0: use more than 0"),
        (lambda: cluster(public_access_cidrs=("0.0.0.0/0",)), "0.0.0.0/0 opens the cluster's endpoint to everyone"),
        (lambda: cluster(public_access_cidrs=("203.0.113.0/24", "1.2.3.4/0")), "is not an IPv4 range"),
        (lambda: cluster(public_access_cidrs=("my office",)), "'my office' is not an IPv4 range"),
        (lambda: cluster(kubernetes_version="latest"), "'latest' is not a minor version"),
        (lambda: SystemPoolArgs(nodes=0), "DNS needs a node"),
        (lambda: SystemPoolArgs(disk_gib=8), "the system needs 20 or more"),
        (lambda: check_on_aws(cluster(log_retention_days=100)), "use 90."),
        (lambda: check_on_aws(cluster(addon_versions={"istio": "1"})), "istio is not installed here"),
        (
            lambda: check_on_aws(cluster(system_pool=SystemPoolArgs(instance_type="g5.xlarge"))),
            "use a CPU instance type",
        ),
        (lambda: ObjectStoreArgs(region=REGION, noncurrent_days=0), "use 1 day or more"),
        (lambda: ObjectStoreArgs(region=REGION, unfinished_upload_days=0), "use 1 or more"),
        (lambda: registry(), "none named"),
        (lambda: registry("a", "a"), "used twice"),
        (lambda: registry("Training"), "'Training' is no name for one"),
        (lambda: registry("a", images_kept=0), "nothing could be pulled"),
        (lambda: registry("a", untagged_days=0), "use 1 day or more"),
        (lambda: WorkloadIdentityArgs(region=REGION, namespace="w", service_account="s", access=()), "names no bucket"),
        (lambda: pod(image=" "), "image: none named"),
        (lambda: pod(cpus=0), "use more than 0"),
        (lambda: pod(memory_gib=1, shared_memory_gib=2), "does not hold shared_memory_gib 2"),
        (lambda: pod(devices=1), "name both, or neither"),
        (lambda: pod(scratch_gib=0), "use 1 or more"),
        (lambda: job(name="Digits_1"), "'Digits_1' is no Kubernetes name"),
        (lambda: job(nodes=0), "use 1 or more"),
        (lambda: job(deadline_seconds=0), "or leave it out"),
        (lambda: service(replicas_min=0), "are not bounds"),
        (lambda: service(replicas_min=5), "replicas_min 5 and replicas_max 4 are not bounds"),
        (lambda: service(port=80), "port 80 is not open to a process that is not root"),
        (lambda: service(target_cpu_percent=0), "use 1 to 100"),
    ],
)
def test_what_can_not_be_built_is_refused_with_the_way_out(make, says):
    assert says in refusal(make)


@pytest.mark.parametrize("prefix", ["", "/", "data", "/data/", "*/", "data/*", "a?/"])
def test_access_to_more_than_a_folder_of_a_bucket_can_not_be_asked_for(prefix):
    assert "is no folder of the bucket" in refusal(StoreAccess, store=None, read=(prefix,))


def test_access_without_a_prefix_is_none():
    assert "neither read nor write" in refusal(StoreAccess, store=None)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_no_public_endpoint_is_open_to_everyone(address, prefix):
    cidr = f"{address}/{prefix}"
    try:
        args = cluster(public_access_cidrs=(cidr,))
    except ArgumentError:
        return
    assert prefix > 0 and args.public_access_cidrs == (cidr,)


NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,80}[a-z0-9]", fullmatch=True)


@given(NAMES, st.integers(16, 64))
def test_a_short_name_fits_and_stays_the_same(name, limit):
    short = short_name(name, limit)
    assert len(short) <= limit
    assert short == short_name(name, limit)
    assert short == name or len(name) > limit
    assert not short.endswith("-")


@given(NAMES, NAMES)
def test_long_names_that_differ_stay_different(one, other):
    if one != other:
        assert short_name(one * 3, 20) != short_name(other * 3, 20)


@given(NAMES, st.integers(16, 63), st.lists(st.text(max_size=5), max_size=3))
def test_a_versioned_name_fits_and_follows_its_facts(name, limit, facts):
    assert len(versioned_name(name, limit, *facts)) <= limit
    assert versioned_name(name, limit, *facts) != versioned_name(name, limit, *facts, "more")
