"""The clouds that are on this machine: how a stack of each is run, looked at and cleared away."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

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
        from google.auth import credentials
        from google.cloud import storage

        from localcloud.gcp import emulator
        from localcloud.gcp.inventory import Inventory
        from localcloud.server import home

        client = storage.Client(
            project=self.setting[1],
            credentials=credentials.AnonymousCredentials(),
            client_options={"api_endpoint": emulator.ensure()},
        )
        buckets = {f"storage/bucket {each.name}" for each in client.list_buckets()}
        return sorted({*buckets, *Inventory(home()).lines()})

    def stop(self) -> None:
        """The bucket server, the inventory, and its limits of capacity that were set by hand."""
        from localcloud.gcp import emulator
        from localcloud.gcp.inventory import Inventory
        from localcloud.server import home

        emulator.stop()
        Inventory(home()).forget()
        capacity.forget("gcp")


LOCAL_CLOUDS: Mapping[str, LocalCloud] = {"aws": LocalAws(), "gcp": LocalGcp()}
