"""A stack's file as the CLI reads it: what is wrong is one sentence that names the file and the field."""

from pathlib import Path

import pytest

from fusion.errors import FusionError
from fusion.stack import Stack


def stack(folder: Path, text: str) -> Stack:
    (folder / "stacks").mkdir()
    (folder / "stacks" / "Pulumi.local.yaml").write_text(text)
    return Stack("local", folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config: [", "not YAML"),
        ("", "config: not set"),
        ("config: 3", "config: not set"),
    ],
)
def test_a_file_that_is_no_stack_file_is_refused_with_its_path(tmp_path: Path, text: str, said: str) -> None:
    local = stack(tmp_path, text)
    with pytest.raises(FusionError, match=said) as error:
        _ = local.is_local
    assert str(local.file) in str(error.value)


def test_a_local_stack_without_its_settings_says_which_is_missing(tmp_path: Path) -> None:
    local = stack(tmp_path, "config: {'aws:profile': fusion-local, 'kubernetes:renderYamlToDirectory': 7}")
    with pytest.raises(FusionError, match=r"Pulumi\.local\.yaml: config: aws:region: null; expected a region of AWS"):
        _ = local.region
    with pytest.raises(FusionError, match="kubernetes:renderYamlToDirectory: 7; expected the folder"):
        _ = local.manifests


def test_a_stack_that_is_not_there_names_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack(tmp_path, "config: {}")
    (tmp_path / "Pulumi.yaml").write_text("name: fusion\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FusionError, match=r"stack staging: .*Pulumi\.staging\.yaml does not exist; stacks here: local$"
    ):
        Stack.find("staging")
