"""A paginated HTTP feed of JSON: followed by its cursor, page by page.

Conventions: a page is an object with items and the cursor of the next page. The cursor that we keep is that of the last page
read: the next reading brings that page again, with whatever was added to it. Pages that come twice or in another order change
nothing, for known records are replayed silently.

Belongs here: asking, waiting, asking again. Does not: what an item is called elsewhere (`mapping.py`).
"""

import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2

from keeptake.errors import ConfigurationError, UnavailableError
from keeptake.json_values import JSON
from keeptake.retry_after import retry_after_s
from keeptake.sources.config import FeedConfig
from keeptake.sources.mapping import at_path, renamed
from keeptake.sources.source import NEWS_WITHIN_S, Batch, RawRecord

MAX_PAGE_BYTES = 32 << 20
ATTEMPTS = 6
FIRST_WAIT_S = 0.2  # doubled at each further attempt
MAX_WAIT_S = 10.0
MAX_VISITS = 3  # of one cursor in one reading: a server that repeats a page is asked again, one that runs in circles is left

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeedSource:
    """A feed, as configured."""

    config: FeedConfig

    @property
    def name(self) -> str:
        """Configured name, or the address without what may be secret in it."""
        parts = urlsplit(self.config.url)
        asked = f"#{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}" if parts.query else ""  # another query is another feed
        return self.config.name or f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}{asked}"

    @property
    def audio_root(self) -> Path | None:
        """None: a feed has no folder of ours."""
        return None

    def batches(self, cursor: JSON | None) -> Iterator[Batch]:
        """Read pages until there is no next one.

        Raises
        ------
        UnavailableError
            If a page does not come after `ATTEMPTS`; the pages before it are committed.
        ConfigurationError
            If what comes is no page, or we may not have it.
        """
        at = cursor.get("cursor") if isinstance(cursor, dict) else None
        visits: Counter[str] = Counter()
        with self._client(self.config.timeout_s) as client:
            while True:
                visits[str(at)] += 1
                page = self._page(client, at)
                items, following = self._items(page), at_path(page, self.config.next_cursor)
                yield Batch(
                    [RawRecord(None, self._record(item)) for item in items], {"cursor": at, "digest": _digest(items, following)}
                )
                if following is None or following == "" or visits[str(following)] >= MAX_VISITS:
                    return
                at = following

    def has_news(self, cursor: JSON | None, *, within_s: float = NEWS_WITHIN_S) -> bool:
        """Whether the page that was read last is another one now; it is asked for once."""
        before = cursor if isinstance(cursor, dict) else {}
        with self._client(min(within_s, self.config.timeout_s)) as client:
            page = self._page(client, before.get("cursor"), attempts=1, until_s=time.monotonic() + within_s)
        return _digest(self._items(page), at_path(page, self.config.next_cursor)) != before.get("digest")

    def _client(self, timeout_s: float) -> httpx2.Client:
        return httpx2.Client(timeout=timeout_s, headers=self.config.secret_headers(), follow_redirects=False)

    def _page(self, client: httpx2.Client, cursor: JSON | None, *, attempts: int = ATTEMPTS, until_s: float = math.inf) -> JSON:
        given = {self.config.size_param: self.config.page_size, self.config.cursor_param: cursor}
        ours = {name: str(value) for name, value in given.items() if name and value is not None}
        # The client would put them in the place of the address's own query, which may say whose takes are meant.
        theirs = parse_qsl(urlsplit(self.config.url).query, keep_blank_values=True)
        params = httpx2.QueryParams([*(pair for pair in theirs if pair[0] not in ours), *ours.items()])
        wait_s, failure = FIRST_WAIT_S, ""
        for attempt in range(attempts):
            if attempt:
                time.sleep(min(wait_s, MAX_WAIT_S))
                wait_s *= 2
            try:
                with client.stream("GET", self.config.url, params=params) as response:
                    if response.is_success:
                        return json.loads(_body(response, until_s))
                    failure = f"it answered {response.status_code}"
                    if response.status_code != 429 and response.status_code < 500:
                        raise ConfigurationError(
                            f"the feed {self.name} refuses us: {failure}; correct its url, headers or cursor"
                        )
                    wait_s = max(wait_s, retry_after_s(response.headers.get("Retry-After", "")) or 0.0)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                failure = type(error).__name__
            except (ValueError, RecursionError):  # half a page, or one nested without end
                failure = "its page is not JSON"
            _log.info("%s: %s, attempt %d of %d", self.name, failure, attempt + 1, attempts)
        raise UnavailableError(f"the feed {self.name} does not come through ({failure}): what was read is kept, repeat later")

    def _items(self, page: JSON) -> list[JSON]:
        items = at_path(page, self.config.items)
        if not isinstance(items, list):
            raise ConfigurationError(
                f"the feed {self.name} has no array at {self.config.items!r}; correct `items` in its configuration"
            )
        return items

    def _record(self, item: JSON) -> bytes:
        if isinstance(item, dict):
            item = renamed(item, self.config.fields, self.config.defaults)
            url = item.get("audioUrl")
            if isinstance(url, str) and url:
                with suppress(ValueError):  # no address at all: kept as it is, and refused by name when it is fetched
                    item["audioUrl"] = url if urlsplit(url).scheme else urljoin(self.config.url, url)
        return json.dumps(item, ensure_ascii=True).encode()


def _body(response: httpx2.Response, until_s: float) -> bytes:
    body = bytearray()
    for piece in response.iter_bytes():
        if time.monotonic() > until_s:
            raise httpx2.ReadTimeout("the page trickles")
        body += piece
        if len(body) > MAX_PAGE_BYTES:
            raise ConfigurationError(
                f"a page of the feed has more than {MAX_PAGE_BYTES >> 20} MiB; configure a smaller page_size"
            )
    return bytes(body)


def _digest(items: list[JSON], following: JSON | None) -> str:
    return hashlib.sha256(json.dumps([items, following], sort_keys=True).encode()).hexdigest()
