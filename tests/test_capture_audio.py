"""Audio over HTTP: sent, proved, kept once, played in parts; and neighbours by sound."""

import base64
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
import sqlalchemy as sa

from keeptake.audio.tonal import KEYS
from keeptake.capture.app import PREFIX
from keeptake.capture.problems import Problem
from keeptake.capture.ranges import byte_range
from keeptake.embedding import DEFAULT_MODEL
from keeptake.errors import AudioReason
from keeptake.ledger import similarity
from keeptake.ledger.audio import AudioOutcome, AudioStatus, save_outcomes
from keeptake.ledger.embeddings import renew_space
from keeptake.ledger.vectors import Embedded, save_vectors


@pytest.fixture
def wav(signals):
    sample_rate_hz = 22_050
    buffer = io.BytesIO()
    soundfile.write(buffer, signals.sine(440.0, 1.0, sample_rate_hz), sample_rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def put(service, generation_id, audio, **headers):
    return service.client.put(f"{PREFIX}/{generation_id}/audio", content=audio, headers=headers)


def digest(audio):
    return {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(audio).digest()).decode()}:"}


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, (0, 9, False)),
        ("bytes=-", (0, 9, False)),
        ("bytes=0-1,3-4", (0, 9, False)),
        ("bytes=0-0", (0, 0, True)),
        ("bytes=9-9", (9, 9, True)),
        ("bytes=5-10", (5, 9, True)),
        (f"bytes=0-{'9' * 30}", (0, 9, True)),
        ("bytes=-1", (9, 9, True)),
        ("bytes=-11", (0, 9, True)),
    ],
)
def test_a_range_ends_with_the_whole(header, found):
    assert byte_range(header, 10) == found


@pytest.mark.parametrize(
    ("header", "size_bytes"),
    [("bytes=10-", 10), ("bytes=5-4", 10), ("bytes=-0", 10), (f"bytes={'9' * 30}-", 10), ("bytes=0-", 0), ("bytes=-1", 0)],
)
def test_a_range_outside_the_whole_is_refused(header, size_bytes):
    with pytest.raises(Problem) as refused:
        byte_range(header, size_bytes)
    assert (refused.value.status, refused.value.headers) == (416, {"Content-Range": f"bytes */{size_bytes}"})


def test_audio_that_was_sent_is_kept_under_its_hash_and_played_in_parts(service, capture_service, wav):
    service.post(capture_service.take("g1"))
    sent = put(service, "g1", wav, **digest(wav))
    assert sent.status_code == 201, sent.text
    assert sent.json() == {"success": True, "generationId": "g1", "sha256": hashlib.sha256(wav).hexdigest()}
    record = service.get("/g1").json()
    assert (record["audioStatus"], record["status"], record["format"]) == ("stored", "audio-ready", "wav")
    whole = service.get("/g1/audio")
    assert (whole.status_code, whole.content) == (200, wav)
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["x-content-type-options"] == "nosniff"
    for asked, first, last in (
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, len(wav) - 1),
        ("bytes=-50", len(wav) - 50, len(wav) - 1),
    ):
        part = service.get("/g1/audio", headers={"Range": asked})
        assert part.status_code == 206
        assert part.content == wav[first : last + 1]
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(wav)}"
    for first in (len(wav), "9" * 20, "9" * 5000):
        outside = service.get("/g1/audio", headers={"Range": f"bytes={first}-"})
        assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{len(wav)}")
    assert outside.json()["detail"] == f"there are {len(wav)} bytes: ask for bytes=0-{len(wav) - 1} or a part of it"
    etag = whole.headers["etag"]
    head = service.client.head(f"{PREFIX}/g1/audio")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(wav)))
    for state, status in ((etag, 206), (f"W/{etag}", 200), ('"other"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)):
        resumed = service.get("/g1/audio", headers={"Range": "bytes=10-", "If-Range": state})
        assert (resumed.status_code, resumed.content) == (status, wav[10:] if status == 206 else wav), state
    for known, status in ((etag, 304), (f'"other", W/{etag}', 304), ("*", 304), ('"other"', 200)):
        assert service.get("/g1/audio", headers={"If-None-Match": known}).status_code == status


def test_the_same_audio_again_changes_nothing_and_another_is_refused(service, capture_service, wav):
    service.post(capture_service.take("g1"))
    assert [put(service, "g1", wav).status_code for _ in range(2)] == [201, 201]
    other = put(service, "g1", wav[:-2000] + bytes(2000))
    assert (other.status_code, other.json()["code"]) == (409, "audio-conflict")
    assert service.get("/g1/audio").content == wav
    assert service.query("SELECT count(*) FROM audio") == [(1,)]


def test_audio_that_the_store_has_lost_is_said_to_be_missing(service, capture_service, wav, tmp_path):
    """It was answered with 200, the length of the file, and no byte."""
    service.post(capture_service.take("g1"))
    put(service, "g1", wav)
    (kept,) = (tmp_path / "home" / "audio").rglob(f"*{hashlib.sha256(wav).hexdigest()}*")
    kept.unlink()
    lost = service.get("/g1/audio")
    assert (lost.status_code, lost.json()["code"]) == (404, "audio-missing")


def test_a_fetch_that_was_under_way_undoes_no_upload(service, capture_service, wav):
    """A take whose URL did not work ended quarantined, minutes after its upload had been acknowledged."""
    service.post(capture_service.take("g1"))
    assert put(service, "g1", wav).status_code == 201
    ((id_,),) = service.query("SELECT id FROM generations")
    failed = AudioOutcome(id_, AudioStatus.QUARANTINED, AudioReason.NOT_FOUND, {}, None, (), datetime.now(UTC), None)
    with service.ledger.begin() as connection:
        assert save_outcomes(connection, [failed]) == 0
    assert service.query("SELECT audio_status, status FROM generations") == [("stored", "audio-ready")]
    assert service.get("/g1/audio").content == wav


def test_of_two_uploads_at_once_the_second_is_refused(service, capture_service, wav, signals):
    service.post(capture_service.take("g1"))
    other = io.BytesIO()
    soundfile.write(other, signals.sine(330, 2.0, 22_050), 22_050, format="WAV")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda content: put(service, "g1", content), (wav, other.getvalue())))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    kept = wav if answers[0].status_code == 201 else other.getvalue()
    assert service.get("/g1/audio").content == kept


def test_a_damaged_file_that_is_sent_again_is_heard_again(service, capture_service, wav):
    """It was acknowledged, and the take stayed quarantined without a reason."""
    service.post(capture_service.take("g1"))
    put(service, "g1", wav)
    with service.ledger.begin() as connection:
        connection.execute(sa.text("UPDATE audio SET analysis_reason = 'damaged-object'"))
        connection.execute(sa.text("UPDATE generations SET status = 'quarantined', status_reason = 'damaged-object'"))
    assert put(service, "g1", wav).status_code == 201
    assert service.query("SELECT status, status_reason FROM generations") == [("audio-ready", None)]
    assert service.query("SELECT analysis_reason FROM audio") == [(None,)]


def test_what_is_no_audio_is_refused_with_its_reason_and_leaves_the_take_alone(service, capture_service, wav):
    service.post(capture_service.take("g1"))
    for audio, headers, status, code in (
        (b"<!doctype html><html></html>", {}, 422, "not-audio"),
        (b"", {}, 422, "empty"),
        (wav, digest(b"another"), 400, "digest-mismatch"),
        (wav, {"Content-Digest": "md5=:x:"}, 400, "invalid-digest"),
        (bytes((50 << 20) + 1), {}, 413, "body-too-large"),
        (wav, {"Content-Type": "multipart/form-data; boundary=x"}, 415, "unsupported-media-type"),
        (wav, {"Content-Encoding": "gzip"}, 415, "unsupported-encoding"),
    ):
        refused = put(service, "g1", audio, **headers)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert service.query("SELECT audio_status, audio_reason, status FROM generations") == [("pending", None, "captured")]
    missing = service.get("/g1/audio")
    assert (missing.status_code, missing.json()["code"]) == (404, "audio-missing")
    assert put(service, "unknown", wav).status_code == 404


def test_neighbours_wait_for_the_space_that_they_are_in(service, capture_service):
    service.post(capture_service.take("g1"))
    pending = service.get("/g1/similar?k=5")
    assert (pending.status_code, pending.json()["code"]) == (409, "embedding-pending")
    assert service.get("/unknown/similar").status_code == 404
    assert service.get("/g1/similar?k=0").status_code == 422


def place(ledger, vectors):
    """Give takes `g0`, `g1` … their places in a space of their own, unit vectors, with audio, tempo, key and genre."""
    from pgvector import HalfVector

    hashes = [f"{n:064x}" for n in range(len(vectors))]
    with ledger.begin() as connection, connection.connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO embedding_scalers (model, model_version, version, fitted_on, dims, mean, deviation, is_current)"
            " VALUES (%s, '1', 1, 3, %s, '{0}', '{1}', true)",
            (DEFAULT_MODEL, vectors.shape[1]),
        )
        cursor.executemany(
            "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
            " VALUES (%s, 'x', 1, 'mp3', 'mp3', 30, 44100, 2)",
            [(sha256,) for sha256 in hashes],
        )
        cursor.executemany(
            "INSERT INTO scaled_embeddings SELECT %s, id, %s::halfvec FROM embedding_scalers",
            [(hashes[n], HalfVector(vector).to_text()) for n, vector in enumerate(vectors)],
        )
        cursor.executemany(
            "INSERT INTO features (audio_sha256, versions, tempo_bpm, key, genre) VALUES (%s, '', %s, %s, %s)",
            [(hashes[n], 60 + n % 100, KEYS[n % 24], f"genre{n % 2}") for n in range(len(vectors))],
        )
        cursor.executemany(
            "UPDATE generations SET audio_sha256 = %s, audio_status = 'stored' WHERE generation_id = %s",
            [(sha256, f"g{n}") for n, sha256 in enumerate(hashes)],
        )
    renew_space(ledger, DEFAULT_MODEL, "1")  # notes beside the vectors what is filtered by


def test_neighbours_are_named_nearest_first_with_the_version_of_the_space(service, capture_service):
    for name in ("g0", "g1", "g2"):
        service.post(capture_service.take(name))
    place(service.ledger, np.array([[1.0, 0.0, 0.0], [0.99, 0.11, 0.0], [0.0, 1.0, 0.0]]))
    found = service.get("/g0/similar?k=2")
    assert found.status_code == 200, found.text
    assert [item["generationId"] for item in found.json()["items"]] == ["g1", "g2"]
    assert found.json()["items"][0]["similarity"] == pytest.approx(0.994, abs=0.01)
    assert found.json()["modelVersion"] == f"{DEFAULT_MODEL}@1/1"


def test_a_quarantined_take_has_no_neighbours_and_says_why(service, capture_service):
    """It was said to be placed later, for ever."""
    service.post(capture_service.take("g1"))
    failed = "status = 'quarantined', audio_status = 'quarantined', audio_reason = 'not-found'"
    service.query(f"UPDATE generations SET {failed} RETURNING 1")
    refused = service.get("/g1/similar")
    assert (refused.status_code, refused.json()["code"]) == (409, "generation-quarantined")
    assert "quarantined (not-found)" in refused.json()["detail"]


def test_each_model_has_a_space_of_its_own(ledger, tmp_path, capture_service):
    """An unknown model was told to wait for its turn, for ever."""
    with capture_service.running(ledger, tmp_path, embedding_models="mert:mine") as service:
        for name in ("g0", "g1", "g2"):
            service.post(capture_service.take(name))
        place(service.ledger, np.array([[1.0, 0.0, 0.0], [0.99, 0.11, 0.0], [0.0, 1.0, 0.0]]))
        unknown = service.get("/g0/similar?model=clap:other")
        assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown-model")
        assert unknown.json()["errors"] == [{"pointer": "/query/model", "detail": f"the models are mert:mine, {DEFAULT_MODEL}"}]
        pending = service.get("/g0/similar?model=mert:mine")
        assert (pending.status_code, pending.json()["code"]) == (409, "embedding-pending")
        assert "by mert:mine" in pending.json()["detail"]

        upset = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], np.float32)  # g2 is the nearest here
        with service.ledger.begin() as connection:
            save_vectors(connection, [Embedded(f"{n:064x}", vector) for n, vector in enumerate(upset)], "clap:other", "abc")
        renew_space(service.ledger, "clap:other", "abc")
        found = service.get("/g0/similar?model=clap:other&k=1").json()
        assert found["items"][0]["generationId"] == "g2"
        assert found["modelVersion"] == "clap:other@abc/1"
        assert service.get("/g0/similar?k=1").json()["items"][0]["generationId"] == "g1"


TAKES = 600
SELECTED = {
    "": lambda n: True,
    "genre=genre1": lambda n: n % 2 == 1,
    "provider=suno&tempoFromBpm=80": lambda n: n % 5 == 0 and n % 100 >= 20,
    "tempoFromBpm=80&tempoToBpm=81.5": lambda n: n % 100 in (20, 21),
    "key=C%23m": lambda n: n % 24 == 13,
    "key=d+flat+minor&tempoToBpm=96": lambda n: n % 24 == 13 and n % 100 <= 36,
    "userId=user7": lambda n: n % 200 == 7,
    "userId=nobody": lambda n: False,
}


def test_filters_over_http_give_what_an_exact_search_gives(service, capture_service, monkeypatch):
    """At shares from everything to nobody, whichever of the two ways the search goes."""
    vectors = np.random.default_rng(0).standard_normal((TAKES, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    takes = [
        capture_service.take(f"g{n}", userId=f"user{n % 200}", provider="suno" if n % 5 == 0 else "udio") for n in range(TAKES)
    ]
    lines = "".join(json.dumps(take) + "\n" for take in takes)
    sent = service.client.post(f"{PREFIX}/batch", content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert sent.json()["saved"] == TAKES
    place(service.ledger, vectors)
    cosines = vectors @ vectors[0]
    for exact_most in (0, 5_000):
        monkeypatch.setattr(similarity, "EXACT_MOST", exact_most)
        for query, passes in SELECTED.items():
            order = [f"g{n}" for n in np.argsort(-cosines) if n != 0 and passes(n)][:10]
            found = service.get(f"/g0/similar?{query}")
            assert found.status_code == 200, found.text
            assert [item["generationId"] for item in found.json()["items"]] == order, (query, exact_most)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("tempoFromBpm=nan", "/query/tempoFromBpm"),
        ("tempoToBpm=inf", "/query/tempoToBpm"),
        ("tempoToBpm=-1", "/query/tempoToBpm"),
        ("tempoFromBpm=fast", "/query/tempoFromBpm"),
        ("tempoFromBpm=140&tempoToBpm=90", "/query/tempoFromBpm"),
        ("key=H%20minor", "/query/key"),
        ("key=", "/query/key"),
        ("userId=", "/query/userId"),
        ("genre=a%00b", "/query/genre"),
        ("provider=" + "x" * 513, "/query/provider"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_with_its_name(service, capture_service, query, pointer):
    service.post(capture_service.take("g0"))
    refused = service.get(f"/g0/similar?{query}")
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "invalid-parameter"
    assert pointer.rsplit("/", 1)[1] in refused.json()["detail"]
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
