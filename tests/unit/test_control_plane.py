"""The control plane's programs are built from what their go.mod says, once."""

from pathlib import Path

import pytest

from tools import control_plane
from tools.control_plane import CONTROLLERS, CORE, Build

BUILDS = (*CORE, *CONTROLLERS)


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.name)
def test_the_version_that_go_mod_requires_is_built_and_stamped(build: Build) -> None:
    assert f"{build.programs[0].module} {build.version}" in (build.sources / "go.mod").read_text()
    assert build.home.name.startswith(build.version.removeprefix("v"))
    assert (f".gitVersion={build.version} " in build.linker_flags) == (build.name in ("kubernetes", "controllers"))


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with an empty cache and a checkout with nothing built, on a machine without Go."""
    monkeypatch.setattr(control_plane, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(control_plane, "FUSION", tmp_path / "fusion")
    monkeypatch.setattr(control_plane.shutil, "which", lambda _: None)
    return tmp_path


def test_without_go_one_sentence_says_what_to_install(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert control_plane.main() == 1
    assert capsys.readouterr().err.startswith("control plane: etcd v3.6.4 is built from its Go module, and go is not")


def test_what_the_cache_holds_is_linked_and_not_built_again(user: Path) -> None:
    for build in BUILDS:
        build.home.mkdir(parents=True)
        for program in build.programs:
            (build.home / program.name).touch()
    for _ in range(2):
        assert control_plane.main() == 0
    linked = {path.name: path.resolve() for path in (user / "fusion" / "bin").iterdir()}
    assert linked == {program.name: build.home / program.name for build in BUILDS for program in build.programs}
