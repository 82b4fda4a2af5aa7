"""The account and partition that a component's resources belong to."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, slots=True)
class Account:
    """What ARNs are made of.

    Attributes:
        id: the account's twelve digits.
        partition: `aws`, `aws-cn` or `aws-us-gov`.
    """

    id: pulumi.Output[str]
    partition: pulumi.Output[str]

    def managed_policy(self, path: str) -> pulumi.Output[str]:
        """ARN of a policy that AWS keeps, such as `AmazonEKSWorkerNodePolicy`."""
        return pulumi.Output.concat("arn:", self.partition, ":iam::aws:policy/", path)


def account_of(component: pulumi.Resource) -> Account:
    """Ask the component's provider who it is."""
    options = pulumi.InvokeOptions(parent=component)
    return Account(
        id=aws.get_caller_identity_output(opts=options).apply(lambda identity: identity.account_id),
        partition=aws.get_partition_output(opts=options).apply(lambda partition: partition.partition),
    )
