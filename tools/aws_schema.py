"""Writes `localcloud/aws/schema.json`: the inputs and outputs of each AWS type that the local cloud serves, and the
table of them in `docs/local-cloud-types.md`.

Read from the installed pulumi-aws, so that names and types are exactly those of the official provider. Run it again
when pulumi-aws is raised or a type is added: `python tools/aws_schema.py`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pulumi_aws

from localcloud.aws.resources import RESOURCE_TYPES

ROOT = Path(__file__).parent.parent
SCALARS = {"str": "string", "bool": "boolean", "int": "integer", "float": "number", "Any": "any"}


def main() -> None:
    """Write the schema of every declared type, and of the object types that they use."""
    objects: dict[str, Any] = {}
    resources = {token: resource(token, objects) for token in sorted(RESOURCE_TYPES)}
    schema = {"pulumi_aws": pulumi_aws.__version__ if hasattr(pulumi_aws, "__version__") else "", "objects": objects}
    text = json.dumps(schema | {"resources": resources}, indent=0, sort_keys=True)
    (ROOT / "localcloud/aws/schema.json").write_text(text + "\n")
    (ROOT / "docs/local-cloud-types.md").write_text(table(resources))
    sys.stdout.write(f"{len(resources)} types, {len(objects)} object types\n")


HEAD = """# AWS types of the local cloud

Written by `python tools/aws_schema.py` from the declarations in `localcloud/aws/resources/` and the installed
pulumi-aws. *Real*: created, read, changed and deleted in moto. *Added*: so too, in a backend of our own in the same
server. Inputs in **bold** replace the resource when they change, and so do fields in bold in the brackets behind an
input; a few more do so on a condition that their declaration says. *not* names fields of an input that are refused.
What is refused ends the update with the input's or the field's name; a type that is not here is refused as a whole.

| type | served by | carried out | refused |
|---|---|---|---|
"""


def table(resources: dict[str, Any]) -> str:
    """What each type does with each input of pulumi-aws, as Markdown."""
    rows = []
    for token, found in resources.items():
        kind = RESOURCE_TYPES[token]
        carried = sorted(kind.carried & found["inputs"].keys())
        done = ", ".join(shown(name, kind.replace_on, kind.refused) for name in carried)
        refused = ", ".join(sorted(found["inputs"].keys() - kind.carried - {"region", "tagsAll"}))
        served = "real" if kind.served_by == "moto" else "added"
        rows.append(f"| `{token}` | {served} | {done} | {refused or '—'} |\n")
    return HEAD + "".join(rows)


def shown(name: str, replace_on: frozenset[str], refused: frozenset[str]) -> str:
    """An input in the table, in bold where it replaces, with the fields of it that do and those that are refused."""
    inside = [f"**{field}**" for field in fields_of(name, replace_on)]
    inside += [f"not {field}" for field in fields_of(name, refused)]
    written = f"**{name}**" if name in replace_on else name
    return f"{written} ({', '.join(inside)})" if inside else written


def fields_of(name: str, paths: frozenset[str]) -> list[str]:
    """Of paths, what is inside an input: `rootBlockDevice.kmsKeyId` → `kmsKeyId`."""
    return sorted(path.removeprefix(f"{name}.") for path in paths if path.startswith(f"{name}."))


def resource(token: str, objects: dict[str, Any]) -> dict[str, Any]:
    """Inputs (name → type), required inputs and outputs of one resource type."""
    _, module_path, name = token.split(":")
    module = importlib.import_module(f"pulumi_aws.{module_path.split('/')[0]}")
    args = getattr(module, f"{name}InitArgs", None) or getattr(module, f"{name}Args")  # Init where a type has the name
    cls = getattr(module, name)
    outputs = [
        getattr(member.fget, "_pulumi_name", key) for key, member in vars(cls).items() if isinstance(member, property)
    ]
    fields = properties(args, module, objects)
    return {"inputs": fields, "required": required(args), "outputs": sorted(outputs)}


def properties(args: type, module: Any, objects: dict[str, Any]) -> dict[str, Any]:
    """Wire name → type of every property of an args class."""
    found = {}
    for key, annotation in annotations(args).items():
        wire = getattr(vars(args)[key].fget, "_pulumi_name", key)
        found[wire] = type_of(annotation, module, objects)
    return found


def required(args: type) -> list[str]:
    """Wire names of the properties without a default."""
    parameters = inspect.signature(args.__init__).parameters
    return sorted(
        getattr(vars(args)[key].fget, "_pulumi_name", key)
        for key, parameter in parameters.items()
        if key != "__self__" and parameter.default is inspect.Parameter.empty
    )


def annotations(args: type) -> dict[str, ast.expr]:
    """The annotation of each parameter of an args class, as it is written."""
    function = ast.parse(textwrap.dedent(inspect.getsource(args.__init__))).body[0]
    assert isinstance(function, ast.FunctionDef)
    named = function.args.kwonlyargs + function.args.args
    return {each.arg: each.annotation for each in named if each.arg != "__self__" and each.annotation is not None}


def type_of(node: ast.expr, module: Any, objects: dict[str, Any]) -> Any:
    """`pulumi.Input[Optional[Sequence[pulumi.Input['XArgs']]]]` → `["list", "#X"]`."""
    if isinstance(node, ast.Attribute):
        return SCALARS.get(node.attr, "any")
    if isinstance(node, ast.Name):
        return SCALARS.get(node.id, "any")
    if isinstance(node, ast.Constant):
        return reference(str(node.value), module, objects)
    assert isinstance(node, ast.Subscript), ast.dump(node)
    outer = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    if outer in ("Input", "Optional"):
        return type_of(node.slice, module, objects)
    if outer == "Sequence":
        return ["list", type_of(node.slice, module, objects)]
    if outer == "Mapping":
        assert isinstance(node.slice, ast.Tuple)
        return ["map", type_of(node.slice.elts[1], module, objects)]
    assert outer == "Union", outer
    assert isinstance(node.slice, ast.Tuple)
    return type_of(node.slice.elts[0], module, objects)


def reference(name: str, module: Any, objects: dict[str, Any]) -> str:
    """A reference to an object type; its own properties are added to ``objects``."""
    short = name.split(".")[-1].removesuffix("Args")
    if short not in objects:
        args = getattr(module, f"{short}Args", None)
        if args is None:  # a union such as Union[str, 'Region'] with an enum
            return "string"
        objects[short] = {}
        objects[short] = {"properties": properties(args, module, objects), "required": required(args)}
    return f"#{short}"


if __name__ == "__main__":
    main()
