"""Modules of pulumi-aws and pulumi-gcp that load what is used of them, not all that they have.

`aws.ec2.Vpc` alone makes Python run 180 files: `pulumi_aws/ec2/__init__.py` takes all names from all of them. Here a
name is looked for where the SDK's own naming puts it (`Vpc` and `VpcArgs` in `vpc.py`, the args of nested objects in
`_inputs.py`); for any other the module's `__init__` runs as ever.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

SDKS = ("pulumi_aws.", "pulumi_gcp.")
_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def load_on_use() -> None:
    """From now on, modules of the two SDKs are loaded by name; those that are loaded already stay as they are."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """Finds the packages directly below an SDK's own, such as `pulumi_aws.ec2`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(SDKS) or name.count(".") > 1:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader and spec.submodule_search_locations:
            spec.loader = _OnUse(spec.loader, Path(spec.submodule_search_locations[0]))
        return spec


class _OnUse(Loader):
    """Makes a package without running its `__init__`, which a name that is found nowhere else brings in after all."""

    def __init__(self, whole: Loader, folder: Path) -> None:
        self._whole = whole
        self._files = {path.stem for path in folder.glob("*.py")}

    def exec_module(self, module: ModuleType) -> None:
        def look_up(name: str) -> Any:
            for file in self._files_that_may_have(name):
                found = importlib.import_module(f".{file}", module.__name__)
                if name in found.__all__:
                    # All names at once: a file may be called as the function in it, and the import has set the file.
                    vars(module).update({each: getattr(found, each) for each in found.__all__})
                    return vars(module)[name]
                if file == name:
                    return found  # `from . import outputs`
            del vars(module)["__getattr__"]
            self._whole.exec_module(module)
            return getattr(module, name)

        vars(module)["__getattr__"] = look_up

    def _files_that_may_have(self, name: str) -> list[str]:
        of_resource = _WORD_STARTS.sub("_", name.removesuffix("Args").removesuffix("_output")).lower()
        return [file for file in (of_resource, "_inputs") if file in self._files]
