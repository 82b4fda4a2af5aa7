"""The API's description: valid by OpenAPI's own schema, and a page that a browser shows with no other host."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.unit.report.browser import browser
from tests.workloads.serving.conftest import Running, images, servers

EXTERNAL = re.compile(r"(?:src|href)=[\"'](?:https?:)?//(?!127\.0\.0\.1)[^\"']*")


@pytest.fixture(scope="module")
def server(package_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with servers(tmp_path_factory.mktemp("described")) as start:
        yield start({"slo_ms": 60_000, "backends": ["eager"], "versions": [{"package": package_url}]})


def described(server: Running) -> dict[str, Any]:
    status, headers, body = server.ask("/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = json.loads(body)
    return found


def test_the_description_is_valid_openapi(server: Running) -> None:
    document = described(server)
    assert document["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_path_of_the_description_is_there(server: Running) -> None:
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": images(1).ravel().tolist()}
    bodies = {"infer": json.dumps({"inputs": [tensor]}).encode(), "raw": images(1).tobytes()}
    for path, methods in described(server)["paths"].items():
        for method in methods:
            body = bodies.get(path.rpartition("/")[2], b"") if method == "post" else None
            assert server.ask(path, body)[0] == 200, (method, path)


def test_a_browser_shows_it_from_this_server_alone(server: Running, tmp_path: Path) -> None:
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr"]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"http://127.0.0.1:{server.port}/docs"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert 'id="operations-default-post_v2_models_small_infer"' in ran.stdout, ran.stdout[-2000:]
    assert "Ask small, in the Open Inference Protocol v2." in ran.stdout
    said = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*>", ran.stdout)
    assert len(loaded) >= 3
    assert not any(EXTERNAL.search(each) for each in loaded)


def test_the_page_tells_a_browser_to_load_nothing_from_elsewhere(server: Running) -> None:
    for path in ("/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js"):
        status, headers, body = server.ask(path)
        assert (status, headers["x-content-type-options"]) == (200, "nosniff"), path
        assert body
        policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert server.ask("/docs/../pyproject.toml")[0] == 404
