"""The control plane on this machine: started once, found again, back after a crash, gone without a trace."""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client, config

from localcloud.kubernetes import api_server, processes


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[client.CoreV1Api]:
    """A control plane of this test's own, asked through the official client."""
    if missing := processes.missing(api_server.PROGRAMS):
        pytest.skip(f"{', '.join(missing)} not built: run `make control-plane`")
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))
    kubeconfig = api_server.ensure()
    yield client.CoreV1Api(config.new_client_from_config(str(kubeconfig), context=api_server.CONTEXT))
    api_server.stop()


def process_ids() -> list[int | None]:
    return [processes.running(program) for program in api_server.PROGRAMS]


def test_it_is_started_once_comes_back_after_a_crash_with_its_objects_and_ends_without_a_trace(
    core: client.CoreV1Api, tmp_path: Path
) -> None:
    first = process_ids()
    assert all(first)
    said: list[str] = []
    api_server.ensure(said.append)
    assert (said, process_ids()) == ([], first)

    core.create_namespace({"metadata": {"name": "kept"}})
    processes.kill()
    assert process_ids() == [None] * len(api_server.PROGRAMS)
    api_server.ensure()
    assert core.read_namespace("kept").metadata.name == "kept"

    api_server.stop()
    assert process_ids() == [None] * len(api_server.PROGRAMS)
    assert not (tmp_path / "cluster").exists()


def test_only_its_owner_may_use_it(core: client.CoreV1Api, tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    secrets = [path for path in folder.iterdir() if path.suffix in {".key", ".csv"} or path.name == "kubeconfig"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    server = yaml.safe_load((folder / "kubeconfig").read_text())["clusters"][0]["cluster"]["server"]
    assert server.startswith(f"https://{processes.LOOPBACK}:")
    nobody = client.Configuration(host=server)
    nobody.ssl_ca_cert = str(folder / "ca.crt")
    with pytest.raises(client.ApiException, match="Forbidden"):
        client.CoreV1Api(client.ApiClient(nobody)).list_namespace()


def test_a_program_that_ends_is_named_with_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(processes, "BIN", tmp_path / "bin")
    with pytest.raises(processes.ControlPlaneError, match="etcd, kube-apiserver, kube-controller-manager not built"):
        api_server.ensure()
    (tmp_path / "bin").mkdir()
    for program in api_server.PROGRAMS:
        (tmp_path / "bin" / program).symlink_to("/bin/ls")  # which knows none of the options
    with pytest.raises(
        processes.ControlPlaneError, match=r"(?s)(etcd|kube-apiserver) ended; the end of its log .*unrecognized option"
    ):
        api_server.ensure()
