"""Repositories of Artifact Registry: scanned, under a key of their own, with tags that never move."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.gcp.keys import make_key
from infra.gcp.labels import as_labels
from infra.registry import Registry, RegistryArgs

DAY_S = 24 * 3_600


class GcpRegistry(Registry):
    """One repository of Docker images for each name; Google Cloud deletes them with what is in them.

    Makes: ServiceIdentity of Artifact Registry, KeyRing, CryptoKey and its grant, Repositories.

    Example:
        >>> registry = GcpRegistry("prod-registry", RegistryArgs(region="us-central1", repositories=("training",)))
    """

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:gcp:Registry", name, facts(args), opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        identity = gcp.projects.ServiceIdentity(name, service="artifactregistry.googleapis.com", opts=child)
        key = make_key(name, args.region, {"registry": identity.email}, parent=self, tags=args.tags)
        self.repository_urls = {each: self._make(f"{name}-{each}", key).registry_uri for each in args.repositories}
        self.register_outputs({"repository_urls": self.repository_urls})

    def _make(self, name: str, key: pulumi.Output[str]) -> gcp.artifactregistry.Repository:
        args, of = self.args, gcp.artifactregistry
        return of.Repository(
            name,
            repository_id=name.replace(".", "-").replace("_", "-").replace("/", "-"),
            location=args.region,
            format="DOCKER",
            kms_key_name=key,
            docker_config=of.RepositoryDockerConfigArgs(immutable_tags=True),
            vulnerability_scanning_config=of.RepositoryVulnerabilityScanningConfigArgs(enablement_config="INHERITED"),
            cleanup_policies=[
                of.RepositoryCleanupPolicyArgs(
                    id="keep-newest",
                    action="KEEP",
                    most_recent_versions=of.RepositoryCleanupPolicyMostRecentVersionsArgs(keep_count=args.images_kept),
                ),
                of.RepositoryCleanupPolicyArgs(
                    id="untagged",
                    action="DELETE",
                    condition=of.RepositoryCleanupPolicyConditionArgs(
                        tag_state="UNTAGGED", older_than=f"{args.untagged_days * DAY_S}s"
                    ),
                ),
            ],
            labels=as_labels(args.tags),
            opts=pulumi.ResourceOptions(parent=self),
        )


def facts(args: RegistryArgs) -> dict[str, object]:
    """What guardrails judge a registry by; plain values, known in every preview."""
    return {
        "cloud": "gcp",
        "region": args.region,
        "repositories": list(args.repositories),
        "images_kept": args.images_kept,
        "encryption_keys": 1,
    }
