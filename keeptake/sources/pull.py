"""Which sources are there, and reading them: one by its address, or all that are configured.

Belongs here: from a text, the settings or the feeds file to sources. Does not: a kind of source (a file each), what becomes of
records (`intake.py`).
"""

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

    at_s: float
    rest_s: float  # until it is asked again
    cursor: JSON | None
    has_news: bool


_asks: dict[str, Ask] = {}


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


def has_news(ledger: Ledger, settings: Settings) -> bool:
    """Whether reading on would bring something; a source that cannot be asked has none."""
    with ledger.begin() as connection:
        local = [(source, cursor_of(connection, source.name)) for source in incoming_sources(settings.incoming_location)]
    if any(_has_news(source, cursor) for source, cursor in local):
        return True
    remote = _due(_configured_if_readable(settings)[0])
    # Each a share of the time: one that is silent must not keep the others unasked.
    return any(_has_remote_news(source, ledger, NEWS_WITHIN_S / len(remote)) for source in remote)


def rest_s(before: Ask | None, cursor: JSON | None) -> float:
    """Seconds until a source that has news is asked again: ever longer while no run can take them in.

    Parameters
    ----------
    before : Ask or None
        The ask before this one.
    cursor : JSON or None
        Where reading would go on.

    >>> once = Ask(0.0, 30.0, None, True)
    >>> rest_s(None, None), rest_s(once, None), rest_s(once, {"cursor": "2"})
    (30.0, 60.0, 30.0)
    """
    is_stuck = before is not None and before.has_news and before.cursor == cursor
    return min(2 * before.rest_s, MOST_REST_S) if before and is_stuck else REMOTE_EVERY_S


def _has_remote_news(source: Source, ledger: Ledger, within_s: float) -> bool:
    with ledger.begin() as connection:
        cursor = cursor_of(connection, source.name)
    found = _has_news(source, cursor, within_s)
    rest = rest_s(_asks.get(source.name), cursor) if found else REMOTE_EVERY_S
    _asks[source.name] = Ask(time.monotonic(), rest, cursor, found)
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


def _due(sources: Sequence[Source]) -> list[Source]:
    """Sources of other machines that were not asked for a while."""
    now_s = time.monotonic()
    return [source for source in sources if (ask := _asks.get(source.name)) is None or now_s - ask.at_s >= ask.rest_s]


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
