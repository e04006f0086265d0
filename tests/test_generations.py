"""Arrivals in bulk against a real Postgres: new, replayed, in conflict; newer feedback; refusals kept once."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from keeptake.ledger.connection import Ledger
from keeptake.ledger.generations import Outcome, Refusal, accept, cursor_of, move_cursor, refuse
from keeptake.ledger.tables import feedback_history, generations, refusals
from keeptake.records import Accepted, read_record

NEW, REPLAYED, CONFLICT = Outcome.NEW, Outcome.REPLAYED, Outcome.CONFLICT


def believed(name: str, feedback: dict[str, Any] | None = None, **changes: Any) -> Accepted:
    fields = {
        "userId": "user1",
        "generationId": name,
        "userPrompt": "dark trap",
        "audioUrl": "https://cdn.example/a.mp3",
        "provider": "suno",
        "userFeedback": feedback,
        **changes,
    }
    read = read_record(fields)
    assert isinstance(read, Accepted)
    return read


def take(ledger: Ledger, *batch: Accepted, source: str = "feed") -> tuple[list[Outcome], int]:
    with ledger.begin() as connection:
        return accept(connection, batch, source=source, audio_root="/takes")


def row_of(ledger: Ledger, name: str) -> Any:
    with ledger.begin() as connection:
        return connection.execute(sa.select(generations).where(generations.c.generation_id == name)).one()


def history_of(ledger: Ledger, name: str) -> list[tuple[int, Any, str]]:
    with ledger.begin() as connection:
        query = sa.select(feedback_history.c.revision, feedback_history.c.changes, feedback_history.c.actor)
        query = query.join(generations, generations.c.id == feedback_history.c.generation)
        return [
            tuple(row)
            for row in connection.execute(query.where(generations.c.generation_id == name).order_by(sa.text("revision")))
        ]


def test_every_field_arrives_in_its_column(ledger):
    odd = believed(
        "gen_1",
        {"liked": True, "rating": 4, "feedback": "ü\t\\N \\. \n", "used": False},
        userPrompt='tab\t, quote ", back\\slash, \\N, emoji 🔥',
        generationParams={"bpm": "140 BPM", "nested": {"a": [1, 2.5, None]}},
        duration=30,
        generationCost=0.25,
        createdAt="2025-07-24T03:20:00Z",
        analysisMetadata={"a": 1},
        audioEmbedding=[1, 0.5],
        x_trace=["y"],
    )
    take(ledger, odd)
    row = row_of(ledger, "gen_1")

    assert row.user_prompt == odd.generation.user_prompt
    assert row.generation_params == odd.generation.generation_params
    assert row.audio_embedding == [1.0, 0.5]
    assert row.extra == {"x_trace": ["y"]}
    assert (row.duration_s, row.generation_cost) == (30.0, 0.25)
    assert row.created_at == odd.generation.created_at
    assert (row.liked, row.rating, row.feedback, row.used) == (True, 4, "ü\t\\N \\. \n", False)
    assert (row.source, row.audio_root, row.status, row.audio_status) == ("feed", "/takes", "captured", "pending")
    assert row.spectral_features is None
    assert history_of(ledger, "gen_1") == [(1, {"liked": True, "rating": 4, "feedback": "ü\t\\N \\. \n", "used": False}, "feed")]


def test_nothing_is_nothing(ledger):
    assert take(ledger) == ([], 0)


def test_one_batch_is_judged_in_its_order(ledger):
    batch = (believed("a"), believed("a"), believed("a", userPrompt="other"), believed("b", userPrompt="other"), believed("b"))

    assert take(ledger, *batch)[0] == [NEW, REPLAYED, CONFLICT, NEW, CONFLICT]
    assert row_of(ledger, "a").user_prompt == "dark trap"
    assert row_of(ledger, "b").user_prompt == "other"


def test_across_batches_the_ledger_decides(ledger):
    take(ledger, believed("a"))

    assert take(ledger, believed("a", userPrompt="other"), believed("a"), believed("c")) == ([CONFLICT, REPLAYED, NEW], 0)


def test_newer_feedback_of_a_source_is_an_update(ledger):
    take(ledger, believed("a"))
    assert take(ledger, believed("a", {"liked": True})) == ([REPLAYED], 1)
    assert take(ledger, believed("a", {"liked": True})) == ([REPLAYED], 0)
    assert take(ledger, believed("a", {"liked": True, "rating": 5}), believed("a", {"rating": 2})) == ([REPLAYED, REPLAYED], 2)

    row = row_of(ledger, "a")
    assert (row.liked, row.rating, row.feedback_revision) == (True, 2, 3)
    assert history_of(ledger, "a") == [(1, {"liked": True}, "feed"), (2, {"rating": 5}, "feed"), (3, {"rating": 2}, "feed")]


def test_repeated_import_does_not_undo_what_a_user_said_since(ledger):
    """A folder imported a second time once turned a user's newer dislike back into the like that stood in the file."""
    take(ledger, believed("a", {"liked": True}), source="folder")
    take(ledger, believed("a", {"liked": False}), source="api")
    assert row_of(ledger, "a").liked is False

    assert take(ledger, believed("a", {"liked": True}), source="folder") == ([REPLAYED], 0)
    assert row_of(ledger, "a").liked is False


def test_control_the_same_word_from_a_source_that_had_said_otherwise_counts(ledger):
    take(ledger, believed("a", {"liked": True}), source="folder")
    take(ledger, believed("a", {"liked": False}), source="folder")

    assert take(ledger, believed("a", {"liked": True}), source="folder") == ([REPLAYED], 1)
    assert row_of(ledger, "a").liked is True


def test_conflict_changes_no_feedback(ledger):
    take(ledger, believed("a"))

    assert take(ledger, believed("a", {"liked": True}, userPrompt="other")) == ([CONFLICT], 0)
    assert row_of(ledger, "a").liked is None


def test_racing_batches_accept_each_record_once(ledger):
    """Two imports of one folder at once: their batches hold the same names in opposite orders, and wait instead of dying."""
    names = [f"gen_{number}" for number in range(300)]
    results: list[list[Outcome]] = []
    start = threading.Barrier(2)

    def race(order: list[str]) -> None:
        start.wait()
        for at in range(0, 300, 100):
            results.append(take(ledger, *(believed(name, {"rating": 3}) for name in order[at : at + 100]))[0])

    threads = [threading.Thread(target=race, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    outcomes = [outcome for part in results for outcome in part]
    assert (outcomes.count(NEW), outcomes.count(REPLAYED)) == (300, 300)
    with ledger.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(feedback_history)) == 300


def refusal(raw: bytes, line: int = 1, source: str = "file") -> Refusal:
    return Refusal(source, line, None, "not-json", "no JSON", raw)


def test_refusals_are_kept_once_a_source(ledger):
    with ledger.begin() as connection:
        assert refuse(connection, [refusal(b"x", 7), refusal(b"y", 8), refusal(b"x", 9)]) == 2
        assert refuse(connection, [refusal(b"x", 70), refusal(b"x", 7, "other")]) == 1
        rows = connection.execute(sa.select(refusals.c.source, refusals.c.line, refusals.c.raw).order_by(refusals.c.id)).all()

    assert sorted((row.source, row.line, bytes(row.raw)) for row in rows) == [
        ("file", 7, b"x"),
        ("file", 8, b"y"),
        ("other", 7, b"x"),
    ]


def test_long_line_is_kept_in_part_and_told_from_others_in_whole(ledger):
    with ledger.begin() as connection:
        assert refuse(connection, [refusal(b"x" * 70_000), refusal(b"x" * 70_001)]) == 2
        assert connection.scalars(sa.select(sa.func.octet_length(refusals.c.raw))).all() == [65_536, 65_536]


def test_cursor_moves_with_its_records_or_not_at_all(ledger):
    def broken_off() -> None:
        with ledger.begin() as connection:
            move_cursor(connection, "feed", {"cursor": 2})
            accept(connection, [believed("late")], source="feed")
            raise ConnectionError

    with ledger.begin() as connection:
        assert cursor_of(connection, "feed") is None
        move_cursor(connection, "feed", {"cursor": 1})
    with pytest.raises(ConnectionError):
        broken_off()

    with ledger.begin() as connection:
        assert cursor_of(connection, "feed") == {"cursor": 1}
        assert connection.scalar(sa.select(sa.func.count()).select_from(generations)) == 0
