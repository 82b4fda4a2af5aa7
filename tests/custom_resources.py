"""The CRDs of the controllers that the components write objects for, from the Go modules that the controllers ship."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud.kubernetes.validation import Problem, schemas_of, validate_object


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module, its pinned version with the hash that go.sum would have, and the files of the CRDs in it."""

    path: str
    version: str
    sum: str
    folder: str
    crds: tuple[str, ...]


MODULES = (
    Module(
        "sigs.k8s.io/kueue",
        "v0.10.0",
        "h1:GDQlZbMLCyImRMIdlCO9yyI1JWoX+Ab6x9fodcJBva4=",
        "config/components/crd/bases",
        (
            "kueue.x-k8s.io_clusterqueues.yaml",
            "kueue.x-k8s.io_localqueues.yaml",
            "kueue.x-k8s.io_resourceflavors.yaml",
            "kueue.x-k8s.io_topologies.yaml",
            "kueue.x-k8s.io_workloadpriorityclasses.yaml",
        ),
    ),
    Module(
        "sigs.k8s.io/jobset",
        "v0.10.1",
        "h1:u8QKifNsrWVrlRFe6w2ofYTqFT9ma2DRHxfeB2m9xyU=",
        "config/components/crd/bases",
        ("jobset.x-k8s.io_jobsets.yaml",),
    ),
    Module(
        "sigs.k8s.io/gateway-api",
        "v1.4.0",
        "h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=",
        "config/crd/standard",
        (
            "gateway.networking.k8s.io_gateways.yaml",
            "gateway.networking.k8s.io_httproutes.yaml",
        ),
    ),
    Module(
        "github.com/kedacore/keda/v2",
        "v2.18.0",
        "h1:ttR223fii/4QJ0YvtrhcWHaEoezByb/t5CeFopjl6EI=",
        "config/crd/bases",
        (
            "keda.sh_scaledobjects.yaml",
            "keda.sh_triggerauthentications.yaml",
        ),
    ),
    Module(
        "github.com/aws/karpenter-provider-aws",
        "v1.8.2",
        "h1:oSx4o/7myDNRGXL6YxfielfczQ/8lOYqL03LzfmdqW8=",
        "pkg/apis/crds",
        (
            "karpenter.sh_nodepools.yaml",
            "karpenter.k8s.aws_ec2nodeclasses.yaml",
        ),
    ),
    Module(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
        (
            "monitoring.coreos.com_podmonitors.yaml",
            "monitoring.coreos.com_servicemonitors.yaml",
            "monitoring.coreos.com_prometheusrules.yaml",
        ),
    ),
)


@cache
def crds() -> tuple[dict[str, Any], ...]:
    """All of them; a test that asks for them is skipped where there is no Go."""
    if shutil.which("go") is None:
        pytest.skip("the CRDs are read from Go modules, and there is no go on PATH")
    return tuple(each for module in MODULES for each in _crds_of(module))


@cache
def schemas() -> Mapping[tuple[str, str], Any]:
    """Their schemas by apiVersion and kind."""
    return {key: schema for crd in crds() for key, schema in schemas_of(crd)}


def problems(value: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with an object of Kubernetes or of one of the controllers, unknown fields included."""
    return validate_object(value, crds=schemas())


def _crds_of(module: Module) -> list[dict[str, Any]]:
    download = ("go", "mod", "download", "-json", f"{module.path}@{module.version}")
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOWORK": "off", "GONOSUMDB": "*"}  # the sum is checked here
    done = subprocess.run(download, capture_output=True, text=True, env=environment, cwd="/", check=False)
    found = json.loads(done.stdout or "{}")
    assert "Dir" in found, f"{module.path}: {found.get('Error') or done.stderr}"
    assert found["Sum"] == module.sum, f"{module.path} {module.version} is another than was pinned: {found['Sum']}"
    files = [Path(found["Dir"]) / module.folder / name for name in module.crds]
    return [each for file in files for each in yaml.load_all(file.read_text(), yaml.CSafeLoader) if each]
