"""The container registry of a stack: what every cloud builds from the same args."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from infra.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryArgs:
    """Repositories that scan each image when it is pushed and never change what a tag means.

    Attributes:
        region: the cloud's name of the region.
        repositories: their names, such as `training`.
        images_kept: tagged images that each keeps, the newest first.
        untagged_days: after how long an image without a tag is removed.
        delete_with_contents: let `destroy` delete repositories with images in them; else it fails while there are any.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: a name that registries refuse, or a rule that keeps nothing.
    """

    region: str
    repositories: tuple[str, ...]
    images_kept: int = 50
    untagged_days: int = 14
    delete_with_contents: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.repositories), "repositories: none named; name at least one, such as training.")
        require(
            len(set(self.repositories)) == len(self.repositories),
            f"repositories ({', '.join(self.repositories)}): a name is used twice; name each once.",
        )
        for repository in self.repositories:
            require(
                re.fullmatch(r"[a-z0-9]+(?:[-._/][a-z0-9]+)*", repository) is not None,
                f"repositories: {repository!r} is no name for one; use lower-case letters and digits, "
                "with single dashes, dots or slashes between them.",
            )
        require(self.images_kept >= 1, f"images_kept {self.images_kept}: use 1 or more, or nothing could be pulled.")
        require(self.untagged_days >= 1, f"untagged_days {self.untagged_days}: use 1 day or more.")


class Registry(pulumi.ComponentResource):
    """A stack's registry, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        repository_urls: by repository, what an image's name begins with.
    """

    args: RegistryArgs
    repository_urls: Mapping[str, pulumi.Output[str]]
