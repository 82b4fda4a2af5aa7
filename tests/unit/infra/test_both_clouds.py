"""The same args on both clouds: what each becomes is what docs/clouds.md says, and no arg is left out of it."""

import dataclasses

import pytest

from tools import cloud_args


@pytest.mark.parametrize("component", cloud_args.TYPES)
def test_every_arg_has_a_row(component: str) -> None:
    shown = {name for each in cloud_args.CHANGES if each.component == component for name in each.args("aws")}
    assert shown == {field.name for field in dataclasses.fields(cloud_args.TYPES[component])}


def test_the_page_is_what_the_components_do() -> None:
    """Write it with `python -m tools.cloud_args`."""
    written = cloud_args.PAGE.read_text()
    assert cloud_args.page(written) == written
