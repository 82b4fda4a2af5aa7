"""Customer-managed keys: one for each thing that is encrypted, rotated yearly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pulumi
import pulumi_aws as aws

from infra.aws.account import Account
from infra.aws.policies import Statement, key_policy

DELETION_WINDOW_DAYS = 30
"""The longest that KMS offers: what a deleted key encrypted is lost for good."""

Statements = Callable[[str, str], Iterable[Statement]]
"""From partition and account to the statements for the services that use the key."""


def make_key(
    name: str,
    purpose: str,
    account: Account,
    *,
    parent: pulumi.Resource,
    tags: Mapping[str, str],
    statements: Statements = lambda partition, account_id: (),
) -> aws.kms.Key:
    """A key and its alias `alias/<name>`."""
    policy = pulumi.Output.all(account.partition, account.id).apply(
        lambda owner: key_policy(owner[0], owner[1], statements(owner[0], owner[1]))
    )
    options = pulumi.ResourceOptions(parent=parent)
    key = aws.kms.Key(
        f"{name}-key",
        description=purpose,
        enable_key_rotation=True,
        deletion_window_in_days=DELETION_WINDOW_DAYS,
        policy=policy,
        tags=tags,
        opts=options,
    )
    aws.kms.Alias(f"{name}-key-alias", name=f"alias/{name}", target_key_id=key.key_id, opts=options)
    return key
