"""A stack's config: what is right is read, and each wrong value gives one line that names field, value and file."""

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import ConfigError, StackConfig, load

FILE = "stacks/Pulumi.test.yaml"
TRAINING = {"kind": "training", "name": "digits", "image": "registry.example.com/training:1"}
INFERENCE = {"kind": "inference", "name": "classify", "image": "registry.example.com/serving:1"}


GCP = {"gcp:region": "us-central1", "gcp:project": "fusion-local"}


def config_of(
    *, region: str | None = "us-east-1", places: Mapping[str, str] | None = None, **fusion: object
) -> StackConfig:
    values = {"workloads": [TRAINING], "guardrails": {"monthly_cost_limit_usd": 1000}} | fusion
    pairs = {f"fusion:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    if region is not None:
        pairs["aws:region"] = region
    return load(pairs | dict(places or {}), stack="test", stack_file=FILE)


def refused(**fusion: object) -> str:
    with pytest.raises(ConfigError) as caught:
        config_of(**fusion)
    return str(caught.value)


def test_the_smallest_stack_gets_safe_defaults() -> None:
    config = config_of()
    assert config.cluster.public_access_cidrs == ()
    assert config.zones_of("aws") == ("us-east-1a", "us-east-1b")
    assert not config.object_store.delete_with_contents


@pytest.mark.parametrize(
    ("fusion", "expected"),
    [
        (
            {"workloads": [TRAINING | {"nodes": {"min": 3, "max": 1}}]},
            'fusion:workloads[0].nodes: got {"min": 3, "max": 1}; min (3) is above max (1); lower min or raise max',
        ),
        (
            {"workloads": [TRAINING | {"nodes": {"max": -1}}]},
            "fusion:workloads[0].nodes.max: got -1; input should be greater than or equal to 1",
        ),
        ({"workloads": [TRAINING | {"kind": "batch"}]}, 'kind: expected training or inference, got "batch"'),
        ({"workloads": [TRAINING | {"gpus": 3}]}, "fusion:workloads[0].gpus: unknown field (got 3)"),
        ({"workloads": [TRAINING, TRAINING]}, "the name digits is used twice"),
        ({"workloads": [INFERENCE | {"replicas": {"min": 0, "max": 2}}]}, "replicas.min is 0"),
        ({"guardrails": {"monthly_cost_limit_usd": 0}}, "fusion:guardrails.monthly_cost_limit_usd: got 0;"),
        ({"guardrails": {}}, "fusion:guardrails.monthly_cost_limit_usd: not set"),
        ({"network": {"cidr": "8.8.0.0/16"}}, "expected a private IPv4 range"),
        ({"cluster": {"public_access_cidrs": ["0.0.0.0/0"]}}, "opens the cluster's endpoint to everyone"),
        ({"cloud": "azure"}, "fusion:cloud: got \"azure\"; input should be 'aws', 'gcp', 'auto' or 'both'"),
        ({"workload": []}, "fusion:workload: unknown field"),
        ({"workloads": "hello"}, 'fusion:workloads: got "hello"; input should be a list'),
        (
            {"workloads": [TRAINING | {"name": "Digits"}]},
            'got "Digits"; expected lower-case letters, digits and hyphens',
        ),
        (
            {"workloads": [TRAINING | {"image": "a b"}]},
            'fusion:workloads[0].image: got "a b"; expected a container image',
        ),
        (
            {"workloads": [TRAINING | {"needs": {"accelerators": float("nan")}}]},
            "fusion:workloads[0].needs.accelerators: got NaN; expected a whole number from 0 to 256, or any",
        ),
        ({"workloads": [TRAINING | {"price_model": "free"}]}, "input should be 'on_demand', 'spot', 'any', 'cap"),
        ({"workloads": [7]}, "fusion:workloads[0]: got 7; expected fields and their values"),
        ({"cluster": "small"}, 'fusion:cluster: got "small"; expected fields and their values'),
        ({"cluster": {"kubernetes_version": "1.x"}}, 'got "1.x"; expected a minor version of Kubernetes, such as 1.35'),
        (
            {"tags": {"aws:team": "ml"}},
            'fusion:tags.aws:team: got "aws:team"; keys that begin with aws: are AWS\'s own',
        ),
        ({"tags": {"team": "<ml>"}}, 'fusion:tags.team: got "<ml>"; expected letters, digits, spaces and'),
        ({"tags": {f"tag-{number}": "" for number in range(41)}}, "at most 40"),
    ],
)
def test_a_wrong_value_is_named_with_its_field_and_file(fusion: dict[str, object], expected: str) -> None:
    message = refused(**fusion)
    assert message.startswith(f"{FILE}: fusion:")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "image",
    ["app", "team/app:1.2", "registry.example.com:5000/a/b__c:v1@sha256:" + "0a" * 32, "REGISTRY.example.com/x.y-z"],
)
def test_any_reference_to_an_image_is_taken(image: str) -> None:
    assert config_of(workloads=[TRAINING | {"image": image}]).workloads[0].image == image


def test_every_wrong_value_gets_a_line_of_its_own() -> None:
    message = refused(workloads=[TRAINING | {"nodes": {"max": 0}, "disk_gib": 1}], cloud="azure")
    assert len(message.splitlines()) == 3


def test_the_region_is_asked_for_where_it_is_missing() -> None:
    with pytest.raises(ConfigError, match="aws:region: not set; expected a region such as us-east-1"):
        config_of(region=None)


TEXT = st.text(alphabet='abc"[{:é0', max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(StackConfig.model_fields)), JSON, max_size=4))
def test_whatever_is_typed_gives_a_config_or_one_error(fusion: dict[str, object]) -> None:
    try:
        config_of(**{key: value for key, value in fusion.items() if key != "region"})
    except ConfigError as error:
        assert all(line.startswith(f"{FILE}: ") for line in str(error).splitlines())


def on_google_cloud(**fusion: object) -> StackConfig:
    return config_of(**({"region": None, "places": GCP, "cloud": "gcp"} | fusion))


def test_a_stack_on_google_cloud_names_its_own_region_and_project() -> None:
    config = on_google_cloud()
    assert config.places == (("gcp", "us-central1"),)
    assert config.zones_of("gcp") == ("us-central1-a", "us-central1-b")
    assert on_google_cloud(network={"zones": ["us-central1-c", "us-central1-f"]}).zones_of("gcp")[1] == "us-central1-f"


def test_regions_of_google_cloud_without_a_zone_a_begin_with_b() -> None:
    config = on_google_cloud(places=GCP | {"gcp:region": "europe-west1"})
    assert config.zones_of("gcp") == ("europe-west1-b", "europe-west1-c")


@pytest.mark.parametrize(
    ("cloud", "places", "missing"),
    [
        ("gcp", {}, ["gcp:region: not set; expected a region such as us-central1", "gcp:project: not set"]),
        ("gcp", {"gcp:region": "us-central1"}, ["gcp:project: not set; expected the id of your project"]),
        ("auto", GCP, ["aws:region: not set"]),
        ("auto", {"aws:region": "us-east-1"}, ["gcp:region: not set", "gcp:project: not set"]),
    ],
)
def test_what_a_cloud_needs_is_asked_for_by_its_own_keys(
    cloud: str, places: dict[str, str], missing: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(region=None, places=places, cloud=cloud)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(missing)
    assert all(line.startswith(f"{FILE}: {each}") for line, each in zip(lines, missing, strict=True))


def test_a_stack_of_either_cloud_has_zones_of_both() -> None:
    zones = ["us-east-1c", "us-east-1d", "us-central1-b", "us-central1-f"]
    config = config_of(places=GCP, cloud="auto", network={"zones": zones})
    assert config.places == (("aws", "us-east-1"), ("gcp", "us-central1"))
    assert (*config.zones_of("aws"), *config.zones_of("gcp")) == tuple(zones)
    assert config.on("gcp").places == (("gcp", "us-central1"),)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"1st": "x"}, "1st: a label of Google Cloud begins with a letter"),
        ({"cost:centre": "x", "Cost.Centre": "y"}, "are one label on Google Cloud, cost-centre"),
    ],
)
def test_tags_that_google_cloud_can_not_tell_apart_or_take_are_refused_there_alone(
    tags: dict[str, str], expected: str
) -> None:
    config_of(tags=tags)
    with pytest.raises(ConfigError, match=expected):
        on_google_cloud(tags=tags)


def test_zones_are_of_the_stacks_region() -> None:
    message = refused(network={"zones": ["us-east-1a", "eu-west-1b"]})
    assert message.startswith(f"{FILE}: fusion:network: got ")
    assert "zones: eu-west-1b is not a zone of region us-east-1" in message


@pytest.mark.parametrize(
    ("cluster", "says"),
    [
        ({"kubernetes_version": "1.33"}, "Kubernetes 1.33 does not serve them; use 1.34 or newer"),
        ({"queueing": "kueue"}, "Kueue v0.10 does not count them"),
        ({"node_autoscaler": "karpenter"}, "Karpenter v1.8 makes no node for a pod with a claim"),
    ],
)
def test_claims_of_gpus_are_refused_where_something_does_not_understand_them(
    cluster: dict[str, object], says: str
) -> None:
    assert says in refused(cluster={"device_plugins": {"gpu_claims": True}, **cluster})


def test_objects_of_a_stack_on_a_real_cloud_do_not_go_to_this_machine() -> None:
    said = refused(kubernetes="cluster")
    assert "fusion:kubernetes: cluster: the objects of a stack on the real aws belong in its own cluster" in said
    assert config_of(kubernetes="cluster", places={"aws:profile": "fusion-local"}).kubernetes == "cluster"
    assert "fusion:kubernetes: got" in refused(kubernetes="kind")
