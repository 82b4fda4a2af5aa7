"""The local cloud's Kubernetes without a cluster: objects become files, as the engine drives it over gRPC."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pulumi.runtime.proto import provider_pb2 as pb

from localcloud.kubernetes.backend import CLUSTER_EXTENSION
from localcloud.kubernetes.rendering import RenderBackend
from localcloud.values import UNKNOWN
from tests.unit.localcloud.conftest import Made, Provider, refused
from tests.unit.localcloud.test_kubernetes_validation import CRD, DEPLOYMENT, changed, queue

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEPLOY = "kubernetes:apps/v1:Deployment"
SECRET = "kubernetes:core/v1:Secret"
CRD_TYPE = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"
QUEUE = "kubernetes:example.com/v1:Queue"


def config_map(name: str | None = "settings", **data: str) -> dict[str, Any]:
    metadata = {"name": name} if name else {}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data or {"a": "1"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "manifests"


@pytest.fixture
def provider(folder: Path) -> Iterator[Provider]:
    running = Provider(RenderBackend(folder))
    yield running
    running.kill()


@pytest.fixture
def next_run(folder: Path) -> Iterator[Provider]:
    """The plugin's next process: it knows what is in the folder and nothing else."""
    running = Provider(RenderBackend(folder))
    yield running
    running.kill()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml"))


def rendered(folder: Path) -> dict[str, Any]:
    """The one object in the folder."""
    (path,) = folder.rglob("*.yaml")
    return dict(yaml.safe_load(path.read_text()))


def test_an_object_is_a_file_named_as_pulumi_kubernetes_names_it(provider: Provider, folder: Path) -> None:
    made = provider.create(DEPLOY, DEPLOYMENT)
    assert made.id == "ml/serving"
    assert made.outputs == DEPLOYMENT
    assert files(folder) == ["1-manifest/apps_v1-deployment-ml-serving.yaml"]
    assert rendered(folder) == DEPLOYMENT


def test_a_preview_writes_nothing(provider: Provider, folder: Path) -> None:
    provider.create(DEPLOY, DEPLOYMENT, preview=True)
    assert not folder.exists()


def test_what_is_wrong_fails_the_check_with_its_field(provider: Provider) -> None:
    _, failures = provider.check(DEPLOY, changed(DEPLOYMENT, "spec.replica", 2))
    assert "unknown field replica" in failures["spec"]
    _, failures = provider.check(CONFIG_MAP, config_map() | {"metadata": "settings"})
    assert "expected object" in failures["metadata"]
    _, failures = provider.check(CONFIG_MAP, config_map() | {"metadata": {"annotations": "none"}})
    assert "expected object" in failures["metadata.annotations"]


def test_an_object_without_a_name_gets_one_from_the_engines_seed_and_keeps_it(provider: Provider) -> None:
    first = provider.checked(CONFIG_MAP, config_map(None), "settings")
    assert first["metadata"]["name"] == "settings-01010101"
    assert first["metadata"]["annotations"] == {"pulumi.com/autonamed": "true"}
    later = changed(first, "metadata.name", "settings-fedcba98")
    assert provider.checked(CONFIG_MAP, config_map(None, a="2"), "settings", old=later)["metadata"] == later["metadata"]


def test_a_name_that_was_given_and_is_taken_away_does_not_stay(provider: Provider) -> None:
    given = provider.checked(CONFIG_MAP, config_map("given"), "settings")
    assert provider.checked(CONFIG_MAP, config_map(None), "settings", old=given)["metadata"]["name"] != "given"


@pytest.mark.parametrize(
    ("token", "inputs", "field", "reason"),
    [
        ("kubernetes:core/v1:ConfigMapList", {"apiVersion": "v1", "kind": "ConfigMapList", "items": []}, "kind", "each object by itself"),
        ("kubernetes:core/v1:ConfigMapPatch", config_map(), "kind", "declare the whole object"),
        (CONFIG_MAP, config_map() | {"metadata": {"generateName": "it-"}}, "metadata.generateName", "set metadata.name"),
    ],
)  # fmt: skip
def test_what_a_file_can_not_stand_for_is_refused(
    provider: Provider, token: str, inputs: dict[str, Any], field: str, reason: str
) -> None:
    _, failures = provider.check(token, inputs)
    assert reason in failures[field]


def test_a_null_is_a_field_that_is_not_set(provider: Provider, folder: Path) -> None:
    provider.create(DEPLOY, changed(DEPLOYMENT, "spec.paused", None))
    assert rendered(folder) == DEPLOYMENT


def test_most_fields_change_in_place(provider: Provider, folder: Path) -> None:
    made = provider.create(DEPLOY, DEPLOYMENT)
    more = changed(DEPLOYMENT, "spec.replicas", 3)
    answer = provider.diff(made, more)
    assert list(answer.diffs) == ["spec.replicas"]
    assert not answer.replaces
    provider.update(made, more, preview=True)
    assert rendered(folder) == DEPLOYMENT
    provider.update(made, more)
    assert rendered(folder) == more


def test_the_same_object_again_is_no_difference(provider: Provider) -> None:
    made = provider.create(DEPLOY, DEPLOYMENT)
    assert provider.diff(made, DEPLOYMENT).changes == provider.diff(made, DEPLOYMENT).DIFF_NONE


@pytest.mark.parametrize(
    ("path", "value", "field", "in_same_place"),
    [
        ("spec.selector.matchLabels.app", "other", "spec.selector", True),
        ("spec.selector", UNKNOWN, "spec.selector", True),
        ("spec", UNKNOWN, "spec.selector", True),
        ("apiVersion", "apps/v2", "apiVersion", True),
        ("kind", "StatefulSet", "kind", False),
        ("metadata.name", "other", "metadata.name", False),
        ("metadata.namespace", "other", "metadata.namespace", False),
        ("metadata.name", UNKNOWN, "metadata.name", False),
    ],
)
def test_what_can_not_change_replaces_and_in_the_same_place_deletes_first(
    provider: Provider, path: str, value: Any, field: str, in_same_place: bool
) -> None:
    made = provider.create(DEPLOY, DEPLOYMENT)
    answer = provider.diff(made, changed(DEPLOYMENT, path, value))
    assert field in answer.replaces
    assert answer.deleteBeforeReplace is in_same_place


def test_no_namespace_is_the_default_one(provider: Provider) -> None:
    made = provider.create(CONFIG_MAP, config_map())
    spelled_out = config_map() | {"metadata": {"name": "settings", "namespace": "default"}}
    assert not provider.diff(made, spelled_out).replaces


def test_a_key_with_dots_is_one_part_of_a_path(provider: Provider) -> None:
    made = provider.create(DEPLOY, DEPLOYMENT)
    answer = provider.diff(made, changed(DEPLOYMENT, "metadata.labels", {"app.kubernetes.io/name": "other"}))
    assert list(answer.diffs) == ['metadata.labels["app.kubernetes.io/name"]']


def test_a_replacement_in_the_same_place_leaves_the_new_file(provider: Provider, folder: Path) -> None:
    old = provider.create(CONFIG_MAP, config_map(a="1"))
    new = provider.create(CONFIG_MAP, config_map(a="2"))  # as `pulumi up --replace` does it: created, then deleted
    provider.delete(old)
    assert rendered(folder)["data"] == {"a": "2"}
    provider.delete(new)
    assert files(folder) == []


def test_a_name_that_another_resource_has_is_refused(provider: Provider, folder: Path) -> None:
    provider.create(CONFIG_MAP, config_map(), "first")
    sentence = refused(provider.create, CONFIG_MAP, config_map(a="2"), "second")
    assert "ConfigMap settings exists already in" in sentence
    assert "give it another name, import it, or remove the file" in sentence
    assert rendered(folder)["data"] == {"a": "1"}


def test_what_a_killed_run_left_is_written_anew_by_the_same_resource(
    next_run: Provider, provider: Provider, folder: Path
) -> None:
    provider.create(CONFIG_MAP, config_map(a="1"))
    next_run.create(CONFIG_MAP, config_map(a="2"))
    assert rendered(folder)["data"] == {"a": "2"}


def test_drift_of_a_file_is_read(provider: Provider, folder: Path) -> None:
    made = provider.create(CONFIG_MAP, config_map())
    (path,) = folder.rglob("*.yaml")
    path.write_text(path.read_text().replace("'1'", "'7'"))
    found = provider.read(made)
    assert found is not None
    assert found.inputs["data"] == found.outputs["data"] == {"a": "7"}
    path.unlink()
    assert provider.read(made) is None


def test_a_file_that_is_no_object_any_more_is_named(provider: Provider, folder: Path) -> None:
    made = provider.create(CONFIG_MAP, config_map())
    (path,) = folder.rglob("*.yaml")
    path.write_text("{")
    assert refused(provider.read, made).startswith(f"{path} holds no Kubernetes object")


def test_a_file_that_somebody_else_wrote_is_imported_by_its_id(provider: Provider, folder: Path) -> None:
    foreign = folder / "1-manifest" / "v1-configmap-default-settings.yaml"
    foreign.parent.mkdir(parents=True)
    foreign.write_text(yaml.safe_dump(config_map()))
    urn = provider.urn(CONFIG_MAP, "settings")
    for id in ("settings", "default/settings"):
        found = provider.read(Made(urn, id, {}, {}), is_import=True)
        assert found is not None
        assert found.inputs == config_map()
    assert provider.read(Made(urn, "other", {}, {}), is_import=True) is None
    provider.delete(Made(urn, "settings", config_map(), {}))
    assert files(folder) == []


def test_a_file_of_another_resource_is_not_deleted(provider: Provider, folder: Path) -> None:
    made = provider.create(CONFIG_MAP, config_map(), "first")
    provider.delete(Made(provider.urn(CONFIG_MAP, "second"), made.id, made.inputs, {}))
    assert files(folder) == ["1-manifest/v1-configmap-default-settings.yaml"]
    provider.delete(made)
    provider.delete(made)  # gone already: no error
    assert not folder.exists()


def test_what_is_not_known_yet_passes_a_preview_and_is_never_written(provider: Provider, folder: Path) -> None:
    unknown = changed(DEPLOYMENT, "metadata.name", UNKNOWN)
    planned = provider.create(DEPLOY, unknown, preview=True)
    assert planned.id == ""
    assert planned.outputs["metadata"]["name"] is UNKNOWN
    assert provider.checked(CONFIG_MAP, config_map() | {"metadata": UNKNOWN})["metadata"] is UNKNOWN
    assert "a value is not known yet" in refused(provider.create, DEPLOY, changed(DEPLOYMENT, "spec.replicas", UNKNOWN))
    assert not folder.exists()


def test_a_secrets_file_is_its_owners_only(provider: Provider, folder: Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": "hunter2"}}
    provider.create(SECRET, secret)
    (path,) = folder.rglob("*.yaml")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    _, failures = provider.check(SECRET, secret | {"data": {"token": "hunter2"}, "type": 5})
    assert failures.keys() == {"type", "data.token"}
    assert "hunter2" not in str(failures)


def test_a_custom_resource_is_held_to_a_crd_of_the_same_preview(provider: Provider, folder: Path) -> None:
    _, before = provider.check(QUEUE, queue())
    assert "no CustomResourceDefinition of this stack defines it" in before["kind"]
    provider.create(CRD_TYPE, CRD, preview=True)
    provider.checked(QUEUE, queue())
    _, failures = provider.check(QUEUE, queue(qouta=1))
    assert "unknown field qouta" in failures["spec"]
    assert not folder.exists()


def test_a_custom_resource_is_held_to_a_crd_of_an_earlier_run(
    next_run: Provider, provider: Provider, folder: Path
) -> None:
    provider.create(CRD_TYPE, CRD)
    assert files(folder) == ["0-crd/apiextensions.k8s.io_v1-customresourcedefinition-default-queues.example.com.yaml"]
    next_run.create(QUEUE, queue())
    assert "unknown field qouta" in next_run.check(QUEUE, queue(qouta=1))[1]["spec"]


def test_a_crd_that_changes_in_this_run_goes_before_the_one_in_the_folder(
    next_run: Provider, provider: Provider
) -> None:
    provider.create(CRD_TYPE, CRD)
    renamed = json.loads(json.dumps(CRD).replace('"quota"', '"size"'))
    next_run.checked(CRD_TYPE, renamed)
    assert "required field size is missing" in next_run.check(QUEUE, queue())[1]["spec"]


def test_a_crd_that_is_wrong_defines_nothing(provider: Provider) -> None:
    _, failures = provider.check(CRD_TYPE, changed(CRD, "spec", {"versions": [{"name": "v1"}]}))
    assert "required field" in failures["spec"]
    assert "defines it" in provider.check(QUEUE, queue())[1]["kind"]


def kubeconfig(version: str) -> str:
    """As a cluster's component makes it, with the version of the cluster in it."""
    extension = {"name": CLUSTER_EXTENSION, "extension": {"kubernetesVersion": version}}
    return json.dumps(
        {
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1", "extensions": [extension]}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
            "current-context": "c",
        }
    )


def test_objects_are_validated_against_the_version_of_the_stacks_cluster(folder: Path) -> None:
    claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "gpu"}, "spec": {}}
    older = Provider(RenderBackend(folder), kubeconfig=kubeconfig("1.33"))
    newer = Provider(RenderBackend(folder), kubeconfig=kubeconfig("1.35"))
    assert (
        "Kubernetes 1.33 has no ResourceClaim"
        in older.check("kubernetes:resource.k8s.io/v1:ResourceClaim", claim)[1]["kind"]
    )
    newer.checked("kubernetes:resource.k8s.io/v1:ResourceClaim", claim)
    older.kill()
    newer.kill()


def test_a_version_without_schemas_ends_the_run_with_one_sentence(folder: Path) -> None:
    sentence = refused(Provider, RenderBackend(folder), kubeconfig=kubeconfig("1.99"))
    assert sentence.startswith("the cluster's Kubernetes version '1.99': objects can be validated against 1.25, ")


def test_a_function_is_not_served_and_says_so(provider: Provider) -> None:
    assert "the local cloud does not serve it" in refused(provider.invoke, "kubernetes:helm:template")


def test_yaml_of_several_documents_and_lists_becomes_its_objects(provider: Provider) -> None:
    text = "a: 1\n---\n---\nkind: List\nitems: [{b: 2}, {c: 3}]\n"
    assert provider.invoke("kubernetes:yaml:decode", text=text)["result"] == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert "YAML" in refused(provider.invoke, "kubernetes:yaml:decode", text="a: [")


def test_a_chart_is_refused_with_the_way_out(provider: Provider) -> None:
    _, failures = provider.check("kubernetes:helm.sh/v3:Release", {"chart": "nginx"})
    assert "helm template" in failures["chart"]
    request = pb.ConstructRequest(type="kubernetes:helm.sh/v4:Chart", name="web")
    assert "kubernetes:helm.sh/v4:Chart: the local cloud does not serve this component" in refused(
        provider.stub.Construct, request
    )
