"""Calls that race for one row: none undoes another. Each guarantee with the naive code that loses."""

import asyncio
import json

import httpx2
import pytest

from keeptake.capture import saving
from keeptake.capture.app import PREFIX
from keeptake.ledger.saves import GIVE_FEEDBACK, SAVE
from keeptake.ledger.serving import ServingPool
from keeptake.records import FEEDBACK

CALLS = 200
SAID = {"liked": True, "rating": 4, "used": True, "feedback": "the last word is any of these"}
ROUNDS = 20  # of a control: one race may go well by chance


@pytest.fixture
def service(ledger, tmp_path, capture_service):
    """A service that waits for a client which begins 200 calls at once on a busy machine."""
    with capture_service.running(ledger, tmp_path, api_deadline_s=20, api_body_pause_s=10) as started:
        yield started


async def at_once(service, method, calls):
    headers = {"Authorization": f"Bearer {service.key}"}
    limits = httpx2.Limits(max_connections=len(calls))
    async with httpx2.AsyncClient(base_url=service.base_url, headers=headers, timeout=60, verify=False, limits=limits) as client:
        answers = await asyncio.gather(*(client.request(method, path, json=body) for path, body in calls))
    return [(answer.status_code, answer.json()) for answer in answers]


def say_everything_at_once(service, take, takes):
    """Send 200 feedback calls at once, a field each, equally to so many takes."""
    for number in range(takes):
        service.post(take(f"g{number}"))
    calls = [
        (f"{PREFIX}/g{number}/feedback", {name: value})
        for _ in range(CALLS // takes // len(SAID))
        for number in range(takes)
        for name, value in SAID.items()
    ]
    answers = asyncio.run(at_once(service, "PUT", calls))
    assert [status for status, _ in answers] == [200] * CALLS


def lost_fields(service):
    """Takes and fields that were said and are not there."""
    rows = service.query(f"SELECT generation_id, {', '.join(FEEDBACK)} FROM generations")
    return [
        (name, field) for name, *values in rows for field, value in zip(FEEDBACK, values, strict=True) if value != SAID[field]
    ]


@pytest.mark.parametrize("takes", [1, 50])
def test_200_concurrent_feedback_calls_lose_nothing(service, capture_service, takes):
    say_everything_at_once(service, capture_service.take, takes)
    assert lost_fields(service) == []
    history = service.query("SELECT generation, revision, changes FROM feedback_history ORDER BY generation, revision")
    each = CALLS // takes
    assert [revision for _, revision, _ in history] == list(range(1, each + 1)) * takes
    said = sorted(json.dumps(change) for _, _, change in history)
    assert said == sorted(json.dumps({name: value}) for name, value in SAID.items() for _ in range(CALLS // len(SAID)))
    assert service.query("SELECT DISTINCT feedback_revision FROM generations") == [(each,)]


async def read_merge_write(pool, query, given=(), *, original=ServingPool.mappings, **more):
    """Feedback as it is saved naively: the row is read, merged here, and written back whole."""
    if query != GIVE_FEEDBACK:
        return await original(pool, query, given, **more)
    changes, generation_id, actor = json.loads(given[0]), *given[1:]
    columns = f"id, feedback_revision, {', '.join(FEEDBACK)}"
    (row,) = await original(pool, f"SELECT {columns} FROM generations WHERE generation_id = %s", (generation_id,))
    row |= changes
    row["feedback_revision"] += 1
    written = f"UPDATE generations SET {', '.join(f'{name} = %s' for name in FEEDBACK)}, feedback_revision = %s WHERE id = %s"
    await pool.rows(f"{written} RETURNING id", (*(row[name] for name in FEEDBACK), row["feedback_revision"], row["id"]))
    noted = "INSERT INTO feedback_history (generation, revision, changes, actor) VALUES (%s, %s, %s, %s)"
    await pool.rows(f"{noted} ON CONFLICT DO NOTHING RETURNING id", (row["id"], row["feedback_revision"], given[0], actor))
    return [row | {"is_heard": False}]


def test_control_reading_merging_and_writing_loses_fields_and_history(service, capture_service, monkeypatch):
    monkeypatch.setattr(ServingPool, "mappings", read_merge_write)
    say_everything_at_once(service, capture_service.take, 50)
    assert lost_fields(service) != []
    assert service.query("SELECT count(*) FROM feedback_history")[0][0] < CALLS


def test_the_last_of_racing_feedback_calls_answers_with_the_score_of_the_final_state(service, capture_service):
    from keeptake.ledger.scores import score_lagging

    service.post(capture_service.take("g1"))
    with service.ledger.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
            " VALUES (repeat('a', 64), 'a', 1, 'mp3', 'mp3', 30, 44100, 2);"
            "INSERT INTO features (audio_sha256, versions, rhythm_confidence, tempo_stability, no_clipping, dynamic_range)"
            " VALUES (repeat('a', 64), 'x=1', 0.8, 0.9, 1, 0.4);"
            "UPDATE generations SET audio_sha256 = repeat('a', 64), audio_status = 'stored', status = 'embedded'"
        )
    calls = [(f"{PREFIX}/g1/feedback", said) for said in [{"liked": True}, {"rating": 5}, {"used": True}] * 20]
    answers = asyncio.run(at_once(service, "PUT", calls))
    complete = [body["qualityScore"] for _, body in answers if len(body["userFeedback"]) == 3]
    assert set(complete) == {0.945}
    score_lagging(service.ledger)
    assert service.query("SELECT quality_score FROM generations") == [(0.945,)]


def save_equal_at_once(service, take, name):
    """Statuses, answers that call themselves the first, and ids, of 16 equal saves."""
    answers = asyncio.run(at_once(service, "POST", [(PREFIX, take(name))] * 16))
    firsts = sum(body.get("replayed") is False for _, body in answers)
    return sorted(status for status, _ in answers), firsts, {body.get("metadataId") for _, body in answers}


def save_different_at_once(service, take, name):
    """Statuses, and answers that call themselves the first, of 16 saves with four different bodies."""
    bodies = [take(name, userPrompt=f"prompt {number % 4}") for number in range(16)]
    answers = asyncio.run(at_once(service, "POST", [(PREFIX, body) for body in bodies]))
    return sorted(status for status, _ in answers), sum(body.get("replayed") is False for _, body in answers)


def rows_of(service, name):
    return service.query("SELECT count(*) FROM generations WHERE generation_id = %s", name)[0][0]


def test_16_racing_saves_of_one_generation_make_one_row(service, capture_service):
    statuses, firsts, ids = save_equal_at_once(service, capture_service.take, "same")
    assert (statuses, firsts, len(ids)) == ([200] * 16, 1, 1)
    assert save_different_at_once(service, capture_service.take, "other") == ([200] * 4 + [409] * 12, 1)
    assert (rows_of(service, "same"), rows_of(service, "other")) == (1, 1)


def test_control_looking_before_saving_makes_more_rows_and_a_wrong_mix(service, capture_service, monkeypatch):
    """Without the unique constraint, and with a look at what is there in its place."""
    looking = SAVE.replace("ON CONFLICT (generation_id) DO NOTHING", "").replace(
        "FROM given\n",
        "FROM given WHERE NOT EXISTS (SELECT FROM generations g WHERE g.generation_id = given.generation_id)\n",
        1,
    )
    assert "NOT EXISTS" in looking and "ON CONFLICT" not in looking
    monkeypatch.setattr(saving, "SAVE", looking)
    with service.ledger.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE generations DROP CONSTRAINT uq_generations_generation_id")
    rows, mixes = set(), []
    for number in range(ROUNDS):
        mixes.append(save_different_at_once(service, capture_service.take, f"other{number}"))
        rows.add(rows_of(service, f"other{number}"))
        if max(rows) > 1:
            break
    assert max(rows) > 1
    assert mixes[-1] != ([200] * 4 + [409] * 12, 1)
