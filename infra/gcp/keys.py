"""A key of Cloud KMS that one service may use, and nobody else by the component's doing."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_gcp as gcp

from infra.gcp.labels import as_labels

ROTATION = f"{90 * 24 * 3_600}s"
USE = "roles/cloudkms.cryptoKeyEncrypterDecrypter"


def make_key(
    name: str, region: str, agents: Mapping[str, pulumi.Input[str]], *, parent: pulumi.Resource, tags: Mapping[str, str]
) -> pulumi.Output[str]:
    """The id of a new key, known once those who use it may.

    Args:
        agents: by a word for the grant's name, the email of the service account that encrypts with it.
    """
    child = pulumi.ResourceOptions(parent=parent)
    ring = gcp.kms.KeyRing(name, location=region, opts=child)
    key = gcp.kms.CryptoKey(name, key_ring=ring.id, rotation_period=ROTATION, labels=as_labels(tags), opts=child)
    grants = [
        gcp.kms.CryptoKeyIAMMember(
            f"{name}-{word}",
            crypto_key_id=key.id,
            role=USE,
            member=pulumi.Output.concat("serviceAccount:", email),
            opts=child,
        )
        for word, email in agents.items()
    ]
    return pulumi.Output.all(key.id, *(grant.id for grant in grants)).apply(lambda known: str(known[0]))


def agent(service: str, number: pulumi.Input[str]) -> pulumi.Output[str]:
    """Email of a service's agent in a project, by the project's number ("Service agents", IAM)."""
    return pulumi.Output.concat("service-", number, f"@{service}.iam.gserviceaccount.com")
