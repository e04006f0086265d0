"""The HTTP feed against a real server that fails, repeats and reorders pages, forgets its tokens and runs in circles."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from keeptake.errors import ConfigurationError, UnavailableError
from keeptake.ledger.generations import cursor_of
from keeptake.ledger.tables import generations
from keeptake.settings import Settings
from keeptake.sources import feed, pull
from keeptake.sources.config import FeedConfig
from keeptake.sources.feed import FeedSource
from keeptake.sources.intake import take_in
from keeptake.sources.mapping import at_path, renamed
from keeptake.sources.pull import has_news, import_source, pull_sources
from keeptake.sources.source import NEWS_WITHIN_S

PAGE = 5
Fault = Callable[[BaseHTTPRequestHandler], bool]  # True: the request was answered


class Provider:
    """A paginated feed on a real socket, with faults by the number of the request."""

    def __init__(self) -> None:
        self.items = [self.item(number) for number in range(23)]
        self.order: list[int] = []  # of the pages; empty: as they are
        self.faults: dict[int, Fault] = {}
        self.asked: list[str | None] = []
        self.headers: list[Any] = []
        self.paths: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/takes"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @staticmethod
    def item(number: int) -> dict[str, Any]:
        return {
            "id": f"p{number}",
            "prompt": f"beat {number}",
            "user": {"id": "u1"},
            "meta": {"tempo": 90 + number},
            "file": f"/audio/{number}.mp3",
        }

    def pages(self) -> list[list[dict[str, Any]]]:
        pages = [self.items[at : at + PAGE] for at in range(0, len(self.items), PAGE)]
        return [pages[at] for at in self.order] if self.order else pages

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        cursor = parse_qs(urlsplit(request.path).query).get("after", [None])[0]
        self.asked.append(cursor)
        self.headers.append(request.headers)
        self.paths.append(request.path)
        fault = self.faults.get(len(self.asked))
        if fault and fault(request):
            return
        at = int(cursor or 0)
        self.send(request, at, str(at + 1) if at + 1 < len(self.pages()) else None)

    def send(self, request: BaseHTTPRequestHandler, at: int, following: str | None) -> None:
        self.reply(request, 200, {"data": {"takes": self.pages()[at]}, "next": following})

    @staticmethod
    def reply(request: BaseHTTPRequestHandler, status: int, body: Any, **headers: str) -> None:
        raw = json.dumps(body).encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(raw)))
        request.end_headers()
        request.wfile.write(raw)


def failing(status: int, **headers: str) -> Fault:
    def fault(request: BaseHTTPRequestHandler) -> bool:
        Provider.reply(request, status, {"error": "x"}, **headers)
        return True

    return fault


def hanging_up(request: BaseHTTPRequestHandler) -> bool:
    request.connection.close()
    return True


def silent(request: BaseHTTPRequestHandler) -> bool:
    time.sleep(3)
    return True


def trickling(request: BaseHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.end_headers()
    with suppress(OSError):  # whoever asked goes away
        for _ in range(30):
            request.wfile.write(b" ")
            time.sleep(0.1)
    return True


def half_a_page(request: BaseHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.send_header("Content-Length", "500")
    request.end_headers()
    request.wfile.write(b'{"data": {"takes": [')
    request.close_connection = True
    return True


def not_a_page(request: BaseHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.end_headers()
    request.wfile.write(b"<html>maintenance</html>")
    return True


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setattr(feed, "FIRST_WAIT_S", 0.01)
    provider = Provider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


def source_of(provider: Provider, **changes: Any) -> FeedSource:
    return FeedSource(
        FeedConfig(
            url=provider.url,
            name="provider",
            items="data.takes",
            next_cursor="next",
            cursor_param="after",
            fields={
                "generationId": "id",
                "userPrompt": "prompt",
                "userId": "user.id",
                "generationParams.bpm": "meta.tempo",
                "audioUrl": "file",
            },
            defaults={"provider": "suno"},
            **changes,
        )
    )


def rows(ledger: Any) -> dict[str, Any]:
    with ledger.begin() as connection:
        return {row.generation_id: row for row in connection.execute(sa.select(generations))}


def test_pages_are_followed_and_fields_mapped(provider, ledger):
    report = take_in(source_of(provider), ledger)

    assert (report.new, report.refused.total()) == (23, 0)
    assert provider.asked == [None, "1", "2", "3", "4"]
    row = rows(ledger)["p7"]
    assert (row.user_prompt, row.user_id, row.provider, row.generation_params) == ("beat 7", "u1", "suno", {"bpm": 97})
    assert row.audio_url == f"{provider.url.removesuffix('/api/takes')}/audio/7.mp3"
    assert row.audio_root is None
    assert row.extra == {}


@pytest.mark.parametrize(
    "fault",
    [failing(500), failing(503, Retry_After="0"), failing(429), hanging_up, half_a_page, not_a_page],
    ids=lambda fault: fault.__name__,
)
def test_failed_page_is_asked_for_again(provider, ledger, fault):
    provider.faults = {2: fault, 4: fault, 5: fault}

    assert take_in(source_of(provider), ledger).new == 23
    assert len(provider.asked) == 8


def test_a_feed_is_waited_for_as_long_as_it_asks_within_bounds(provider, ledger, monkeypatch):
    waits_s: list[float] = []
    monkeypatch.setattr(feed.time, "sleep", waits_s.append)
    provider.faults = {1: failing(503, Retry_After="3"), 2: failing(429, Retry_After="7200")}
    assert take_in(source_of(provider), ledger).new == 23
    assert waits_s == [3.0, feed.MAX_WAIT_S]


def test_a_page_without_end_is_left(provider, ledger, monkeypatch):
    monkeypatch.setattr(feed, "MAX_PAGE_BYTES", 100)
    with pytest.raises(ConfigurationError, match="smaller page_size"):
        take_in(source_of(provider), ledger)
    assert provider.asked == [None] and rows(ledger) == {}


def test_repeated_and_reordered_pages_change_nothing(provider, ledger):
    def page_before(request: BaseHTTPRequestHandler) -> bool:
        provider.send(request, 1, "2")  # asked for page 2, it gives page 1 again
        return True

    provider.order = [3, 0, 4, 2, 1]
    provider.faults = {3: page_before}
    report = take_in(source_of(provider), ledger)

    assert (report.new, report.replayed, report.refused.total()) == (23, 5, 0)
    assert set(rows(ledger)) == {f"p{number}" for number in range(23)}


def test_items_that_move_between_pages_are_taken_once(provider, ledger):
    def grow(request: BaseHTTPRequestHandler) -> bool:
        provider.items.insert(0, Provider.item(99))  # newest first: everything moves by one
        return False

    provider.faults = {3: grow}
    report = take_in(source_of(provider), ledger)

    assert (report.new, report.replayed) == (23, 1)
    assert take_in(source_of(provider), ledger, is_resuming=False).new == 1


def test_circle_ends(provider, ledger):
    def back_to_one(request: BaseHTTPRequestHandler) -> bool:
        provider.send(request, 2, "1")
        return True

    provider.faults = dict.fromkeys(range(3, 100, 2), back_to_one)
    take_in(source_of(provider), ledger)

    assert len(provider.asked) < 20


def test_feed_that_breaks_off_is_continued_where_it_was(provider, ledger):
    provider.faults = dict.fromkeys(range(3, 3 + feed.ATTEMPTS), failing(502))
    with pytest.raises(UnavailableError, match="502"):
        take_in(source_of(provider), ledger)
    assert len(rows(ledger)) == 10
    with ledger.begin() as connection:
        assert cursor_of(connection, "provider")["cursor"] == "1"

    provider.asked.clear()
    provider.faults = {}
    report = take_in(source_of(provider), ledger)
    assert (report.new, report.replayed) == (13, 5)
    assert provider.asked == ["1", "2", "3", "4"]


def test_control_without_the_cursor_all_is_read_again(provider, ledger):
    take_in(source_of(provider), ledger)
    provider.asked.clear()

    assert take_in(source_of(provider), ledger, is_resuming=False).replayed == 23
    assert len(provider.asked) == 5


def test_news_is_what_the_last_page_did_not_hold(provider, ledger):
    source = source_of(provider)
    take_in(source, ledger)
    with ledger.begin() as connection:
        cursor = cursor_of(connection, "provider")
    assert not source.has_news(cursor)

    provider.items.append(Provider.item(23))
    assert source.has_news(cursor)
    assert take_in(source, ledger).new == 1


@pytest.mark.parametrize("fault", [silent, trickling])
def test_a_feed_that_hangs_is_asked_once_and_not_waited_for(provider, ledger, monkeypatch, fault):
    """It was asked six times for twenty seconds each; Dagster ended the tick, and takes of the API waited with it."""
    source = source_of(provider)
    monkeypatch.setattr(feed, "FIRST_WAIT_S", 0.01)
    provider.faults = dict.fromkeys(range(1, 9), fault)
    started_s = time.monotonic()
    with pytest.raises(UnavailableError, match="does not come through"):
        source.has_news({"cursor": None}, within_s=0.5)
    assert time.monotonic() - started_s < 5
    assert len(provider.asked) == 1


def test_each_source_has_its_share_of_the_time(ledger, tmp_path, monkeypatch):
    """With a feed that hangs before it, no other was asked for news."""
    given = {}

    class Noted(FeedSource):
        def has_news(self, cursor, *, within_s=0.0):
            given[self.name] = within_s
            raise UnavailableError("away")

    monkeypatch.setattr(pull, "FeedSource", Noted)
    feeds = "".join(f"[[feed]]\nname='{name}'\nurl='http://127.0.0.1:9/'\n" for name in ("a1", "b1", "c1", "d1"))
    (tmp_path / "feeds.toml").write_text(feeds)
    assert not has_news(ledger, Settings(home=tmp_path, feeds_file=tmp_path / "feeds.toml", _env_file=None))
    assert given == dict.fromkeys(("a1", "b1", "c1", "d1"), NEWS_WITHIN_S / 4)


def test_changed_feedback_of_a_known_item_is_an_update(provider, ledger):
    take_in(source_of(provider), ledger)
    provider.items[-1]["userFeedback"] = {"liked": True}

    assert take_in(source_of(provider), ledger).feedback_updates == 1
    assert rows(ledger)["p22"].liked is True


def test_bad_items_stop_no_other(provider, ledger):
    provider.items[3] = {"id": "p3"}
    provider.items[4] = "text"  # type: ignore[assignment]
    report = take_in(source_of(provider), ledger)

    assert report.new == 21
    assert dict(report.refused) == {"missing-userId": 1, "not-an-object": 1}


def test_an_address_that_is_none_stops_no_other_item(provider, ledger):
    """It ended the feed, those after it and the run with a ValueError, at every reading."""
    provider.items[2]["file"] = "//[broken/a.mp3"
    report = take_in(source_of(provider), ledger)
    assert (report.new, dict(report.refused)) == (23, {})
    assert rows(ledger)["p2"].audio_url == "//[broken/a.mp3"


def test_the_query_of_the_address_is_asked_for_too(provider, ledger):
    """It was dropped, so that takes of all projects came in."""
    provider.url += "?project=a&project=b&after=0"
    source = source_of(provider)
    take_in(source, ledger)
    first, *_, last = provider.paths
    assert parse_qs(urlsplit(first).query) == {"project": ["a", "b"], "after": ["0"], "limit": ["200"]}
    assert parse_qs(urlsplit(last).query)["project"] == ["a", "b"]
    assert parse_qs(urlsplit(last).query)["after"] != ["0"]
    unnamed = [FeedSource(FeedConfig(url=f"http://h/takes{query}")).name for query in ("", "?a=1", "?a=2")]
    assert unnamed[0] == "http://h/takes" and len(set(unnamed)) == 3
    assert not any("a=" in name for name in unnamed)


def test_secret_comes_from_the_environment_and_stays_out_of_names(provider, ledger, monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret")
    take_in(source_of(provider, headers={"Authorization": "env:TOKEN"}), ledger)
    assert provider.headers[0]["Authorization"] == "s3cret"
    assert "pass" not in FeedSource(FeedConfig(url="http://user:pass@host:8/x?token=pass")).name

    monkeypatch.delenv("TOKEN")
    with pytest.raises(ConfigurationError, match="TOKEN"):
        take_in(source_of(provider, headers={"Authorization": "env:TOKEN"}), ledger)


@pytest.mark.parametrize(("status", "match"), [(401, "answered 401"), (404, "answered 404"), (302, "answered 302")])
def test_refusal_by_the_server_is_ours_to_correct(provider, ledger, status, match):
    provider.faults = {1: failing(status)}

    with pytest.raises(ConfigurationError, match=match):
        take_in(source_of(provider), ledger)
    assert len(provider.asked) == 1


def test_page_without_items_is_told(provider, ledger):
    with pytest.raises(ConfigurationError, match="no array at 'takes'"):
        take_in(FeedSource(FeedConfig(url=provider.url, items="takes")), ledger)


def test_configured_feeds_are_pulled_and_one_that_is_down_keeps_none_from_it(provider, ledger, tmp_path):
    (tmp_path / "feeds.toml").write_text(f"""
        [[feed]]
        name = "down"
        url = "http://127.0.0.1:9/"
        [[feed]]
        name = "up"
        url = "{provider.url}"
        items = "data.takes"
        next_cursor = "next"
        cursor_param = "after"
        fields = {{ generationId = "id", userPrompt = "prompt", userId = "user.id", audioUrl = "file" }}
        defaults = {{ provider = "suno" }}
    """)
    settings = Settings(home=tmp_path, feeds_file=tmp_path / "feeds.toml", _env_file=None)

    assert has_news(ledger, settings)
    report = pull_sources(ledger, settings)
    assert report.new == 23
    assert list(report.failed) == ["down"]
    assert import_source("up", ledger, settings).replayed == 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[[feed]]\nurl = 1", "feed.0.url"),
        ("[[feed]]\nurl='http://x'\npage_sise=1", "page_sise"),
        ("[[", "not TOML"),
        (None, "cannot be read"),
    ],
)
def test_wrong_feeds_file_says_where(tmp_path, ledger, text, match):
    if text is not None:
        (tmp_path / "feeds.toml").write_text(text)

    settings = Settings(home=tmp_path, feeds_file=tmp_path / "feeds.toml", _env_file=None)
    assert match in pull_sources(ledger, settings).failed["KEEPTAKE_FEEDS_FILE"]
    with pytest.raises(ConfigurationError, match=match):
        import_source("up", ledger, settings)


def test_mapping_loses_nothing_and_changes_no_item():
    item = {"a": {"b": 1, "c": 2}, "d": [{"e": 5}], "provider": None}
    record = renamed(item, {"x": "a.b", "params.y": "d.0.e", "gone": "no.where"}, {"provider": "suno", "d": 0})

    assert record == {"x": 1, "a": {"c": 2}, "d": [{}], "params": {"y": 5}, "provider": "suno"}
    assert item == {"a": {"b": 1, "c": 2}, "d": [{"e": 5}], "provider": None}
    assert at_path([1], "") == [1]
    assert at_path({"a": [1]}, "a.3") is None
    assert at_path({"a": [1]}, "a.b") is None
