"""Copies in the ledger: which files wait for a fingerprint, which fingerprints wait to be compared, and what was found.

A fingerprint belongs to the audio's SHA-256 and `FINGERPRINT_VERSION`; a pair to both files and `PAIRS_VERSION`, which holds the
rules of comparison as well. Belongs here: SQL of `fingerprints` and `duplicate_pairs`. Does not: hearing
(`keeptake/fingerprinting.py`), comparing (`curation/duplicates.py`).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import polars as pl
import sqlalchemy as sa

from keeptake.audio.fingerprint import FINGERPRINT_VERSION, Codes
from keeptake.curation.duplicates import DUPLICATES_VERSION, DuplicatePair, Group, find_duplicates, groups, with_cosines
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import duplicate_pairs, fingerprints

PAIRS_VERSION = f"{FINGERPRINT_VERSION} {DUPLICATES_VERSION}"
# Code words of stored fingerprints in memory at a time, next to as many new ones: about 2 GB with the index. Words and not takes,
# since one of half an hour has sixty times as many as a clip.
PORTION_WORDS = 15_000_000


class ToFingerprint(NamedTuple):
    """An audio file that waits for its fingerprint."""

    sha256: str


class Fingerprinted(NamedTuple):
    """An audio file and its code words, of which a silent file has none that tell anything."""

    sha256: str
    codes: Codes


class CompareReport(NamedTuple):
    """What one comparison did."""

    compared: int
    duplicates: int
    excerpts: int
    alike: int


_PENDING = f"""
    SELECT DISTINCT a.sha256
    FROM generations g JOIN audio a ON a.sha256 = g.audio_sha256 LEFT JOIN fingerprints p ON p.audio_sha256 = a.sha256
    WHERE g.captured_on = :day AND {LIVING} AND a.analysis_reason IS NULL AND p.version IS DISTINCT FROM :version
    ORDER BY a.sha256
"""
_PAGE = """
    SELECT audio_sha256, fingerprint FROM fingerprints
    WHERE version = :version AND audio_sha256 > :after AND (compared_by IS DISTINCT FROM :rules) = :is_new
    ORDER BY audio_sha256
"""
_VECTORS = """
    SELECT v.audio_sha256, v.vector::real[] AS vector
    FROM scaled_embeddings v JOIN embedding_scalers s ON s.id = v.scaler
    WHERE s.is_current AND s.model = :model AND v.audio_sha256 = ANY(:files)
"""
_FIRST_TAKE = f"SELECT generation_id FROM generations WHERE audio_sha256 = {{file}} AND {LIVING} ORDER BY generation_id LIMIT 1"
# Pairs of older rules go once both files were compared by the present ones.
_FORGET = """
    DELETE FROM duplicate_pairs d USING fingerprints a, fingerprints b
    WHERE d.version <> :pairs AND a.audio_sha256 = d.first_sha256 AND b.audio_sha256 = d.second_sha256
      AND a.version = :version AND b.version = :version AND a.compared_by = :rules AND b.compared_by = :rules
"""


def audio_to_fingerprint(ledger: Ledger, day: str) -> list[ToFingerprint]:
    """Audio files of a day's generations whose fingerprint is missing or of another version."""
    with ledger.begin() as connection:
        found = connection.execute(sa.text(_PENDING), {"day": day, "version": FINGERPRINT_VERSION})
        return [ToFingerprint(*row) for row in found]


def save_fingerprints(connection: sa.Connection, made: Sequence[Fingerprinted]) -> None:
    """Store fingerprints, each to be compared from now on."""
    rows = [
        {
            "audio_sha256": file.sha256,
            "version": FINGERPRINT_VERSION,
            "fingerprint": file.codes.astype("<u8").tobytes(),
            "shape": [len(file.codes)],
            "dtype": "<u8",
            "compared_by": None,
        }
        for file in made
    ]
    upsert(connection, fingerprints, rows, conflict=("audio_sha256",))


def compare_new(ledger: Ledger, *, model: str | None = None, wait_s: float = 0.0) -> CompareReport:
    """Hold every fingerprint that was not compared yet, or by older rules, against all others, and store what was found.

    New ones are taken in portions, each its own commit: a killed comparison repeats one portion and nothing else.

    Parameters
    ----------
    model : str, optional
        Embedding model whose cosine joins the evidence, where it has a current scaler.
    wait_s : float
        How long another comparison, such as another day's, is waited for.

    Raises
    ------
    BusyError
        If it is still at work then.
    """
    report = CompareReport(0, 0, 0, 0)
    with ledger.claim("comparing fingerprints", wait_s=wait_s):
        while new := _page(ledger, after="", is_new=True):
            found = {(pair.a, pair.b): pair for pair in _pairs_of(ledger, new)}
            pairs = list(found.values())
            if model is not None:
                pairs = with_cosines(pairs, _vectors(ledger, pairs, model))
            _store(ledger, list(new), pairs)
            counts = Counter(pair.relation for pair in pairs)
            report = CompareReport(
                report.compared + len(new),
                report.duplicates + counts["duplicate"],
                report.excerpts + counts["excerpt"],
                report.alike + counts["alike"],
            )
    return report


def duplicate_groups(ledger: Ledger) -> list[Group]:
    """Groups of audio files by their hashes, largest first, with the evidence of each pair."""
    query = sa.select(duplicate_pairs.c.first_sha256, duplicate_pairs.c.second_sha256, duplicate_pairs.c.evidence)
    with ledger.begin() as connection:
        rows = connection.execute(query.where(duplicate_pairs.c.version == PAIRS_VERSION)).all()
    return groups([DuplicatePair(a=first, b=second, **evidence) for first, second, evidence in rows])


def newest_groups(ledger: Ledger, found: Sequence[Group], *, most: int) -> list[Group]:
    """Of the groups that `duplicate_groups` gave, those with the duplicates found last, the newest first."""
    by_member = {member: group for group in found for member in group.members}
    columns = duplicate_pairs.c
    query = sa.select(columns.first_sha256).where(columns.version == PAIRS_VERSION)
    query = query.where(columns.evidence["relation"].astext == "duplicate").order_by(
        columns.found_at.desc(), columns.first_sha256
    )
    with ledger.begin() as connection:
        members = connection.scalars(query).all()
    return list(dict.fromkeys(by_member[member] for member in members if member in by_member))[:most]


def pairs_by_relation(ledger: Ledger) -> dict[str, int]:
    """How many pairs of each relation are known, the commonest first."""
    query = (
        "SELECT evidence->>'relation' AS relation, count(*) AS pairs FROM duplicate_pairs"
        f" WHERE version = '{PAIRS_VERSION}' GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(ledger.arrow(query).iter_rows())


def pairs_table(ledger: Ledger, *, most: int = 100) -> pl.DataFrame:
    """Pairs last found, newest first, for a person: takes' ids beside the evidence."""
    query = f"""
        SELECT a.generation_id AS first, b.generation_id AS second, p.evidence->>'relation' AS relation,
               (p.evidence->>'offset_s')::float8 AS offset_s, (p.evidence->>'speed')::float8 AS speed,
               (p.evidence->>'rotation')::float8 AS rotation, (p.evidence->>'bit_error')::float8 AS bit_error,
               (p.evidence->>'matched_s')::float8 AS matched_s, (p.evidence->>'share')::float8 AS share,
               (p.evidence->>'unbroken')::float8 AS unbroken, (p.evidence->>'cosine')::float8 AS cosine
        FROM duplicate_pairs p
        JOIN LATERAL ({_FIRST_TAKE.format(file="p.first_sha256")}) a ON TRUE
        JOIN LATERAL ({_FIRST_TAKE.format(file="p.second_sha256")}) b ON TRUE
        WHERE p.version = '{PAIRS_VERSION}' ORDER BY p.found_at DESC, first, second LIMIT {int(most)}
    """
    return ledger.arrow(query)


def _pairs_of(ledger: Ledger, new: Mapping[str, Codes]) -> Iterator[DuplicatePair]:
    yield from find_duplicates(new)
    after = ""
    while stored := _page(ledger, after=after, is_new=False):
        after = max(stored)
        yield from find_duplicates({**stored, **new}, new=new, among_new=False)


def _page(ledger: Ledger, *, after: str, is_new: bool) -> dict[str, Codes]:
    values = {
        "version": FINGERPRINT_VERSION,
        "rules": DUPLICATES_VERSION,
        "after": after,
        "is_new": is_new,
    }
    page: dict[str, Codes] = {}
    words = 0
    with ledger.begin() as connection:
        rows = connection.execution_options(yield_per=1000).execute(sa.text(_PAGE), values)
        for sha256, stored in rows:
            page[sha256] = np.frombuffer(stored, "<u8").astype(np.uint64)
            words += len(page[sha256])
            if words >= PORTION_WORDS:
                rows.close()
                break
    return page


def _vectors(ledger: Ledger, pairs: Sequence[DuplicatePair], model: str) -> dict[str, np.ndarray]:
    files = sorted({name for pair in pairs for name in (pair.a, pair.b)})
    with ledger.begin() as connection:
        rows = connection.execute(sa.text(_VECTORS), {"model": model, "files": files}).all()
    return {sha256: np.asarray(vector, np.float32) for sha256, vector in rows}


def _store(ledger: Ledger, compared: Sequence[str], pairs: Sequence[DuplicatePair]) -> None:
    rows = []
    for pair in pairs:
        evidence = asdict(pair)
        ends = {"first_sha256": evidence.pop("a"), "second_sha256": evidence.pop("b")}
        rows.append({**ends, "version": PAIRS_VERSION, "evidence": evidence})
    with ledger.begin() as connection:
        upsert(connection, duplicate_pairs, rows, conflict=("first_sha256", "second_sha256", "version"))
        connection.execute(
            sa.text("UPDATE fingerprints SET compared_by = :rules WHERE audio_sha256 = ANY(:files)"),
            {"rules": DUPLICATES_VERSION, "files": list(compared)},
        )
        values = {"pairs": PAIRS_VERSION, "version": FINGERPRINT_VERSION, "rules": DUPLICATES_VERSION}
        connection.execute(sa.text(_FORGET), values)
