"""What do a save, a feedback, a batch and an export cost? CPU time of service and Postgres together, against plain ways.

Baselines, measured in the same run on the same server and table: a naive twin of the service (FastAPI, pydantic, synchronous
SQLAlchemy ORM session, no keys, no limits, no idempotency); `COPY (SELECT to_json …)` of the rows of the export; a cursor loop
with `json.dumps`. Wall time on a shared machine says little: the ratios are of CPU time. Run as

    python benchmarks/bench_capture.py [--rows N] [--calls N] [--only saves|export]

Exits with 1 where a floor is missed.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx2
import psutil
import psycopg
from psycopg.rows import dict_row

from keeptake.ledger.connection import Ledger, libpq_url
from keeptake.ledger.exports import CopyReader, jsonl_queries
from keeptake.ledger.keys import SCOPES, create_key
from keeptake.ledger.migrate import migrate
from keeptake.ledger.server import embedded_server
from keeptake.ledger.serving import connect_arguments

FLOORS = {"save": 2.5, "feedback": 2.5, "batch": 8.0, "export/COPY to_json": 0.6, "cursor loop/export": 4.5}
MOST_HTTP_SHARE = 0.15
CLIENTS = 16
ROUNDS = 3

TWIN = """
import json, sys
from datetime import UTC, datetime
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import create_engine, select
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
import uvicorn
from keeptake.ledger.tables import generations, features
given = json.loads(sys.argv[1])
engine = create_engine(given["url"].replace("postgresql://", "postgresql+psycopg://"), pool_size=16)
Sessions = sessionmaker(engine, expire_on_commit=False)
class Base(DeclarativeBase): pass
class Generation(Base): __table__ = generations
class Features(Base): __table__ = features
class Body(BaseModel):
    userId: str
    generationId: str
    userPrompt: str
    aiEnhancedPrompt: str | None = None
    generationParams: dict = {}
    audioUrl: str
    provider: str
    modelUsed: str | None = None
    duration: float | None = None
class Said(BaseModel):
    liked: bool | None = None
    rating: int | None = None
    feedback: str | None = None
    used: bool | None = None
def session():
    with Sessions() as opened:
        yield opened
app = FastAPI()
@app.post("/api/training-metadata")
def save(body: Body, db: Session = Depends(session)):
    now = datetime.now(UTC)
    row = Generation(generation_id=body.generationId, user_id=body.userId, user_prompt=body.userPrompt,
        ai_enhanced_prompt=body.aiEnhancedPrompt, generation_params=body.generationParams, audio_url=body.audioUrl,
        provider=body.provider, model_used=body.modelUsed, duration_s=body.duration, identity_sha256=b"", source="api",
        captured_on=now.date(), created_at=now)
    db.add(row)
    db.commit()
    db.refresh(row)
    return {"success": True, "metadataId": str(row.id), "generationId": row.generation_id}
@app.put("/api/training-metadata/{generation_id}/feedback")
def feedback(generation_id: str, said: Said, db: Session = Depends(session)):
    row = db.scalar(select(Generation).where(Generation.generation_id == generation_id))
    if row is None:
        raise HTTPException(404)
    for name, value in said.model_dump(exclude_unset=True).items():
        setattr(row, name, value)
    row.feedback_revision += 1
    heard = db.get(Features, row.audio_sha256) if row.audio_sha256 else None
    score = None
    if heard is not None:
        score = 0.2 * heard.rhythm_confidence + 0.1 * (heard.tempo_stability + heard.no_clipping + heard.dynamic_range)
        score += 0.2 * bool(row.liked) + 0.3 * bool(row.used)
        score = (score + row.rating / 5) / 2 if row.rating else score
        row.quality_score = score
    db.commit()
    db.refresh(row)
    return {"success": True, "generationId": generation_id, "userFeedback": {"liked": row.liked, "rating": row.rating,
        "feedback": row.feedback, "used": row.used}, "qualityScore": score}
uvicorn.run(app, host="127.0.0.1", port=given["port"], access_log=False, log_level="warning")
"""
SERVICE = """
import json, sys
from keeptake.capture.server import serve
given = json.loads(sys.argv[1])
serve("127.0.0.1", given["port"], 1, database_url=given["url"])
"""


@contextmanager
def program(text: str, url: str, home: Path, port: int) -> Iterator[psutil.Process]:
    """Run a service as a process; yields it once it answers."""
    environment = os.environ | {"KEEPTAKE_HOME": str(home), "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    environment |= {f"KEEPTAKE_RATE_LIMIT_{kind}": "100000000/minute" for kind in ("WRITE", "READ", "EXPORT")}
    with (home / f"{port}.log").open("wb") as log:
        given = json.dumps({"url": url, "port": port})
        process = subprocess.Popen([sys.executable, "-c", text, given], env=environment, stdout=log, stderr=log)
    try:
        for _ in range(400):
            try:
                httpx2.get(f"http://127.0.0.1:{port}/openapi.json")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


class Meter:
    """CPU seconds of a service and of the Postgres server with all its backends, living or gone."""

    def __init__(self, postmaster: psutil.Process) -> None:
        self._postmaster = postmaster

    def read(self, *services: psutil.Process) -> float:
        """CPU seconds spent so far."""
        spent = 0.0
        for process in (self._postmaster, *services):
            times = process.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
        for backend in self._postmaster.children():
            try:
                times = backend.cpu_times()
            except psutil.NoSuchProcess:
                continue
            spent += times.user + times.system
        return spent


def record(name: str) -> dict:
    """A record as the workstation sends it."""
    return {
        "userId": "user123",
        "generationId": name,
        "userPrompt": "dark trap beat 140 bpm",
        "aiEnhancedPrompt": "dark, trap, 140 BPM - dark trap beat",
        "generationParams": {"genre": "trap", "bpm": 140, "mood": "dark", "duration": 30},
        "audioUrl": "https://cdn.example.com/x.mp3?token=abc",
        "provider": "suno",
        "modelUsed": "sonic-v5",
        "duration": 30,
    }


SAID = {"liked": True, "rating": 5, "feedback": "Perfect trap beat!", "used": True}


def send(port: int, key: str, calls: list[tuple[str, str, bytes]]) -> None:
    """Send calls from some clients at once; every answer has to be a 200."""

    async def run() -> None:
        waiting = list(reversed(calls))
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:

            async def work() -> None:
                while waiting:
                    method, path, body = waiting.pop()
                    answer = await client.request(method, "/api/training-metadata" + path, content=body)
                    assert answer.status_code == 200, answer.text

            await asyncio.gather(*(work() for _ in range(CLIENTS)))

    asyncio.run(run())


def bench_saves(url: str, ledger: Ledger, meter: Meter, home: Path, calls: int) -> dict[str, float]:
    """Cost of a save, a feedback and a batch row here and in the twin, in CPU microseconds."""
    key = create_key(ledger, SCOPES)
    costs: dict[str, list[float]] = {}

    def measure(name: str, port: int, service: psutil.Process, work: list[tuple[str, str, bytes]], rows: int) -> None:
        before = meter.read(service)
        send(port, key, work)
        costs.setdefault(name, []).append((meter.read(service) - before) / rows * 1e6)

    with program(SERVICE, url, home, 18200) as ours, program(TWIN, url, home, 18201) as twin:
        for name, port, service in (("ours", 18200, ours), ("twin", 18201, twin)) * (ROUNDS + 1):  # the first round warms up
            names = [f"{name}-{uuid4().hex}" for _ in range(calls)]
            posts = [("POST", "", json.dumps(record(one)).encode()) for one in names]
            measure(f"{name} save", port, service, posts, calls)
            _hear(ledger, names)
            puts = [("PUT", f"/{one}/feedback", json.dumps(SAID).encode()) for one in names]
            measure(f"{name} feedback", port, service, puts, calls)
        _check_stored(ledger)
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
        for _ in range(ROUNDS + 1):
            body = "\n".join(json.dumps(record(uuid4().hex)) for _ in range(1000))
            before = meter.read(ours)
            answer = httpx2.post("http://127.0.0.1:18200/api/training-metadata/batch", content=body, headers=headers, timeout=60)
            assert answer.json()["saved"] == 1000
            costs.setdefault("batch row", []).append((meter.read(ours) - before) / 1000 * 1e6)
    typical = {name: sorted(found[1:])[len(found[1:]) // 2] for name, found in costs.items()}
    for name, cost in typical.items():
        print(f"{name:24} {cost:8.0f} µs CPU")
    return {
        "save": typical["twin save"] / typical["ours save"],
        "feedback": typical["twin feedback"] / typical["ours feedback"],
        "batch": typical["ours save"] / typical["batch row"],
    }


def _hear(ledger: Ledger, names: list[str]) -> None:
    """Give the takes audio and features, so that feedback has a score to answer."""
    with ledger.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
            " SELECT encode(sha256(n::bytea), 'hex'), n, 1, 'mp3', 'mp3', 30, 44100, 2 FROM unnest(%s::text[]) n",
            (names,),
        )
        connection.exec_driver_sql(
            "INSERT INTO features (audio_sha256, versions, rhythm_confidence, tempo_stability, no_clipping, dynamic_range)"
            " SELECT encode(sha256(n::bytea), 'hex'), 'x=1', 0.8, 0.9, 1, 0.4 FROM unnest(%s::text[]) n",
            (names,),
        )
        connection.exec_driver_sql(
            "UPDATE generations SET audio_sha256 = encode(sha256(generation_id::bytea), 'hex'), audio_status = 'stored',"
            " status = 'embedded' WHERE generation_id = ANY(%s)",
            (names,),
        )


def _check_stored(ledger: Ledger) -> None:
    with ledger.begin() as connection:
        wrong = connection.exec_driver_sql(
            "SELECT count(*) FROM generations WHERE NOT (liked AND rating = 5 AND used AND feedback_revision = 1)"
        ).scalar()
        histories = connection.exec_driver_sql("SELECT count(*) FROM feedback_history").scalar()
        ours = connection.exec_driver_sql("SELECT count(*) FROM generations WHERE generation_id LIKE 'ours%%'").scalar()
    assert not wrong, f"{wrong} rows are not as they were sent"
    assert histories == ours, f"{histories} entries in the history of {ours} takes"


def fill(ledger: Ledger, rows: int) -> None:
    """Many generations, half of them heard and scored."""
    with ledger.begin() as connection:
        connection.exec_driver_sql("TRUNCATE generations, audio, features CASCADE")
        connection.exec_driver_sql(
            "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
            " SELECT encode(sha256(n::text::bytea), 'hex'), n::text, 1, 'mp3', 'mp3', 29.5, 44100, 2"
            f" FROM generate_series(2, {rows}, 2) n"
        )
        connection.exec_driver_sql(
            "INSERT INTO features (audio_sha256, versions, tempo_bpm, key, has_vocals, loudness_lufs)"
            " SELECT sha256, 'x=1', 140.25, 'F minor', true, -9.25 FROM audio"
        )
        connection.exec_driver_sql(
            "INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, ai_enhanced_prompt,"
            " generation_params, audio_url, duration_s, provider, model_used, source, captured_on, created_at, liked, rating,"
            " used, quality_score, audio_sha256, audio_status)"
            " SELECT 'gen_' || n, '', 'user' || n %% 1000, 'dark trap beat number ' || n || ' with \"quotes\"',"
            " CASE WHEN n %% 3 > 0 THEN 'dark, trap, 140 BPM - dark trap beat, take ' || n END,"
            """ '{"genre": "trap", "bpm": 140, "mood": "dark", "duration": 30}',"""
            " 'https://cdn.example.com/' || n || '.mp3', 30,"
            " CASE n %% 3 WHEN 0 THEN 'suno' ELSE 'udio' END, 'v5', 'api', current_date,"
            " now() - n * interval '1 second', n %% 2 = 0, 1 + n %% 5, n %% 4 = 0,"
            " CASE WHEN n %% 2 = 0 THEN (n %% 100) / 100.0 END,"
            " CASE WHEN n %% 2 = 0 THEN encode(sha256(n::text::bytea), 'hex') END,"
            " CASE WHEN n %% 2 = 0 THEN 'stored' ELSE 'pending' END"
            f" FROM generate_series(1, {rows}) n"
        )
    with psycopg.connect(libpq_url(ledger.url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE generations, audio, features")


# The rows of the export as one would first write them.
PLAIN_ROWS = """
    SELECT coalesce(g.ai_enhanced_prompt, g.user_prompt) AS prompt, g.audio_url, coalesce(g.duration_s, a.duration_s) AS duration,
        json_build_object('generation_id', g.generation_id, 'provider', g.provider, 'model_used', g.model_used,
            'generation_params', g.generation_params, 'liked', g.liked, 'rating', g.rating, 'used', g.used,
            'created_at', g.created_at, 'heard', json_build_object('tempo_bpm', f.tempo_bpm, 'key', f.key,
            'has_vocals', f.has_vocals, 'loudness_lufs', f.loudness_lufs)) AS metadata,
        g.quality_score
    FROM generations g LEFT JOIN audio a ON a.sha256 = g.audio_sha256 LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256
"""

# And as a program would that puts its lines together itself.
LOOP_ROWS = """
    SELECT g.*, f.tempo_bpm, f.key, f.has_vocals, f.loudness_lufs
    FROM generations g LEFT JOIN features f ON f.audio_sha256 = g.audio_sha256
"""


def bench_export(url: str, ledger: Ledger, meter: Meter, home: Path, rows: int) -> dict[str, float]:
    """Cost of a JSONL export, straight and over HTTP, against COPY and against a cursor loop, in CPU seconds."""
    fill(ledger, rows)
    key = create_key(ledger, SCOPES)
    me = psutil.Process()
    costs: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], int], *services: psutil.Process) -> None:
        before = meter.read(*services)
        lines = work()
        time.sleep(0.5)  # a backend that ends is nobody's until the postmaster has reaped it
        costs.setdefault(name, []).append(meter.read(*services) - before)
        assert lines == rows, f"{name}: {lines} lines"

    def to_json() -> int:
        lines = 0
        with psycopg.connect(libpq_url(url)) as connection:
            copied = connection.pgconn
            copied.send_query(f"COPY (SELECT to_json(r) FROM ({PLAIN_ROWS}) r) TO STDOUT".encode())
            copied.get_result()
            while copied.get_copy_data(0)[0] > 0:
                lines += 1
            while copied.get_result() is not None:
                pass
        return lines

    def straight() -> int:
        reader = CopyReader(connect_arguments(url), jsonl_queries(), owner="bench")
        while reader.read():
            pass
        reader.close()
        return reader.rows

    def cursor_loop() -> int:
        lines = 0
        with psycopg.connect(libpq_url(url)) as connection, connection.cursor(name="loop", row_factory=dict_row) as cursor:
            cursor.execute(LOOP_ROWS.encode())
            for row in cursor:
                heard = {name: row[name] for name in ("tempo_bpm", "key", "has_vocals", "loudness_lufs")}
                names = ("generation_id", "provider", "model_used", "generation_params", "liked", "rating", "used")
                metadata = {name: row[name] for name in names} | {"created_at": row["created_at"].isoformat(), "heard": heard}
                line = {"prompt": row["ai_enhanced_prompt"] or row["user_prompt"], "audio_url": row["audio_url"]}
                line |= {"duration": row["duration_s"], "metadata": metadata, "quality_score": row["quality_score"]}
                (json.dumps(line, ensure_ascii=False) + "\n").encode()
                lines += 1
        return lines

    with program(SERVICE, url, home, 18202) as service:

        def over_http() -> int:
            return download(18202, key)

        for _ in range(ROUNDS):
            timed("COPY to_json", to_json, me)
            timed("export, straight", straight, me)
            timed("cursor loop", cursor_loop, me)
            timed("export over HTTP", over_http, service)
    best = {name: min(found) for name, found in costs.items()}
    for name, cost in best.items():
        print(f"{name:24} {cost / rows * 1e6:8.2f} µs CPU a row")
    share = best["export over HTTP"] / best["export, straight"] - 1
    print(f"{'HTTP adds':24} {share:8.1%}")
    assert share <= MOST_HTTP_SHARE, f"HTTP adds {share:.1%} of CPU"
    return {
        "export/COPY to_json": best["COPY to_json"] / best["export over HTTP"],
        "cursor loop/export": best["cursor loop"] / best["export over HTTP"],
    }


def download(port: int, key: str) -> int:
    """Read the export in a process of its own, whose CPU time does not count; returns its lines."""
    url = f"http://127.0.0.1:{port}/api/training-metadata/export/jsonl"
    command = f"curl -sSf -H 'Authorization: Bearer {key}' {url} | wc -l"
    return int(subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout)


def main() -> int:
    """Run the benchmarks and hold them against their floors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--only", choices=("saves", "export"))
    given = parser.parse_args()
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder)) as url:
        ledger = Ledger(url)
        migrate(ledger)
        postmaster = psutil.Process(int((Path(folder) / "pg" / "postmaster.pid").read_text().split()[0]))
        meter = Meter(postmaster)
        if given.only != "export":
            ratios |= bench_saves(url, ledger, meter, Path(folder), given.calls)
        if given.only != "saves":
            ratios |= bench_export(url, ledger, meter, Path(folder), given.rows)
        ledger.dispose()
    for name, ratio in ratios.items():
        print(f"{name:24} {ratio:8.2f} (floor {FLOORS[name]})")
    missed = [name for name, ratio in ratios.items() if ratio < FLOORS[name]]
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
