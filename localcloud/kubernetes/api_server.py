"""etcd, the Kubernetes API server and its controller manager on this machine, without any node.

Only the API server listens on the network, on a port of the loopback; etcd has sockets in the folder, which only its
owner may enter. The programs are those that `python -m tools.control_plane` leaves in `.fusion/bin`; the scheduler and
what else runs beside them is `localcloud.kubernetes.controllers`'s.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import json
import secrets
import shutil
import signal
import ssl
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from localcloud.kubernetes import processes
from localcloud.kubernetes.processes import LOOPBACK, ControlPlaneError, Say, home, running

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")
"""In the order in which they are started."""
CONTEXT = "fusion-local"
"""The kubeconfig's context; a stack that names it is served by the local cloud's plugin."""
START_TIMEOUT_S = 120
CERTIFICATE_DAYS = 3650
OWNER_ONLY = 0o600
ETCD_CLIENTS, ETCD_PEERS = "unix://localhost:1", "unix://localhost:2"
"""Sockets in etcd's working folder: it takes `unix://` with a host and a port only, which are the file's name."""
SERVICE_NETWORK, SERVICE_ADDRESS = "10.96.0.0/16", "10.96.0.1"


def kubeconfig_file() -> Path:
    """The kubeconfig, whose only context is `fusion-local`."""
    return home() / "kubeconfig"


def ensure(say: Say = lambda _: None) -> Path:
    """Start what is not running, wait until it answers, and return the kubeconfig; several at once start one.

    Raises:
        ControlPlaneError: a program has not been built, or ended, or did not answer in time.
    """
    processes.require_built(PROGRAMS)
    folder = home()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    with processes.locked():
        if not kubeconfig_file().exists():
            _make_credentials(folder)
        port = json.loads((folder / "port.json").read_text())
        absent = [program for program in PROGRAMS if running(program) is None]
        for program in absent:
            (folder / f"{program}.pid").unlink(missing_ok=True)  # left by a crash
        for program in PROGRAMS:
            if program in absent:
                say(f"starting {program}")
                _start(folder, program, port)
            if program == "kube-apiserver":
                _wait(folder, "/readyz")
        _wait(folder, "/api/v1/namespaces/default/serviceaccounts/default")  # made by a controller
    return kubeconfig_file()


def stop(say: Say = lambda _: None) -> None:
    """End every process of the control plane and remove its folder: its objects are gone."""
    if not home().exists():
        return
    with processes.locked():
        processes.kill(say, signal.SIGTERM)
        shutil.rmtree(home())


def _start(folder: Path, program: str, port: int) -> None:
    if program == "etcd":  # one that was killed leaves its sockets, and the next would not take them over
        for left in folder.glob("localhost:*"):
            left.unlink()
    processes.start(program, _arguments(port)[program])


def _arguments(port: int) -> Mapping[str, tuple[str, ...]]:
    """What each program is told; files are relative to its working folder."""
    return {
        "etcd": (
            "--name=fusion",
            "--data-dir=etcd",
            f"--listen-client-urls={ETCD_CLIENTS}",
            f"--advertise-client-urls={ETCD_CLIENTS}",
            f"--listen-peer-urls={ETCD_PEERS}",
            f"--initial-advertise-peer-urls={ETCD_PEERS}",
            f"--initial-cluster=fusion={ETCD_PEERS}",
            "--unsafe-no-fsync",  # a machine that loses power loses a cluster that holds nothing but declarations
            "--log-level=warn",
        ),
        "kube-apiserver": (
            f"--etcd-servers={ETCD_CLIENTS}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--endpoint-reconciler-type=none",
            "--tls-cert-file=server.crt",
            "--tls-private-key-file=server.key",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=accounts.key",
            "--service-account-signing-key-file=accounts.key",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
        ),
        "kube-controller-manager": (
            "--kubeconfig=kubeconfig",
            "--secure-port=0",
            "--leader-elect=false",
            "--service-account-private-key-file=accounts.key",
            "--root-ca-file=ca.crt",
        ),
    }


def _wait(folder: Path, path: str) -> None:
    """Wait until the API server serves a path.

    Raises:
        ControlPlaneError: a program ended, or the time is over.
    """
    kubeconfig = yaml.safe_load((folder / "kubeconfig").read_text())
    trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    request = urllib.request.Request(
        f"{kubeconfig['clusters'][0]['cluster']['server']}{path}",
        headers={"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"},
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5, context=trust):
            return
        processes.refuse_ended(PROGRAMS)
        time.sleep(0.05)
    raise ControlPlaneError(f"the API server did not serve {path} within {START_TIMEOUT_S} s; the logs are in {folder}")


def _make_credentials(folder: Path) -> None:
    """Certificates and keys, an administrator's token, the server's port, the kubeconfig."""
    _make_certificates(folder)
    token, port = secrets.token_urlsafe(32), processes.free_port()
    _write(folder / "tokens.csv", f"{token},fusion,fusion,system:masters\n".encode())
    _write(folder / "port.json", json.dumps(port).encode())
    document = _kubeconfig(port, token, (folder / "ca.crt").read_bytes())
    _write(folder / "kubeconfig", yaml.safe_dump(document, sort_keys=False).encode())  # last: it says that all is there


def _make_certificates(folder: Path) -> None:
    """An authority, the server's certificate that it signed, and the key that signs service accounts' tokens."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def key(name: str) -> rsa.RSAPrivateKey:
        made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        _write(folder / name, made.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        return made

    def named(common_name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])

    def certificate(subject: str, of: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named("fusion-local"))
            .public_key(of.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )

    authority_key, server_key = key("ca.key"), key("server.key")
    key("accounts.key")
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = (
        certificate("fusion-local", authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [
        x509.DNSName(name) for name in ("localhost", "kubernetes.default", "kubernetes.default.svc")
    ]
    names += [x509.IPAddress(ipaddress.ip_address(each)) for each in (LOOPBACK, SERVICE_ADDRESS)]
    serving = (
        certificate("kube-apiserver", server_key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(folder / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))
    _write(folder / "server.crt", serving.public_bytes(serialization.Encoding.PEM))


def _kubeconfig(port: int, token: str, authority: bytes) -> dict[str, object]:
    """An administrator's way to the server; `authority` is the certificate to trust, in PEM."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT}}],
        "clusters": [
            {
                "name": CONTEXT,
                "cluster": {
                    "server": f"https://{LOOPBACK}:{port}",
                    "certificate-authority-data": base64.b64encode(authority).decode(),
                },
            }
        ],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
    }


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=OWNER_ONLY)
    path.write_bytes(content)
