"""The comment is never too long, says what matters most, shows no secret, and nothing in it breaks out of its place."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fusion.review.events import read
from fusion.review.markdown import markdown
from fusion.review.review import Review, review
from planner.catalog import load
from tests.unit.report.logs import error, log, passed, replaced, secret, step, urn, violation

LIMIT = 64_000
VOLUME, QUEUE, SUBNET = "aws:ebs/volume:Volume", "aws:sqs/queue:Queue", "aws:ec2/subnet:Subnet"
HIDDEN = "hunter2-never-shown"
PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")


def reviewed(path: Path, text: str) -> Review:
    path.write_text(text)
    return review(read(path), load())


def length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def tables_are_whole(text: str) -> bool:
    """Each table is read as one, with as many cells in every row as in its head."""
    cells = [re.findall(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    rows = text.count("\n|") - text.count("\n|---") - text.count("\n| |---")
    tokens = PARSER.parse(text)
    parsed = sum(token.type == "tr_open" for token in tokens)
    widths, width = set(), 0
    for token in tokens:
        width = 0 if token.type == "tr_open" else width + (token.type in ("td_open", "th_open"))
        if token.type == "table_open":
            widths.clear()
        if token.type == "tr_close":
            widths.add(width)
            assert len(widths) == 1
    return parsed == rows and all(len(each) >= 2 for each in cells)


def thousand() -> str:
    """Replaced volumes, deleted queues and new subnets, each subnet breaking a guardrail."""
    events = []
    for number in range(300):
        old, new = {"size": 100, "availabilityZone": "us-east-1a"}, {"size": 200, "availabilityZone": "us-east-1b"}
        events += replaced(VOLUME, f"volume-{number:03}", old, new, "availabilityZone")
    events += [step("delete", QUEUE, f"queue-{number:03}", {"name": "x"}) for number in range(100)]
    for number in range(600):
        tags = {f"key-{at}": "v" * 200 for at in range(20)}
        events.append(
            step(
                "update",
                SUBNET,
                f"subnet-{number:03}",
                {"tags": {}},
                {"tags": tags},
                {f"tags.{key}": "add" for key in tags},
            )
        )
        events.append(
            violation("no-public-subnet", f"a subnet is public {'at length ' * 50}", urn(SUBNET, f"subnet-{number:03}"))
        )
    return log(*events, config={"aws:region": "us-east-1"}, result="failed")


def test_a_thousand_resources_fit_with_the_most_important_first(tmp_path):
    text = markdown(reviewed(tmp_path / "log", thousand()))
    assert length(text) < LIMIT
    assert length(text) > LIMIT / 2  # room is used
    assert tables_are_whole(text)
    first = [
        text.index(said)
        for said in (
            "Stopped by 1 guardrail",
            "[!CAUTION]",
            "queue-000",
            "**no-public-subnet**",
            "| USD a month",
            "<details>",
        )
    ]
    assert first == sorted(first)
    assert re.search(r"… and \d+ more", text)
    assert "By component" in text and "300 to replace" in text and "600 to update" in text


def test_the_text_is_the_same_for_the_same_log(tmp_path):
    assert markdown(reviewed(tmp_path / "a", thousand())) == markdown(reviewed(tmp_path / "b", thousand()))


ATTACKS = [
    "a | b",
    "`code`",
    "``` fence",
    "<script>alert(1)</script>",
    "</details></td></table>",
    "<!-- fusion:other -->",
    "@everyone",
    "octo-org/repo#1 and #2 and GH-3",
    "[click](https://example.com)",
    "![x](https://example.com/x.png)",
    "line\n\n# heading\r\n- item",
    "\u202egnp.exe",
    "**bold** _it_ ~~gone~~",
    "&lt;b&gt;",
    "$x^2$",
    "\\| \\`",
    "-->",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_name_or_message_is_shown_as_it_is_and_does_nothing(tmp_path, attack):
    name = attack.replace("::", "")
    text = markdown(
        reviewed(
            tmp_path / "log",
            log(
                *replaced(VOLUME, name, {"size": 1}, {"size": attack}, "size"),
                violation("some-policy", attack, urn(VOLUME, name)),
                violation(attack, "bad", urn(VOLUME, name)),
                error(attack, urn(VOLUME, name)),
                result="failed",
            ),
        )
    )
    assert tables_are_whole(text)
    assert text.count("<!--") == text.count("-->") == 1
    tokens = PARSER.parse(text)
    inside = [child for token in tokens for child in token.children or ()]
    assert not any(child.type in ("link_open", "image", "em_open", "code_inline") for child in inside)
    assert not any(token.type == "fence" for token in tokens)
    html = [token.content for token in (*tokens, *inside) if token.type.startswith("html")]
    allowed = r"</?(?:details|summary|code|pre|br|sub)>|<!-- fusion:prod -->"
    assert not re.search(
        r"<(?!/?(details|summary|code|pre|br|sub)>|!-- fusion:prod -->)", re.sub(allowed, "", "".join(html))
    )
    assert not re.search(r"@\w|#\d|GH-\d", re.sub(r"&#\d+;|<code>.*?</code>|<pre>.*?</pre>", "", text, flags=re.DOTALL))
    assert "\u202e" not in text
    levels = [token.tag for token in tokens if token.type == "heading_open"]
    assert set(levels) <= {"h3", "h4"}


def test_a_message_in_view_reads_as_it_was_written(tmp_path):
    text = markdown(
        reviewed(tmp_path / "log", log(violation("p", "a|b <c> `d` *e*", urn(VOLUME, "v")), result="failed"))
    )
    shown = PARSER.render(text)
    assert "a|b &lt;c&gt; `d` *e*" in shown


WORDS = st.text(min_size=1, max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(WORDS, inside, max_size=3),
    max_leaves=6,
)
INPUTS = st.dictionaries(WORDS, VALUES, max_size=4)
SECRETS = st.sampled_from(["password", "apiToken", "private_key", "clientSecret"])


@st.composite
def logs(draw):
    events = []
    for number in range(draw(st.integers(0, 12))):
        name = f"{number}-{draw(WORDS)}".replace("::", ":")
        type_ = draw(st.sampled_from([VOLUME, QUEUE, SUBNET, "fusion:platform:Plan", "kubernetes:core/v1:Secret", "x"]))
        old, new = (draw(INPUTS) | {draw(SECRETS): HIDDEN, "marked": secret()} for _ in range(2))
        paths = {path: draw(st.sampled_from(["add", "update", "delete-replace"])) for path in [*old, *new]}
        op = draw(st.sampled_from(["create", "update", "delete", "replace", "same", "import", "read"]))
        events.append(step(op, type_, name, old if op != "create" else None, new if op != "delete" else None, paths))
        if draw(st.booleans()):
            level = draw(st.sampled_from(["mandatory", "advisory"]))
            events.append(
                violation(draw(WORDS), draw(WORDS) * draw(st.sampled_from([1, 100])), urn(type_, name), level)
            )
        events.append(passed(urn(type_, name), *draw(st.lists(WORDS, max_size=3))))
    events += [error(draw(WORDS)) for _ in range(draw(st.integers(0, 3)))]
    copies = draw(st.sampled_from([1, 1, 200]))
    return log(
        *(event for _ in range(copies) for event in events),
        config={"aws:region": "us-east-1", "fusion:guardrails": draw(WORDS), "fusion:workloads": draw(WORDS)},
        result=draw(st.sampled_from(["succeeded", "failed"])),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(text=logs())
def test_any_log_makes_a_comment_that_fits_without_a_secret_and_with_every_loss(tmp_path_factory, text):
    found = reviewed(tmp_path_factory.getbasetemp() / "random.jsonl", text)
    said = markdown(found)
    assert length(said) < LIMIT
    assert HIDDEN not in said
    assert HIDDEN not in str(found.as_json())
    assert tables_are_whole(said)
    assert said.count("<details>") == said.count("</details>")
    caution = said.partition("[!CAUTION]")[2].partition("\n\n")[0]
    assert caution.count("\n> - ") == len(found.lost)
    broken = [each for guardrail in found.guardrails if guardrail.outcome == "violated" for each in guardrail.findings]
    assert said.partition("#### Guardrails that stop it")[2].partition("####")[0].count("\n- **") == len(broken)
