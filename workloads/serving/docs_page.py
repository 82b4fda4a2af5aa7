"""`/docs`: the API in Swagger UI, from this server alone; a browser is told to load nothing from elsewhere.

The files of Swagger UI are those that the package fastapi-offline carries; nothing of it is imported.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI puts styles into the page as it goes."""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Fusion inference</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = 'SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", validatorUrl: null });\n'
ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
}
"""What the page loads, by content type."""

Answer = tuple[int, list[tuple[str, str]], bytes]


def page() -> Answer:
    """The page itself."""
    return 200, _headers("text/html; charset=utf-8"), PAGE.encode()


def asset(name: str) -> Answer:
    """One of `ASSETS`."""
    body = START.encode() if name == "start.js" else _file(name)
    return 200, [*_headers(ASSETS[name]), ("cache-control", "max-age=3600")], body


@functools.cache
def _file(name: str) -> bytes:
    found = importlib.util.find_spec("fastapi_offline")
    assert found
    assert found.origin
    return (Path(found.origin).parent / "static" / name).read_bytes()


def _headers(content_type: str) -> list[tuple[str, str]]:
    return [
        ("content-type", content_type),
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ]
