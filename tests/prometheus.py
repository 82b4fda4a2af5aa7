"""A real Prometheus that scrapes what a test says that a server's pods say."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from localcloud.kubernetes.processes import free_port

START_TIMEOUT_S = 60


class Exposed:
    """A pod's `/metrics`: the text that a test sets."""

    def __init__(self) -> None:
        exposed = self
        self.text = ""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(exposed.text.encode())

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Prometheus:
    """Where it answers, and the pod that it scrapes."""

    def __init__(self, url: str, pod: Exposed) -> None:
        self.url, self.pod = url, pod

    def value(self, query: str) -> float | None:
        """Of a query now; None where there is none."""
        asked = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(asked, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if result else None


@contextlib.contextmanager
def prometheus(folder: Path, labels: dict[str, str]) -> Iterator[Prometheus]:
    """One that looks every second; the pod's series get the labels that its operator would add."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (apt-get install prometheus)")
    pod, port = Exposed(), free_port()
    target = {"targets": [f"127.0.0.1:{pod.server.server_port}"], "labels": labels}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [{"job_name": "pods", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = (
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    log = (folder / "prometheus.log").open("w")
    process = subprocess.Popen([program, *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        found = Prometheus(f"http://127.0.0.1:{port}", pod)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{found.url}/-/ready", timeout=5):
                break
            assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "prometheus is not ready"
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait()
        log.close()
        pod.server.shutdown()
        pod.server.server_close()
