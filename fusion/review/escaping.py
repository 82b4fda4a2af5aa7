"""Foreign text in a comment of GitHub: shown as it is, whatever it holds.

Names and messages come from programs, providers and policies, so they may hold Markdown, HTML, table bars, mentions.
"""

from __future__ import annotations

import re
import unicodedata

SYNTAX = re.compile(r"[\\`*_{}\[\]<>|~&!^]|\$(?!\d)")
"""What Markdown, its tables, HTML or mathematics would read; as an entity it is only a character."""
BREAK = "\u200b"
"""Zero width: between `@` and a name nobody is notified, between `#` and a number nothing is linked."""
ADDRESSES = re.compile(r"(?<=[@#])(?=\w)|(?<=GH-)(?=\d)|(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)


def text(value: str, length: int = 700) -> str:
    """One line inside a paragraph, a list or a table's cell."""
    return _entities(ADDRESSES.sub(BREAK, _line(value, length)))


def code(value: str, length: int = 200) -> str:
    """One line as code; GitHub links and notifies nothing in it."""
    return f"<code>{_entities(_line(value, length))}</code>"


def block(value: str, length: int = 4000) -> str:
    """Lines as they are."""
    kept = "\n".join(_visible(line) for line in value.splitlines())
    cut = kept if len(kept) <= length else f"{kept[: length - 1]}…"
    return f"<pre>{_entities(cut)}</pre>"


def size(value: str) -> int:
    """Length as the strictest reader counts it: in units of UTF-16."""
    return len(value.encode("utf-16-le", "surrogatepass")) // 2


def _line(value: str, length: int) -> str:
    line = " ".join(_visible(value).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _visible(value: str) -> str:
    """Without control, formatting (text that turns its direction) and broken characters."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") else each for each in value)


def _entities(value: str) -> str:
    return SYNTAX.sub(lambda found: f"&#{ord(found.group())};", value)
