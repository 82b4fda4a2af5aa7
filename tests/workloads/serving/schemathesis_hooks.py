"""What schemathesis must know of HTTP: a header that a server does not know is no mistake of its client."""

from __future__ import annotations

import schemathesis


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    return "x-schemathesis-unknown-property" not in (case.headers or {})
