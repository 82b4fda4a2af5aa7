"""The Pulumi program and its components."""

from infra.sdk_modules import load_on_use

load_on_use()  # before anything here imports the SDK
