"""What the three clouds' clients share: what they return, how they fail, and JSON over HTTP with retries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from planner.catalog.model import Offer

TIMEOUT_S = 30.0
RETRIES = 4


class RefreshError(Exception):
    """One cloud's prices can't be read; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class CloudPrices:
    """What a cloud's price list says today."""

    offers: tuple[Offer, ...]
    asked: frozenset[tuple[str, str]]
    """(region, instance type) of the old rows that these replace: one that is not in ``offers`` is sold no more."""
    skipped: tuple[str, ...] = ()
    """What was found and not understood, one sentence each: never guessed at."""


class JsonClient:
    """GET of JSON documents from one host; retries what may pass (connection, 429, 5xx) with backoff."""

    def __init__(self, endpoint: str, *, backoff_s: float = 0.5) -> None:
        self.endpoint = endpoint.rstrip("/")
        retries = urllib3.Retry(
            total=RETRIES,
            backoff_factor=backoff_s,
            status_forcelist=(429, 500, 502, 503, 504),
            respect_retry_after_header=True,
            raise_on_status=False,
            redirect=0,
        )
        self._pool = urllib3.PoolManager(retries=retries, timeout=urllib3.Timeout(TIMEOUT_S))

    def get(self, path: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The document at a path of the endpoint; raises as `follow`."""
        return self.follow(f"{self.endpoint}{path}?{urlencode(query)}", headers)

    def follow(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The document at a link that the endpoint gave.

        Raises:
            RefreshError: another host, no answer, an answer other than 200, or not a JSON object.
        """
        if urlsplit(url)[:2] != urlsplit(self.endpoint)[:2]:
            raise RefreshError(f"{self.endpoint} links to another host, {urlsplit(url).netloc}; not followed")
        shown = f"{urlsplit(url).netloc}{urlsplit(url).path}"
        try:
            response = self._pool.request("GET", url, headers=dict(headers or {}))
        except urllib3.exceptions.HTTPError as error:
            raise RefreshError(f"{shown} does not answer ({type(error).__name__}); check the network") from None
        if response.status != 200:
            raise RefreshError(f"{shown} answered {response.status}: {_reason(response.data)}")
        try:
            document = json.loads(response.data)
        except ValueError:
            raise RefreshError(f"{shown} answered something other than JSON") from None
        if not isinstance(document, dict):
            raise RefreshError(f"{shown} answered a JSON {type(document).__name__}, expected an object")
        return document


def _reason(data: bytes) -> str:
    try:
        error = json.loads(data)["error"]
        return str(error.get("message") or error)[:200]
    except (ValueError, KeyError, TypeError, AttributeError):
        return data.decode(errors="replace").strip()[:200] or "no reason given"


def price(usd: float | None, spot_usd: float | None) -> tuple[float | None, float | None]:
    """Both prices, to a millionth; a spot price above the on-demand one is capped at it, as clouds bill it."""
    usd = round(usd, 6) if usd else None
    spot_usd = round(spot_usd, 6) if spot_usd else None
    if usd is not None and spot_usd is not None:
        spot_usd = min(usd, spot_usd)
    return usd, spot_usd
