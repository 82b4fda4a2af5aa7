"""A review as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import itertools
from pathlib import Path

import jinja2

from fusion.report.charts import Picture
from fusion.report.units import usd
from fusion.review.charts import cost_picture, measures_picture
from fusion.review.predictions import WorkloadReview
from fusion.review.review import DONE, TO_DO, Review
from fusion.review.wording import difference, interval_of, number, range_of, sum_of

MARKS = {
    "failed": "✗",
    "blocked": "✗",
    "drifted": "!",
    "advised": "!",
    "changes": "✓",
    "unchanged": "✓",
    "violated": "✗",
    "advisory": "!",
    "not judged": "?",
    "disabled": "–",
    "not set": "–",
    "passed": "✓",
}
"""Letters that every font has, unlike the emoji of the comment."""
RESOURCES_LISTED = 2_000
"""By table; a page of more is read by nobody and slows the browser."""


def page(review: Review) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "usd": usd,
        "difference": difference,
        "range": range_of,
        "interval": interval_of,
        "sum_of": sum_of,
        "difference_range": lambda amount: range_of(amount, _unbroken),
    }
    return environment.get_template("page.html").render(
        review=review,
        cost_picture=cost_picture(review.cost) if review.cost and review.cost.components else None,
        pictures={each.name: _pictures(each) for each in review.workloads},
        number=number,
        done=DONE,
        to_do=TO_DO,
        marks=MARKS,
        listed=RESOURCES_LISTED,
    )


def _unbroken(amount: float) -> str:
    """A difference whose sign a browser keeps on the line of its number."""
    return difference(amount).replace("−", "−\u2060")


def _pictures(found: WorkloadReview) -> list[Picture]:
    """One by unit, since hours and dollars share no scale."""
    by_unit = itertools.groupby(sorted(found.measures, key=lambda each: each.unit), key=lambda each: each.unit)
    return [measures_picture(found, list(measures)) for _, measures in by_unit]
