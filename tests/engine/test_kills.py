"""`kill -9` of the CLI and of its plugins in the middle of an update: the next one converges, nothing is left or doubled."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.engine.conftest import ROOT, Engine

POINTS = 20
IDS = re.compile(r"[0-9a-f]{8,}(-[0-9a-f]+)*|[0-9A-F]{32}")
VICTIMS = ("cli", "pulumi-resource-aws")


def requests_served(engine: Engine) -> int:
    """How far an update is, by the requests that changed something in the local AWS."""
    log = Path(engine.environment["FUSION_HOME"]) / "localcloud" / "requests.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def plugin_of(process: "subprocess.Popen[str]", name: str) -> int | None:
    """The process of a plugin that a CLI has started; None when it has ended already."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            command = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if lines["PPid"] == str(process.pid) and name in command:
            return int(lines["Pid"])
    return None


def kill_during_up(engine: Engine, *, after_requests: int, victim: str, unlock: bool = True) -> bool:
    """Start an update and kill the CLI (`cli`) or a plugin once so many more requests were served.

    Whether it came to that: an update that has less to do ends by itself. A killed CLI leaves the stack locked unless
    the lock is taken off here (`unlock`).
    """
    process = engine.start("up", "--yes", "--skip-preview")
    while plugin_of(process, "pulumi-resource-aws") is None and process.poll() is None:
        time.sleep(0.05)  # until now it may be the plugin of a killed CLI that still asks for something
    target = requests_served(engine) + after_requests
    while requests_served(engine) < target and process.poll() is None:
        time.sleep(0.01)
    pid = process.pid if victim == "cli" else plugin_of(process, victim)
    was_running = pid is not None and process.poll() is None
    if was_running:
        with contextlib.suppress(ProcessLookupError):  # a plugin that has just ended
            os.kill(pid, signal.SIGKILL)
    printed, _ = process.communicate(timeout=120)
    assert "Traceback" not in printed, printed
    assert was_running or process.returncode == 0, printed
    if was_running and victim == "cli":
        if unlock:
            engine.run("cancel", "--yes")
        wait_until_nothing_runs(engine)
    return was_running


def started_for(engine: Engine) -> list[str]:
    """Commands of the processes that have this engine's environment, but for the local cloud's server."""
    mark, found = f"FUSION_HOME={engine.environment['FUSION_HOME']}\0", []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return [command for command in found if command and "localcloud.server" not in command]


def wait_until_nothing_runs(engine: Engine) -> None:
    """The language host, the program and the plugins of a killed CLI end by themselves."""
    deadline = time.monotonic() + 30
    while running := started_for(engine):
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.1)


def kinds(engine: Engine) -> Counter[str]:
    """How many of each kind exist: ids differ from one stack to the next."""
    return Counter(IDS.sub("…", line) for line in engine.exists())


def manifests(engine: Engine) -> list[str]:
    return sorted(path.name for path in engine.manifests.rglob("*.yaml"))


@pytest.mark.timeout(1200)
def test_an_update_killed_at_twenty_points_converges_with_nothing_orphaned_and_nothing_twice(platform: Engine) -> None:
    platform.up()
    undisturbed, objects = kinds(platform), manifests(platform)
    step = requests_served(platform) // (POINTS + 4)  # some more come while a kill is on its way
    platform.destroy()

    kills = 0
    while kills < POINTS:
        if kill_during_up(platform, after_requests=step, victim=VICTIMS[kills % len(VICTIMS)]):
            kills += 1
        else:  # on a loaded machine an update gets further before each kill, and the last one to its end
            platform.destroy()
    # A file written beside the state, and not at once, would be cut off by one kill in hundreds.
    assert not list(platform.folder.rglob("*.attrs"))

    platform.up()
    assert kinds(platform) == undisturbed
    assert manifests(platform) == objects
    again = platform.up()
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))
    platform.destroy()
    assert platform.exists() == []
    assert manifests(platform) == []


@pytest.mark.parametrize("victim", VICTIMS)
def test_what_a_killed_update_left_is_removed_by_fusion_down_its_lock_too(platform: Engine, victim: str) -> None:
    platform.ensure()
    kill_during_up(platform, after_requests=60, victim=victim, unlock=False)
    assert platform.exists()
    down = subprocess.run(
        [ROOT / ".venv/bin/fusion", "down", "--stack", platform.stack],
        cwd=platform.folder,
        env=platform.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert down.returncode == 0, down.stdout + down.stderr
    assert "the local cloud is empty" in down.stdout


def test_an_update_stopped_by_ctrl_c_says_so_and_the_next_one_converges(platform: Engine) -> None:
    process = platform.start("up", "--yes", "--skip-preview")
    while requests_served(platform) < 80 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in printed, printed
    platform.up()
    again = platform.up()
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))
    platform.destroy()
    assert platform.exists() == []
    assert manifests(platform) == []


MANY_OBJECTS = """
    import pulumi_kubernetes as k8s
    for number in range(60):
        k8s.core.v1.ConfigMap(f"many-{number}", metadata={"name": f"many-{number}"}, data={"number": str(number)})
"""


def test_an_update_whose_kubernetes_plugin_is_killed_at_several_points_renders_each_object_once(small: Engine) -> None:
    small.program(MANY_OBJECTS)
    killed = 0
    for rendered_before in (1, 10, 25):
        process = small.start("up", "--yes", "--skip-preview", "--parallel", "2")
        while len(manifests(small)) < rendered_before and process.poll() is None:
            time.sleep(0.005)
        plugin = plugin_of(process, "pulumi-resource-kubernetes")
        if plugin is None:  # on a loaded machine the update may be over before the kill
            process.communicate(timeout=120)
            continue
        os.kill(plugin, signal.SIGKILL)
        printed, _ = process.communicate(timeout=120)
        assert "Traceback" not in printed, printed
        assert rendered_before <= len(manifests(small))
        killed += 1
    assert killed
    small.up()
    assert len(manifests(small)) == 60
    again = small.up()
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))
    small.destroy()
    assert manifests(small) == []
