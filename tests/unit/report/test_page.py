"""The page is whole in itself, says what the plan says, and is readable in a browser, on a phone and without a network."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from fusion.commands.plan import command
from fusion.errors import FusionError
from tests.unit.report.browser import shown

WORKLOADS = [
    {
        "kind": "training",
        "name": "train",
        "image": "x",
        "price_model": "spot",
        "needs": {"accelerators": 8},
        "training": {"batch_size": 1024},
        "target": {"profile": "resnet-50", "samples": 1_281_167, "hours_max": 10},
    },
    {
        "kind": "inference",
        "name": "serve",
        "image": "x",
        "needs": {"accelerator": "L4", "accelerators": 1},
        "replicas": {"min": 1, "max": 3},
        "target": {"profile": "resnet-50", "requests_per_s": 1000, "p99_ms_max": 100},
    },
]
CHANGE = "serve.target.p99_ms_max=3"
SOURCES_OF_REQUESTS = {"src", "href", "xlink:href", "data", "poster", "action", "srcset"}


def written(folder: Path, *arguments: str) -> str:
    (folder / "stack<b>.yaml").write_text(yaml.safe_dump({"workloads": WORKLOADS}))
    page = folder / "plan.html"
    ran = CliRunner().invoke(command, [str(folder / "stack<b>.yaml"), "--html", str(page), *arguments])
    assert ran.exception is None, ran.output
    return page.read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    written(folder, "--what-if", CHANGE)
    return folder / "plan.html"


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))


def test_it_asks_for_nothing(page):
    elements = Elements(page.read_text()).found
    assert not [tag for tag, _ in elements if tag in ("script", "iframe", "object", "embed", "img")]
    targets = [value for _, attributes in elements for name, value in attributes.items() if name in SOURCES_OF_REQUESTS]
    assert targets and all(each.startswith(("#", "data:")) for each in targets)
    assert not re.search(r"@import|url\((?!#)", page.read_text())


def test_ids_are_used_once_and_every_reference_has_its_id(page):
    ids = [attributes["id"] for _, attributes in Elements(page.read_text()).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', page.read_text())) <= set(ids)


def test_what_a_user_typed_is_text_and_no_markup(page):
    assert "stack&lt;b&gt;.yaml" in page.read_text()
    assert "stack<b>" not in page.read_text()


def test_each_workload_has_its_three_pictures_wide_and_narrow_with_a_name_for_readers(page):
    pictures = [attributes for tag, attributes in Elements(page.read_text()).found if tag == "svg"]
    assert len(pictures) == 2 * 3 * len(WORKLOADS)
    assert all(each["role"] == "img" and each["aria-label"] for each in pictures)


def test_the_page_says_what_the_json_says(page, tmp_path):
    (tmp_path / "w.yaml").write_text(yaml.safe_dump({"workloads": WORKLOADS}))
    ran = CliRunner().invoke(command, [str(tmp_path / "w.yaml"), "--json", "--what-if", CHANGE])
    answer = json.loads(ran.output)
    text = re.sub(r"<[^>]+>", " ", page.read_text())
    for name, each in answer["workloads"].items():
        assert each["best"]["offer"]["instance_type"] in text
        assert each["prediction"]["calibration"] in text.replace("&#39;", "'"), name
        for way in each["frontier"]:
            assert f"${way['usd']:,.2f}" in text
    assert {row["subject"] for row in answer["differences"]} == {"train", "serve"}
    (cost,) = [row for row in answer["differences"] if row["subject"] == "serve" and row["what"] == "USD an hour"]
    assert float(cost["after"]) > float(cost["before"]) and cost["change"] in text


def test_a_page_is_the_same_for_the_same_plan(tmp_path):
    assert written(tmp_path) == written(tmp_path)


def test_a_page_that_can_not_be_written_is_one_sentence(tmp_path):
    (tmp_path / "w.yaml").write_text(yaml.safe_dump({"workloads": WORKLOADS[:1]}))
    ran = CliRunner().invoke(command, [str(tmp_path / "w.yaml"), "--html", str(tmp_path / "none" / "p.html")])
    assert isinstance(ran.exception, FusionError)
    assert re.fullmatch(r"--html .*p\.html: can't be written: No such file or directory", str(ran.exception))


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it_without_an_error_a_request_or_a_sideways_scroll(page, width, tmp_path):
    measured, logged = shown(page, width, tmp_path)
    assert f'data-width="{width}" data-over="0" data-pictures="{3 * len(WORKLOADS)}" data-asked=""' in measured
    assert "CONSOLE" not in logged


def test_the_browser_would_have_told_of_an_error_and_a_request(page, tmp_path):
    asking = tmp_path / "asking.html"
    wrong = '<script>nothing.there()</script><img src="https://example.com/x.png">'
    asking.write_text(page.read_text().replace("</body>", f"{wrong}</body>"))
    measured, logged = shown(asking, 390, tmp_path)
    assert 'data-asked="https://example.com/x.png"' in measured
    assert "CONSOLE" in logged


def test_the_page_of_a_language_model_shows_what_its_time_to_first_token_is_made_of(tmp_path):
    target = {"model": "llama-3.1-8b", "input_tokens": 1000, "output_tokens": 200, "concurrency": 8}
    chat = {"kind": "inference", "name": "chat", "image": "x", "needs": {"accelerators": 1}, "target": target}
    stack, page = tmp_path / "stack.yaml", tmp_path / "plan.html"
    stack.write_text(yaml.safe_dump({"workloads": [chat]}))
    ran = CliRunner().invoke(command, [str(stack), "--html", str(page), "--json"])
    assert ran.exception is None, ran.output
    (answer,) = json.loads(ran.stdout)["workloads"].values()
    assert sum(answer["time_parts_s"].values()) == pytest.approx(answer["best"]["outcome"]["seconds"])
    assert "What the time to first token is made of" in page.read_text()
    assert "What the cost pays for" not in page.read_text()  # nothing is known of it
