"""The clouds that are on this machine: how a stack of each is run, looked at and cleared away."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from localcloud import capacity


class LocalCloud(ABC):
    """One of them.

    Attributes:
        setting: the key and value of a stack's config that choose it.
        asked_through: what tells what is left in it.
    """

    setting: tuple[str, str]
    asked_through: str
    _variables: tuple[str, ...]

    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """What a workload's identity gives a pod on a real cluster: credentials, and the local cloud's address."""

    @abstractmethod
    def remove_leftovers_of(self, stack: str, ids_in_state: Collection[str]) -> list[str]:
        """Delete what an interrupted update made and the state never heard of; the URNs."""

    @abstractmethod
    def left(self, region: str) -> list[str]:
        """What there is, one line each."""

    @abstractmethod
    def fetch(self, volume: Mapping[str, Any], folder: Path) -> None:
        """Copy what the cloud's CSI driver would mount of a bucket, given the spec of a PersistentVolume.

        Raises:
            RunError: it is not of the driver of its buckets.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop its servers and forget everything."""

    def environment(self) -> dict[str, str]:
        """This process's environment, with the local cloud as the only one of its kind."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(self._variables)}
        return {**own, **self.identity()}


class LocalAws(LocalCloud):
    """moto's server with what Fusion adds to it."""

    setting = ("aws:profile", "fusion-local")
    asked_through = "boto3"
    _variables = ("AWS_",)

    def identity(self) -> Mapping[str, str]:
        """Any credentials will do."""
        from localcloud import server

        return {
            "AWS_ENDPOINT_URL": server.ensure(),
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "fusion-local",
            "AWS_SECRET_ACCESS_KEY": "fusion-local",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def remove_leftovers_of(self, stack: str, ids_in_state: Collection[str]) -> list[str]:
        """As the server's ledger says."""
        from localcloud import server
        from localcloud.aws.plugin import AwsBackend

        return AwsBackend(server.ensure()).remove_leftovers_of(stack, ids_in_state)

    def left(self, region: str) -> list[str]:
        """In a region of the account."""
        from localcloud import server
        from localcloud.aws.inventory import inventory

        return inventory(server.ensure(), region)

    def fetch(self, volume: Mapping[str, Any], folder: Path) -> None:
        """A file system of Lustre: the folders of buckets that it is linked to."""
        from localcloud import server
        from localcloud.aws.api import Aws

        system = _handle(volume, "fsx.csi.aws.com")
        region = volume["csi"]["volumeAttributes"]["dnsname"].split(".")[2]
        aws = Aws(server.ensure(), region)
        linked = [{"Name": "file-system-id", "Values": [system]}]
        for link in aws.call("fsx", "describe_data_repository_associations", Filters=linked)["Associations"]:
            bucket, _, prefix = link["DataRepositoryPath"].removeprefix("s3://").partition("/")
            pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            for key in [each["Key"] for page in pages for each in page.get("Contents", ())]:
                within = f"{link['FileSystemPath'].strip('/')}/{key.removeprefix(prefix).lstrip('/')}"
                _write(folder / within, aws.call("s3", "get_object", Bucket=bucket, Key=key)["Body"].read())

    def stop(self) -> None:
        """The server, and its limits of capacity that were set by hand."""
        from localcloud import server

        server.stop()
        capacity.forget("aws")


class LocalGcp(LocalCloud):
    """The inventory and the bucket server."""

    setting = ("gcp:project", "fusion-local")
    asked_through = "google-cloud-storage, and its inventory"
    _variables = ("GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR_HOST")

    def identity(self) -> Mapping[str, str]:
        """The emulator takes no credentials, and has no gRPC for gcsfs to ask for the kind of a bucket."""
        from localcloud.gcp import emulator

        return {
            "STORAGE_EMULATOR_HOST": emulator.ensure(),
            "GOOGLE_CLOUD_PROJECT": self.setting[1],
            "NO_GCE_CHECK": "true",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def remove_leftovers_of(self, stack: str, ids_in_state: Collection[str]) -> list[str]:
        """As the inventory says."""
        from localcloud.gcp.plugin import GcpBackend

        return GcpBackend().remove_leftovers_of(stack, ids_in_state)

    def left(self, region: str) -> list[str]:
        """In the whole project; buckets are those that Google's own client lists."""
        from localcloud.gcp.inventory import Inventory
        from localcloud.server import home

        buckets = {f"storage/bucket {each.name}" for each in self._client().list_buckets()}
        return sorted({*buckets, *Inventory(home()).lines()})

    def fetch(self, volume: Mapping[str, Any], folder: Path) -> None:
        """A bucket, or the folder of it that is mounted alone."""
        only = next((each.partition("=")[2] for each in volume["mountOptions"] if each.startswith("only-dir=")), "")
        prefix, bucket = f"{only}/" if only else "", _handle(volume, "gcsfuse.csi.storage.gke.io")
        for blob in self._client().list_blobs(bucket, prefix=prefix):
            _write(folder / blob.name.removeprefix(prefix), blob.download_as_bytes())

    def _client(self) -> Any:
        from google.auth import credentials
        from google.cloud import storage

        from localcloud.gcp import emulator

        return storage.Client(
            project=self.setting[1],
            credentials=credentials.AnonymousCredentials(),
            client_options={"api_endpoint": emulator.ensure()},
        )

    def stop(self) -> None:
        """The bucket server, the inventory, and its limits of capacity that were set by hand."""
        from localcloud.gcp import emulator
        from localcloud.gcp.inventory import Inventory
        from localcloud.server import home

        emulator.stop()
        Inventory(home()).forget()
        capacity.forget("gcp")


def _handle(volume: Mapping[str, Any], driver: str) -> str:
    """What a volume of a driver mounts."""
    from localcloud.kubernetes.run import RunError

    if volume["csi"]["driver"] != driver:
        raise RunError(f"a volume of {volume['csi']['driver']} can't be had on this machine, only of {driver}")
    return str(volume["csi"]["volumeHandle"])


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


LOCAL_CLOUDS: Mapping[str, LocalCloud] = {"aws": LocalAws(), "gcp": LocalGcp()}
