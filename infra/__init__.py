"""The Pulumi program and its components."""

import os

from infra.sdk_modules import load_on_use

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it asks every installed distribution for some
load_on_use()  # before anything here imports the SDK
