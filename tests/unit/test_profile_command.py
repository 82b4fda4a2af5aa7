"""`fusion profile` traces what the user names, or says in one sentence what is wrong with it."""

import json
import re
import subprocess
import sys
import textwrap

import pytest
from click.testing import CliRunner

from fusion.commands.profile import command
from fusion.errors import FusionError
from planner.profiles.model import read_profile

CODE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

        def forward(self, tokens, weights=None):
            held = self.words(tokens)
            return self.head(held if weights is None else held * weights[..., None])

    def small_net():
        return Net()

    class box:
        made = Net()

    def broken():
        raise ValueError("no weights\\nhere")

    def needs(size):
        return Net()

    def wrong():
        return 3

    number = 4
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "not_whole.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(2)\n")
    (tmp_path / "not_python.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_models", "not_whole", "not_python"):
        sys.modules.pop(name, None)


def run(*arguments):
    ran = CliRunner().invoke(command, arguments)
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran


@pytest.mark.parametrize("factory", ["small_net", "Net", "box.made"])
def test_a_function_a_class_and_a_module_are_traced(folder, factory):
    said = run(f"my_models:{factory}", "--input", "6:int64").output
    name = {"small_net": "small-net", "Net": "net", "box.made": "made"}[factory]
    found = read_profile(folder / f"{name}.json")
    assert (found.name, found.parameters, found.flops, found.input_numbers) == (name, 50, 2 * 6 * 4 * 2, 6)
    assert "50 parameters" in said and f"wrote {name}.json" in said


def test_inputs_may_be_named_and_the_file_and_name_chosen(folder):
    run(
        *("my_models:Net", "--input", "weights=6", "--input", "tokens=6:int64"),
        *("--name", "towers", "--output", str(folder / "t.json")),
    )
    found = read_profile(folder / "t.json")
    assert (found.name, found.input_numbers) == ("towers", 12)
    assert found.source == "fusion profile my_models:Net"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["my_models", "--input", "6"], "my_models: expected MODULE:FACTORY"),
        (["my_models:", "--input", "6"], "expected MODULE:FACTORY"),
        (["no_such:net", "--input", "6"], "no_such can't be imported: ModuleNotFoundError"),
        (
            ["not_whole:net", "--input", "6"],
            "not_whole can't be imported: ModuleNotFoundError: No module named 'nothing",
        ),
        (["not_python:net", "--input", "6"], "not_python can't be imported: SyntaxError"),
        (["leaves:net", "--input", "6"], "leaves can't be imported: SystemExit: 2"),
        (["my_models:Net", "--input", "6:int64", "--name", "\udcff"], r"--name is '\\udcff'; expected text"),
        (["my_models:absent", "--input", "6"], "my_models has no absent"),
        (["my_models:number", "--input", "6"], "is a int; expected a function"),
        (["my_models:wrong", "--input", "6"], r"wrong\(\) is a int; expected a torch.nn.Module"),
        (["my_models:broken", "--input", "6"], r"broken\(\) can't be built: ValueError: no weights here"),
        (["my_models:needs", "--input", "6"], r"needs\(\) can't be built: TypeError.*it must need no arguments"),
        (["my_models:Net", "--input", "6"], "net can't be traced: .*scalar types"),
        (["my_models:Net", "--input", "a=6:int64"], "net can't be traced: .*unexpected keyword argument 'a'"),
        (["my_models:Net", "--input", "tokens=6:int64", "--input", "6"], "some have names and some have none"),
        (["my_models:Net", "--input", "tokens=6:int64", "--input", "tokens=6"], "the name tokens is given twice"),
        (["my_models:Net", "--input", "6:int64", "--output", "none/x.json"], "none/x.json: can't be written"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments, said):
    with pytest.raises(FusionError, match=r"^[^\n]*$") as refused:
        run(*arguments)
    assert re.search(said, str(refused.value)), str(refused.value)


@pytest.mark.parametrize("value", ["", "x", "3x", "3,4", "-3", "0", "3x0", "3:float99", "99999999999", "=3", "3x4x"])
def test_a_shape_that_is_none_is_named(value):
    ran = run("my_models:Net", "--input", value)
    assert ran.exit_code == 2 and repr(value) in ran.output.replace("\n", " ")


def test_an_input_is_needed():
    assert "Missing option '--input'" in run("my_models:Net").output


def test_the_whole_program_profiles_from_the_folder_that_it_is_called_in(folder):
    code = "from fusion.cli import main; import sys; sys.argv[0] = 'fusion'; main()"
    called = [sys.executable, "-P", "-c", code, "profile", "my_models:Net", "--input", "6:int64"]
    ran = subprocess.run(called, capture_output=True, text=True, check=True, cwd=folder)
    assert "wrote net.json" in ran.stdout and ran.stderr == ""
    assert json.loads((folder / "net.json").read_text())["name"] == "net"
