"""A page in headless Chromium: what it measured and what it logged."""

import html
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def browser() -> str:
    """A Chromium; without one these tests are skipped, but not in CI, whose script installs it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI"):
        pytest.fail("no chromium on PATH; .ci/run installs it")
    if found is None:
        pytest.skip("needs a Chromium on PATH (Debian: apt-get install chromium)")
    return found


def shown(page: Path, width: int, folder: Path) -> tuple[str, str]:
    """The page in a frame of that width, in a browser that finds no host: what it measured, and what it logged."""
    probe = (
        "<script>const held = parent.document.documentElement.dataset, page = document.documentElement;"
        "held.width = innerWidth; held.over = page.scrollWidth - page.clientWidth;"
        "held.pictures = [...document.querySelectorAll('svg')].filter(each => each.clientWidth > 0).length;"
        "onload = () => held.asked = performance.getEntriesByType('resource').map(each => each.name)</script>"
    )
    inside = html.escape(page.read_text().replace("</body>", f"{probe}</body>"))
    frame = folder / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe style="width:{width}px;height:900px;border:0" srcdoc="{inside}"></iframe>'
    )
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--dump-dom", frame.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return ran.stdout.partition("<head>")[0], ran.stderr
