"""Modules of pulumi-aws that load by name give what the SDK's own `__init__` gives, and no more than is asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pulumi_aws
import pytest

SDK = Path(pulumi_aws.__file__).parent


def python(script: str) -> str:
    """What a fresh interpreter prints: in this one the SDK is loaded already."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_a_resource_brings_its_own_file_and_not_the_whole_module() -> None:
    counted = python("""
import infra, sys
import pulumi_aws as aws
assert aws.ec2.Vpc.__module__ == "pulumi_aws.ec2.vpc"
print(sum(name.startswith("pulumi_aws.ec2.") for name in sys.modules))
""")
    assert int(counted) < 10


@pytest.mark.parametrize("module", ["ec2", "eks", "s3", "iam", "kms", "ecr", "vpc", "cloudwatch"])
def test_every_public_name_of_a_module_is_the_same_object_as_without(module: str) -> None:
    names = sorted({name for file in (SDK / module).glob("*.py") if file.stem != "outputs" for name in exported(file)})
    assert names
    assert (
        python(f"""
import importlib, infra, sys
import pulumi_aws as aws
module = aws.{module}
by_name = {{name: getattr(module, name) for name in {names!r}}}
whole = importlib.util.spec_from_file_location("whole", module.__path__[0] + "/__init__.py")
loaded = importlib.util.module_from_spec(whole)
loaded.__package__ = module.__name__
exec(compile(open(whole.origin).read(), whole.origin, "exec"), vars(loaded))
print([name for name in by_name if by_name[name] is not getattr(loaded, name)])
""")
        == "[]"
    )


def exported(file: Path) -> list[str]:
    """`__all__` of a file, without running it; empty where it has none."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            found: list[str] = ast.literal_eval(node.value)
            return found
    return []


def test_a_name_that_is_not_there_is_an_attribute_error_and_the_module_is_whole_afterwards() -> None:
    printed = python("""
import infra
import pulumi_aws as aws
try:
    aws.kms.NoSuchThing
except AttributeError as error:
    print(error, "get_key" in vars(aws.kms))
""")
    assert printed.endswith("has no attribute 'NoSuchThing' True")
