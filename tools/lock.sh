#!/usr/bin/env bash
# Rewrites the lock from pyproject.toml: versions and hashes only, so that it holds with any index or mirror.
set -euo pipefail
cd "$(dirname "$0")/.."
uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-annotate --quiet --output-file requirements.lock
python3 tools/lock_containers.py
