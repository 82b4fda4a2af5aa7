"""The clouds' metadata services, as real HTTP servers, tell a machine that it will be taken away."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.conftest import free_port
from tests.workloads.test_models import config_of
from workloads.training import notices
from workloads.training.logs import Log
from workloads.training.manifest import COMMITTED
from workloads.training.run import run
from workloads.training.stopping import Interrupted, StopRequest

ACTION = {"action": "terminate", "time": "2026-11-26T20:00:00Z"}
ADVICE = {"noticeTime": "2026-11-26T19:50:00Z"}


class Metadata:
    """IMDSv2 and Google's metadata server, as far as machines ask them; `say` changes what they have."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self.tokens = 0
        self.refuse_status = 0
        self.asked: list[str] = []
        self._changed = threading.Condition()
        self.version = 1

    def say(self, path: str, value: str) -> None:
        with self._changed:
            self.paths[path] = value
            self.version += 1
            self._changed.notify_all()

    def expire_tokens(self) -> None:
        self.tokens += 1

    def amazon(self, path: str, token: str | None) -> tuple[int, str]:
        if token != self.token:
            return 401, ""
        return (200, self.paths[path]) if path in self.paths else (404, "")

    def google(self, path: str, asked: dict[str, str], flavor: str | None) -> tuple[int, str]:
        if flavor != "Google" or asked["wait_for_change"] != "true":
            return 403, ""
        if (seen := asked["last_etag"]) != "0":
            with self._changed:
                self._changed.wait_for(lambda: seen != f"{self.version}", timeout=5)
        return 200, self.paths[path]

    @property
    def token(self) -> str:
        return f"token-{self.tokens}"


def handler_of(metadata: Metadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "0")
            right = self.path == "/latest/api/token" and 1 <= int(ttl) <= 21_600
            self.answer(200 if right else 400, metadata.token)

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            metadata.asked.append(self.path)
            if metadata.refuse_status:
                self.answer(metadata.refuse_status, "")
            elif query:
                asked = dict(pair.split("=") for pair in query.split("&"))
                self.answer(*metadata.google(path, asked, self.headers.get("Metadata-Flavor")))
            else:
                self.answer(*metadata.amazon(path, self.headers.get("X-aws-ec2-metadata-token")))

        def answer(self, status: int, body: str) -> None:
            self.send_response(status)
            self.send_header("ETag", f"{metadata.version}")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    served = Metadata()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{host}")
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # must not be asked: the service is the machine's own
    monkeypatch.setattr(notices, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(notices, "RETRY_SECONDS", 0.02)
    served.paths = {f"/computeMetadata/v1/instance/{key}": "NONE" for key in ("preempted", "maintenance-event")}
    yield served
    server.shutdown()
    server.server_close()


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []

    def read() -> list[dict[str, Any]]:
        lines.extend(json.loads(line) for line in capsys.readouterr().out.splitlines())
        return lines

    return read


def soon(true: Callable[[], bool], *, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.01)
    return False


Watch = Callable[[notices.Cloud], StopRequest]


@pytest.fixture
def watch(metadata: Metadata) -> Iterator[Watch]:
    with contextlib.ExitStack() as at_end:

        def begin(cloud: notices.Cloud) -> StopRequest:
            stop = StopRequest()
            at_end.enter_context(notices.watched(cloud, stop, Log()))
            return stop

        yield begin


EC2 = "/latest/meta-data/{}"


def test_a_spot_machine_that_is_taken_back_saves_and_leaves(watch: Watch, metadata: Metadata, said: Any) -> None:
    stop = watch("aws")
    assert soon(lambda: len(metadata.asked) > 4)
    assert not stop.requested and not stop.save_requested, "404 is no notice"
    metadata.say(EC2.format("spot/instance-action"), json.dumps(ACTION))
    assert soon(lambda: stop.requested)
    (notice,) = said()
    assert (notice["level"], notice["event"], notice["action"]) == ("warning", "machine_taken_back", "terminate")
    assert notice["at"] == ACTION["time"]


def test_advice_to_leave_a_machine_saves_once_and_goes_on_until_it_is_taken(
    watch: Watch, metadata: Metadata, said: Any
) -> None:
    metadata.say(EC2.format("events/recommendations/rebalance"), json.dumps(ADVICE))
    stop = watch("aws")
    assert soon(lambda: stop.save_requested)
    assert not stop.requested
    stop.save_requested = False
    asked = len(metadata.asked)
    assert soon(lambda: len(metadata.asked) > asked + 3)
    assert not stop.save_requested, "told once"
    metadata.say(EC2.format("spot/instance-action"), "{not json")
    assert soon(lambda: stop.requested), "a notice that can't be read is one"
    assert [each["event"] for each in said()] == ["machine_at_risk", "machine_taken_back"]


def test_a_token_that_expired_is_renewed(watch: Watch, metadata: Metadata, said: Any) -> None:
    stop = watch("aws")
    assert soon(lambda: len(metadata.asked) > 1)
    metadata.expire_tokens()
    metadata.say(EC2.format("spot/instance-action"), json.dumps(ACTION))
    assert soon(lambda: stop.requested)
    assert [each["event"] for each in said()] == ["machine_taken_back"]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_where_no_service_answers_that_is_said_once_and_signals_are_still_heard(
    cloud: notices.Cloud, watch: Watch, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    host = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{host}")
    monkeypatch.setenv("GCE_METADATA_HOST", host)
    stop = watch(cloud)
    expected = {"aws": 1, "gcp": 2}[cloud]  # of Google's, each key has a watch
    assert soon(lambda: len(said()) == expected)
    time.sleep(0.1)
    assert {each["event"] for each in said()} == {"stop_notices_off"} and len(said()) == expected
    assert "Connection refused" in said()[0]["reason"]
    assert soon(lambda: not any(thread.name.startswith(f"notices-{cloud}") for thread in threading.enumerate()))
    assert not stop.requested


def test_a_service_that_breaks_off_is_told_once_and_heard_when_it_is_back(
    watch: Watch, metadata: Metadata, said: Any
) -> None:
    stop = watch("aws")
    assert soon(lambda: len(metadata.asked) > 1)
    metadata.refuse_status = 503
    assert soon(lambda: len(said()) == 1)
    metadata.refuse_status = 0
    assert soon(lambda: len(said()) == 2)
    assert [each["event"] for each in said()] == ["stop_notices_interrupted", "stop_notices_heard_again"]
    assert "status 503" in said()[0]["reason"]
    metadata.say(EC2.format("spot/instance-action"), json.dumps(ACTION))
    assert soon(lambda: stop.requested)


def test_a_disabled_service_is_not_asked(
    watch: Watch, metadata: Metadata, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    watch("aws")
    assert [each["reason"] for each in said()] == ["AWS_EC2_METADATA_DISABLED is true"]
    assert metadata.asked == []


GCE = "/computeMetadata/v1/instance/{}"


def test_a_preempted_machine_saves_and_leaves_as_soon_as_it_is_told(
    watch: Watch, metadata: Metadata, said: Any
) -> None:
    metadata.paths[GCE.format("preempted")] = "FALSE"
    stop = watch("gcp")
    assert soon(lambda: len(metadata.asked) >= 4)  # both keys: their values, then waiting for a change
    assert not stop.requested
    metadata.say(GCE.format("preempted"), "TRUE")
    assert soon(lambda: stop.requested)
    assert [each["event"] for each in said()] == ["machine_taken_back"]
    assert sum(f"{notices.WAIT_SECONDS}" in each for each in metadata.asked) == len(metadata.asked)


def test_maintenance_that_ends_the_machine_saves_and_goes_on_and_a_move_does_nothing(
    watch: Watch, metadata: Metadata, said: Any
) -> None:
    stop = watch("gcp")
    assert soon(lambda: len(metadata.asked) >= 4)
    metadata.say(GCE.format("maintenance-event"), "MIGRATE_ON_HOST_MAINTENANCE")
    asked = len(metadata.asked)
    assert soon(lambda: len(metadata.asked) > asked)
    assert not stop.save_requested
    metadata.say(GCE.format("maintenance-event"), "TERMINATE_ON_HOST_MAINTENANCE")
    assert soon(lambda: stop.save_requested)
    assert not stop.requested
    assert [each["event"] for each in said()] == ["machine_at_risk"]


def test_a_run_that_is_told_by_its_machine_saves_and_can_be_resumed(
    tmp_path: Path, metadata: Metadata, said: Any
) -> None:
    metadata.say(EC2.format("events/recommendations/rebalance"), json.dumps(ADVICE))
    never = {"url": f"file://{tmp_path}/checkpoints", "every_steps": 1_000_000}
    config = config_of(tmp_path, "tokens", epochs=20_000, checkpoint=never, stop_notices="aws")

    def take_back() -> None:
        if soon(lambda: any(each["event"] == "saved" for each in said()), seconds=60):
            metadata.say(EC2.format("spot/instance-action"), json.dumps(ACTION))

    told = threading.Thread(target=take_back)
    told.start()
    with pytest.raises(Interrupted):
        run(config, StopRequest())
    told.join()
    saves = [each["step"] for each in said() if each["event"] == "saved"]
    assert len(saves) == 2 and saves[0] < saves[1], "one at the advice, one at the end"
    assert (tmp_path / "checkpoints" / f"step-{saves[1]:09d}" / COMMITTED).exists()
