"""For all tests: what holds does so on a busy machine too, and what was not tried is said."""

from collections import Counter

import pytest
from hypothesis import settings

# The same examples each time, and no bound on seconds; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("whatever the machine does besides", parent=settings.get_profile("ci"))
settings.load_profile("whatever the machine does besides")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each reason for which tests were skipped, with how many: a program that is missing is not a test that passed."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("NOT TRIED on this machine", yellow=True)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} test{'s' if count > 1 else ''}: {reason}", yellow=True)
