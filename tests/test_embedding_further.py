"""Models beside the default one: each by itself, in the ledger and in the graph."""

import re
from hashlib import sha256

import dagster as dg
import numpy as np
import pytest
import soundfile
import sqlalchemy as sa

from assets.embedding_space import embedding_space
from assets.embeddings import embeddings
from assets.prompt_adherence import prompt_adherence
from keeptake.audio_store import AudioStore
from keeptake.embedding import DEFAULT_MODEL, PROMPTS
from keeptake.embedding.files import vector_of_file
from keeptake.embedding.further import by_each_model, joint_model
from keeptake.embedding.models import load_embedder, version_of
from keeptake.embedding.text import embed_text
from keeptake.errors import BusyError, ConfigurationError, ModelMissingError
from keeptake.ledger import datasets, overviews, tables
from keeptake.ledger.bulk import upsert
from keeptake.ledger.embeddings import renew_space
from keeptake.ledger.listing import RECORD
from keeptake.ledger.similarity import similar
from keeptake.ledger.vectors import Embedded, save_embeddings
from keeptake.model_store import ModelStore
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource
from resources.model_store import ModelStoreResource

pytestmark = pytest.mark.filterwarnings("default")  # transformers warns of its own deprecations

DAY = "2026-11-01"
TAKES = 4
ASKED = ("slow guitar", "fast techno", "slow techno with guitar", "guitar")


# One by one


def test_each_model_works_once_the_default_one_first():
    done, kept_from = by_each_model(["clap:a", DEFAULT_MODEL, "mert:b", "clap:a"], str.upper)
    assert done == {DEFAULT_MODEL: "MUSICNN-MSD", "clap:a": "CLAP:A", "mert:b": "MERT:B"}
    assert next(iter(done)) == DEFAULT_MODEL and kept_from == {}


def test_what_keeps_one_model_keeps_no_other_and_is_said():
    def work(model: str) -> int:
        if model == "clap:a":
            raise ModelMissingError("put it there")
        return 1

    assert by_each_model(["clap:a", "mert:b"], work) == ({DEFAULT_MODEL: 1, "mert:b": 1}, {"clap:a": "put it there"})


def test_what_keeps_the_default_model_is_raised():
    def work(model: str) -> int:
        raise BusyError("another run has the day")

    with pytest.raises(BusyError):
        by_each_model(["mert:b"], work)


def test_a_joint_model_is_one_that_is_there_and_knows_words(tiny_models, tmp_path):
    tiny_models.save(tmp_path)
    store = ModelStore(tmp_path)
    assert joint_model([], store) is None
    assert joint_model(["mert:tiny-mert", "clap:absent"], store) is None
    found = joint_model(["mert:tiny-mert", "clap:absent", "clap:tiny-clap"], store)
    assert (found.name, found.version) == ("clap:tiny-clap", version_of("clap:tiny-clap", store))
    assert found.load().embed_text(["slow"]).shape == (1, 24)


# In the graph


@pytest.fixture
def home(ledger, tmp_path, signals, tiny_models, monkeypatch):
    """Four heard takes of a day, a store with two tiny models, and resources over both."""
    tiny_models.save(tmp_path / "models")
    monkeypatch.setenv("KEEPTAKE_EMBEDDING_MODELS", "clap:tiny-clap, mert:tiny-mert")
    monkeypatch.setenv("KEEPTAKE_HOME", str(tmp_path))
    settings.cache_clear()
    store = AudioStore((tmp_path / "audio").as_uri())
    for number in range(TAKES):
        soundfile.write(tmp_path / "take.wav", signals.drum_beat(90 + 9 * number, 5.0, 44_100), 44_100)
        keep(ledger, store.put(tmp_path / "take.wav"), number)
    yield {
        "ledger": LedgerResource(url=ledger.url),
        "audio_store": AudioStoreResource(url=store.url),
        "compute": ComputeResource(workers=1),
        "model_store": ModelStoreResource(folder=str(tmp_path / "models")),
    }
    settings.cache_clear()


def keep(ledger, kept, number: int) -> None:
    stored = {"sha256": kept.sha256, "storage_key": kept.key, "size_bytes": kept.size_bytes, "format": "wav", "codec": "pcm"}
    take = {
        "generation_id": f"g{number}",
        "identity_sha256": sha256(str(number).encode()).digest(),
        "user_id": "u",
        "user_prompt": ASKED[number],
        "audio_url": "take.wav",
        "provider": "suno",
        "source": "test",
        "captured_on": DAY,
        "created_at": "2026-11-01T00:00:00Z",
        "status": "analyzed",
        "audio_status": "stored",
        "audio_sha256": kept.sha256,
    }
    heard = {"audio_sha256": kept.sha256, "versions": "1", "tempo_bpm": 90.0 + 9 * number}
    with ledger.begin() as connection:
        stored |= {"duration_s": 5.0, "sample_rate_hz": 44_100, "channels": 1}
        upsert(connection, tables.audio, [stored], conflict=("sha256",))
        upsert(connection, tables.generations, [take], conflict=("generation_id",))
        upsert(connection, tables.features, [heard], conflict=("audio_sha256",))


def materialized(asset: dg.AssetsDefinition, resources) -> tuple[dict[str, dg.MetadataValue], list[dg.AssetCheckEvaluation]]:
    done = dg.materialize([asset], resources=resources, partition_key=DAY if asset.partitions_def else None)
    events = done.asset_materializations_for_node(asset.key.to_user_string())
    return dict(events[0].metadata), done.get_asset_check_evaluations()


def rows_of(value: dg.MetadataValue) -> list[dict[str, object]]:
    return [record.data for record in value.records]


def vectors_of(ledger) -> dict[str, int]:
    with ledger.begin() as connection:
        return dict(connection.execute(sa.text("SELECT model, count(*) FROM embeddings GROUP BY 1")).all())


def statuses(ledger) -> set[str]:
    with ledger.begin() as connection:
        return set(connection.scalars(sa.text("SELECT status FROM generations")))


def test_takes_are_placed_by_every_model_side_by_side(ledger, home, tmp_path):
    placed, (check,) = materialized(embeddings, home)
    space, _ = materialized(embedding_space, home)
    judged, _ = materialized(prompt_adherence, home)

    assert placed["embedded"].value == TAKES
    assert vectors_of(ledger) == {DEFAULT_MODEL: TAKES, "clap:tiny-clap": TAKES, "mert:tiny-mert": TAKES}
    assert check.passed and statuses(ledger) == {"embedded"}
    rows = {row["model"]: row for row in rows_of(space["spaces"])}
    assert {model: row["vectors"] for model, row in rows.items()} == vectors_of(ledger)
    for model in vectors_of(ledger):
        found = similar(ledger, "g0", 10, model=model)
        assert sorted(each.generation_id for each in found) == ["g1", "g2", "g3"]
    stored = next(path for path in (tmp_path / "audio").rglob("*") if path.is_file())
    vector = vector_of_file(stored, tmp_path / "models", model="clap:tiny-clap")
    assert similar(ledger, vector, 1, model="clap:tiny-clap")[0].similarity == pytest.approx(1, abs=1e-3)
    verdicts = {(row["term"], row["verdict"]): row["takes"] for row in rows_of(judged["verdicts"])}
    assert verdicts["text_audio", "cosine"] == TAKES
    assert materialized(prompt_adherence, home)[0]["judged_in_this_run"].value == 0


def test_takes_are_found_by_the_words_of_their_prompts(ledger, home, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="the extra text is not installed")
    monkeypatch.setenv("KEEPTAKE_EMBEDDING_MODELS", PROMPTS)
    settings.cache_clear()
    give_vectors(ledger, DEFAULT_MODEL, np.zeros((TAKES, 336)))
    with ledger.begin() as connection:  # what the provider was given counts
        connection.execute(sa.text("UPDATE generations SET ai_enhanced_prompt = 'a church organ' WHERE generation_id = 'g3'"))
    _, (check,) = materialized(embeddings, home)
    assert check.passed and vectors_of(ledger) == {DEFAULT_MODEL: TAKES, PROMPTS: TAKES}
    with ledger.begin() as connection:
        times = "SELECT max(embedded_at) FROM embeddings"
        before = connection.scalar(sa.text(times))
    materialized(embeddings, home)
    materialized(embedding_space, home)

    with ledger.begin() as connection:
        assert connection.scalar(sa.text(times)) == before, "placed again"
    for words, nearest in {"a rapid techno track": "g1", "pipe organ in a cathedral": "g3", "guitar, slowly": "g0"}.items():
        assert similar(ledger, embed_text([words])[0], 1, model=PROMPTS)[0].generation_id == nearest
    with pytest.raises(ConfigurationError, match="places what was asked for in words, not audio"):
        load_embedder(PROMPTS, ModelStore(settings().models_location))


def test_prompts_that_are_all_the_same_lie_in_one_place(ledger, home, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="the extra text is not installed")
    monkeypatch.setenv("KEEPTAKE_EMBEDDING_MODELS", PROMPTS)
    settings.cache_clear()
    give_vectors(ledger, DEFAULT_MODEL, np.zeros((TAKES, 336)))
    with ledger.begin() as connection:
        connection.execute(sa.text("UPDATE generations SET user_prompt = 'slow guitar'"))
    materialized(embeddings, home)
    materialized(embedding_space, home)
    assert len(similar(ledger, "g0", 10, model=PROMPTS)) == TAKES - 1


def test_control_without_further_models_no_words_are_compared_with_sound(ledger, home, monkeypatch):
    monkeypatch.setenv("KEEPTAKE_EMBEDDING_MODELS", "")
    settings.cache_clear()
    materialized(embeddings, home)
    judged, _ = materialized(prompt_adherence, home)
    assert vectors_of(ledger) == {DEFAULT_MODEL: TAKES}
    assert ("text_audio", "not-joint") in {(row["term"], row["verdict"]) for row in rows_of(judged["verdicts"])}


def test_the_vector_that_records_snapshots_and_curation_give_is_the_default_models(ledger, home):
    """They gave the newest vector of any model, so a second model would have changed columns, and the limit of alike takes."""
    draw = np.random.default_rng(0)
    give_vectors(ledger, DEFAULT_MODEL, draw.normal(size=(TAKES, 336)))
    renew_space(ledger, DEFAULT_MODEL, version_of(DEFAULT_MODEL))
    alone = datasets.vectors(ledger)
    give_vectors(ledger, "clap:other", draw.normal(size=(TAKES, 24)))
    renew_space(ledger, "clap:other", "1")

    with ledger.begin() as connection:
        record = connection.exec_driver_sql(RECORD, ("g1",)).mappings().one()
    assert len(record["embedding"]) == 336
    assert set(overviews.snapshot_of_day(ledger, DAY)["vector"].list.len()) == {336}
    np.testing.assert_equal(datasets.vectors(ledger), alone)


def give_vectors(ledger, model: str, vectors: np.ndarray) -> None:
    version = version_of(model) if model == DEFAULT_MODEL else "1"
    with ledger.begin() as connection:
        files = connection.scalars(sa.text("SELECT DISTINCT audio_sha256 FROM generations ORDER BY 1")).all()
        save_embeddings(connection, list(map(Embedded, files, vectors.astype(np.float32))), model, version)


def test_models_that_cannot_work_keep_no_other_and_say_what_to_do(ledger, home, tmp_path, monkeypatch):
    (tmp_path / "models" / "mixed-up").symlink_to(tmp_path / "models" / "tiny-clap")
    named = ["clap:absent", "vggish", "mert:mixed-up"]
    monkeypatch.setenv("KEEPTAKE_EMBEDDING_MODELS", ",".join([*named, "mert:tiny-mert"]))
    settings.cache_clear()
    _, (check,) = materialized(embeddings, home)
    space, _ = materialized(embedding_space, home)

    assert vectors_of(ledger) == {DEFAULT_MODEL: TAKES, "mert:tiny-mert": TAKES}
    assert not check.passed and check.severity == dg.AssetCheckSeverity.WARN
    for why in (
        "clap:absent: no model 'absent' in .*: put the files of huggingface.co",
        "vggish: .*there are musicnn-msd, prompts, clap:FOLDER and mert:FOLDER",
        "mert:mixed-up: a worker process cannot start: the model in .*mixed-up does not load: .*Put the files of huggingface.co",
    ):
        assert re.search(why, check.description, re.DOTALL)
    remarks = {row["model"]: row["remark"] for row in rows_of(space["spaces"])}
    assert remarks["mert:tiny-mert"] == "" and all(name in remarks for name in named)


def test_what_a_further_model_fails_at_is_not_quarantined_and_tried_again(ledger, home, tmp_path, monkeypatch):
    """A take that the default model placed is a good one, whatever an optional model makes of it."""
    monkeypatch.setenv("KEEPTAKE_EMBEDDING_MODELS", "mert:tiny-mert")
    settings.cache_clear()
    give_vectors(ledger, DEFAULT_MODEL, np.zeros((TAKES, 336)))
    kept = next(path for path in (tmp_path / "audio").rglob("*") if path.is_file())
    kept.rename(tmp_path / "away")
    _, (check,) = materialized(embeddings, home)
    assert not check.passed and check.description == "mert:tiny-mert: 1 damaged-object"
    assert statuses(ledger) == {"embedded"} and vectors_of(ledger)["mert:tiny-mert"] == TAKES - 1

    (tmp_path / "away").rename(kept)
    _, (check,) = materialized(embeddings, home)
    assert check.passed and vectors_of(ledger)["mert:tiny-mert"] == TAKES
