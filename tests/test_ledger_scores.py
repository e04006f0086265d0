"""Scores in a real ledger: what lags, what was scored meanwhile, and which takes count as scored."""

from hashlib import sha256

import pytest
import sqlalchemy as sa

from keeptake.curation.quality import score
from keeptake.ledger import scores
from keeptake.ledger.bulk import upsert
from keeptake.ledger.scores import count_lagging, score_lagging
from keeptake.ledger.tables import audio, features, generations

DAY = "2026-11-01"
HEARD = ("analyzed", "embedded", "quarantined")  # takes, named for how far they have come


@pytest.fixture
def takes(ledger):
    """A take of each of these states with an analysis, and one that was placed without any."""
    digests = {name: sha256(name.encode()).hexdigest() for name in (*HEARD, "unheard")}
    shape = {"size_bytes": 9, "format": "wav", "codec": "pcm", "duration_s": 20.0, "sample_rate_hz": 44_100, "channels": 2}
    heard = {"versions": "rhythm=1", "duration_s": 20.0, "rhythm_confidence": 0.5}
    common = {
        "user_id": "u",
        "user_prompt": "p",
        "audio_url": "a.wav",
        "provider": "suno",
        "source": "test",
        "captured_on": DAY,
        "created_at": f"{DAY}T00:00:00Z",
        "audio_status": "stored",
    }
    rows = [
        {
            **common,
            "generation_id": name,
            "identity_sha256": sha256(name.encode()).digest(),
            "status": name if name in HEARD else "embedded",
            "audio_sha256": digest,
        }
        for name, digest in digests.items()
    ]
    with ledger.begin() as connection:
        upsert(connection, audio, [{"sha256": d, "storage_key": d, **shape} for d in digests.values()], conflict=("sha256",))
        upsert(connection, features, [{"audio_sha256": digests[n], **heard} for n in HEARD], conflict=("audio_sha256",))
        upsert(connection, generations, rows, conflict=("generation_id",))
    return ledger


def change(ledger, statement):
    with ledger.begin() as connection:
        connection.execute(sa.text(statement))


def columns(ledger, *names):
    with ledger.begin() as connection:
        rows = connection.execute(sa.text(f"SELECT generation_id, {', '.join(names)} FROM generations")).all()
    return {row[0]: row[1] if len(names) == 1 else tuple(row[1:]) for row in rows}


def test_a_take_counts_as_scored_once_it_is_placed_too(takes):
    assert score_lagging(takes).scored == 2
    before = {"analyzed": "analyzed", "embedded": "scored", "quarantined": "quarantined", "unheard": "embedded"}
    assert columns(takes, "status") == before

    change(takes, "UPDATE generations SET status = 'embedded' WHERE status IN ('analyzed', 'scored')")
    change(takes, "UPDATE generations SET erased_at = now() WHERE generation_id = 'embedded'")
    assert score_lagging(takes).scored == 0
    assert columns(takes, "status") == before | {"analyzed": "scored", "embedded": "embedded"}


def test_takes_that_other_formulas_scored_are_scored_once_more(takes):
    score_lagging(takes)
    change(takes, "UPDATE generations SET scored_features = 'rhythm=1 v0', quality_score = 0.9 WHERE quality_score IS NOT NULL")
    change(takes, "UPDATE quality_scores SET total = 0.9")
    assert count_lagging(takes) == 2
    assert (score_lagging(takes).scored, count_lagging(takes)) == (2, 0)
    assert columns(takes, "quality_score") == {"analyzed": 0.1, "embedded": 0.1, "quarantined": None, "unheard": None}


def test_a_pass_that_was_overtaken_writes_over_nothing_newer(takes, monkeypatch):
    def overtaken(page):
        monkeypatch.setattr(scores, "score", score)
        change(takes, "UPDATE generations SET liked = true, feedback_revision = 1")
        score_lagging(takes)
        return score(page)

    monkeypatch.setattr(scores, "score", overtaken)
    score_lagging(takes)
    query = "SELECT DISTINCT feedback_revision, total FROM quality_scores WHERE formula = 'seed_v1'"
    with takes.begin() as connection:
        assert connection.execute(sa.text(query)).all() == [(1, 0.3)]
    assert columns(takes, "quality_score", "scored_revision")["embedded"] == (0.3, 1)
    assert count_lagging(takes) == 0
