"""The pages of the stacks to start from say what is planned; write them with `python -m tools.stack_pages`."""

import pytest

from tools import stack_pages


def test_there_is_a_page_for_each_stack_and_a_list_of_all() -> None:
    written = {path.stem for path in stack_pages.PAGES.glob("*.md")}
    assert written == {"README", *stack_pages.names()}
    assert (stack_pages.PAGES / "README.md").read_text() == stack_pages.index()


@pytest.mark.parametrize("name", stack_pages.names())
def test_a_page_says_what_is_planned(name: str) -> None:
    assert (stack_pages.PAGES / f"{name}.md").read_text() == stack_pages.page(name)
