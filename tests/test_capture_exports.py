"""Exports to the byte, read back by the tools that will read them; streams that fail, are left, or crawl."""

import asyncio
import csv
import gzip
import io
import json
import socket
import threading
import time
from contextlib import contextmanager

import duckdb
import httpx2
import pandas
import polars
import psutil
import psycopg
import pytest

from keeptake.capture.app import PREFIX
from keeptake.capture.exporting import Exporter
from keeptake.capture.parquet import ParquetReader
from keeptake.errors import BusyError
from keeptake.ledger import exports
from keeptake.ledger.connection import libpq_url
from keeptake.ledger.exports import CopyReader, arrow_query
from keeptake.ledger.keys import SCOPES, create_key

GOLDEN = [
    {
        "generationId": "plain",
        "userPrompt": "dark trap beat",
        "aiEnhancedPrompt": "dark, trap - dark trap beat",
        "generationParams": {"genre": "trap", "bpm": 140, "duration": 30},
        "duration": 30,
        "createdAt": "2026-01-02T03:04:05Z",
        "userFeedback": {"rating": 5, "used": True},
    },
    {
        "generationId": "odd",
        "userPrompt": 'a "quoted", multi\nline\r\nprompt \\ with ünï and 🎹 and \u2028',
        "aiEnhancedPrompt": None,
        "generationParams": {"genre": "drum, bass", "bpm": "174 BPM", "mood": "\\.", "nested": {"b": [1.50, None], "a": True}},
        "audioUrl": 'https://cdn.example.com/a.mp3?sig=a,b"c',
        "duration": 12.75,
        "createdAt": "2026-01-02T03:04:05.678901+02:00",
        "modelUsed": None,
    },
    {
        "generationId": "-formula",
        "userPrompt": '=HYPERLINK("http://evil")',
        "aiEnhancedPrompt": "@sum",
        "generationParams": {"genre": "\tx"},
        "audioUrl": "+1",
        "createdAt": "2026-01-02T03:04:06.5Z",
    },
]
HEARD_NOTHING = '"heard": {"tempo_bpm": null, "key": null, "has_vocals": null, "loudness_lufs": null}'
LINES = [
    '{"prompt": "dark, trap - dark trap beat", "audio_url": "https://cdn.example.com/gen_xyz.mp3", "duration": 30, "metadata":'
    ' {"generation_id": "plain", "provider": "suno", "model_used": "sonic-v5", "generation_params": {"bpm": 140, "genre": "trap",'
    ' "duration": 30}, "liked": null, "rating": 5, "used": true, "created_at": "2026-01-02T03:04:05Z", '
    + HEARD_NOTHING
    + '}, "quality_score": 0.945}',
    '{"prompt": "a \\"quoted\\", multi\\nline\\r\\nprompt \\\\ with ünï and 🎹 and \u2028", "audio_url":'
    ' "https://cdn.example.com/a.mp3?sig=a,b\\"c", "duration": 12.75, "metadata": {"generation_id": "odd", "provider": "suno",'
    ' "model_used": null, "generation_params": {"bpm": "174 BPM", "mood": "\\\\.", "genre": "drum, bass", "nested": {"a": true,'
    ' "b": [1.5, null]}}, "liked": null, "rating": null, "used": null, "created_at": "2026-01-02T01:04:05.678Z", '
    + HEARD_NOTHING
    + '}, "quality_score": null}',
    '{"prompt": "@sum", "audio_url": "+1", "duration": null, "metadata": {"generation_id": "-formula", "provider": "suno",'
    ' "model_used": "sonic-v5", "generation_params": {"genre": "\\tx"}, "liked": null, "rating": null, "used": null,'
    ' "created_at": "2026-01-02T03:04:06.500Z", ' + HEARD_NOTHING + '}, "quality_score": null}',
]
HEADER = "generationId,userPrompt,aiEnhancedPrompt,audioUrl,duration,genre,bpm,rating,used"
SAFE_CSV = (
    HEADER + "\n"
    'plain,dark trap beat,"dark, trap - dark trap beat",https://cdn.example.com/gen_xyz.mp3,30,trap,140,5,true\n'
    'odd,"a ""quoted"", multi\nline\r\nprompt \\ with ünï and 🎹 and \u2028",,"https://cdn.example.com/a.mp3?sig=a,b""c",12.75,'
    '"drum, bass",174 BPM,,\n'
    '\'-formula,"\'=HYPERLINK(""http://evil"")",\'@sum,\'+1,,\'\tx,,,\n'
)


@pytest.fixture
def golden(service, capture_service):
    for record in GOLDEN:
        saved = service.post(capture_service.take(record["generationId"], **record))
        assert saved.status_code == 200, saved.text
    service.query("UPDATE generations SET quality_score = 0.945 WHERE generation_id = 'plain' RETURNING 1")
    return service


def test_jsonl_to_the_byte(golden):
    assert golden.get("/export/jsonl").content == ("\n".join(LINES) + "\n").encode()
    assert golden.get("/export/jsonl?minQualityScore=0").text == LINES[0] + "\n"  # an unscored take passes no threshold
    assert golden.get("/export/jsonl?provider=nobody").content == b""


def test_csv_to_the_byte(golden):
    assert golden.get("/export/csv").content == SAFE_CSV.encode()
    assert golden.get("/export/csv?provider=nobody").text == HEADER + "\n"
    bare = golden.get("/export/csv?excelSafe=false").text
    assert bare == SAFE_CSV.replace("'-f", "-f").replace("'=H", "=H").replace("'@", "@").replace("'+", "+").replace("'\t", "\t")
    more = golden.get("/export/csv?columns=provider,qualityScore&minQualityScore=0.5").text.splitlines()
    assert more[0] == HEADER + ",provider,qualityScore"
    assert more[1].endswith(",5,true,suno,0.945")
    assert golden.get("/export/csv?columns=userId").status_code == 422


def test_the_format_of_a_csv_is_that_of_the_record(golden, capture_service):
    """It was empty where nobody had claimed one, though the record showed what was measured or what the address ends in."""
    addresses = ["https://h/a.FLAC", "https://h/a.b/c", "https://h/x.wav?y=/z.mp3", "https://h/x#.ogg", "https://h/a.toolong"]
    for number, address in enumerate(addresses):
        assert golden.post(capture_service.take(f"f{number}", audioUrl=address, format=None)).status_code == 200
    rows = csv.DictReader(io.StringIO(golden.get("/export/csv?columns=format").text, newline=""))
    found = {row["generationId"]: row["format"] for row in rows}
    assert [found[f"f{number}"] for number in range(len(addresses))] == ["flac", "", "wav", "", ""]
    for name in ("f0", "f1", "f2", "f3", "f4", "odd"):
        assert golden.get(f"/{name}").json().get("format", "") == found[name]


def test_csv_is_read_back_equal_by_what_people_read_it_with(golden, tmp_path):
    text = golden.get("/export/csv?excelSafe=false").content.decode()
    path = tmp_path / "export.csv"
    path.write_bytes(text.encode())
    wanted = [
        [
            row["generationId"],
            row["userPrompt"],
            row.get("aiEnhancedPrompt"),
            row.get("audioUrl", "https://cdn.example.com/gen_xyz.mp3"),
            row.get("duration"),
            row["generationParams"].get("genre"),
            row["generationParams"].get("bpm"),
            row.get("userFeedback", {}).get("rating"),
            row.get("userFeedback", {}).get("used"),
        ]
        for row in GOLDEN
    ]
    wanted = [["" if cell is None else "true" if cell is True else str(cell) for cell in row] for row in wanted]
    assert list(csv.reader(io.StringIO(text, newline="")))[1:] == wanted
    assert pandas.read_csv(path, dtype=str, keep_default_na=False).values.tolist() == wanted
    assert [list(row) for row in polars.read_csv(path, infer_schema=False).fill_null("").rows()] == wanted
    rows = duckdb.sql(
        f"SELECT * FROM read_csv('{path}', all_varchar = true, header = true, delim = ',', quote = '\"')"
    ).fetchall()
    assert [["" if cell is None else cell for cell in row] for row in rows] == wanted


def test_jsonl_and_parquet_are_read_back_equal(golden, tmp_path):
    lines = golden.get("/export/jsonl").content
    (tmp_path / "export.jsonl").write_bytes(lines)
    (tmp_path / "export.parquet").write_bytes(golden.get("/export/parquet").content)
    wanted = [json.loads(line) for line in lines.decode().split("\n")[:-1]]
    prompts = [row["prompt"] for row in wanted]
    assert polars.read_ndjson(tmp_path / "export.jsonl")["prompt"].to_list() == prompts
    assert duckdb.sql(f"SELECT prompt FROM '{tmp_path}/export.jsonl'").fetchall() == [(prompt,) for prompt in prompts]
    frame = polars.read_parquet(tmp_path / "export.parquet")
    assert frame["prompt"].to_list() == prompts
    assert frame["duration"].to_list() == [row["duration"] for row in wanted]
    assert [json.loads(text) for text in frame["generation_params"]] == [row["metadata"]["generation_params"] for row in wanted]
    assert frame["created_at"].dt.to_string("%Y-%m-%dT%H:%M:%S").to_list() == [
        row["metadata"]["created_at"][:19] for row in wanted
    ]


def test_an_export_is_compressed_where_it_is_asked_for(golden):
    for path in ("/export/jsonl", "/export/csv"):
        plain = golden.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        with golden.client.stream("GET", PREFIX + path, headers={"Accept-Encoding": "gzip"}) as zipped:
            raw = b"".join(zipped.iter_raw())
        assert zipped.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == plain.content
        for asked, given in (("gzip;q=0", None), ("*;q=0, gzip", "gzip"), ("*", "gzip"), ("*, gzip;q=0.0", None), ("br", None)):
            answer = golden.get(path, headers={"Accept-Encoding": asked})
            assert answer.headers.get("content-encoding") == given, asked


ROWS = (
    "INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on,"
    " created_at) SELECT 'gen_' || n, '', 'u', repeat('a long prompt ', 200), 'https://x', 'suno', 'api', current_date, now()"
    " FROM generate_series(1, %d) n"
)


@pytest.fixture
def many(service):
    """A service with enough rows that an export does not fit into any buffer: about 60 MB."""
    service.query(f"{ROWS % 20_000} RETURNING 1")
    return service


def exporting_backends(service):
    """Also between an export's two COPYs: once none was active just then, and a test failed with its connection open."""
    exporting = "query LIKE 'COPY%%' OR query LIKE 'SET LOCAL timezone%%'"
    return service.query(f"SELECT pid FROM pg_stat_activity WHERE state <> 'idle' AND ({exporting}) AND pid <> pg_backend_pid()")


def begin_export(service, path="/export/jsonl"):
    """A connection that has asked for an export and read its first bytes, with a small window."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(service.base_url.rsplit(":", 1)[1])))
    connection.sendall(f"GET {PREFIX}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n\r\n".encode())
    connection.settimeout(30)
    assert b"200 OK" in connection.recv(1024)
    return connection


def leave_an_export(service, within_s):
    """Begin an export, go away, and say whether Postgres ended it in time."""
    with begin_export(service):
        backends = exporting_backends(service)
    assert len(backends) == 1
    ends_s = time.monotonic() + within_s
    while exporting_backends(service):
        if time.monotonic() > ends_s:
            return False
        time.sleep(0.02)
    return True


def test_an_owner_has_two_exports_at_once_of_whatever_kind(many):
    """Parquet counted for none: six at once were answered."""
    arguments = psycopg.conninfo.conninfo_to_dict(libpq_url(many.ledger.url))
    query = arrow_query(provider=None, least_quality=None)

    def begin(owner):
        return ParquetReader(many.ledger.url, query, arguments=arguments, owner=owner)

    first, second = begin("a"), begin("a")
    with pytest.raises(BusyError, match="exports of this key are running"):
        begin("a")
    first.close()
    begin("b").close()
    begin("a").close()
    second.close()


def test_a_client_that_goes_away_frees_its_cursor(many):
    assert leave_an_export(many, 2)


def test_control_an_export_that_ignores_who_goes_away_keeps_its_cursor(many, monkeypatch):
    left, close = [], CopyReader.close
    monkeypatch.setattr(CopyReader, "break_off", lambda reader: None)
    monkeypatch.setattr(CopyReader, "close", lambda reader: left.append(reader))
    is_freed = leave_an_export(many, 4)
    monkeypatch.undo()
    for reader in left:
        close(reader)
    assert len(left) == 1
    assert not is_freed


def test_a_failure_midway_is_visible_to_the_client(many):
    with begin_export(many) as connection:
        ((pid,),) = exporting_backends(many)
        many.query("SELECT pg_terminate_backend(%s)", pid)
        received = b""
        while piece := connection.recv(1 << 20):
            received += piece
    assert not received.endswith(b"0\r\n\r\n")  # the last chunk of a whole answer
    with many.client.stream("GET", f"{PREFIX}/export/jsonl", headers={"Accept-Encoding": "identity"}) as answer:
        pieces = answer.iter_raw()
        next(pieces)
        while not exporting_backends(many):
            time.sleep(0.01)
        for (backend,) in exporting_backends(many):
            many.query("SELECT pg_terminate_backend(%s)", backend)
        with pytest.raises(httpx2.RemoteProtocolError):
            for _ in pieces:
                pass


def test_control_a_whole_export_ends_with_the_last_chunk(many):
    tail = b""
    with begin_export(many) as connection:
        while not tail.endswith(b"0\r\n\r\n") and (piece := connection.recv(1 << 20)):
            tail = (tail + piece)[-16:]
    assert tail.endswith(b"0\r\n\r\n")


def export_during_writes(service, take, monkeypatch):
    """Lines of an export whose second part begins after rows came, changed and went."""
    written, start = threading.Event(), CopyReader._start

    def start_after_writes(reader):
        if len(reader._left) == 1:
            assert written.wait(20)
        start(reader)

    monkeypatch.setattr(CopyReader, "_start", start_after_writes)
    with service.client.stream("GET", f"{PREFIX}/export/jsonl") as answer:
        lines = answer.iter_lines()
        first = next(lines)
        service.query("UPDATE generations SET rating = 1, user_prompt = 'changed' WHERE generation_id = 'gen_19999' RETURNING 1")
        service.query("DELETE FROM generations WHERE generation_id = 'gen_20000' RETURNING 1")
        service.post(take("late"))
        written.set()
        return [json.loads(first), *map(json.loads, lines)]


def test_an_export_during_writes_is_one_snapshot(many, capture_service, monkeypatch):
    """Rows that come, change and go while the answer is being sent are not in it."""
    rows = export_during_writes(many, capture_service.take, monkeypatch)
    assert len(rows) == 20_000
    assert {row["metadata"]["rating"] for row in rows} == {None}
    assert rows[-1]["metadata"]["generation_id"] == "gen_20000"
    after = many.get("/export/jsonl?provider=suno").text.splitlines()
    names = {json.loads(line)["metadata"]["generation_id"] for line in after}
    assert "late" in names and "gen_20000" not in names
    assert sum('"prompt": "changed"' in line for line in after) == 1


def begin_by(monkeypatch, *statements):
    def place_of(arguments, owner, *, deadline_s):
        connection = psycopg.connect(**arguments, autocommit=True)
        for statement in statements:
            connection.execute(statement)
        return connection

    monkeypatch.setattr(exports, "place_of", place_of)


def test_control_a_snapshot_a_statement_mixes_before_and_after(many, capture_service, monkeypatch):
    begin_by(monkeypatch, "BEGIN READ ONLY")
    rows = export_during_writes(many, capture_service.take, monkeypatch)
    names = {row["metadata"]["generation_id"] for row in rows}
    assert "late" in names and "gen_20000" not in names
    assert {row["metadata"]["rating"] for row in rows} == {None, 1}


@contextmanager
def crawling_reader(service):
    """Somebody who reads 10 KB of an export a second."""
    connection, stop = begin_export(service), threading.Event()

    def crawl():
        while not stop.is_set():
            connection.recv(1024)
            time.sleep(0.1)

    reader = threading.Thread(target=crawl)
    reader.start()
    try:
        yield
    finally:
        stop.set()
        reader.join()
        connection.close()


def test_a_crawling_reader_slows_no_save(many, capture_service):
    def typical_s(prefix):
        took = []
        for index in range(60):
            started_s = time.perf_counter()
            assert many.post(capture_service.take(f"{prefix}{index}")).status_code == 200
            took.append(time.perf_counter() - started_s)
        return sorted(took)[len(took) // 2]

    before_s = typical_s("before")
    with crawling_reader(many):
        meanwhile_s = typical_s("meanwhile")
    assert meanwhile_s < 2 * before_s + 0.005


def test_control_an_export_that_locks_what_it_reads_keeps_saves_waiting(many, capture_service, monkeypatch):
    begin_by(monkeypatch, "BEGIN ISOLATION LEVEL REPEATABLE READ", "LOCK TABLE generations IN SHARE MODE")
    with crawling_reader(many):
        assert many.post(capture_service.take("meanwhile")).status_code == 503


MANY_MORE = 60_000
MOST_GROWTH_MB = 64


def test_an_export_of_170_mb_takes_a_third_of_it_in_memory_at_most(ledger, tmp_path, capture_service):
    """The control reads it whole before it answers."""
    with ledger.begin() as connection:
        connection.exec_driver_sql(ROWS % MANY_MORE)
    key = create_key(ledger, SCOPES)
    grown_mb = {}
    for way, first in (("streamed", ""), ("whole", capture_service.READ_WHOLE)):
        with capture_service.Process(ledger.url, tmp_path, program=first + capture_service.RUN) as process:
            process.start()
            for kind in ("jsonl", "csv", "parquet") if way == "streamed" else ("jsonl",):
                grown_mb[way, kind] = growth_mb(process, key, kind)
    assert grown_mb.pop(("whole", "jsonl")) > 2 * MOST_GROWTH_MB
    assert max(grown_mb.values()) <= MOST_GROWTH_MB, grown_mb


def growth_mb(process, key, kind):
    """Most memory that a service has during an export, over what it had after an empty one."""
    service = psutil.Process(process.process.pid)
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
    with httpx2.Client(base_url=process.base_url, headers=headers, timeout=60, verify=False) as client:
        assert client.get(f"{PREFIX}/export/{kind}?provider=nobody").status_code == 200
        before = most = service.memory_info().rss
        read = 0
        with client.stream("GET", f"{PREFIX}/export/{kind}") as answer:
            for piece in answer.iter_raw():
                read += len(piece)
                most = max(most, service.memory_info().rss)
    assert read > (100_000 if kind == "parquet" else 150 << 20)  # equal prompts: Parquet writes them once
    return (most - before) / 2**20


def test_the_client_reads_a_whole_export_and_notices_a_broken_one(many):
    from keeptake.client import Client
    from keeptake.errors import UnavailableError

    with Client(many.base_url, many.key) as client:
        assert sum(1 for _ in client.export_lines(provider="suno")) == 20_000
        lines = client.export_lines()
        next(lines)
        for (backend,) in exporting_backends(many):
            many.query("SELECT pg_terminate_backend(%s)", backend)
        with pytest.raises(UnavailableError, match="begin it again"):
            for _ in lines:
                pass


def test_an_export_that_outlives_its_service_is_closed():
    """At a shutdown the threads were gone before the stream: its connection stayed open, and the server's cursor with it."""

    class Reader:
        rows, done = 0, ()

        def read(self):
            return b"{}\n"

        def break_off(self):
            self.done += ("broken off",)

        def close(self):
            self.done += ("closed",)

    async def leave_half_read(exporter, reader):
        pieces = exporter._pieces(reader, "jsonl", is_zipped=False)
        assert await anext(pieces) == b"{}\n"
        exporter.close()
        await pieces.aclose()

    reader, exporter = Reader(), Exporter()
    exporter._running = 1
    asyncio.run(leave_half_read(exporter, reader))
    assert reader.done == ("broken off", "closed")
