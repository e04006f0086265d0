"""Erased takes are no work for any stage and are shown to nobody; audio that a living take shares with one still is."""

import csv
import json
from hashlib import sha256

import polars
import pytest
import sqlalchemy as sa

from keeptake.ledger.adherence import judge_lagging
from keeptake.ledger.analyses import audio_to_hear, mark_unhearable
from keeptake.ledger.audio import count_due, list_quarantined, pending_audio
from keeptake.ledger.bulk import upsert
from keeptake.ledger.duplicates import audio_to_fingerprint
from keeptake.ledger.generations import accept
from keeptake.ledger.overviews import arrivals_of_day, features_of_day
from keeptake.ledger.scores import count_lagging, score_lagging
from keeptake.ledger.soundness import analyzed_without_features
from keeptake.ledger.status import days_with_failures, pending_by_day
from keeptake.ledger.tables import audio, features, generations
from keeptake.ledger.vectors import audio_to_embed, outdated_by_day
from keeptake.records import Accepted, read_record

DAY = "2026-11-01"
GONE, SHARED = "a" * 64, "b" * 64
TAKES = {"erased": GONE, "twin": SHARED, "living": SHARED}


@pytest.fixture
def takes(ledger):
    """Two erased takes and a living one, which has the same audio as one of them."""
    shape = {"size_bytes": 9, "format": "wav", "codec": "pcm", "duration_s": 20.0, "sample_rate_hz": 44_100, "channels": 2}
    with ledger.begin() as connection:
        upsert(connection, audio, [{"sha256": d, "storage_key": d, **shape} for d in (GONE, SHARED)], conflict=("sha256",))
        upsert(
            connection,
            generations,
            [
                {
                    "generation_id": name,
                    "identity_sha256": sha256(name.encode()).digest(),
                    "user_id": "u",
                    "user_prompt": "piano",
                    "audio_url": "a.wav",
                    "provider": "suno",
                    "source": "test",
                    "captured_on": DAY,
                    "created_at": f"{DAY}T00:00:00Z",
                    "status": "audio-ready",
                    "audio_status": "stored",
                    "audio_sha256": digest,
                    "erased_at": None if name == "living" else f"{DAY}T12:00:00Z",
                }
                for name, digest in TAKES.items()
            ],
            conflict=("generation_id",),
        )
    return ledger


def change(ledger, statement, **values):
    with ledger.begin() as connection:
        connection.execute(sa.text(statement), values)


def hear(ledger):
    rows = [{"audio_sha256": digest, "versions": "rhythm=1", "duration_s": 20.0} for digest in (GONE, SHARED)]
    with ledger.begin() as connection:
        upsert(connection, features, rows, conflict=("audio_sha256",))


def statuses(ledger):
    with ledger.begin() as connection:
        return dict(connection.execute(sa.text("SELECT generation_id, status FROM generations")).all())


def test_a_take_erased_before_its_fetch_asks_for_no_run(takes):
    """Its day was asked for again every 15 seconds for ever: what is pending counted it, what is fetched left it out."""
    change(takes, "UPDATE generations SET status = 'captured', audio_status = 'pending', audio_sha256 = NULL")
    assert pending_by_day(takes) == {DAY: 1}
    assert [row.generation_id for row in pending_audio(takes, DAY)] == ["living"]
    assert count_due(takes, DAY) == 1
    change(takes, "UPDATE generations SET erased_at = now()")
    assert pending_by_day(takes) == {}


def test_audio_of_erased_takes_alone_is_not_worked_on(takes):
    assert [file.sha256 for file in audio_to_hear(takes, DAY, {"rhythm": "1"})] == [SHARED]
    assert [file.sha256 for file in audio_to_fingerprint(takes, DAY)] == [SHARED]
    hear(takes)
    assert audio_to_hear(takes, DAY, {"rhythm": "1"}) == []
    assert statuses(takes) == {"erased": "audio-ready", "twin": "audio-ready", "living": "analyzed"}
    change(takes, "UPDATE generations SET status = 'embedded'")
    assert [file.sha256 for file in audio_to_embed(takes, DAY, "m", "1")] == [SHARED]
    assert outdated_by_day(takes, "m", "1") == {DAY: 1}


def test_audio_of_erased_takes_alone_is_not_judged(takes):
    hear(takes)
    change(takes, "UPDATE generations SET status = 'embedded'")
    assert (count_lagging(takes), score_lagging(takes).scored, count_lagging(takes)) == (1, 1, 0)
    assert statuses(takes) == {"erased": "embedded", "twin": "embedded", "living": "scored"}
    assert judge_lagging(takes).filter(term="tempo")["takes"].to_list() == [1]


def test_erased_takes_are_no_failures_and_no_problems(takes):
    with takes.begin() as connection:
        mark_unhearable(connection, GONE, "timeout")
        mark_unhearable(connection, SHARED, "timeout")
    assert statuses(takes) == {"erased": "audio-ready", "twin": "audio-ready", "living": "quarantined"}
    change(takes, "UPDATE generations SET status = 'quarantined', status_reason = 'timeout'")
    assert [row.generation_id for row in list_quarantined(takes)] == ["living"]
    assert days_with_failures(takes) == {DAY: {"timeout": 1}}
    change(
        takes,
        "UPDATE generations SET audio_sha256 = NULL, audio_status = 'quarantined', audio_reason = 'not-found'"
        " WHERE erased_at IS NOT NULL",
    )
    assert days_with_failures(takes) == {DAY: {"timeout": 1}}
    change(takes, "UPDATE generations SET status = 'analyzed' WHERE erased_at IS NOT NULL")
    assert analyzed_without_features(takes) == []


def test_erased_takes_are_not_shown(takes):
    hear(takes)
    assert arrivals_of_day(takes, DAY)["generation_id"].to_list() == ["living"]
    assert features_of_day(takes, DAY)["generation_id"].to_list() == ["living"]


def test_the_service_shows_nothing_of_an_erased_take_and_takes_nothing_for_it(service, capture_service):
    for name in ("erased", "living"):
        assert service.post(capture_service.take(name)).status_code == 200
    change(service.ledger, "UPDATE generations SET erased_at = now() WHERE generation_id = 'erased'")

    assert [item["generationId"] for item in service.get("").json()["items"]] == ["living"]
    assert service.get("/statistics/overview").json()["statistics"]["totalGenerations"] == 1
    assert [json.loads(line)["metadata"]["generation_id"] for line in service.get("/export/jsonl").iter_lines()] == ["living"]
    assert [row["generationId"] for row in csv.DictReader(service.get("/export/csv").iter_lines())] == ["living"]
    assert polars.read_parquet(service.get("/export/parquet").content)["generation_id"].to_list() == ["living"]

    told = {}
    for name in ("erased", "living"):
        audio_url = f"{service.url}/{name}/audio"
        answers = (service.get(f"/{name}"), service.client.get(audio_url), service.client.put(audio_url, content=b"no sound"))
        told[name] = [answer.json().get("code") for answer in (*answers, service.feedback(name, {"rating": 5}))]
    assert told == {"erased": ["generation-unknown"] * 4, "living": [None, "audio-missing", "not-audio", None]}
    revisions = service.query("SELECT generation_id, feedback_revision FROM generations ORDER BY 1")
    assert revisions == [("erased", 0), ("living", 1)]


def test_a_source_that_repeats_itself_says_nothing_of_an_erased_take(ledger):
    """An import once wrote a user's words back into the row from which they had been erased."""
    fields = {"userId": "u", "generationId": "g", "userPrompt": "p", "audioUrl": "https://cdn.example/a.mp3", "provider": "suno"}

    def imported(feedback):
        read = read_record({**fields, "userFeedback": feedback})
        assert isinstance(read, Accepted)
        with ledger.begin() as connection:
            return accept(connection, [read], source="feed")[1]

    imported({"rating": 3, "feedback": "nice"})
    assert imported({"rating": 4, "feedback": "nice"}) == 1, "the control: a living take takes it"
    change(ledger, "UPDATE generations SET erased_at = now(), feedback = NULL, rating = NULL")
    assert imported({"rating": 5, "feedback": "very nice"}) == 0
    with ledger.begin() as connection:
        row = connection.execute(sa.text("SELECT rating, feedback, feedback_revision FROM generations")).one()
    assert tuple(row) == (None, None, 2)
