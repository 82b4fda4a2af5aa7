"""The clouds' own notices that a machine will be taken away, for machines whose cluster does not pass them on.

| cloud | notice | comes before the end by | what the run does |
|---|---|---|---|
| aws | `spot/instance-action` | two minutes | saves and leaves |
| aws | `events/recommendations/rebalance` | minutes, or it never comes | saves and goes on |
| gcp | `instance/preempted` | 30 seconds | saves and leaves |
| gcp | `instance/maintenance-event`, terminating | up to an hour | saves and goes on |

Sources: AWS, "Spot Instance interruption notices" and "EC2 instance rebalance recommendations" (poll every 5 seconds;
404 until there is one); Google Cloud, "Preemptible VM instances" and "Monitor and plan for a host maintenance event"
(`wait_for_change`). Amazon's service is asked by its version 2 only.

A watch that hears nothing at first says so once and ends: SIGTERM is still heard. One that breaks later says so, and
goes on trying.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from workloads.training.logs import Log
from workloads.training.stopping import StopRequest

Cloud = Literal["aws", "gcp"]

POLL_SECONDS = 5.0
RETRY_SECONDS = 1.0
"""After Google's service broke off: it does so during maintenance, and asks to be tried again after a second."""
WAIT_SECONDS = 60
"""For which Google's service holds a request open until something changes."""
ANSWER_SECONDS = 2.0
"""In which a service that is there answers."""
TOKEN_SECONDS = 21_600
_EC2 = "http://169.254.169.254"
_GCE = "metadata.google.internal"
_NONE_YET = 404
_TOKEN_EXPIRED = 401


class Unreachable(OSError):
    """The metadata service gave no usable answer."""


@dataclass(frozen=True)
class Answer:
    """What the service said."""

    status: int
    etag: str
    body: str


@contextlib.contextmanager
def watched(cloud: Cloud, stop: StopRequest, log: Log) -> Iterator[None]:
    """Listen for the cloud's notices meanwhile, in threads that don't keep the process alive."""
    if cloud == "aws" and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        log.warning("stop_notices_off", cloud=cloud, reason="AWS_EC2_METADATA_DISABLED is true")
        yield
        return
    watches: Mapping[Cloud, tuple[Callable[[StopRequest, _Health], None], ...]] = {
        "aws": (_watch_ec2,),
        "gcp": (_watch_preempted, _watch_maintenance),
    }
    ended = threading.Event()
    for target in watches[cloud]:
        health = _Health(cloud, log, ended)
        threading.Thread(target=target, args=(stop, health), name=f"notices-{cloud}", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class _Ec2:
    """Amazon's metadata service, asked with a token."""

    def __init__(self) -> None:
        self._endpoint = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _EC2
        self._token = ""

    def get(self, path: str) -> dict[str, object] | None:
        """What the service has at the path; None where there is nothing (yet)."""
        answer = self._get(path)
        if answer.status == _TOKEN_EXPIRED:
            self._token = ""
            answer = self._get(path)
        if answer.status == _NONE_YET:
            return None
        return _fields(_right(answer))

    def _get(self, path: str) -> Answer:
        if not self._token:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self._token = _right(_ask("PUT", f"{self._endpoint}/latest/api/token", headers)).body
        headers = {"X-aws-ec2-metadata-token": self._token}
        return _ask("GET", f"{self._endpoint}/latest/meta-data/{path}", headers)


def _watch_ec2(stop: StopRequest, health: _Health) -> None:
    service, warned = _Ec2(), False
    while health.goes_on:
        with health:
            if (action := service.get("spot/instance-action")) is not None:
                health.log.warning("machine_taken_back", cloud="aws", **action)
                stop.requested = True
                return
            if not warned and (advice := service.get("events/recommendations/rebalance")) is not None:
                health.log.warning("machine_at_risk", cloud="aws", **advice)
                stop.save_requested = warned = True
        health.ended.wait(POLL_SECONDS)


def _watch_preempted(stop: StopRequest, health: _Health) -> None:
    def heard(value: str) -> bool:
        if value != "TRUE":
            return False
        health.log.warning("machine_taken_back", cloud="gcp", action="preempted")
        stop.requested = True
        return True

    _follow_gce("preempted", heard, health)


def _watch_maintenance(stop: StopRequest, health: _Health) -> None:
    def heard(value: str) -> bool:
        if value.startswith("TERMINATE"):  # MIGRATE moves the machine while it runs
            health.log.warning("machine_at_risk", cloud="gcp", action=value)
            stop.save_requested = True
        return False

    _follow_gce("maintenance-event", heard, health)


def _follow_gce(key: str, heard: Callable[[str], bool], health: _Health) -> None:
    """Give each value of the key to `heard`, the first one at once, until that says true."""
    etag = "0"
    host = os.environ.get("GCE_METADATA_HOST") or _GCE
    while health.goes_on:
        with health:
            # The first answer comes at once; were there no service, a minute would pass before that is known.
            patience = ANSWER_SECONDS if etag == "0" else WAIT_SECONDS + ANSWER_SECONDS
            url = f"http://{host}/computeMetadata/v1/instance/{key}"
            question = f"wait_for_change=true&timeout_sec={WAIT_SECONDS}&last_etag={etag}"
            answer = _right(_ask("GET", f"{url}?{question}", {"Metadata-Flavor": "Google"}, patience))
            etag = answer.etag or "0"
            if not health.ended.is_set() and heard(answer.body.strip()):
                return
        if health.failing or etag == "0":
            health.ended.wait(RETRY_SECONDS)


class _Health:
    """Around each question: says once that the service does not answer, and once that it does again."""

    def __init__(self, cloud: Cloud, log: Log, ended: threading.Event) -> None:
        self.log, self.ended = log, ended
        self._cloud = cloud
        self._ever_answered = False
        self.failing = False

    @property
    def goes_on(self) -> bool:
        """False when the run has ended, and where the service did not even answer the first question."""
        return not self.ended.is_set() and (self._ever_answered or not self.failing)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, OSError | http.client.HTTPException):
            if self.failing:
                self.log.info("stop_notices_heard_again", cloud=self._cloud)
            self.failing, self._ever_answered = False, True
            return False
        if not self.failing and not self.ended.is_set():
            event = "stop_notices_interrupted" if self._ever_answered else "stop_notices_off"
            self.log.warning(event, cloud=self._cloud, reason=f"the metadata service gives no answer: {error}")
        self.failing = True
        return True


def _ask(method: str, url: str, headers: Mapping[str, str], patience_seconds: float = ANSWER_SECONDS) -> Answer:
    """One request, past any proxy: the address is the machine's own."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=patience_seconds)
    try:
        connection.request(method, url.removeprefix(f"http://{address.netloc}"), headers=dict(headers))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers.get("ETag", ""), answer.read().decode(errors="replace"))
    finally:
        connection.close()


def _right(answer: Answer) -> Answer:
    if answer.status != http.client.OK:
        raise Unreachable(f"status {answer.status}")
    return answer


def _fields(answer: Answer) -> dict[str, object]:
    """The notice's own words; one that is there but can't be read is a notice all the same."""
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    known = {"action": "action", "time": "at", "noticeTime": "noticed_at"}
    return {known[name]: value for name, value in found.items() if name in known} if isinstance(found, dict) else {}
