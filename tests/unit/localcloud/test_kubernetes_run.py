"""A rendered Job as a process of this machine: what it finds where its volumes are."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud.clouds import LOCAL_CLOUDS
from localcloud.kubernetes.run import RunError, run_job

READ = "import os, pathlib; print(pathlib.Path(os.environ['FUSION_DATA_PATH'], 'a.txt').read_text())"
VOLUME = {"driver": "fsx.csi.aws.com", "volumeHandle": "fs-0123"}


def rendered(folder: Path, mount: Mapping[str, Any] | None = None, claim: Mapping[str, Any] | None = None) -> Path:
    """A Job that prints a file of its data, with the claim and the volume of that."""
    container = {
        "name": "training",
        "command": [sys.executable, "-c", READ],
        "env": [{"name": "FUSION_DATA_PATH", "value": "/store/data/digits"}],
        "volumeMounts": [{"name": "data", "mountPath": "/store/data/digits", "readOnly": True} | dict(mount or {})],
    }
    claimed = [{"name": "data", "persistentVolumeClaim": {"claimName": "digits-data", "readOnly": True}}]
    named: Any = {"name": "digits", "namespace": "workloads"}
    pod = {"spec": {"containers": [container], "volumes": claimed}}
    objects = [
        {"kind": "Job", "metadata": named, "spec": {"template": pod}},
        {"kind": "PersistentVolumeClaim", "metadata": named | {"name": "digits-data"}, "spec": claim or {}},
        {"kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {"csi": VOLUME}},
    ]
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
    return folder


def fetched(volume: Mapping[str, Any], folder: Path) -> None:
    """As a driver that shows a whole file system."""
    assert volume["csi"] == VOLUME
    (folder / "data/digits").mkdir(parents=True)
    (folder / "data/digits/a.txt").write_text("one of the bucket's")


def test_a_folder_of_the_bucket_is_there_where_it_is_mounted(tmp_path: Path) -> None:
    manifests = rendered(tmp_path, {"subPath": "data/digits"}, {"volumeName": "v"})
    said: list[str] = []
    assert run_job(manifests, "digits", identity={}, fetch=fetched, on_line=said.append) == 0
    assert said == ["one of the bucket's"]


def test_a_disk_that_a_cluster_would_make_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="volume data is the disk of the claim digits-data, which can't be had on this"):
        run_job(rendered(tmp_path), "digits", identity={}, fetch=fetched)


def test_a_path_that_is_made_up_of_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="mounts a subPathExpr at /store/data/digits"):
        run_job(rendered(tmp_path, {"subPathExpr": "$(POD)"}, {"volumeName": "v"}), "digits", identity={})


@pytest.mark.parametrize("cloud", LOCAL_CLOUDS)
def test_each_cloud_shows_the_volumes_of_its_own_driver_alone(cloud: str, tmp_path: Path) -> None:
    volume = {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-1"}, "mountOptions": []}
    with pytest.raises(RunError, match=r"a volume of ebs\.csi\.aws\.com can't be had on this machine"):
        LOCAL_CLOUDS[cloud].fetch(volume, tmp_path)
