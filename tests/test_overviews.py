"""What the data team is shown, from a real ledger: rates, distributions, and how many takes wait for a score."""

import pytest
import sqlalchemy as sa

from keeptake.formats.figures import binned
from keeptake.ledger.overviews import SCORE_BINS, Distribution, analysis_rate_of_day, score_distributions, unheard_of_day
from keeptake.ledger.scores import PAGE_ROWS, count_lagging

# Takes with audio that was heard in two parts of 1.5 s of CPU each; every third has the audio of the one before.
FILL = """
    WITH numbers AS (
        SELECT i, encode(sha256((i - CASE i % 3 WHEN 2 THEN 1 ELSE 0 END)::text::bytea), 'hex') AS sha
        FROM generate_series(0, :takes - 1) i
    ),
    files AS (
        INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)
        SELECT DISTINCT sha, sha, 1, 'wav', 'pcm', 30, 44100, 2 FROM numbers RETURNING sha256
    ),
    heard AS (INSERT INTO features (audio_sha256, versions) SELECT sha256, 'rhythm=1' FROM files),
    parts AS (
        INSERT INTO analyses (audio_sha256, part, version, status, result, cpu_s)
        SELECT sha256, part, '1', 'ok', '{}', 1.5 FROM files, unnest(ARRAY['rhythm', 'tonal']) part
    )
    INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on,
        created_at, status, audio_status, audio_sha256)
    SELECT 'g' || i, '\\x00', 'u', 'p', 'a.wav', 'suno', 'test', DATE '2026-11-01' + i % 2, now(), 'embedded', 'stored', sha
    FROM numbers
"""


def fill(ledger, takes):
    with ledger.begin() as connection:
        connection.execute(sa.text(FILL), {"takes": takes})


def test_the_rate_of_a_day_counts_each_of_its_files_once(ledger):
    fill(ledger, 6)  # files 0 1 1 3 4 4 by take, every other take on the second day
    assert analysis_rate_of_day(ledger, "2026-11-01") == pytest.approx(30 / 3.0)
    assert analysis_rate_of_day(ledger, "2026-11-03") is None
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE analyses SET cpu_s = 7.5 WHERE audio_sha256 = (SELECT min(sha256) FROM audio)"))
        connection.execute(sa.text("UPDATE generations SET captured_on = DATE '2026-11-03'"))
    assert analysis_rate_of_day(ledger, "2026-11-03") == pytest.approx(4 * 30 / (3 * 3.0 + 15.0))


def test_what_cannot_be_heard_is_told_of_the_day_whoever_found_it(ledger):
    """The page told what this run could not hear: the next run, with nothing to do, said that all was well."""
    fill(ledger, 6)  # file 1 is that of takes 1 and 2, of a day each
    with ledger.begin() as connection:
        connection.execute(
            sa.text("UPDATE audio SET analysis_reason = 'timeout' WHERE sha256 = encode(sha256('1'::bytea), 'hex')")
        )
    assert [unheard_of_day(ledger, f"2026-11-0{day}") for day in (1, 2, 3)] == [{"timeout": 1}, {"timeout": 1}, {}]


def test_scores_are_counted_as_the_pictures_of_datasets_count_them(ledger):
    totals = [0.0, 0.01, 0.049, 0.051, 0.33, 0.52, 0.52, 0.999, 1.0]
    fill(ledger, len(totals))
    with ledger.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO quality_scores (generation, formula, total, terms, feedback_revision, features_versions)"
                " SELECT g.id, formula, (CAST(:totals AS float8[]))[substr(g.generation_id, 2)::int + 1], '{}', 0, ''"
                " FROM generations g, unnest(ARRAY['seed_v1', 'one that is no more']) formula"
            ),
            {"totals": totals},
        )
    found = score_distributions(ledger)
    assert found["seed_v1"].counts == binned(totals, bins=SCORE_BINS)
    assert found["seed_v1"].mean == pytest.approx(sum(totals) / len(totals))
    assert found["v2"] == Distribution([0] * SCORE_BINS, None)
    assert list(found) == ["seed_v1", "v2"]


def test_all_takes_that_lag_are_counted(ledger):
    """After an upgrade a million takes were told as 50,000: a page's limit had become the count's."""
    fill(ledger, PAGE_ROWS + 1)
    assert count_lagging(ledger) == PAGE_ROWS + 1
