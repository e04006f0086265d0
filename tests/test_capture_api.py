"""The contract: saving, feedback, records, exports, statistics, and the shape of every error."""

import json
import time

import numpy as np
import pytest

from keeptake.audio.analyze import analyze
from keeptake.audio.record import Spectrum, Tonal
from keeptake.capture import statistics
from keeptake.capture.app import PREFIX
from keeptake.ledger.analyses import Heard, save_analyses


@pytest.fixture
def take(capture_service):
    return capture_service.take


def heard(service, generation_id, **features):
    """Give a generation audio and features, as the pipeline would."""
    sha256 = f"{abs(hash(generation_id)):064x}"[:64]
    values = {"rhythm_confidence": 0.8, "tempo_stability": 0.9, "no_clipping": 1.0, "dynamic_range": 0.4, "tempo_bpm": 140.0}
    values |= features
    with service.ledger.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
            " VALUES (%s, %s, 1000, 'mp3', 'mp3', 29.5, 44100, 2)",
            (sha256, f"sha256/{sha256}"),
        )
        names = ", ".join(values)
        connection.exec_driver_sql(
            f"INSERT INTO features (audio_sha256, versions, {names}) VALUES (%s, 'x=1', {', '.join(['%s'] * len(values))})",
            (sha256, *values.values()),
        )
        connection.exec_driver_sql(
            "UPDATE generations SET audio_sha256 = %s, audio_status = 'stored', status = 'embedded' WHERE generation_id = %s",
            (sha256, generation_id),
        )


def test_the_originals_own_calls(service, capture_service):
    """Every call that the system's first documentation shows, as it shows it."""
    saved = service.post(capture_service.EXAMPLE | {"audioUrl": "https://..."})
    assert saved.status_code == 200
    assert saved.json()["success"] is True
    assert saved.json()["generationId"] == "gen_xyz"
    said = {"liked": True, "rating": 5, "feedback": "Perfect trap beat!", "used": True}
    given = service.feedback("gen_xyz", said)
    assert given.status_code == 200
    assert given.json() == {"success": True, "generationId": "gen_xyz", "userFeedback": said, "qualityScore": None}
    service.query("UPDATE generations SET quality_score = 0.945 RETURNING 1")
    jsonl = service.get("/export/jsonl?provider=suno&minQualityScore=0.7&qualityScale=rating")
    assert jsonl.status_code == 200
    line = json.loads(jsonl.text)
    assert list(line) == ["prompt", "audio_url", "duration", "metadata", "quality_score"]
    assert jsonl.text.startswith(
        '{"prompt": "dark, trap, 140 BPM - dark trap beat", "audio_url": "https://...", "duration": 30, "metadata": {'
    )
    assert jsonl.text.endswith('}, "quality_score": 5}\n')
    csv = service.get("/export/csv?minQualityScore=0.5")
    assert csv.text == (
        "generationId,userPrompt,aiEnhancedPrompt,audioUrl,duration,genre,bpm,rating,used\n"
        'gen_xyz,dark trap beat 140 bpm,"dark, trap, 140 BPM - dark trap beat",https://...,30,trap,140,5,true\n'
    )
    statistics = service.get("/statistics/overview").json()
    assert statistics["success"] is True
    shown = statistics["statistics"]
    assert shown["totalGenerations"] == 1
    assert shown["byProvider"] == {"suno": 1}
    assert (shown["withFeedback"], shown["averageQualityScore"], shown["usedForTraining"]) == (1, 0.945, 0)


def test_a_repeated_save_is_a_replay_and_another_one_a_conflict(service, take):
    first = service.post(take("g1")).json()
    again = service.post(take("g1")).json()
    assert again == first | {"replayed": True}
    other = service.post(take("g1", userPrompt="something else"))
    assert other.status_code == 409
    assert other.json()["code"] == "generation-conflict"
    assert service.query("SELECT user_prompt FROM generations") == [("dark trap beat 140 bpm",)]


def test_feedback_in_a_repeated_save_is_an_update_once(service, take):
    service.post(take("g1", userFeedback={"liked": True}))
    for _ in range(3):
        assert service.post(take("g1", userFeedback={"liked": True, "rating": 4})).json()["replayed"] is True
    assert service.query("SELECT liked, rating, feedback_revision FROM generations") == [(True, 4, 2)]
    assert service.query("SELECT revision, changes FROM feedback_history ORDER BY 1") == [
        (1, {"liked": True}),
        (2, {"rating": 4}),
    ]


def test_a_late_repeat_of_a_save_does_not_undo_what_others_said_since(service, take):
    service.post(take("g1", userFeedback={"liked": True}))
    with service.new_client(service.key_for("feedback:write")) as user:
        service.feedback("g1", {"liked": False}, user)
    service.post(take("g1", userFeedback={"liked": True}))
    assert service.query("SELECT liked FROM generations") == [(False,)]


def test_feedback_merges_clears_and_leaves_alone(service, take):
    service.post(take("g1"))
    service.feedback("g1", {"liked": True, "rating": 2, "feedback": "meh"})
    merged = service.client.patch(f"{PREFIX}/g1/feedback", json={"rating": None, "used": False})
    assert merged.json()["userFeedback"] == {"liked": True, "feedback": "meh", "used": False}
    assert service.query("SELECT revision, changes FROM feedback_history ORDER BY 1") == [
        (1, {"liked": True, "rating": 2, "feedback": "meh"}),
        (2, {"rating": None, "used": False}),
    ]
    assert service.feedback("nobody", {"liked": True}).status_code == 404
    assert service.feedback("g1", {"rating": 6}).status_code == 422
    assert service.feedback("g1", {}).status_code == 422
    assert service.feedback("g1", {"rated": 5}).status_code == 422


def test_feedback_answers_with_the_score_of_the_graph(service, take):
    """One implementation: what the call answers is what the graph stores for the same row."""
    from keeptake.ledger.scores import score_lagging

    cases = [{"liked": True}, {"rating": 1}, {"used": True, "rating": 5, "liked": True}, {"feedback": "x"}]
    answered = {}
    for index, said in enumerate(cases):
        name = f"g{index}"
        service.post(take(name))
        heard(service, name, rhythm_confidence=0.3 + index / 10)
        answered[name] = service.feedback(name, said).json()["qualityScore"]
    score_lagging(service.ledger)
    stored = dict(service.query("SELECT generation_id, quality_score FROM generations"))
    assert stored == answered
    assert len(set(answered.values())) == len(cases)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"audioUrl": None}, "Missing audio URL"),
        ({"provider": ""}, "Missing provider"),
        ({"duration": 0}, "Invalid duration"),
        ({"duration": -3}, "Invalid duration"),
    ],
)
def test_the_three_refusals_that_clients_compare(service, take, changes, detail):
    refused = service.post(take("g1", **changes))
    assert refused.status_code == 422
    problem = refused.json()
    assert refused.headers["content-type"] == "application/problem+json"
    assert problem["detail"] == detail
    assert problem["errors"] == [{"pointer": f"/{next(iter(changes))}", "detail": detail}]
    assert problem["requestId"] == refused.headers["x-request-id"]
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "requestId", "errors"}


def test_a_record_reads_back_as_it_was_claimed(service, take):
    odd = {"nested": {"deep": [1, 2.5, None, "ü"]}}
    service.post(take("g1", duration=30, mysterious=odd, createdAt="2026-01-02T03:04:05Z", generationCost=0.25))
    shown = service.get("/g1")
    record = shown.json()
    assert record["duration"] == 30
    assert '"duration":30,' in shown.text
    assert record["extra"] == {"mysterious": odd}
    assert record["createdAt"] == "2026-01-02T03:04:05Z"
    assert record["generationParams"] == {"genre": "trap", "bpm": 140, "mood": "dark", "duration": 30}
    assert record["generationCost"] == 0.25
    assert service.get("/g1", headers={"If-None-Match": shown.headers["etag"]}).status_code == 304
    service.feedback("g1", {"liked": True})
    assert service.get("/g1", headers={"If-None-Match": shown.headers["etag"]}).status_code == 200
    assert service.get("/unknown").status_code == 404


def test_what_was_heard_shows_in_record_and_export(service, take):
    service.post(take("g1", generationParams={}))
    heard(service, "g1", key="F minor", has_vocals=False, loudness_lufs=-9.25)
    record = service.get("/g1").json()
    assert record["analysisMetadata"]["rhythmCharacteristics"]["tempoBpm"] == 140.0
    assert record["duration"] == 29.5
    line = json.loads(service.get("/export/jsonl").text)
    assert line["duration"] == 29.5
    assert line["metadata"]["heard"] == {"tempo_bpm": 140, "key": "F minor", "has_vocals": False, "loudness_lufs": -9.25}


def test_the_spectrum_that_was_heard_shows_in_the_record(service, take, signals):
    """MFCC and chromagram were looked for under names that no analysis ever had, and no record showed them."""
    sample_rate_hz = 22_050
    chord = sum(signals.sine(hz, 6.0, sample_rate_hz) for hz in (220.0, 277.18, 329.63)) / 3
    parts = analyze(chord[None].astype(np.float32), sample_rate_hz, parts=("spectrum", "tonal"))
    service.post(take("g1"))
    heard(service, "g1", spectral_centroid_hz=300.5)
    with service.ledger.begin() as connection:
        sha256 = connection.exec_driver_sql("SELECT sha256 FROM audio").scalar()
        save_analyses(connection, [Heard(sha256, parts, {})], {})
    shown = service.get("/g1").json()["spectralFeatures"]
    assert shown == {
        "spectralCentroid": 300.5,
        "mfcc": Spectrum(**parts["spectrum"].values).mfcc_mean,
        "chromagram": Tonal(**parts["tonal"].values).chroma,
    }


def test_pages_hold_every_record_once_newest_first(service, take):
    for index in range(25):
        service.post(
            take(f"g{index:02}", createdAt=f"2026-01-01T00:00:{index // 5:02}Z", provider="udio" if index % 2 else "suno")
        )
    names, cursor = [], ""
    while cursor is not None:
        page = service.get(f"?limit=7{'&cursor=' + cursor if cursor else ''}").json()
        names += [item["generationId"] for item in page["items"]]
        cursor = page["nextCursor"]
    assert names == [f"g{index:02}" for index in reversed(range(25))]
    assert len(service.get("?provider=udio&limit=200").json()["items"]) == 12
    assert service.get("?userId=nobody").json() == {"items": [], "nextCursor": None}
    assert len(service.get("?status=captured").json()["items"]) == 25
    assert service.get("?limit=201").status_code == 422
    assert service.get("?cursor=nonsense").status_code == 422


def test_a_batch_answers_line_by_line_in_order(service, take):
    service.post(take("known"))
    lines = [
        json.dumps(take("b1", userFeedback={"rating": 3})),
        "",
        "{not json",
        json.dumps(take("known")),
        json.dumps(take("known", provider="other")),
        json.dumps(take("b1", userFeedback={"rating": 3})),
        json.dumps(take("b2", audioUrl="")),
        json.dumps(take("b3")),
    ]
    answer = service.client.post(f"{PREFIX}/batch", content="\n".join(lines), headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(result["line"], result["status"], result["generationId"]) for result in results] == [
        (1, 200, "b1"),
        (3, 400, None),
        (4, 200, "known"),
        (5, 409, "known"),
        (6, 200, "b1"),
        (7, 422, "b2"),
        (8, 200, "b3"),
    ]
    assert [result.get("replayed") for result in results] == [False, None, True, None, True, None, False]
    assert {name: answer.json()[name] for name in ("success", "saved", "replayed", "refused")} == {
        "success": False,
        "saved": 2,
        "replayed": 2,
        "refused": 3,
    }
    stored = service.query("SELECT generation_id, rating FROM generations ORDER BY 1")
    assert stored == [("b1", 3), ("b3", None), ("known", None)]
    assert service.query("SELECT count(*) FROM feedback_history") == [(1,)]
    too_many = "\n".join(json.dumps(take(f"x{index}")) for index in range(1001))
    refused = service.client.post(f"{PREFIX}/batch", content=too_many, headers={"Content-Type": "application/x-ndjson"})
    assert refused.status_code == 413


@pytest.mark.parametrize(
    ("sent", "code", "pointer", "detail"),
    [
        ([], "invalid-announcement", "", "expected an object with provider and generationIds, found an array"),
        ({"provider": "suno"}, "missing-generationIds", "/generationIds", "the field generationIds is required"),
        ({"generationIds": []}, "missing-provider", "/provider", "the field provider is required"),
        (
            {"provider": "suno", "generationIds": [], "a/b": 1},
            "invalid-announcement",
            "/a~1b",
            "expected provider and generationIds alone, found a field 'a/b'",
        ),
        ({"provider": 5, "generationIds": []}, "invalid-provider", "/provider", "expected a name of 1 to 512 characters"),
        (
            {"provider": "s", "generationIds": "g1"},
            "invalid-generationIds",
            "/generationIds",
            "expected an array of ids, found text",
        ),
        (
            {"provider": "s", "generationIds": ["g", 5]},
            "invalid-generationIds",
            "/generationIds/1",
            "expected text, found a number",
        ),
        (
            {"provider": "s", "generationIds": ["export"]},
            "invalid-generationIds",
            "/generationIds/0",
            "'export' is taken by the service's own paths",
        ),
        (
            {"provider": "s", "generationIds": [".."]},
            "invalid-generationIds",
            "/generationIds/0",
            "'..' is taken by the service's own paths",
        ),
        ({"provider": "s", "generationIds": ["\0"]}, "invalid", "/generationIds/0", "NUL characters cannot be stored"),
    ],
)
def test_an_announcement_is_refused_at_its_field(service, sent, code, pointer, detail):
    """A text for the ids was said to be more than 10,000 ids, and an id that no record can have waited for ever."""
    refused = service.client.post(f"{PREFIX}/expected", json=sent)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert refused.json()["errors"] == [{"pointer": pointer, "detail": detail}]


def test_an_empty_body_is_called_empty(service):
    for path in (PREFIX, PREFIX + "/expected"):
        refused = service.client.post(path, content=b" \n", headers={"Content-Type": "application/json"})
        assert (refused.status_code, refused.json()["detail"]) == (400, "the body is empty: send a JSON object")


def test_statistics_have_a_tag_and_no_average_without_scores(service, take):
    service.post(take("g1"))
    first = service.get("/statistics/overview")
    assert first.json()["statistics"]["averageQualityScore"] is None
    assert first.headers["etag"].startswith('W/"')  # the time of the count is not in it
    again = service.get("/statistics/overview", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    service.post(take("g2"))
    assert service.get("/statistics/overview").json() == first.json()  # cached


class Clock:
    """A monotonic clock that a test puts forward."""

    def __init__(self):
        self.ahead_s = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead_s


def total_after(service, take, clock, seconds):
    """What the statistics count when a take came after the last count and so many seconds went by."""
    assert service.get("/statistics/overview").json()["statistics"]["totalGenerations"] == 0
    service.post(take("g1"))
    clock.ahead_s = seconds
    return service.get("/statistics/overview").json()["statistics"]["totalGenerations"]


@pytest.fixture
def clock(monkeypatch):
    put_forward = Clock()
    monkeypatch.setattr(statistics, "time", put_forward)
    return put_forward


def test_statistics_are_at_most_a_minute_old(service, take, clock):
    assert total_after(service, take, clock, statistics.STALE_S + 1) == 1


def test_statistics_older_than_half_a_minute_are_counted_behind_the_answer(service, take, clock):
    assert total_after(service, take, clock, statistics.FRESH_S + 1) == 0
    assert service.get("/statistics/overview").headers["cache-control"] in ("private, max-age=0", "private, max-age=29")
    ends_s = time.monotonic() + 5
    while service.get("/statistics/overview").json()["statistics"]["totalGenerations"] == 0:
        assert time.monotonic() < ends_s


def test_control_a_cache_without_an_age_answers_for_ever_what_it_once_counted(service, take, clock, monkeypatch):
    monkeypatch.setattr(statistics, "FRESH_S", 1e9)
    assert total_after(service, take, clock, statistics.STALE_S + 1) == 0


def test_every_answer_carries_the_request_id(service):
    given = service.get("/nobody", headers={"X-Request-Id": "abc-123"})
    assert given.headers["x-request-id"] == given.json()["requestId"] == "abc-123"
    traced = "00-4bf92f3577b34da6a3ce929d0e0e4736;a=[1],b:/2@~+=="
    assert service.get("/nobody", headers={"X-Request-Id": traced}).headers["x-request-id"] == traced
    for odd in ("a b\tc", 'a"b', "a'b", "x" * 129):
        assert service.get("/nobody", headers={"X-Request-Id": odd}).headers["x-request-id"] != odd


def test_a_path_or_method_that_is_not_there_says_where_to_look(service):
    """A slash at the end was answered with a redirect to http, whatever the caller had used; /docs/nope with an empty 404."""
    for path in ("/nowhere", PREFIX + "/", "/healthz/", "/docs/nope"):
        unknown = service.client.get(path, follow_redirects=False)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not-found"), path
        assert "/docs" in unknown.json()["detail"]
    wrong = service.client.delete(PREFIX)
    assert (wrong.status_code, wrong.json()["status"], wrong.headers["allow"]) == (405, 405, "GET, HEAD, POST")
    assert wrong.json()["detail"] == "the path has GET, HEAD, POST: /docs shows what each of them does"


def test_head_answers_as_get_without_the_body(service, take):
    """Monitors and download tools ask HEAD first, and met a 405."""
    service.post(take("g1"))
    for path, status in (
        (PREFIX + "/g1", 200),
        (PREFIX + "/unknown", 404),
        (PREFIX + "/statistics/overview", 200),
        ("/docs", 200),
    ):
        whole, head = service.client.get(path), service.client.head(path)
        assert (head.status_code, head.content) == (status, b""), path
        assert head.headers["content-type"] == whole.headers["content-type"]
        assert status == 404 or head.headers["content-length"] == whole.headers["content-length"]
    dear = service.client.head(PREFIX + "/export/jsonl")
    assert (dear.status_code, dear.headers["allow"]) == (405, "GET")


def test_metrics_count_saves_feedback_and_exports(service, take):
    def value(line):
        found = [text for text in service.client.get("/metrics").text.splitlines() if text.startswith(line)]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0

    names = [
        'keeptake_saves_total{outcome="saved",provider="suno"}',
        'keeptake_saves_total{outcome="refused",provider="unknown"}',
        'keeptake_feedback_total{kind="rating"}',
        'keeptake_export_rows_total{format="jsonl"}',
        "keeptake_save_seconds_count",
    ]
    before = [value(name) for name in names]
    service.post(take("g1"))
    service.post(take("g2", provider=None))
    service.feedback("g1", {"rating": 5})
    service.get("/export/jsonl")
    assert [value(name) - earlier for name, earlier in zip(names, before, strict=True)] == [1, 1, 1, 1, 1]


def test_what_is_away_is_called_by_its_name(ledger, tmp_path, capture_service):
    """With the store away the answer sent people to look after Postgres."""
    (tmp_path / "file").write_text("no folder")
    with capture_service.running(ledger, tmp_path, audio_url=(tmp_path / "file").as_uri()) as service:
        service.post(capture_service.take("g1"))
        heard(service, "g1")
        away = service.get("/g1/audio")
        assert (away.status_code, away.headers["retry-after"]) == (503, "2")
        assert away.json()["detail"].startswith("the audio store")
        with service.ledger.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE generations RENAME TO others")
            connection.exec_driver_sql(
                "CREATE FUNCTION give_up() RETURNS int LANGUAGE plpgsql AS"
                " $$BEGIN RAISE 'a prompt' USING ERRCODE = '40001'; END$$"
            )
            connection.exec_driver_sql("CREATE VIEW generations AS SELECT * FROM others WHERE give_up() = 1")
        given_up = service.get("/g1")
        assert (given_up.status_code, given_up.json()["detail"]) == (503, "the ledger gave a statement up: repeat the call")


def test_the_deadline_that_is_set_holds_for_statistics_and_neighbours_too(ledger, tmp_path, capture_service):
    """Both waited 1.8 s, whatever KEEPTAKE_API_DEADLINE_S said."""
    with capture_service.running(ledger, tmp_path, api_deadline_s=0.3) as service:
        service.post(capture_service.take("g1"))
        for table, path in (("generations", "/statistics/overview"), ("embedding_scalers", "/g1/similar")):
            with ledger.begin() as blocking:
                blocking.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                started_s = time.monotonic()
                assert service.get(path).status_code == 503, path
                assert 0.25 < time.monotonic() - started_s < 1.5, path


def test_readiness_names_what_fails(service, tmp_path, capture_service):
    """The service that lacks nothing is the control."""
    from keeptake.ledger.connection import Ledger

    def readiness(ledger, name, **more):
        (tmp_path / name).mkdir()
        with capture_service.running(ledger, tmp_path / name, has_key=False, **more) as broken:
            assert broken.client.get("/healthz").status_code == 200
            answer = broken.client.get("/readyz")
        assert "retry-after" in answer.headers
        return answer.status_code, answer.json()["failing"]

    ready = service.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["failing"]) == (200, "ready", [])
    nowhere = Ledger("postgresql://nobody@127.0.0.1:1/nothing")
    assert readiness(nowhere, "no-ledger") == (503, ["ledger", "migrations"])
    (tmp_path / "file").write_text("no folder")
    assert readiness(service.ledger, "no-store", audio_url=(tmp_path / "file").as_uri()) == (503, ["audioStore"])
    service.query("UPDATE alembic_version SET version_num = 'older' RETURNING 1")
    assert readiness(service.ledger, "old-ledger") == (503, ["migrations"])
