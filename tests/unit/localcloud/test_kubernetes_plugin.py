"""Where the Kubernetes plugin's objects go: as the stack's config says, unless the provider names the local server."""

import json
from pathlib import Path

import pytest
import yaml

from localcloud.kubernetes import plugin
from localcloud.kubernetes.applying import ApplyBackend
from localcloud.kubernetes.rendering import RenderBackend
from localcloud.provider import ProviderError

KUBECONFIG = yaml.safe_dump(
    {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "fusion-local", "context": {"cluster": "c", "user": "u"}}],
    }
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: fusion\n")
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "infra").mkdir()
    monkeypatch.chdir(tmp_path / "infra")
    monkeypatch.delenv("PULUMI_CONFIG", raising=False)
    return tmp_path


def test_a_stack_that_renders_applies_where_its_provider_names_the_local_server(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({"renderYamlToDirectory": "manifests"}))
    rendering = plugin.make_backend()
    assert isinstance(rendering, RenderBackend) and rendering.folder == project / "manifests"
    assert rendering.for_config({"kubeconfig": "{}"}) is rendering
    local = {"context": "fusion-local", "kubeconfig": str(project / "kubeconfig")}
    applying = rendering.for_config(local)
    assert isinstance(applying, ApplyBackend)
    assert applying.cluster.address == "https://127.0.0.1:1"
    assert applying.for_config(local) is applying


def test_a_stack_that_names_nothing_local_applies_there_too_and_needs_the_official_plugin_for_any_other_cluster(
    project: Path,
) -> None:
    undecided = plugin.make_backend()
    assert isinstance(undecided.for_config({"context": "fusion-local", "kubeconfig": "kubeconfig"}), ApplyBackend)
    with pytest.raises(ProviderError, match="pulumi plugin install resource kubernetes"):
        undecided.for_config({"kubeconfig": KUBECONFIG})


def test_a_control_plane_that_was_not_started_is_a_sentence_that_says_how_to(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG", json.dumps({"context": "fusion-local", "kubeconfig": "gone"}))
    with pytest.raises(ProviderError, match=r"gone is not there; start one with `make cluster`"):
        plugin.make_backend().for_config({})
