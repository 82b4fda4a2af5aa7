"""An API of metrics, which a cluster's API server hands its requests to: the adapter that a HorizontalPodAutoscaler reads."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from localcloud.kubernetes.cluster import Cluster
from tests.cluster.all_controllers import apply
from tests.cluster.manifests import Object


@contextlib.contextmanager
def serving(
    cluster: Cluster, home: Path, api: str, namespace: str, answer: Callable[[str, str], Object]
) -> Iterator[None]:
    """Serve an API, such as `metrics.k8s.io/v1beta1`, while the context is open.

    Args:
        home: the folder of the control plane, which has the certificate.
        namespace: where the Service that stands for this machine is.
        answer: what is at a path below the API, given that and the query.
    """
    group, version = api.split("/")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            below = path.rstrip("/").removeprefix(f"/apis/{api}")
            found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": []}
            if below.startswith("/namespaces/"):
                found = answer(below, query)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(home / "cluster" / "server.crt", home / "cluster" / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    name = {"name": group.replace(".", "-"), "namespace": namespace}
    here = {"type": "ExternalName", "externalName": "localhost"}
    registered = {"name": f"{version}.{group}"}
    served = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "service": {**name, "port": server.server_port},
        "insecureSkipTLSVerify": True,
    }
    apply(cluster, {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": here})
    apply(
        cluster,
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": registered, "spec": served},
    )
    try:
        yield
    finally:
        cluster.request("DELETE", f"/apis/apiregistration.k8s.io/v1/apiservices/{registered['name']}")
        server.shutdown()
        server.server_close()


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
