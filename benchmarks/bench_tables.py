"""What do tables cost? Set-based work beside the obvious loop, with the same rows and the same output.

    python benchmarks/bench_tables.py [ingest scoring jsonl csv parquet] [--rows 1000000]

Baselines in the same run: the ORM row by row, a Python loop over the formulas, `json.dumps` in a loop, the `csv` module, a
bare DuckDB COPY. Each part runs in a process of its own, ours before the baseline, so that the memory printed is ours alone.
Ratios are of this process's CPU time, which counts all of its threads and no neighbour (exports: the best of three runs each); of
wall time for the ingest, where the server works too. Exits with 1 where a floor or an output is missed.
"""

import argparse
import csv
import hashlib
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import sqlalchemy as sa
from sqlalchemy import orm

from keeptake.curation import quality
from keeptake.formats.seed import CSV_COLUMNS, ROWS, write_csv, write_jsonl, write_parquet
from keeptake.ledger.connection import Ledger
from keeptake.ledger.generations import accept
from keeptake.ledger.migrate import migrate
from keeptake.ledger.server import embedded_server
from keeptake.ledger.tables import feedback_history, generations
from keeptake.records import Accepted, identity, read_record

FLOORS = {"ingest": 20.0, "scoring": 5.0, "jsonl": 10.0, "csv": 15.0, "parquet": 0.8}
MAX_MEMORY_MB = 1000.0
BEST_OF = 3  # the first touch of memory that the machine has given away costs up to twice the work, whoever comes first
INGEST_ROWS, INGEST_BATCH, ORM_ROWS = 20_000, 1000, 2000
FIRST = "2026-01-01T00:00:00Z"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returned."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def waited(work: Callable[[], Any]) -> float:
    """Wall seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def peak_mb() -> float:
    """Most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def takes(count: int) -> pl.DataFrame:
    """Rows as exports get them: quotes, umlauts, nulls and whole numbers among them."""
    at = pl.int_range(count, dtype=pl.Int64)
    params = pl.concat_str(
        pl.lit('{"bpm": '), (at % 100 + 60).cast(pl.String), pl.lit(', "genre": "trap", "mood": "dark", "duration": 30}')
    )
    return pl.select(
        generation_id=pl.format("gen_{}", at),
        user_prompt=pl.format('dark "trap" beat {}, für später', at),
        ai_enhanced_prompt=pl.when(at % 3 > 0).then(pl.format("dark, trap, {} BPM - dark trap beat", at % 100 + 60)),
        audio_url=pl.format("https://cdn.example/audio/{}.mp3", at.hash(1)),
        duration_s=pl.when(at % 2 == 0).then(30.0).otherwise(20.0 + (at % 1000) / 1000),
        genre=pl.when(at % 2 > 0).then(pl.lit("trap")).otherwise(pl.lit("house")),
        bpm=(at % 100 + 60).cast(pl.String),
        provider=pl.when(at % 3 > 0).then(pl.lit("suno")).otherwise(pl.lit("udio")),
        model_used=pl.when(at % 3 > 0).then(pl.lit("sonic-v5")).otherwise(pl.lit("udio-1.5")),
        generation_params=params,
        liked=pl.when(at % 5 > 0).then(at % 2 == 0),
        rating=pl.when(at % 4 > 0).then(at % 5 + 1).cast(pl.Int16),
        used=pl.when(at % 3 > 0).then(at % 2 == 1),
        created_at=pl.format("2026-01-{}T00:00:00Z", (at % 28 + 1).cast(pl.String).str.zfill(2)),
        tempo_bpm=60 + (at % 10_000) / 100,
        key=pl.when(at % 7 > 0).then(pl.lit("A minor")),
        has_vocals=at % 2 == 1,
        loudness_lufs=-8 - (at % 100) / 10,
        quality_score=(at % 1000) / 1000,
    ).cast(dict(ROWS))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def whole(number: float | None) -> float | int | None:
    """A number as it was given."""
    return int(number) if number is not None and number == int(number) else number


def json_loop(rows: pl.DataFrame, path: Path) -> None:
    """Baseline: one `json.dumps` a row."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows.iter_rows(named=True):
            heard = {name: row[name] for name in ("tempo_bpm", "key", "has_vocals", "loudness_lufs")}
            heard = {name: whole(value) if isinstance(value, float) else value for name, value in heard.items()}
            captured = {name: row[name] for name in ("generation_id", "provider", "model_used")}
            said = {name: row[name] for name in ("liked", "rating", "used", "created_at")}
            params = json.loads(row["generation_params"])
            line = {
                "prompt": row["user_prompt"] if row["ai_enhanced_prompt"] is None else row["ai_enhanced_prompt"],
                "audio_url": row["audio_url"],
                "duration": whole(row["duration_s"]),
                "metadata": {**captured, "generation_params": params, **said, "heard": heard},
                "quality_score": whole(row["quality_score"]),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def csv_loop(rows: pl.DataFrame, path: Path) -> None:
    """Baseline: the csv module, with cells that a spreadsheet would run quoted."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for row in rows.iter_rows(named=True):
            cells = [
                row["generation_id"],
                row["user_prompt"],
                row["ai_enhanced_prompt"],
                row["audio_url"],
                whole(row["duration_s"]),
            ]
            cells += [row["genre"], row["bpm"], row["rating"], None if row["used"] is None else str(row["used"]).lower()]
            writer.writerow([f"'{cell}" if isinstance(cell, str) and cell[:1] in tuple("=+-@\t\r") else cell for cell in cells])


def duckdb_copy(rows: pl.DataFrame, path: Path) -> None:
    """Baseline: a bare COPY of the same columns."""
    shown = rows.select(
        pl.coalesce("ai_enhanced_prompt", "user_prompt").alias("prompt"),
        pl.exclude("user_prompt", "ai_enhanced_prompt", "genre", "bpm"),
    )
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("shown", shown)
        connection.execute(f"COPY shown TO '{path}' (FORMAT parquet)")


def export(kind: str, count: int) -> tuple[float, float, bool]:
    """Write the rows by both; ratio of the best CPU times, our peak memory in MB, whether both files say the same."""
    ours, baseline = {"jsonl": (write_jsonl, json_loop), "csv": (write_csv, csv_loop), "parquet": (write_parquet, duckdb_copy)}[
        kind
    ]
    with tempfile.TemporaryDirectory() as folder:
        mine, theirs = Path(folder) / "mine", Path(folder) / "theirs"
        rows = takes(count)
        our_s = min(timed(lambda: ours(rows, mine))[0] for _ in range(BEST_OF))
        memory_mb = peak_mb()
        their_s = min(timed(lambda: baseline(rows, theirs))[0] for _ in range(BEST_OF))
        is_same = pl.read_parquet(mine).equals(pl.read_parquet(theirs)) if kind == "parquet" else digest(mine) == digest(theirs)
        print(
            f"{kind}: {count:,} rows, {mine.stat().st_size / 1e6:.0f} MB: ours {our_s:.2f} s, {baseline.__name__} {their_s:.2f} s"
        )
    return their_s / our_s, memory_mb, is_same


def scoring(count: int) -> tuple[float, float, bool]:
    """Score the rows by every formula, with terms."""
    rng = np.random.default_rng(1)
    rows = (
        takes(count).select("liked", "rating", "used").with_columns(pl.Series(term, rng.random(count)) for term in quality.HEARD)
    )
    quality.score(rows.head(1000))
    our_s, scored = timed(lambda: quality.score(rows))
    memory_mb = peak_mb()
    part = rows.head(count // 5)
    their_s, looped = timed(lambda: [score_one(row) for row in part.iter_rows(named=True)])
    their_s *= count / part.height
    expected = scored.head(part.height).select("seed_v1", "v2")
    is_same = all(
        math.isclose(a, total["seed_v1"], abs_tol=2e-6) and math.isclose(b, total["v2"], abs_tol=2e-6)
        for (a, b), total in zip(expected.iter_rows(), looped, strict=True)
    )
    print(f"scoring: {count:,} rows, two formulas with terms: ours {our_s:.2f} s, Python loop {their_s:.2f} s (a fifth)")
    return their_s / our_s, memory_mb, is_same


def score_one(row: dict[str, Any]) -> dict[str, Any]:
    """Baseline: both formulas for one row, written out by hand."""
    terms = {term: weight * min(max(row[term] or 0.0, 0.0), 1.0) for term, weight in quality.SEED_V1_WEIGHTS.items()}
    analysis = sum(terms.values())
    terms["liked"] = quality.SEED_V1_LIKED if row["liked"] else 0.0
    terms["used"] = quality.SEED_V1_USED if row["used"] else 0.0
    total = sum(terms.values())
    if row["rating"] is not None:
        terms["rating"] = (total + row["rating"] / 5) / 2 - total
        total += terms["rating"]
    share = min(max(analysis / sum(quality.SEED_V1_WEIGHTS.values()), quality.V2_FLOOR), 1 - quality.V2_FLOOR)
    odds = {"analysis": math.log(share / (1 - share))}
    odds["rating"] = 0.0 if row["rating"] is None else quality.V2_STAR * (row["rating"] - 3)
    odds["liked"] = 0.0 if row["liked"] is None else quality.V2_LIKED if row["liked"] else quality.V2_DISLIKED
    odds["used"] = quality.V2_USED if row["used"] else 0.0
    v2 = 1 / (1 + math.exp(-sum(odds.values())))
    return {"seed_v1": round(min(max(total, 0.0), 1.0), 6), "seed_v1_terms": terms, "v2": round(v2, 6), "v2_terms": odds}


class Row:
    """What the ORM maps."""


def ingest(count: int) -> tuple[float, float, bool]:
    """Accept believed records, a third of them with feedback, into a real Postgres."""
    records = [record(number) for number in range(count)]
    warm = [record(number, prefix="warm") for number in range(INGEST_BATCH)]
    others = [record(number, prefix="orm") for number in range(ORM_ROWS)]
    with tempfile.TemporaryDirectory() as home, embedded_server(Path(home)) as url:
        ledger = Ledger(url)
        migrate(ledger)
        bulk(ledger, warm)
        our_s = waited(lambda: bulk(ledger, records))
        memory_mb = peak_mb()
        again_s = waited(lambda: bulk(ledger, records))
        orm.registry().map_imperatively(Row, generations)
        saved_s = waited(lambda: one_by_one(ledger, others[: ORM_ROWS // 2], is_committing=True))
        flushed_s = waited(lambda: one_by_one(ledger, others[ORM_ROWS // 2 :], is_committing=False))
        columns = "user_prompt, generation_params, duration_s, liked, rating, feedback_revision, status"
        captured = f"SELECT split_part(generation_id, '_', 2), {columns} FROM generations WHERE generation_id LIKE"
        with ledger.begin() as connection:
            arrived = connection.scalar(sa.text("SELECT count(*) FROM generations WHERE generation_id LIKE 'gen%'"))
            differing = connection.scalar(sa.text(f"SELECT count(*) FROM ({captured} 'orm%' EXCEPT {captured} 'gen%') AS d"))
            histories = connection.scalar(sa.select(sa.func.count()).select_from(feedback_history))
        ledger.dispose()
    our_us, again_us = our_s / count * 1e6, again_s / count * 1e6
    saved_us, flushed_us = saved_s / (ORM_ROWS // 2) * 1e6, flushed_s / (ORM_ROWS // 2) * 1e6
    print(f"ingest: {count:,} records at {our_us:.0f} µs each, known ones at {again_us:.0f} µs; ORM row by row {saved_us:.0f} µs")
    print(f"  (in one transaction {flushed_us:.0f} µs, {flushed_us / our_us:.1f} times ours)")
    with_feedback = sum(accepted.feedback is not None for accepted in (*warm, *records, *others))
    return saved_us / our_us, memory_mb, (arrived, differing, histories) == (count, 0, with_feedback)


def record(number: int, prefix: str = "gen") -> Accepted:
    """A believed record."""
    fields = {
        "userId": f"user{number % 50}",
        "generationId": f"{prefix}_{number}",
        "userPrompt": f"dark trap beat {number}",
        "generationParams": {"genre": "trap", "bpm": 60 + number % 100, "duration": 30},
        "audioUrl": f"https://cdn.example/audio/{number}.mp3",
        "duration": 30,
        "provider": "suno",
        "modelUsed": "sonic-v5",
        "createdAt": FIRST,
        "userFeedback": {"liked": True, "rating": number % 5 + 1} if number % 3 == 0 else None,
    }
    read = read_record(fields)
    if not isinstance(read, Accepted):
        raise TypeError(read)
    return read


def bulk(ledger: Ledger, records: list[Accepted]) -> None:
    """Ours: batches as an import commits them."""
    iterator = iter(records)
    while batch := list(islice(iterator, INGEST_BATCH)):
        with ledger.begin() as connection:
            accept(connection, batch, source="bench")


def one_by_one(ledger: Ledger, records: list[Accepted], *, is_committing: bool) -> None:
    """Baseline: look whether it is there, add it, and its history; commit each, or flush each within one transaction."""
    orm_session = orm.Session(ledger.engine)
    with orm_session as session:
        for accepted in records:
            generation, said = accepted.generation, accepted.feedback.given() if accepted.feedback else {}
            known = session.scalars(sa.select(Row).where(generations.c.generation_id == generation.generation_id)).one_or_none()
            if known is not None:
                raise ValueError(generation.generation_id)
            row = Row()
            values = {name: getattr(generation, name) for name in generation.__slots__} | said
            values |= {
                "identity_sha256": identity(generation),
                "flags": [],
                "source": "bench",
                "feedback_revision": 1 if said else 0,
            }
            values["captured_on"] = sa.func.current_date()
            for name, value in values.items():
                setattr(row, name, value)
            session.add(row)
            session.flush()
            if said:
                history = {"generation": row.id, "revision": 1, "changes": said, "actor": "bench"}  # type: ignore[attr-defined]  # mapped
                session.execute(sa.insert(feedback_history).values(history))
            if is_committing:
                session.commit()
        session.commit()


def measure(part: str, count: int, results: "multiprocessing.Queue[tuple[str, float, float, bool]]") -> None:
    """Run one part and report its ratio, memory and whether the output was right."""
    if part == "ingest":
        outcome = ingest(min(count, INGEST_ROWS))
    else:
        outcome = scoring(count) if part == "scoring" else export(part, count)
    results.put((part, *outcome))


def main() -> int:
    """Run the parts, print what was found, and say whether every floor holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(FLOORS)}; default: all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(FLOORS):
        parser.error(f"no part is called {', '.join(unknown)}")
    is_good = True
    for part in given.parts or FLOORS:
        results: multiprocessing.Queue[tuple[str, float, float, bool]] = multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(part, given.rows, results))
        process.start()
        process.join()
        if process.exitcode:
            print(f"{part}: FAILED with exit code {process.exitcode}")
            is_good = False
            continue
        _, ratio, memory_mb, is_same = results.get()
        holds = ratio >= FLOORS[part] and memory_mb < MAX_MEMORY_MB and is_same
        is_good &= holds
        print(f"  {ratio:.1f} times (floor {FLOORS[part]}), {memory_mb:.0f} MB (most {MAX_MEMORY_MB:.0f}), output", end=" ")
        print(f"{'right' if is_same else 'WRONG'}: {'holds' if holds else 'MISSED'}", flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
