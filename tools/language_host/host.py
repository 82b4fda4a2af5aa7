"""The language host: a gRPC server that runs Python programs, policy packs and plugins for the engine.

Behaves as pulumi-language-python does where Fusion's users see it: the program's output as it comes, its errors with
the program's own frames, secrets of the config marked, plugins ended with the engine. It installs nothing and
generates no code.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2
from google.protobuf.json_format import MessageToDict

from localcloud.messages import language_pb2, language_pb2_grpc, plugin_pb2
from localcloud.parent import when_parent_ends

GRACE_S = 3
SHOWN_ALREADY = 32
"""The program's exit status when it has shown its error itself (as in the official host)."""
PROGRAM = Path(__file__).with_name("program.py")


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The engine's view of Python."""

    def __init__(self, engine_address: str) -> None:
        self.engine_address = engine_address
        self.children: set[subprocess.Popen[bytes]] = set()

    def Handshake(self, request: Any, context: Any) -> language_pb2.LanguageHandshakeResponse:
        """Take the engine's address."""
        self.engine_address = request.engine_address or self.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> plugin_pb2.PluginInfo:
        """The host's own version."""
        return plugin_pb2.PluginInfo(version="0.1.0")

    def GetRequiredPlugins(self, request: Any, context: Any) -> language_pb2.GetRequiredPluginsResponse:
        """Plugins are found on PATH when they are needed; the engine installs none ahead."""
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(self, request: Any, context: Any) -> language_pb2.GetRequiredPackagesResponse:
        """As GetRequiredPlugins."""
        return language_pb2.GetRequiredPackagesResponse()

    def Run(self, request: language_pb2.RunRequest, context: Any) -> language_pb2.RunResponse:
        """Run a program to its end; its output goes to ours, which the engine shows."""
        info = request.info
        environment = os.environ | {
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        settings = {
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
            "monitor": request.monitor_address,
            "engine": self.engine_address,
            "root_directory": info.root_directory,
        }
        program = str(Path(info.program_directory) / info.entry_point)
        command = [interpreter(info), "-u", str(PROGRAM), json.dumps(settings), program, *request.args]
        with self._started(command, env=environment, cwd=request.pwd, stdin=subprocess.DEVNULL) as child:
            status = child.wait()
        if status == SHOWN_ALREADY:
            return language_pb2.RunResponse(bail=True)
        if status < 0:
            return language_pb2.RunResponse(error=f"the program was ended by {signal.Signals(-status).name}")
        if status:
            return language_pb2.RunResponse(error=f"the program ended with status {status}")
        return language_pb2.RunResponse()

    def RunPlugin(
        self, request: language_pb2.RunPluginRequest, context: Any
    ) -> Iterator[language_pb2.RunPluginResponse]:
        """Run a plugin that is written in Python, a policy pack among them, and pass on what it prints."""
        info = request.info
        python, directory = interpreter(info), info.program_directory
        if request.kind == "analyzer" and MessageToDict(info.options).get("imports_sdk", True):
            command = [python, "-u", "-m", "pulumi.policy", *request.args, directory]
        else:
            command = [python, "-u", str(Path(directory) / (info.entry_point or ".")), *request.args]
        given = dict(pair.split("=", 1) for pair in request.env)
        pipe = subprocess.PIPE
        with self._started(command, env=given or None, cwd=request.pwd, stdout=pipe, stderr=pipe) as child:
            context.add_callback(lambda: end(child))
            for stream, chunk in _output(child):
                if stream == "stdout":
                    yield language_pb2.RunPluginResponse(stdout=chunk)
                else:
                    yield language_pb2.RunPluginResponse(stderr=chunk)
            yield language_pb2.RunPluginResponse(exitcode=child.wait())

    def About(self, request: Any, context: Any) -> language_pb2.AboutResponse:
        """The interpreter of the host."""
        return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[language_pb2.InstallDependenciesResponse]:
        """Dependencies are Fusion's set-up's; say so instead of doing half of it."""
        message = b"Fusion's language host installs nothing; run `make setup` for the locked dependencies.\n"
        yield language_pb2.InstallDependenciesResponse(stderr=message)

    def GetProgramDependencies(self, request: Any, context: Any) -> language_pb2.GetProgramDependenciesResponse:
        """What is installed beside the program."""
        listing = (
            "import importlib.metadata as m, json; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
        )
        done = subprocess.run([interpreter(request.info), "-c", listing], capture_output=True, text=True, check=False)
        found = sorted(json.loads(done.stdout)) if done.returncode == 0 else []
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=name, version=version) for name, version in found]
        )

    def Cancel(self, request: Any, context: Any) -> empty_pb2.Empty:
        """End what runs."""
        self.end_all()
        return empty_pb2.Empty()

    def GeneratePackage(self, request: Any, context: Any) -> NoReturn:
        """Refused: there is no code generator here."""
        _refuse(context, "generate an SDK")

    def GenerateProgram(self, request: Any, context: Any) -> NoReturn:
        """Refused: there is no code generator here."""
        _refuse(context, "convert a program to Python")

    def GenerateProject(self, request: Any, context: Any) -> NoReturn:
        """Refused: there is no code generator here."""
        _refuse(context, "convert a project to Python")

    def Pack(self, request: Any, context: Any) -> NoReturn:
        """Refused: nothing is packaged here."""
        _refuse(context, "pack an SDK")

    def Link(self, request: Any, context: Any) -> NoReturn:
        """Refused: the packages are the lock's."""
        _refuse(context, "link a local SDK")

    def end_all(self) -> None:
        """End every program and plugin that this host started."""
        running = list(self.children)
        for child in running:
            child.terminate()  # all at once: the grace runs for them together
        for child in running:
            end(child)

    @contextlib.contextmanager
    def _started(self, command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """A child that `end_all` knows for as long as it runs."""
        child = subprocess.Popen(command, **options)
        self.children.add(child)
        try:
            yield child
        finally:
            self.children.discard(child)


def _refuse(context: grpc.ServicerContext, action: str) -> NoReturn:
    """Answer a call that this host can't do, with the way out."""
    message = f"Fusion's language host can't {action}; install Pulumi's own release for that (pulumi.com/docs/install)"
    context.abort(grpc.StatusCode.UNIMPLEMENTED, message)
    raise AssertionError  # abort has raised


def interpreter(info: Any) -> str:
    """The Python of the project's `virtualenv` option, else the host's own."""
    options: Mapping[str, Any] = MessageToDict(info.options)
    named = options.get("virtualenv")
    if named:
        python = Path(info.root_directory) / str(named) / "bin" / "python"
        if python.exists():
            return str(python)
    return sys.executable


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask a child to end, and end it when it does not."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()


def _output(child: subprocess.Popen[bytes]) -> Iterator[tuple[str, bytes]]:
    """What a child prints, as it comes, with the name of the stream."""
    chunks: queue.Queue[tuple[str, bytes]] = queue.Queue()

    def pump(stream: Any, name: str) -> None:
        while chunk := stream.read1(65_536):
            chunks.put((name, chunk))
        chunks.put((name, b""))

    for stream, name in ((child.stdout, "stdout"), (child.stderr, "stderr")):
        threading.Thread(target=pump, args=(stream, name), daemon=True).start()
    closed = 0
    while closed < 2:
        name, chunk = chunks.get()
        if chunk:
            yield name, chunk
        else:
            closed += 1


def main(arguments: list[str]) -> None:
    """Serve until the engine ends the host; the port is the first line of standard output."""
    addresses = [argument for argument in arguments if not argument.startswith("-")]
    host = LanguageHost(addresses[-1] if addresses else "")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def leave(*_: object) -> None:
        host.end_all()
        os._exit(0)  # grpc's threads would hold the interpreter, and the engine waits five seconds for it

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    when_parent_ends(leave)
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main(sys.argv[1:])
