"""What the ledger knows of one take, and which takes a policy left out: what `keeptake explain`, `open` and the UI ask.

Conventions: rows come as plain mappings, named as their columns. Belongs here: the queries. Does not: what is told of them
(`keeptake/curation/explain.py`).
"""

import re
from typing import Any, NamedTuple

import polars as pl
import sqlalchemy as sa

from keeptake.curation.groups import prompt_key
from keeptake.errors import ConfigurationError
from keeptake.ledger.connection import Ledger
from keeptake.ledger.living import LIVING
from keeptake.ledger.tables import adherence, analyses, audio, duplicate_pairs, features, generations, quality_scores, refusals
from keeptake.ledger.unknown import no_such_take

Row = dict[str, Any]

MOST_RELATIVES = 20
MOST_REFUSALS = 3

_FILE_ID = re.compile(r"([0-9a-f]{16})(-[0-9]{3,})?(\.flac)?")  # of a take, of a clip of it, or the clip's file

# `judged_at`: a decision that stays the same keeps its time, so that when a policy last looked is told by the newest of all its
# decisions. But takes that are too quiet are named minutes later, when their clips are written.
_DECISIONS = """
    SELECT s.*, greatest(s.decided_at, judged.at) AS judged_at, newest.policy AS published_policy, newest.published_at,
           (SELECT v.version FROM dataset_versions v WHERE v.name = s.policy AND v.published_at >= s.decided_at
            ORDER BY v.ordinal LIMIT 1) AS decided_for
    FROM selections s
    LEFT JOIN (SELECT policy, max(decided_at) AS at FROM selections WHERE reason IS DISTINCT FROM 'too-quiet'
               GROUP BY policy) judged
        ON judged.policy = s.policy
    LEFT JOIN LATERAL (SELECT v.policy, v.published_at FROM dataset_versions v WHERE v.name = s.policy
                       AND v.published_at IS NOT NULL ORDER BY v.ordinal DESC LIMIT 1) newest ON true
    WHERE s.generation = :generation ORDER BY s.policy
"""

# Of plain ASCII, prompts of one key hold its words in their order; all others are read, as their case and forms are left to
# `prompt_key` alone: what this lets through too much is taken out by it.
_MAYBE_ALIKE = """
    SELECT generation_id, user_prompt FROM generations
    WHERE octet_length(user_prompt) > char_length(user_prompt) OR lower(user_prompt COLLATE "C") LIKE :words
"""

_LEFT_OUT = f"""
    SELECT g.generation_id, s.reason, s.detail, s.decided_at FROM selections s JOIN generations g ON g.id = s.generation
    WHERE s.policy = :policy AND NOT s.is_kept AND {LIVING} ORDER BY s.decided_at DESC, g.id DESC LIMIT :most
"""


class Facts(NamedTuple):
    """Everything of one take but its siblings and the versions that hold it."""

    take: Row
    audio: Row | None
    features: Row | None
    parts: list[Row]
    scores: list[Row]
    adherence: Row | None
    same_bytes: list[str]  # generation ids
    pairs: list[Row]
    decisions: list[Row]  # of `selections`, with `judged_at`, `decided_for`, `published_policy` and its `published_at`
    refusals: list[Row]  # newest first


def find(ledger: Ledger, asked: str) -> str:
    """Id of the take that is called so: by its id, by its file id, or by a clip's row id in a dataset.

    Raises
    ------
    ConfigurationError
        If the ledger holds no such take; it says why its record was refused, or names the take that reads alike.
    """
    with ledger.begin() as connection:
        if connection.scalar(sa.select(generations.c.id).where(generations.c.generation_id == asked)) is not None:
            return asked
        if named := _FILE_ID.fullmatch(asked):
            hashed = sa.func.sha256(sa.func.convert_to(generations.c.generation_id, "UTF8"))
            of_file = sa.func.substr(hashed, 1, 8) == bytes.fromhex(named[1])
            found = connection.scalar(sa.select(generations.c.generation_id).where(of_file))
            if found is not None:
                return str(found)
        refused = _refusals(connection, asked)
        raise ConfigurationError(_no_record(asked, refused) if refused else no_such_take(connection, asked))


def facts(ledger: Ledger, generation_id: str) -> Facts:
    """Read what is known of a take that is there (`find`)."""
    with ledger.begin() as connection:

        def rows(query: sa.Executable, **values: object) -> list[Row]:
            return [dict(row) for row in connection.execute(query, values).mappings()]

        [take] = rows(sa.select(generations).where(generations.c.generation_id == generation_id))
        key, sha256 = take["id"], take["audio_sha256"]
        parts = sa.select(analyses).where(analyses.c.audio_sha256 == sha256).order_by(analyses.c.part)
        scores = sa.select(quality_scores).where(quality_scores.c.generation == key).order_by(quality_scores.c.formula)
        same = sa.select(generations.c.generation_id).where(generations.c.audio_sha256 == sha256, generations.c.id != key)
        return Facts(
            take=take,
            audio=_first(rows(sa.select(audio).where(audio.c.sha256 == sha256))),
            features=_first(rows(sa.select(features).where(features.c.audio_sha256 == sha256))),
            parts=rows(parts),
            scores=rows(scores),
            adherence=_first(rows(sa.select(adherence).where(adherence.c.generation == key))),
            same_bytes=list(connection.scalars(same.order_by(generations.c.generation_id).limit(MOST_RELATIVES))),
            pairs=rows(_pairs_of(sha256)),
            decisions=rows(sa.text(_DECISIONS), generation=key),
            refusals=_refusals(connection, generation_id),
        )


def siblings(ledger: Ledger, generation_id: str, prompt: str) -> list[str]:
    """Other takes whose prompts read as this one does to splits: their ids in order, `MOST_RELATIVES` at most."""
    key = pl.select(prompt_key(pl.lit(prompt))).item()
    if key is None:  # no word in it
        return []
    with ledger.begin() as connection:
        maybe = connection.execute(sa.text(_MAYBE_ALIKE), {"words": f"%{'%'.join(key.split())}%"}).all()
    takes = pl.DataFrame(maybe, schema={"generation_id": pl.String, "prompt": pl.String}, orient="row")
    alike = takes.filter(prompt_key(pl.col("prompt")) == key, pl.col("generation_id") != generation_id)
    return alike["generation_id"].sort().head(MOST_RELATIVES).to_list()


def audio_of(ledger: Ledger, generation_id: str) -> str | None:
    """SHA-256 of a take's stored audio; None where it has none."""
    with ledger.begin() as connection:
        return connection.scalar(sa.select(generations.c.audio_sha256).where(generations.c.generation_id == generation_id))


def newest_left_out(ledger: Ledger, policy: str, most: int) -> tuple[list[Row], int]:
    """Takes that a policy left out, the newest decisions first, and how many there are in all; erased ones are only counted."""
    counted = sa.text("SELECT count(*) FROM selections WHERE policy = :policy AND NOT is_kept")
    with ledger.begin() as connection:
        rows = connection.execute(sa.text(_LEFT_OUT), {"policy": policy, "most": most}).mappings()
        return [dict(row) for row in rows], int(connection.scalar(counted, {"policy": policy}) or 0)


def _first(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None


def _pairs_of(sha256: str | None) -> sa.Select[Any]:
    first, second = duplicate_pairs.c.first_sha256, duplicate_pairs.c.second_sha256
    return (
        sa.select(generations.c.generation_id, duplicate_pairs.c.evidence)
        .join(duplicate_pairs, sa.case((first == sha256, second), else_=first) == generations.c.audio_sha256)
        .where((first == sha256) | (second == sha256))
        .order_by(generations.c.generation_id)
        .limit(MOST_RELATIVES)
    )


def _refusals(connection: sa.Connection, generation_id: str) -> list[Row]:
    columns = (refusals.c.reason, refusals.c.detail, refusals.c.source, refusals.c.line, refusals.c.refused_at)
    newest = sa.select(*columns).where(refusals.c.generation_id == generation_id).order_by(refusals.c.id.desc())
    return [dict(row) for row in connection.execute(newest.limit(MOST_REFUSALS)).mappings()]


def _no_record(asked: str, refused: list[Row]) -> str:
    told = "; and before that ".join(f"{row['reason']} ({row['detail']}), from {_origin(row)}" for row in refused)
    return f"no take {asked}: its record was refused at the door: {told}; mend it and send it again"


def _origin(row: Row) -> str:
    return f"{row['source']} line {row['line']}" if row["line"] else str(row["source"])
