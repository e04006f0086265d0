"""Nearest takes: the space is versioned, the filters lose nothing, and the answers are those of an exact search."""

import hashlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.models import MUSICNN_VERSION
from keeptake.embedding.scaler import apply_scaler
from keeptake.errors import ConfigurationError
from keeptake.ledger import similarity
from keeptake.ledger.connection import Ledger, libpq_url
from keeptake.ledger.embeddings import current_scaler, index_name, read_scaler, renew_space, scaler_in_use
from keeptake.ledger.overviews import neighbours_of_examples
from keeptake.ledger.similarity import EmbeddingPendingError, Filters, similar
from keeptake.ledger.vectors import outdated_by_day

DIMS = 24
TAKES = 6_000


def sha(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def fill(url, vectors, first=0):
    """Takes as the pipeline leaves them, one an audio file, each with a share of providers, users, keys and tempi."""
    with psycopg.connect(libpq_url(url)) as connection, connection.cursor() as cursor:
        numbers = range(first, first + len(vectors))
        with cursor.copy(
            "COPY audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels) FROM STDIN"
        ) as copy:
            for n in numbers:
                copy.write_row((sha(n), f"audio/{n}", 1, "wav", "pcm", 10.0, 44100, 2))
        with cursor.copy(
            "COPY generations (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on,"
            " created_at, audio_status, audio_sha256) FROM STDIN"
        ) as copy:
            for n in numbers:
                user, provider = f"user{n % 1_000}", f"provider{n % 10}"
                copy.write_row(
                    (f"g{n}", bytes(32), user, "p", "a.wav", provider, "api", "2026-11-01", "2026-11-01", "stored", sha(n))
                )
        with cursor.copy("COPY features (audio_sha256, versions, tempo_bpm, key, genre) FROM STDIN") as copy:
            for n in numbers:
                copy.write_row((sha(n), "", 60.0 + n % 100, f"key{n % 100}", f"genre{n % 2}"))
        with cursor.copy("COPY embeddings (audio_sha256, model, version, vector) FROM STDIN") as copy:
            for n, vector in zip(numbers, vectors, strict=True):
                copy.write_row((sha(n), DEFAULT_MODEL, MUSICNN_VERSION, vector.tolist()))
        cursor.execute("ANALYZE")


def clustered(count, seed=0):
    """Vectors like music: many overlapping clusters, dimensions of unequal size."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((50, DIMS))
    vectors = centres[generator.integers(0, 50, count)] + 0.7 * generator.standard_normal((count, DIMS))
    return (vectors * np.geomspace(0.01, 100, DIMS)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return clustered(TAKES)


@pytest.fixture(scope="module")
def placed(postgres, template_database, vectors):
    """A space of thousands of takes that no test of this file changes."""
    with psycopg.connect(libpq_url(postgres), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE placed TEMPLATE {template_database}")
    ledger = Ledger(make_url(postgres).set(database="placed").render_as_string(hide_password=False))
    fill(ledger.url, vectors)
    renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
    yield ledger
    ledger.dispose()


@pytest.fixture
def small(ledger, vectors):
    """A space of its own for a test that changes it."""
    fill(ledger.url, vectors[:40])
    renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
    return ledger


def current_transform(ledger):
    with ledger.begin() as connection:
        return read_scaler(connection, scaler_in_use(connection, DEFAULT_MODEL))


def exact(ledger, vectors, query, allowed, k):
    """Nearest by brute force over the stored half-precision vectors."""
    scaled = apply_scaler(current_transform(ledger), vectors).astype(np.float16).astype(np.float32)
    cosines = scaled @ scaled[query] / np.linalg.norm(scaled, axis=1) / np.linalg.norm(scaled[query])
    order = [n for n in np.argsort(-cosines) if n != query and allowed(n)][:k]
    return [f"g{n}" for n in order]


CASES = {
    "everything": (Filters(), lambda n: True, TAKES - 1),
    "half, by genre": (Filters(genre="genre1"), lambda n: n % 2 == 1, TAKES // 2),
    "a tenth, by provider": (Filters(provider="provider3"), lambda n: n % 10 == 3, TAKES // 10),
    "a hundredth, by key": (Filters(key="key7"), lambda n: n % 100 == 7, TAKES // 100),
    "a thousandth, by user": (Filters(user_id="user8"), lambda n: n % 1_000 == 8, TAKES // 1_000),
    "a range of tempi": (Filters(tempo_from_bpm=80, tempo_to_bpm=81.5), lambda n: n % 100 in (20, 21), TAKES // 50),
    "two at once": (Filters(provider="provider3", key="key3"), lambda n: n % 100 == 3, TAKES // 100),
    "nobody": (Filters(user_id="nobody"), lambda n: False, 0),
}


def test_filters_lose_nothing(placed, vectors, monkeypatch):
    """From everything to nobody: as many rows as pass, and those that an exact search finds; half of the takes by the index."""
    monkeypatch.setattr(similarity, "EXACT_MOST", 1_000)
    for name, (filters, allowed, passing) in CASES.items():
        hits = wanted = 0
        for query in (0, 1_234, 5_999):
            expected = exact(placed, vectors, query, allowed, 10)
            found = similar(placed, f"g{query}", 10, filters)

            assert len(found) == len(expected) == min(10, passing - allowed(query) * (passing < TAKES - 1)), name
            hits, wanted = hits + len({n.generation_id for n in found} & set(expected)), wanted + len(expected)
        assert hits >= 0.95 * wanted, name
        if passing <= similarity.EXACT_MOST:
            assert hits == wanted, name


def test_the_command_filters_as_the_search_does(placed, tmp_path):
    options = ["--provider", "provider3", "--tempo-from", "80", "--tempo-to", "90", "-k", "4", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "dagster_project.cli", "similar", "g0", *options],
        env=os.environ | {"KEEPTAKE_HOME": str(tmp_path), "KEEPTAKE_DATABASE_URL": placed.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = similar(placed, "g0", 4, Filters(provider="provider3", tempo_from_bpm=80, tempo_to_bpm=90))
    assert [json.loads(line)["generation_id"] for line in done.stdout.splitlines()] == [n.generation_id for n in expected]
    assert {int(n.generation_id[1:]) % 100 for n in expected} <= {23}


def test_control_plain_hnsw_behind_a_filter_returns_too_few(placed):
    """What Postgres does by itself: the index proposes its first candidates, and the filter leaves next to none."""
    scaler = current_scaler(placed, DEFAULT_MODEL)
    with placed.begin() as connection:
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        connection.execute(sa.text("SET LOCAL enable_sort = off"))
        vector = connection.execute(
            sa.text(f"SELECT vector::text FROM scaled_embeddings WHERE audio_sha256 = '{sha(0)}'")
        ).scalar()
        rows = connection.execute(
            sa.text(
                "SELECT g.generation_id FROM scaled_embeddings s JOIN generations g ON g.audio_sha256 = s.audio_sha256"
                f" WHERE s.scaler = {scaler.id} AND g.user_id = 'user8'"
                f" ORDER BY s.vector::halfvec({scaler.dims}) <=> '{vector}' LIMIT 6"
            )
        ).all()

    assert len(rows) < 6
    assert len(similar(placed, "g0", 6, Filters(user_id="user8"))) == 6


def test_answers_come_through_the_index(placed):
    """Where many takes pass, the plan reads the HNSW index of the current scaler."""
    scaler = current_scaler(placed, DEFAULT_MODEL)
    statements = []
    with placed.begin() as connection:
        sa.event.listen(placed.engine, "before_cursor_execute", lambda *args: statements.append((args[2], args[3])))
    similar(placed, "g0", 10)
    statement, values = next((text, values) for text, values in statements if "WITH nearest" in text)
    with placed.engine.begin() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()

    assert any(index_name(scaler.id) in line for line in plan), plan


def test_an_index_that_finds_too_few_is_followed_by_an_exact_search(placed, monkeypatch, vectors):
    monkeypatch.setattr(similarity, "_checked", lambda *args: [])

    found = [neighbour.generation_id for neighbour in similar(placed, "g5", 10)]
    assert found == exact(placed, vectors, 5, lambda n: True, 10)


def test_a_filter_holds_for_what_is_heard_now_though_the_notes_are_older(small):
    """What lies beside the vectors is as old as the last renewal: no wrong take, none too few; and the renewal catches up."""
    (nearest,) = similar(small, "g0", 1, Filters(genre="genre1"))
    with small.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE features SET genre = 'heard anew' WHERE audio_sha256 ="
                " (SELECT audio_sha256 FROM generations WHERE generation_id = :id)"
            ),
            {"id": nearest.generation_id},
        )
    assert nearest.generation_id not in {take.generation_id for take in similar(small, "g0", 10, Filters(genre="genre1"))}
    assert [take.generation_id for take in similar(small, "g0", 5, Filters(genre="heard anew"))] == [nearest.generation_id]
    assert len(similar(small, "g0", 25, Filters(genre="genre1"))) == 19

    renew_space(small, DEFAULT_MODEL, MUSICNN_VERSION)
    with small.begin() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM scaled_embeddings WHERE genre = 'heard anew'")).scalar() == 1


def test_a_take_that_comes_with_known_audio_is_noted_and_an_erased_one_no_more(small):
    notes = sa.text(f"SELECT user_ids, providers FROM scaled_embeddings WHERE audio_sha256 = '{sha(1)}'")
    with small.begin() as connection:
        connection.execute(sa.text(f"UPDATE generations SET audio_sha256 = '{sha(1)}' WHERE generation_id = 'g2'"))
    renew_space(small, DEFAULT_MODEL, MUSICNN_VERSION)
    with small.begin() as connection:
        assert tuple(connection.execute(notes).one()) == (["user1", "user2"], ["provider1", "provider2"])
        connection.execute(sa.text("UPDATE generations SET erased_at = now() WHERE generation_id = 'g1'"))
    assert similar(small, "g0", 5, Filters(user_id="user1")) == []
    renew_space(small, DEFAULT_MODEL, MUSICNN_VERSION)
    with small.begin() as connection:
        assert tuple(connection.execute(notes).one()) == (["user2"], ["provider2"])


def test_a_renewal_without_news_writes_nothing(small):
    rows = sa.text("SELECT array_agg(xmin::text ORDER BY audio_sha256) FROM scaled_embeddings")
    with small.begin() as connection:
        before = connection.execute(rows).scalar()
    renew_space(small, DEFAULT_MODEL, MUSICNN_VERSION)
    with small.begin() as connection:
        assert connection.execute(rows).scalar() == before


def test_few_that_pass_are_found_by_the_notes_beside_the_vectors(placed, vectors, monkeypatch):
    """Neither by the index nor by the search that joins everything, which is right as well but slow."""
    monkeypatch.setattr(similarity, "_nearest_exact", lambda *args: pytest.fail("joined"))
    monkeypatch.setattr(similarity, "_by_index", lambda *args: pytest.fail("asked the index"))

    found = [neighbour.generation_id for neighbour in similar(placed, "g5", 10, Filters(provider="provider3"))]
    assert found == exact(placed, vectors, 5, lambda n: n % 10 == 3, 10)


def test_similarity_is_the_cosine_and_a_copy_is_nearest(small, vectors):
    fill(small.url, vectors[[17]], first=40)
    renew_space(small, DEFAULT_MODEL, MUSICNN_VERSION)

    (nearest,) = similar(small, "g40", 1)
    assert nearest.generation_id == "g17"
    assert nearest.similarity == pytest.approx(1, abs=1e-3)


def test_control_shuffled_vectors_find_other_takes(small, vectors):
    """That the answers of the tests above are not right by themselves."""
    expected = exact(small, vectors[:40], 5, lambda n: True, 5)
    with small.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE scaled_embeddings s SET vector = o.vector FROM (SELECT audio_sha256, lag(vector, 7, vector) OVER"
                " (ORDER BY audio_sha256) AS vector FROM scaled_embeddings) o WHERE o.audio_sha256 = s.audio_sha256"
            )
        )

    assert len(set(expected) & {take.generation_id for take in similar(small, "g5", 5)}) < 5


def test_a_vector_is_a_target_too(placed, vectors):
    found = similar(placed, vectors[17], 3)

    assert found[0].generation_id == "g17"
    assert found[0].similarity == pytest.approx(1, abs=1e-3)


def test_audio_shared_by_two_takes_gives_both(small):
    with small.begin() as connection:
        connection.execute(sa.text(f"UPDATE generations SET audio_sha256 = '{sha(1)}' WHERE generation_id = 'g2'"))

    assert [n.generation_id for n in similar(small, "g1", 1)] == ["g2"]


def test_erased_takes_are_no_neighbours(small):
    (before,) = similar(small, "g0", 1)
    with small.begin() as connection:
        connection.execute(
            sa.text("UPDATE generations SET erased_at = now() WHERE generation_id = :id"), {"id": before.generation_id}
        )

    assert similar(small, "g0", 1)[0].generation_id != before.generation_id


def test_no_space_yet_is_said(ledger):
    with pytest.raises(EmbeddingPendingError, match="no takes are placed by musicnn-msd yet"):
        similar(ledger, "g0")


QUARANTINED = "audio_status = 'quarantined', audio_reason = 'truncated', audio_sha256 = NULL"


@pytest.mark.parametrize(
    ("change", "said"),
    [("updated_at = now()", "repeat when"), (QUARANTINED, "its audio is quarantined, see `keeptake explain g1`")],
)
def test_take_that_is_not_placed_yet_is_said_with_what_it_waits_for(small, change, said):
    with small.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM scaled_embeddings WHERE audio_sha256 = '{sha(1)}'"))
        connection.execute(sa.text(f"UPDATE generations SET {change} WHERE generation_id = 'g1'"))
    with pytest.raises(EmbeddingPendingError, match=f"take 'g1' is not placed by musicnn-msd yet: {said}"):
        similar(small, "g1")


def let_the_space_be_of(ledger, version):
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE embedding_scalers SET model_version = :version"), {"version": version})


def test_a_take_of_a_version_that_has_not_caught_up_is_said_to_be_one(small):
    """It was said to be repeated when the take is embedded, which it was."""
    let_the_space_be_of(small, "older")
    with small.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM scaled_embeddings WHERE audio_sha256 = '{sha(1)}'"))
        connection.execute(sa.text("UPDATE embeddings SET embedded_at = now() + interval '1 second'"))
    of_other = f"version {MUSICNN_VERSION} of musicnn-msd, and search is still in the space of version older: repeat when half"
    with pytest.raises(EmbeddingPendingError, match=f"take 'g1' is placed by {of_other}"):
        similar(small, "g1")
    vector = np.zeros(DIMS, np.float32)
    with pytest.raises(EmbeddingPendingError, match=f"this is placed by {of_other}"):
        similar(small, vector, version=MUSICNN_VERSION)


def test_a_take_of_a_version_that_was_taken_over_from_waits_for_its_turn(small):
    let_the_space_be_of(small, "next")
    with small.begin() as connection:
        connection.execute(sa.text(f"DELETE FROM scaled_embeddings WHERE audio_sha256 = '{sha(1)}'"))
        connection.execute(sa.text("UPDATE embedding_scalers SET fitted_at = now() + interval '1 second'"))
    with pytest.raises(EmbeddingPendingError, match="take 'g1' is not placed by musicnn-msd yet: repeat when it is embedded"):
        similar(small, "g1")


def test_days_of_another_version_are_those_to_place_anew(small):
    with small.begin() as connection:
        connection.execute(sa.text("UPDATE generations SET status = 'scored'"))
        connection.execute(sa.text("UPDATE generations SET captured_on = '2026-10-31' WHERE generation_id = 'g1'"))
    assert outdated_by_day(small, DEFAULT_MODEL, MUSICNN_VERSION) == {}
    with small.begin() as connection:
        connection.execute(sa.text(f"UPDATE embeddings SET version = 'older' WHERE audio_sha256 = '{sha(1)}'"))
    assert outdated_by_day(small, DEFAULT_MODEL, MUSICNN_VERSION) == {"2026-10-31": 1}
    with small.begin() as connection:
        connection.execute(sa.text("UPDATE generations SET status = 'quarantined' WHERE generation_id = 'g1'"))
    assert outdated_by_day(small, DEFAULT_MODEL, MUSICNN_VERSION) == {}


def test_unknown_take_is_no_take_that_is_still_to_be_placed(placed):
    """A mistyped id was to be asked for again later, for ever."""
    with pytest.raises(ConfigurationError, match="no take g9999999: `keeptake status"):
        similar(placed, "g9999999")


@pytest.mark.parametrize("k", [0, -1, 201])
def test_k_out_of_range_is_refused(ledger, k):
    with pytest.raises(ValueError, match=f"1 to 200, got {k}"):
        similar(ledger, "g0", k)


class TestRenewal:
    def test_one_take_makes_no_space(self, ledger):
        fill(ledger.url, clustered(1))

        assert renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION).scaler is None

    def test_grows_by_scaling_and_renews_at_the_step(self, ledger):
        fill(ledger.url, clustered(10))
        first = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        fill(ledger.url, clustered(29, seed=1), first=10)
        second = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        fill(ledger.url, clustered(1, seed=2), first=39)
        third = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        again = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)

        assert [report.is_renewed for report in (first, second, third, again)] == [True, False, True, False]
        assert [report.scaler.version for report in (first, second, third, again)] == [1, 1, 2, 2]
        assert [report.vectors for report in (first, second, third, again)] == [10, 39, 40, 40]
        assert [report.added for report in (first, second, third, again)] == [10, 29, 40, 0]

    def test_renewal_leaves_one_index_and_one_set_of_vectors(self, ledger):
        fill(ledger.url, clustered(10))
        renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        fill(ledger.url, clustered(40, seed=1), first=10)
        current = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION).scaler

        with ledger.begin() as connection:
            indexes = connection.execute(sa.text("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'hnsw%'")).scalars().all()
            scalers = connection.execute(sa.text("SELECT DISTINCT scaler FROM scaled_embeddings")).scalars().all()
            versions = connection.execute(sa.text("SELECT version, is_current FROM embedding_scalers ORDER BY 1")).all()
        assert indexes == [index_name(current.id)]
        assert scalers == [current.id]
        assert [tuple(row) for row in versions] == [(1, False), (2, True)]

    def test_search_goes_on_while_a_renewal_dies(self, ledger, monkeypatch):
        """A renewal that was killed before its index stood once left a space in which nothing was found."""
        from keeptake.ledger import embeddings

        fill(ledger.url, clustered(10))
        renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        fill(ledger.url, clustered(40, seed=1), first=10)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(embeddings, "_index", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)

        assert len(similar(ledger, "g0", 9)) == 9
        assert renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION).vectors == 50
        with ledger.begin() as connection:
            assert connection.execute(sa.text("SELECT count(DISTINCT scaler) FROM scaled_embeddings")).scalar() == 1

    def test_new_version_of_a_model_takes_over_when_it_has_caught_up(self, ledger):
        """The first two vectors of a new version once replaced the space of all the others."""
        fill(ledger.url, clustered(40))
        old = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        place_again = "INSERT INTO embeddings SELECT audio_sha256, model, 'next', vector FROM embeddings WHERE version = :version"
        with ledger.begin() as connection:
            connection.execute(sa.text(f"{place_again} ORDER BY audio_sha256 LIMIT 19"), {"version": MUSICNN_VERSION})
        early = renew_space(ledger, DEFAULT_MODEL, "next")
        assert early.is_outdated
        with ledger.begin() as connection:
            connection.execute(sa.text(f"{place_again} ON CONFLICT DO NOTHING"), {"version": MUSICNN_VERSION})
        late = renew_space(ledger, DEFAULT_MODEL, "next")

        assert (early.scaler, early.vectors) == (old.scaler, 40)
        assert (late.scaler.model_version, late.vectors, late.is_renewed) == ("next", 40, True)
        assert len(similar(ledger, "g0", 39)) == 39

    def test_models_stand_side_by_side(self, ledger):
        fill(ledger.url, clustered(10))
        with ledger.begin() as connection:
            connection.execute(
                sa.text("INSERT INTO embeddings SELECT audio_sha256, 'clap:toy', '1', vector[1:8] FROM embeddings")
            )
        ours, theirs = renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION), renew_space(ledger, "clap:toy", "1")

        assert current_scaler(ledger, DEFAULT_MODEL) == ours.scaler
        assert current_scaler(ledger, "clap:toy") == theirs.scaler
        assert len(similar(ledger, "g0", 9)) == len(similar(ledger, "g0", 9, model="clap:toy")) == 9

    def test_control_a_scaler_of_another_version_finds_other_neighbours(self, ledger):
        """Why vectors of two scalers are never compared: between them even a take is not its own nearest."""
        vectors = clustered(300)
        fill(ledger.url, vectors[:10])
        renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        old = apply_scaler(current_transform(ledger), vectors)
        fill(ledger.url, vectors[10:], first=10)
        renew_space(ledger, DEFAULT_MODEL, MUSICNN_VERSION)
        new = apply_scaler(current_transform(ledger), vectors)

        same = min(old.shape[1], new.shape[1])
        mixed = np.argmax(old[:, :same] @ new[:, :same].T, axis=1) == np.arange(300)
        assert np.mean(np.argmax(new @ new.T, axis=1) == np.arange(300)) == 1
        assert np.mean(mixed) < 0.5


def uses_of(ledger, scaler):
    """How often the scaler's index was read so far; a session tells it at its end, at the latest a second later."""
    ledger.dispose()
    time.sleep(1.0)
    with ledger.begin() as connection:
        query = sa.text("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = :name")
        return connection.scalar(query, {"name": index_name(scaler.id)})


def test_the_neighbours_that_are_shown_come_from_the_index_and_are_the_nearest(placed, vectors):
    """Ordered by the vector as it is stored, and not as the index has it, every vector was compared with each example."""
    with placed.begin() as connection:
        scaler = scaler_in_use(connection, DEFAULT_MODEL)
    before = uses_of(placed, scaler)
    shown = neighbours_of_examples(placed, scaler)
    assert shown.height == 9 and shown["example"].n_unique() == 3
    for example, group in shown.group_by("example"):
        expected = [
            sha(int(found.generation_id[1:]))
            for found in similar(placed, next(f"g{n}" for n in range(TAKES) if sha(n) == example[0]), k=3)
        ]
        assert sorted(group["neighbour"]) == sorted(expected)
    assert uses_of(placed, scaler) > before


def test_without_a_space_no_neighbours_are_shown(ledger):
    assert neighbours_of_examples(ledger, None).columns == ["example", "neighbour", "cosine"]
