"""What the graph shows of takes: small pictures, neighbours, groups of duplicates, a way to listen."""

import io
import re
from base64 import b64decode
from hashlib import sha256

import dagster as dg
import numpy as np
import polars as pl
import pytest
import soundfile
import sqlalchemy as sa
from PIL import Image

from assets import report, takes
from assets.analyzed_features import analyzed_features
from assets.embedding_space import embedding_space
from assets.embeddings import embeddings
from assets.fingerprints import fingerprints, near_duplicates
from assets.prompt_adherence import prompt_adherence
from assets.report import escaped, markdown_table
from keeptake import examples
from keeptake.audio.analyze import analyze
from keeptake.audio.frontend import SAMPLE_RATE_HZ, listen
from keeptake.audio.plot import SMALL, picture
from keeptake.audio.thumbnail import HEIGHT, WIDTH, thumbnail
from keeptake.audio_store import AudioStore, key_of
from keeptake.curation.duplicates import DuplicatePair, Group
from keeptake.formats import figures
from keeptake.formats.figures import asked_against_heard
from keeptake.ledger.bulk import upsert
from keeptake.ledger.overviews import Take
from keeptake.ledger.tables import audio, generations
from keeptake.settings import Settings, settings
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource
from resources.ledger import LedgerResource
from resources.model_store import ModelStoreResource

DAY = "2026-11-01"
MOST_A_RUN = 200_000  # characters that one run may add to the event log, which keeps them for ever


def colours(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int).reshape(-1, 3)


def nearest(png: bytes, colour: str) -> float:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return float(np.abs(colours(png) - wanted).max(axis=1).min())


# Small pictures


@pytest.mark.parametrize("frames", [1, 40, 2_000, 60_000])
def test_a_thumbnail_of_anything_is_at_most_6_kilobytes(frames):
    noise = np.random.default_rng(1).lognormal(sigma=6, size=(frames, 128))
    png = thumbnail(noise)
    assert len(png) <= 6_000
    assert Image.open(io.BytesIO(png)).size == (WIDTH, HEIGHT)


def test_a_thumbnail_has_time_to_the_right_and_pitch_upwards():
    mel = np.zeros((1_000, 128))
    mel[:500, :64] = 1.0  # low, and early
    light = np.asarray(Image.open(io.BytesIO(thumbnail(mel))).convert("L"), float)
    bright = [half.mean() for side in np.hsplit(light, 2) for half in np.vsplit(side, 2)]
    assert np.argmax(bright) == 1 and min(bright[1] - bright[i] for i in (0, 2, 3)) > 150


def test_the_small_picture_of_an_analysis_is_at_most_40_kilobytes():
    bursts = np.random.default_rng(1).standard_normal(30 * SAMPLE_RATE_HZ).astype(np.float32)
    bursts *= np.repeat(np.random.default_rng(2).random(bursts.size // 1_000 + 1), 1_000)[: bursts.size]
    png = picture(listen(bursts), analyze([bursts], SAMPLE_RATE_HZ), title="noise", size=SMALL)
    assert len(png) <= 40_000
    assert Image.open(io.BytesIO(png)).size == (722, 501)


YELLOW_DOT = "#eccb89"  # of `half` and `double`, as light as dots are drawn
DOTS = {"exact": "#7fb2c5", "half": YELLOW_DOT, "double": YELLOW_DOT, "wrong": "#e8a38a"}


def scatter() -> bytes:
    tempi = [float(tempo) for tempo in range(70, 170)]
    return asked_against_heard([*tempi, 100], [*tempi, 133], ["exact"] * 100 + ["wrong"])


def test_few_colours_keep_a_rare_one():
    """The only yellow dot of a scatter, that of the legend, once came out in red."""
    assert nearest(scatter(), YELLOW_DOT) <= 24


def test_control_the_commonest_colours_lose_it(monkeypatch):
    monkeypatch.setattr(figures, "with_palette", commonest)
    assert nearest(scatter(), YELLOW_DOT) > 24


def commonest(png: bytes, colours: int) -> bytes:
    written = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(colours, Image.Quantize.MEDIANCUT).save(written, "png")
    return written.getvalue()


@pytest.mark.parametrize("verdict", DOTS)
def test_every_verdict_has_its_dots(verdict):
    """Takes at half and double tempo were never drawn: the picture looked for a verdict `half/double`, which nobody gives."""

    def inked(tempi_bpm: list[float]) -> int:
        drawn = colours(asked_against_heard(tempi_bpm, tempi_bpm, [verdict] * len(tempi_bpm)))
        wanted = [int(DOTS[verdict][i : i + 2], 16) for i in (1, 3, 5)]
        return int((np.abs(drawn - wanted).max(axis=1) <= 24).sum())

    assert inked([90.0, 110.0, 130.0]) > inked([]) + 100  # pixels, beside the one in the legend


# Words and ways to listen


def test_a_prompt_cannot_draw_a_picture_or_end_a_row():
    assert escaped("a|b\n![x](http://h/i.png) <b>") == r"a\|b \!\[x\]\(http\:\/\/h\/i\.png\) \<b\>"
    assert markdown_table(["a", "b"], [["1", escaped("|")]]).splitlines()[2] == r"| 1 | \| |"


def named(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


KNOWN = {named(n): Take(named(n), f"take-{n}", 1 + (n == 2), f"prompt {n}", 20.0, 90.0 + n, "A minor") for n in range(4)}


@pytest.fixture
def shown(tmp_path) -> takes.Shown:
    return takes.Shown(KNOWN, {named(2): b"png"}, AudioStore((tmp_path / "audio").as_uri()), "http://127.0.0.1:8002")


def test_neighbours_are_named_under_their_example_nearest_first(shown):
    found = pl.DataFrame({"example": [named(0)] * 2, "neighbour": [named(2), named(9)], "cosine": [0.91, 0.5]})
    rows = [line.split(" | ") for line in takes.neighbours(found, shown).value.splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == ["**example**", "0.910", "0.500"]
    assert rows[1][1:4] == [r"take\-2 and 1 more of this file", "prompt 2", r"20\.0 s\, 92\.0 BPM\, A minor"]
    assert "data:image/png;base64,cG5n" in rows[1][4] and rows[0][4] == ""
    assert named(9)[:8] in rows[2][1]


def test_a_group_shows_all_its_members_and_the_evidence_of_its_pairs(shown):
    pairs = [pair(n, bit_error=0.078, cosine=cosine) for n, cosine in ((1, 0.5), (3, None))]
    text = takes.duplicate_groups([Group((named(0), named(1), named(3)), tuple(pairs))], shown).value
    assert "**3 takes of one sound**" in text
    assert [text.count(f"| take\\-{n} |") for n in range(4)] == [1, 1, 0, 1]
    assert r"| take\-0 – take\-1 | -1.40 s | 0.078 | × 1.030 | +0.5 semitones | 18.0 s | 0.500 |" in text
    assert r"| take\-0 – take\-3 | -1.40 s | 0.078 | × 1.030 | +0.5 semitones | 18.0 s |  |" in text


def test_a_group_counts_its_takes_and_its_files(shown):
    """The title said 7 takes, of files, and a row "and 2 more": nine takes in all."""
    text = takes.duplicate_groups([Group((named(0), named(2), named(9)), (pair(2, bit_error=0.1, cosine=None),))], shown).value
    assert "**4 takes of one sound, in 3 files**" in text


def pair(number: int, *, bit_error: float, cosine: float | None) -> DuplicatePair:
    return DuplicatePair(named(0), named(number), "duplicate", -1.4, 1.03, 0.5, bit_error, 18.0, 0.9, 1.0, cosine)


def test_a_large_group_says_what_it_leaves_out_and_shows_the_surest_pairs(shown):
    pairs = tuple(pair(n, bit_error=(20 - n) / 100, cosine=None) for n in range(1, 20))
    text = takes.duplicate_groups([Group(tuple(named(n) for n in range(20)), pairs)], shown).value
    assert "**21 takes of one sound, in 20 files** (12 more files, 11 more pairs)" in text
    assert "0.010" in text and "0.190" not in text


def test_a_take_is_played_where_the_api_wants_no_key_and_found_in_the_store_otherwise(shown, tmp_path):
    kept = shown.store.put(b"sound").sha256
    found = pl.DataFrame({"example": [named(0)], "neighbour": [kept], "cosine": [0.9]})
    known = shown._replace(takes={kept: KNOWN[named(1)]._replace(generation_id="a/b c")})
    played = takes.neighbours(found, known).value
    assert "[play](http://127.0.0.1:8002/api/training-metadata/a%2Fb%20c/audio)" in played and "store" not in played
    in_store = takes.neighbours(found, known._replace(api=None)).value
    assert f"- `{tmp_path}/audio/{key_of(kept)}`" in in_store and "[play]" not in in_store
    in_bucket = takes.neighbours(found, known._replace(api=None, store=AudioStore("s3://bucket/x"))).value
    assert f"- `s3://bucket/x/{key_of(kept)}`" in in_bucket
    addresses = [
        takes.open_api(Settings(auth=auth, api_port=port)) for auth, port in (("none", 8002), ("none", 0), ("keys", 8002))
    ]
    assert addresses == ["http://127.0.0.1:8002", None, None]


# The graph itself


@pytest.fixture
def heard_twice(ledger, tmp_path, signals, monkeypatch):
    """Resources over three beats, one of them kept a second time at half its level."""
    monkeypatch.setenv("KEEPTAKE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    store = AudioStore((tmp_path / "audio").as_uri())
    beats = [signals.drum_beat(tempo, 12.0, SAMPLE_RATE_HZ) for tempo in (92, 110, 128)]
    for number, beat in enumerate([*beats, beats[0] / 2]):
        soundfile.write(tmp_path / "take.wav", beat, SAMPLE_RATE_HZ)
        keep(ledger, store.put(tmp_path / "take.wav"), number)
    yield {
        "ledger": LedgerResource(url=ledger.url),
        "audio_store": AudioStoreResource(url=store.url),
        "compute": ComputeResource(workers=1),
        "model_store": ModelStoreResource(),
    }
    settings.cache_clear()


def keep(ledger, kept, number: int) -> None:
    stored = {"sha256": kept.sha256, "storage_key": kept.key, "size_bytes": kept.size_bytes, "format": "wav", "codec": "pcm"}
    take = {
        "generation_id": f"beat-{number}",
        "identity_sha256": sha256(str(number).encode()).digest(),
        "user_id": "u",
        "user_prompt": f"beat {number}",
        "audio_url": "take.wav",
        "provider": "suno",
        "source": "test",
        "captured_on": DAY,
        "created_at": "2026-11-01T00:00:00Z",
        "status": "audio-ready",
        "audio_status": "stored",
        "audio_sha256": kept.sha256,
    }
    with ledger.begin() as connection:
        stored |= {"duration_s": 12.0, "sample_rate_hz": SAMPLE_RATE_HZ, "channels": 1}
        upsert(connection, audio, [stored], conflict=("sha256",))
        upsert(connection, generations, [take], conflict=("generation_id",))


def materialized(asset: dg.AssetsDefinition, resources) -> dict[str, dg.MetadataValue]:
    day = DAY if asset.partitions_def is not None else None
    done = dg.materialize([asset], resources=resources, partition_key=day)
    return dict(done.asset_materializations_for_node(asset.key.to_user_string())[0].metadata)


def images(value: dg.MetadataValue) -> list[bytes]:
    return [b64decode(found) for found in re.findall(r"base64,([\w+/=]+)", str(value.value))]


def test_the_assets_show_examples_neighbours_and_groups(heard_twice):
    first = [materialized(asset, heard_twice) for asset in CHAIN]
    hearing, _, space, _, copies = first

    assert {"analyzed", "unheard", "analysis_rate", "examples", "pictures", "plots"} <= set(hearing)
    assert hearing["analyzed"].value == 4 and hearing["analysis_rate"].value > 1
    assert [len(images(hearing[key])) for key in ("plots", "pictures")] == [3, 2]
    assert len(images(space["neighbours"])) == 12  # three examples with three neighbours each
    assert space["neighbours"].value.count("**example**") == 3
    assert "**2 takes of one sound**" in copies["newest_groups"].value
    assert all(f"| beat\\-{number} |" in copies["newest_groups"].value for number in (0, 3))
    assert len(images(copies["newest_groups"])) == 2
    for metadata in first:
        assert sum(len(str(value.value)) for value in metadata.values()) < MOST_A_RUN
        for value in metadata.values():
            assert all(Image.open(io.BytesIO(png)).verify() is None for png in images(value))


def test_a_run_that_finds_nothing_to_do_shows_what_is_there(heard_twice, monkeypatch):
    """Such a run blanked the pages: its plots, verdicts, spectrograms and neighbours were those of its own work, none."""
    for asset in CHAIN:
        materialized(asset, heard_twice)
    monkeypatch.setattr(examples, "IDLE_S", 60.0)
    hearing, _, space, prints, copies = [materialized(asset, heard_twice) for asset in CHAIN]

    assert (hearing["analyzed"].value, hearing["takes"].value, prints["fingerprinted_in_this_run"].value) == (0, 4, 0)
    shown = (hearing["plots"], space["neighbours"], copies["newest_groups"])
    assert [len(images(value)) for value in shown] == [3, 12, 2]
    assert prints["dagster/partition_row_count"].value == 4 and space["vectors"].value == 4
    assert [record.data["relation"] for record in copies["pairs_by_relation"].records] == ["duplicate"]

    monkeypatch.setattr(examples, "IDLE_S", 0.0)  # a slow store: the first one alone, and its table stands
    neighbours = materialized(embedding_space, heard_twice)["neighbours"]
    assert len({*images(neighbours)}) == 1 and "beat" in neighbours.value


def test_verdicts_and_their_picture_cover_all_takes(heard_twice):
    """The counts were of this run's takes, beside a picture of all."""
    materialized(analyzed_features, heard_twice)
    first, again = (materialized(prompt_adherence, heard_twice) for _ in range(2))
    assert [said["judged_in_this_run"].value for said in (first, again)] == [4, 0]
    assert [said["dagster/row_count"].value for said in (first, again)] == [4, 4]
    assert again["verdicts"].records == first["verdicts"].records and len(again["verdicts"].records) >= 7


def test_rows_of_a_table_are_files_and_takes_are_told_apart(ledger, heard_twice):
    """The row count named `public.features`, which has a row a file, and counted takes."""
    keep_again(ledger, "beat-0", "beat-9")
    hearing = materialized(analyzed_features, heard_twice)
    assert (hearing["dagster/partition_row_count"].value, hearing["takes"].value) == (4, 5)


def keep_again(ledger, old: str, new: str) -> None:
    """Another take of the same bytes."""
    columns = [column.name for column in generations.c if column.name not in ("id", "generation_id")]
    with ledger.begin() as connection:
        old_row = connection.execute(sa.select(generations).where(generations.c.generation_id == old)).mappings().one()
        connection.execute(generations.insert().values(generation_id=new, **{name: old_row[name] for name in columns}))


@pytest.mark.parametrize(("rows", "of", "last"), [(3, None, "2"), (3, 12, "3 of 12 shown"), (70, 224, "50 of 224 shown")])
def test_a_table_that_is_cut_says_of_how_many(rows, of, last):
    """Of 224 pairs 50 were shown, unsaid."""
    shown = report.table(pl.DataFrame({"pair": [str(number) for number in range(rows)], "cosine": 0.5}), of=of).records
    assert shown[-1].data["pair"] == last and len(shown) == min(rows, 50) + (last != "2")


CHAIN = (analyzed_features, embeddings, embedding_space, fingerprints, near_duplicates)
