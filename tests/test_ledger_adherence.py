"""Judgements in a real ledger: every take once, and again when its hearing moved."""

from hashlib import sha256

import numpy as np
import pytest
import sqlalchemy as sa

from keeptake.embedding.further import JointModel
from keeptake.errors import ModelMissingError
from keeptake.ledger import adherence
from keeptake.ledger.adherence import judge_lagging, tempo_scatter
from keeptake.ledger.bulk import upsert
from keeptake.ledger.overviews import asked_and_heard
from keeptake.ledger.tables import adherence as judgements
from keeptake.ledger.tables import audio, embeddings, features, generations

PROMPTS = ["dark trap 140 bpm, no vocals", "with a singer", "piano"]


@pytest.fixture
def takes(ledger):
    """Three takes that were heard at 110 bpm with a voice."""
    digests = [f"{number:064x}" for number in range(len(PROMPTS))]
    shape = {"size_bytes": 9, "format": "wav", "codec": "pcm", "duration_s": 20.0, "sample_rate_hz": 44_100, "channels": 2}
    heard = {"tempo_bpm": 110.0, "tempo_confidence": 0.9, "vocals_probability": 0.9, "duration_s": 20.0, "versions": "rhythm=1"}
    with ledger.begin() as connection:
        upsert(connection, audio, [{"sha256": d, "storage_key": "k", **shape} for d in digests], conflict=("sha256",))
        upsert(connection, features, [{"audio_sha256": d, **heard} for d in digests], conflict=("audio_sha256",))
        upsert(
            connection,
            generations,
            [
                {
                    "generation_id": f"g{number}",
                    "identity_sha256": sha256(str(number).encode()).digest(),
                    "user_id": "u",
                    "user_prompt": prompt,
                    "generation_params": {"duration": 30},
                    "audio_url": "a.wav",
                    "provider": "suno",
                    "source": "test",
                    "captured_on": "2026-11-01",
                    "created_at": "2026-11-01T00:00:00Z",
                    "status": "embedded",
                    "audio_status": "stored",
                    "audio_sha256": digest,
                }
                for number, (prompt, digest) in enumerate(zip(PROMPTS, digests, strict=True))
            ],
            conflict=("generation_id",),
        )
    return ledger


def stored(ledger):
    query = sa.select(generations.c.generation_id, judgements).join(judgements, judgements.c.generation == generations.c.id)
    with ledger.begin() as connection:
        return {row["generation_id"]: row for row in connection.execute(query).mappings()}


def counts_of(table, term):
    return {row["verdict"]: row["takes"] for row in table.iter_rows(named=True) if row["term"] == term}


def test_every_take_is_judged_with_its_terms(takes):
    counts = judge_lagging(takes)

    assert counts_of(counts, "tempo") == {"wrong": 1, "not-asked": 2}
    assert counts_of(counts, "vocals") == {"unwanted": 1, "as-asked": 1, "not-asked": 1}
    rows = stored(takes)
    assert rows["g0"]["terms"]["tempo"] == {"verdict": "wrong", "asked": 140.0, "heard": 110.0, "reason": None}
    assert rows["g0"]["total"] == pytest.approx((20 / 30) / 7, abs=1e-6)
    assert rows["g1"]["total"] == pytest.approx((3 + 20 / 30) / 4, abs=1e-6)


def test_only_what_moved_is_judged_again(takes, monkeypatch):
    monkeypatch.setattr(adherence, "PAGE_ROWS", 2)
    judge_lagging(takes)
    assert judge_lagging(takes).is_empty()
    before = {name: row["judged_at"] for name, row in stored(takes).items()}
    with takes.begin() as connection:
        connection.execute(
            sa.update(features).where(features.c.audio_sha256 == f"{0:064x}").values(tempo_bpm=140.0, versions="rhythm=2")
        )

    counts = judge_lagging(takes)

    assert counts_of(counts, "tempo") == {"exact": 1}
    assert stored(takes)["g0"]["terms"]["tempo"]["verdict"] == "exact"
    assert stored(takes)["g1"]["features_versions"] == "rhythm=1"
    # The time of a judgement stayed that of the first one, and the scatter showed whom it had judged first as judged last.
    after = {name: row["judged_at"] for name, row in stored(takes).items()}
    assert after["g0"] > before["g0"] and after["g1"] == before["g1"]


def test_a_take_of_which_nothing_can_be_judged_has_no_total_but_reasons(takes):
    with takes.begin() as connection:
        connection.execute(sa.update(generations).where(generations.c.generation_id == "g2").values(generation_params={}))
    judge_lagging(takes)

    row = stored(takes)["g2"]
    assert row["total"] is None
    assert {term["reason"] for term in row["terms"].values()} <= {"not-asked", "not-joint"}


def test_the_scatter_shows_asked_against_heard(takes):
    judge_lagging(takes)
    assert tempo_scatter(takes).rows() == [("g0", 140.0, 110.0, "wrong")]


def test_what_was_asked_stands_beside_what_was_heard_with_its_verdict(takes):
    with takes.begin() as connection:
        asked = sa.update(generations).where(generations.c.generation_id == "g0").values(generation_params={"bpm": "110 BPM"})
        connection.execute(asked)
    assert asked_and_heard(takes).select("bpm_asked", "tempo_verdict").rows() == [("110 BPM", None)]
    judge_lagging(takes)
    assert asked_and_heard(takes).rows() == [("g0", "110 BPM", 110.0, None, None, "exact", "not-asked")]


class WordsAndSound:
    """The smallest joint space: one axis for takes with a singer, one for all others."""

    def embed_text(self, texts):
        return np.array([[1.0, 0.0] if "singer" in text else [0.0, 1.0] for text in texts], np.float32)


def test_a_joint_embedder_adds_its_cosine_as_soon_as_a_take_has_its_vector(takes):
    joint = JointModel("toy", "1", WordsAndSound)
    judge_lagging(takes, joint=joint)
    assert stored(takes)["g1"]["terms"]["text_audio"]["reason"] == "not-joint"
    rows = [{"audio_sha256": f"{n:064x}", "model": "toy", "version": "1", "vector": [1.0, 0.0]} for n in (0, 1)]
    with takes.begin() as connection:
        upsert(connection, embeddings, rows, conflict=("audio_sha256", "model", "version"))

    counts = judge_lagging(takes, joint=joint)

    assert counts_of(counts, "text_audio") == {"cosine": 2}
    assert stored(takes)["g0"]["terms"]["text_audio"]["heard"] == 0.0
    assert stored(takes)["g1"]["terms"]["text_audio"]["heard"] == pytest.approx(1.0)
    assert stored(takes)["g1"]["total"] == pytest.approx((3 + 20 / 30 + 2) / 6, abs=1e-6)
    assert judge_lagging(takes, joint=joint).is_empty()
    assert judge_lagging(takes)["takes"].sum() == 7 * 3  # other rules, no joint embedder: judged again


def test_a_joint_embedder_that_does_not_load_keeps_no_take_from_the_other_terms(takes):
    """The whole asset failed once its CLAP had placed takes and then no longer loaded."""

    def torn():
        raise ModelMissingError("the model in /m/toy does not load: put it there")

    rows = [{"audio_sha256": f"{n:064x}", "model": "toy", "version": "1", "vector": [1.0, 0.0]} for n in (0, 1)]
    with takes.begin() as connection:
        upsert(connection, embeddings, rows, conflict=("audio_sha256", "model", "version"))
    said = []

    counts = judge_lagging(takes, joint=JointModel("toy", "1", torn), warn=said.append)

    assert said == ["toy judges no take: the model in /m/toy does not load: put it there"]
    assert counts_of(counts, "tempo")["wrong"] == 1
    assert counts_of(counts, "text_audio") == {"not-joint": 3}
    assert counts_of(judge_lagging(takes, joint=JointModel("toy", "1", WordsAndSound)), "text_audio") == {"cosine": 2}
