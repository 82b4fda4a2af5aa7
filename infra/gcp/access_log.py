"""Who read or wrote which object of a bucket: its data access audit logs, in a log bucket of their own under its key.

Not Cloud Storage's usage logs: they know an address and no identity. Sources: Cloud Storage, "Cloud Audit Logs with
Cloud Storage" and "Usage logs & storage logs"; Cloud Logging, "Configure CMEK for log buckets"; read 2026-11-27.
"""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

KEPT_DAYS = 365
SERVICE = "storage.googleapis.com"


def logging_agent(parent: pulumi.Resource) -> pulumi.Output[str]:
    """Email of the service account that encrypts the project's log buckets."""
    asked = pulumi.InvokeOptions(parent=parent)
    project = gcp.organizations.get_project_output(opts=asked)
    settings = gcp.logging.get_project_settings_output(project=project.project_id, opts=asked)
    return settings.kms_service_account_id


def make_access_log(
    name: str, region: str, bucket: pulumi.Input[str], key: pulumi.Input[str], *, parent: pulumi.Resource
) -> None:
    """Record each read and write of an object of the bucket, and keep the records for `KEPT_DAYS`.

    What is recorded is said for all of the project's buckets at once, and stays when the bucket goes, as others may
    count on it.

    Makes: IAMAuditConfig of Cloud Storage, ProjectBucketConfig, ProjectSink.
    """
    project = gcp.organizations.get_project_output(opts=pulumi.InvokeOptions(parent=parent)).project_id
    log = gcp.projects.IAMAuditConfigAuditLogConfigArgs
    gcp.projects.IAMAuditConfig(
        name,
        project=project,
        service=SERVICE,
        audit_log_configs=[log(log_type=each) for each in ("DATA_READ", "DATA_WRITE")],
        opts=pulumi.ResourceOptions(parent=parent, retain_on_delete=True),
    )
    kept = gcp.logging.ProjectBucketConfig(
        name,
        project=project,
        location=region,
        # A name is not free again for a week, and the bucket's own is never the same twice.
        bucket_id=pulumi.Output.concat(bucket, "-access"),
        retention_days=KEPT_DAYS,
        cmek_settings=gcp.logging.ProjectBucketConfigCmekSettingsArgs(kms_key_name=key),
        opts=pulumi.ResourceOptions(parent=parent),
    )
    gcp.logging.ProjectSink(
        name,
        project=project,
        destination=pulumi.Output.concat("logging.googleapis.com/", kept.id),
        filter=pulumi.Output.concat(
            'resource.type="gcs_bucket" AND resource.labels.bucket_name="',
            bucket,
            '" AND logName:"cloudaudit.googleapis.com%2Fdata_access"',
        ),
        unique_writer_identity=True,
        opts=pulumi.ResourceOptions(parent=parent),
    )
