"""Audio over HTTP: sent, proved, kept once, played in parts; and neighbours by sound."""

import base64
import hashlib
import io

import pytest
import soundfile

from keeptake.capture.app import PREFIX


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
    outside = service.get("/g1/audio", headers={"Range": f"bytes={len(wav)}-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{len(wav)}")
    assert service.get("/g1/audio", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_the_same_audio_again_changes_nothing_and_another_is_refused(service, capture_service, wav):
    service.post(capture_service.take("g1"))
    assert [put(service, "g1", wav).status_code for _ in range(2)] == [201, 201]
    other = put(service, "g1", wav[:-2000] + bytes(2000))
    assert (other.status_code, other.json()["code"]) == (409, "audio-conflict")
    assert service.get("/g1/audio").content == wav
    assert service.query("SELECT count(*) FROM audio") == [(1,)]


def test_what_is_no_audio_is_refused_with_its_reason_and_leaves_the_take_alone(service, capture_service, wav):
    service.post(capture_service.take("g1"))
    for audio, headers, status, code in (
        (b"<!doctype html><html></html>", {}, 422, "not-audio"),
        (b"", {}, 422, "empty"),
        (wav, digest(b"another"), 400, "digest-mismatch"),
        (wav, {"Content-Digest": "md5=:x:"}, 400, "invalid-digest"),
        (bytes((50 << 20) + 1), {}, 413, "body-too-large"),
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


def test_neighbours_are_named_nearest_first_with_the_version_of_the_space(service, capture_service):
    import numpy as np

    from keeptake.embedding.models import DEFAULT_MODEL

    near = {"g0": [1.0, 0.0, 0.0], "g1": [0.9, 0.1, 0.0], "g2": [0.0, 1.0, 0.0]}
    for name in near:
        service.post(capture_service.take(name))
    with service.ledger.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO embedding_scalers (model, model_version, version, fitted_on, dims, mean, deviation, is_current)"
            " VALUES (%s, '1', 1, 3, 3, '{0,0,0}', '{1,1,1}', true)",
            (DEFAULT_MODEL,),
        )
        for index, (name, vector) in enumerate(near.items()):
            sha256 = f"{index:064x}"
            connection.exec_driver_sql(
                "INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)"
                " VALUES (%s, 'x', 1, 'mp3', 'mp3', 30, 44100, 2)",
                (sha256,),
            )
            unit = np.array(vector) / np.linalg.norm(vector)
            connection.exec_driver_sql(
                "INSERT INTO scaled_embeddings SELECT %s, id, %s::halfvec FROM embedding_scalers", (sha256, str(unit.tolist()))
            )
            connection.exec_driver_sql(
                "UPDATE generations SET audio_sha256 = %s, audio_status = 'stored' WHERE generation_id = %s", (sha256, name)
            )
    found = service.get("/g0/similar?k=2")
    assert found.status_code == 200, found.text
    assert [item["generationId"] for item in found.json()["items"]] == ["g1", "g2"]
    assert found.json()["items"][0]["similarity"] == pytest.approx(0.994, abs=0.01)
    assert found.json()["modelVersion"] == f"{DEFAULT_MODEL}@1/1"
