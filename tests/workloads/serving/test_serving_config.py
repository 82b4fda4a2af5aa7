"""What a container is told by its environment, as the stack's program sets it."""

from __future__ import annotations

import pytest

from workloads.config import ConfigError
from workloads.serving.config import from_environment

NAMES = ("PACKAGE_URL", "SLO_MS", "PORT", "GRPC_PORT", "BATCH_MAX", "PRECISION", "BUCKET_URL")


def told(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in NAMES:
        monkeypatch.delenv(f"FUSION_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"FUSION_{name}", value)


def test_the_plans_decisions_are_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    told(
        monkeypatch,
        BUCKET_URL="s3://bucket",
        PACKAGE_URL="${FUSION_BUCKET_URL}/runs/classify/package",
        SLO_MS="50",
        PORT="9000",
        GRPC_PORT="9001",
        BATCH_MAX="8",
        PRECISION="bf16",
    )
    config = from_environment()
    (model,) = config.models
    assert (config.port, config.grpc_port, config.device) == (9000, 9001, "auto")
    assert (model.slo_ms, model.batch_max, model.precision) == (50, 8, "bf16")
    assert [each.package for each in model.versions] == ["s3://bucket/runs/classify/package"]


def test_without_them_there_are_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, PACKAGE_URL="file:///package")
    config = from_environment()
    assert (config.port, config.models[0].slo_ms, config.models[0].batch_max) == (8080, 100, 32)
    assert config.grpc_port is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "expected --config, or FUSION_PACKAGE_URL"),
        ({"PACKAGE_URL": "${FUSION_BUCKET_URL}/x"}, "the environment variable FUSION_BUCKET_URL is not set"),
        ({"PACKAGE_URL": "file:///p", "PRECISION": "fp4"}, "the environment: models.0.precision: got"),
        ({"PACKAGE_URL": "file:///p", "BATCH_MAX": "many"}, "the environment: models.0.batch_max: got"),
        ({"PACKAGE_URL": "file:///p", "SLO_MS": "0"}, "the environment: models.0.slo_ms: got"),
    ],
)
def test_what_is_wrong_is_named(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, **variables)
    with pytest.raises(ConfigError) as error:
        from_environment()
    assert expected in str(error.value)
