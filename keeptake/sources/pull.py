"""Which sources are there, and reading them: one by its address, or all that are configured.

Belongs here: from a text, the settings or the feeds file to sources. Does not: a kind of source (a file each), what becomes of
records (`intake.py`).
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from keeptake.errors import ConfigurationError, KeeptakeError, LedgerUnavailableError
from keeptake.json_values import JSON
from keeptake.ledger.connection import Ledger
from keeptake.ledger.generations import cursor_of
from keeptake.settings import Settings
from keeptake.sources.config import FeedConfig, SourcesConfig, TableConfig, read_config
from keeptake.sources.feed import FeedSource
from keeptake.sources.folder import ManifestSource, folder_sources, incoming_sources
from keeptake.sources.intake import IntakeReport, take_in
from keeptake.sources.source import NEWS_WITHIN_S, Source, require_root
from keeptake.sources.sql_table import TableSource
from keeptake.stage import Progress, silent

REMOTE_EVERY_S = 30.0  # how often a feed or a table is asked for news
MOST_REST_S = 900.0  # between two asks of one whose news nobody could take in

_log = logging.getLogger(__name__)


class Ask(NamedTuple):
    """How a source of another machine was last asked for news."""

    at_s: float  # Unix time
    rest_s: float  # until it is asked again
    news_at: str | None  # hash of the cursor behind which there was news; None: there was none


Asks = dict[str, Ask]


def today() -> str:
    """Capture day that new records belong to, in UTC."""
    return datetime.now(UTC).date().isoformat()


def open_sources(text: str, settings: Settings) -> list[Source]:
    """Tell what an address means.

    Parameters
    ----------
    text : str
        A folder, a `.jsonl` file, an `http(s)://` feed, a `postgresql://` address (its table after `#`, default
        `TrainingMetadata`), or the name of an entry of the feeds file.

    Raises
    ------
    ConfigurationError
        If it is none of these.
    """
    configured = _configured(settings)
    for source in configured:
        if source.name == text:
            return [source]
    scheme, has_scheme, _ = text.partition("://")
    if has_scheme and scheme in ("http", "https"):
        return [FeedSource(_feed(text))]
    if has_scheme and scheme.startswith("postgres"):
        address, _, table = text.partition("#")
        return [TableSource(TableConfig(url=address, table=table or "TrainingMetadata"))]
    path = Path(text)
    if path.is_dir():
        return folder_sources(path)
    if path.is_file() and path.suffix == ".jsonl":
        return [ManifestSource(path.resolve())]
    raise ConfigurationError(
        f"{text!r} is no source: expected a folder, a .jsonl file, an http(s):// feed, a postgresql:// address "
        "or a name from KEEPTAKE_FEEDS_FILE"
    )


def import_source(text: str, ledger: Ledger, settings: Settings, *, progress: Progress = silent) -> IntakeReport:
    """Read one source. Files are read from their top, which replays what is known; feeds and tables from their cursor.

    Raises
    ------
    ConfigurationError
        If there is no such source.
    UnavailableError
        If it breaks off; what came before is kept.
    """
    report = IntakeReport()
    for source in open_sources(text, settings):
        report.add(take_in(source, ledger, is_resuming=source.audio_root is None, progress=progress))
    return report


def pull_sources(ledger: Ledger, settings: Settings, *, progress: Progress = silent) -> IntakeReport:
    """Read on in the incoming folder and in all configured feeds and tables; one that fails keeps no other from being read."""
    report = IntakeReport()
    configured, mistake = _configured_if_readable(settings)
    if mistake:
        report.failed["KEEPTAKE_FEEDS_FILE"] = mistake
    for source in (*incoming_sources(settings.incoming_location), *configured):
        try:
            report.add(take_in(source, ledger, progress=progress))
        except LedgerUnavailableError:
            raise
        except (KeeptakeError, OSError) as failure:  # a file of somebody else that we may not read
            _log.warning("source %s: %s", source.name, failure)
            report.failed[source.name] = str(failure)
    return report


def has_news(ledger: Ledger, settings: Settings, asks: Asks | None = None) -> bool:
    """Whether reading on would bring something; a source that cannot be asked has none.

    Parameters
    ----------
    asks : dict, optional
        How feeds and tables were asked before, by name; brought up to date. Those that were asked a moment ago are not asked.
    """
    with ledger.begin() as connection:
        local = [(source, cursor_of(connection, source.name)) for source in incoming_sources(settings.incoming_location)]
    if any(_has_news(source, cursor) for source, cursor in local):
        return True
    asks = {} if asks is None else asks
    remote = _due(_configured_if_readable(settings)[0], asks)
    # Each a share of the time: one that is silent must not keep the others unasked.
    return any(_has_remote_news(source, ledger, asks, NEWS_WITHIN_S / len(remote)) for source in remote)


def read_asks(text: str | None) -> Asks:
    """Read what `json.dumps` wrote of them; what makes no sense counts as never asked.

    >>> read_asks('{"a": [1.0, 30.0, null], "b": 3}'), read_asks("no JSON"), read_asks(None)
    ({'a': Ask(at_s=1.0, rest_s=30.0, news_at=None)}, {}, {})
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {name: ask for name, kept in found.items() if (ask := _ask(kept))} if isinstance(found, dict) else {}


def _ask(kept: JSON) -> Ask | None:
    match kept:
        case [int() | float() as at_s, int() | float() as rest_s, str() | None as news_at]:
            return Ask(at_s, rest_s, news_at)
    return None


def next_rest_s(before: Ask | None, news_at: str | None) -> float:
    """Seconds until a source is asked again: ever longer while it has news that no run can take in.

    >>> once = Ask(0.0, 30.0, "f00d")
    >>> next_rest_s(None, "f00d"), next_rest_s(once, "f00d"), next_rest_s(once, "beef"), next_rest_s(once, None)
    (30.0, 60.0, 30.0, 30.0)
    """
    is_stuck = before is not None and news_at is not None and before.news_at == news_at
    return min(2 * before.rest_s, MOST_REST_S) if before and is_stuck else REMOTE_EVERY_S


def _has_remote_news(source: Source, ledger: Ledger, asks: Asks, within_s: float) -> bool:
    with ledger.begin() as connection:
        cursor = cursor_of(connection, source.name)
    found = _has_news(source, cursor, within_s)
    news_at = hashlib.sha256(json.dumps(cursor, sort_keys=True).encode()).hexdigest()[:16] if found else None
    asks[source.name] = Ask(time.time(), next_rest_s(asks.get(source.name), news_at), news_at)
    return found


def _has_news(source: Source, cursor: JSON | None, within_s: float = NEWS_WITHIN_S) -> bool:
    try:
        require_root(source)
        return source.has_news(cursor, within_s=within_s)
    except LedgerUnavailableError:
        raise
    except (KeeptakeError, OSError) as failure:
        _log.warning("source %s: %s", source.name, failure)
        return False


def _due(sources: Sequence[Source], asks: Asks) -> list[Source]:
    """Sources of other machines that were not asked for a while."""
    now_s = time.time()  # of any process: the daemon loads the definitions in a new one every minute
    resting = {name for name, ask in asks.items() if 0 <= now_s - ask.at_s < ask.rest_s}
    return [source for source in sources if source.name not in resting]


def _feed(url: str) -> FeedConfig:
    try:
        return FeedConfig(url=url)
    except ValidationError:
        raise ConfigurationError("the feed's address cannot be used: expected http(s)://host[:port]/path") from None


def _configured_if_readable(settings: Settings) -> tuple[list[Source], str]:
    """Return what is configured, or nothing and why: a mistake in that file keeps no folder from being read."""
    try:
        return _configured(settings), ""
    except ConfigurationError as mistake:
        _log.warning("%s", mistake)
        return [], str(mistake)


def _configured(settings: Settings) -> list[Source]:
    config = read_config(settings.feeds_file) if settings.feeds_file else SourcesConfig()
    return [*map(FeedSource, config.feed), *map(TableSource, config.table)]
