"""Why a take is in or out: what explain answers first, what the UI shows of it, which names are known, what is read for it."""

import hashlib
import io
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import numpy as np
import pytest
import soundfile
import sqlalchemy as sa

from assets import curated_datasets
from keeptake.audio_store import AudioStore
from keeptake.curation.explain import explain, readable
from keeptake.curation.policy import Policy
from keeptake.errors import ConfigurationError
from keeptake.ledger import explanations
from keeptake.ledger.bulk import upsert
from keeptake.ledger.explanations import audio_of, find, siblings
from keeptake.ledger.tables import (
    audio,
    dataset_rows,
    dataset_versions,
    features,
    generations,
    quality_scores,
    refusals,
    selections,
)
from keeptake.records import file_id
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource

T = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = T + timedelta(hours=1)
SHA256 = "a" * 64


class Told:
    """A ledger, a policies' folder, and rows written straight into them."""

    def __init__(self, ledger, folder):
        self.ledger, self.folder = ledger, folder
        folder.mkdir()

    def policy(self, name, text=""):
        (self.folder / f"{name}.toml").write_text(text)

    def write(self, table, rows, *conflict):
        with self.ledger.begin() as connection:
            upsert(connection, table, rows, conflict=conflict)

    def stored(self, sha256=SHA256, **measured):
        shape = {"size_bytes": 9, "format": "wav", "codec": "pcm", "duration_s": 2.0, "sample_rate_hz": 44_100, "channels": 2}
        self.write(audio, [{"sha256": sha256, "storage_key": sha256, **shape}], "sha256")
        self.write(features, [{"audio_sha256": sha256, "versions": "rhythm=1", "duration_s": 2.0} | measured], "audio_sha256")

    def take(self, name, prompt="piano", **fields):
        known = {"user_id": "u", "user_prompt": prompt, "audio_url": "a.wav", "provider": "suno", "source": "test"}
        known |= {"captured_on": date(2026, 11, 20), "created_at": T, "generation_params": {}}
        identity = hashlib.sha256(name.encode()).digest()
        self.write(generations, [{"generation_id": name, "identity_sha256": identity} | known | fields], "generation_id")

    def key(self, name):
        with self.ledger.begin() as connection:
            return connection.scalar(sa.select(generations.c.id).where(generations.c.generation_id == name))

    def decided(self, policy, name, at=T, **said):
        shape = {"is_kept": "reason" not in said, "reason": None, "detail": None, "split": None, "group_id": None}
        self.write(
            selections,
            [{"policy": policy, "generation": self.key(name), "decided_at": at} | shape | said],
            "policy",
            "generation",
        )

    def published(self, name, ordinal, at, rows=(), policy=None):
        version = {
            "name": name,
            "version": f"v{ordinal}-abc",
            "ordinal": ordinal,
            "policy": policy or applied(name),
            "lineage": {},
        }
        version |= {"path": f"/{name}/{ordinal}", "row_count": len(rows), "published_at": at}
        self.write(dataset_versions, [version], "name", "version")
        with self.ledger.begin() as connection:
            dataset = connection.scalar(sa.select(sa.func.max(dataset_versions.c.id)))
        common = {"dataset": dataset, "audio_sha256": SHA256, "group_id": "g", "row_sha256": "r"}
        self.write(
            dataset_rows,
            [common | {"row_id": row_id, "generation_id": take, "split": split} for row_id, take, split in rows],
            "dataset",
            "row_id",
        )

    def answers(self, name):
        return explain(self.ledger, name, self.folder)["kept_or_left_out"]


def applied(name, **sections):
    return Policy.model_validate({"name": name, **sections}).model_dump(mode="json")


@pytest.fixture
def told(ledger, tmp_path):
    return Told(ledger, tmp_path / "policies")


def test_a_take_that_was_stored_since_is_told_that_it_will_be_judged_again(told):
    """A take that had been heard, scored and liked since was told "not-decoded" beside "audio: stored", without a time."""
    told.policy("all")
    told.stored()
    fields = {
        "audio_status": "stored",
        "audio_sha256": SHA256,
        "audio_last_attempt_at": LATER,
        "feedback_at": LATER,
        "liked": True,
    }
    told.take("late", **fields)
    score = {"generation": told.key("late"), "formula": "seed_v1", "total": 0.9, "terms": {}, "feedback_revision": 1}
    told.write(quality_scores, [score | {"features_versions": "rhythm=1", "scored_at": LATER}], "generation", "formula")
    told.decided("all", "late", reason="not-decoded", detail="audio: pending")
    told.published("all", 1, T + timedelta(minutes=5))

    assert told.answers("late") == [
        "all left it out (not-decoded): its audio was not there: pending; decided 2026-11-20T12:00:00Z for v1-abc; since then "
        "its audio was stored (2026-11-20T13:00:00Z), it was scored (2026-11-20T13:00:00Z), feedback was given "
        "(2026-11-20T13:00:00Z): the next version will judge it again"
    ]
    assert list(explain(told.ledger, "late", told.folder))[:2] == ["generation_id", "kept_or_left_out"]


def test_control_what_happened_before_the_last_look_is_not_news(told):
    """A decision that stayed the same keeps its time: that the policy looked again is told by another take's."""
    told.policy("all")
    told.take("liked", feedback_at=LATER, liked=True)
    told.take("other")
    told.decided("all", "liked", reason="low-score", detail="0.4 is below 0.7")
    told.decided("all", "other", at=LATER + timedelta(hours=1), reason="low-score", detail="0.3 is below 0.7")
    assert told.answers("liked") == [
        "all left it out (low-score): its score 0.4 is below 0.7; decided 2026-11-20T12:00:00Z, and again 2026-11-20T14:00:00Z"
    ]


def test_every_present_policy_answers_and_a_removed_one_is_called_so(told):
    """Policies without a decision were not mentioned, and one that nobody has any more was shown as if it were present."""
    for name in ("keeps", "new", "waits"):
        told.policy(name)
    told.policy("draft", "[select]\nmin_scor = 1")
    told.take("g1")
    told.decided("keeps", "g1", split="train", group_id="g")
    told.decided("waits", "g1", split="valid", group_id="g")
    told.decided("gone", "g1", reason="size", detail="10 better ones fill the dataset")
    told.published("keeps", 1, T + timedelta(minutes=5), [("0a", "g1", "train")])
    told.published("keeps", 2, LATER, [("0a-000", "g1", "train"), ("0a-001", "g1", "train")])
    told.published("gone", 1, T - timedelta(hours=1), [("0a", "g1", "test")])
    draft, keeps, new, waits, gone = told.answers("g1")
    assert draft.startswith("draft judges nothing: the policy ") and "did you mean min_score?" in draft
    assert (
        keeps == "keeps keeps it in train, in v1-abc (train) and v2-abc (train, 2 clips); decided 2026-11-20T12:00:00Z for v1-abc"
    )
    assert new == "new has not judged it yet: its next version will"
    assert waits == "waits keeps it in valid, but no version holds it yet; decided 2026-11-20T12:00:00Z"
    assert gone == (
        "gone, which is no longer in the policies' folder, left it out (size): 10 better ones fill the dataset; it still stands "
        "in v1-abc (test); decided 2026-11-20T12:00:00Z"
    )


def test_many_versions_are_told_as_a_range(told):
    told.policy("keeps")
    told.take("g1")
    told.decided("keeps", "g1", split="train", group_id="g")
    for ordinal in range(1, 6):
        told.published("keeps", ordinal, LATER, [("0a", "g1", "train")])
    assert "in 5 versions from v1-abc (train) to v5-abc (train); decided" in told.answers("g1")[0]


def test_a_policy_that_was_loosened_since_will_judge_again_and_limits_are_those_it_judged_by(told):
    """A take of 0.1 s was told "0.1 s", without the limit."""
    told.policy("all", "[select]\nmin_duration_s = 0.05\n[audio]\nmin_clip_s = 0.05\n")
    told.take("short")
    told.decided("all", "short", reason="too-short", detail="0.1 s")
    assert "too-short): it lasts 0.1 s, at least 0.05 s; decided" in told.answers("short")[0]
    told.published("all", 1, LATER, policy=applied("all", select={"min_duration_s": 3.0}))
    assert told.answers("short") == [
        "all left it out (too-short): it lasts 0.1 s, at least 3 s; decided 2026-11-20T12:00:00Z for v1-abc; since then the "
        "policy was changed: the next version will judge it again"
    ]


@pytest.mark.parametrize(
    ("reason", "detail", "says"),
    [
        ("defect", "has_clipping, is_silent", "it clips, it is silent"),
        ("provider", "suno", "takes by suno are not wanted"),
        ("too-long", "40 s, at most 29.9", "it lasts 40 s, at most 29.9"),
        ("too-short", "0.1 s", "it lasts 0.1 s, at least 1 s"),
        ("low-adherence", "0.2 is below 0.5", "its agreement with the prompt, 0.2 is below 0.5"),
        ("duplicate", "the same audio as g2", "the same audio as g2"),
        ("size", None, "size"),
    ],
)
def test_details_read_as_words(reason, detail, says):
    assert readable(reason, detail, applied("all")) == says


def test_a_take_that_is_tried_again_says_when(told):
    """Takes whose fetch had failed showed no next attempt."""
    told.take("slow", audio_status="retrying", audio_reason="timeout", audio_attempts=2, audio_next_attempt_at=LATER)
    story = explain(told.ledger, "slow", told.folder)
    assert story["kept_or_left_out"] == ["its audio is tried again from 2026-11-20T13:00:00Z on"]
    assert story["audio"] == {
        "status": "retrying",
        "reason": "timeout",
        "attempts": 2,
        "next_attempt_at": "2026-11-20T13:00:00Z",
        "detail": None,
    }


def test_a_refused_record_is_told_with_its_reason_source_and_line(told):
    """An id that was refused at the door was answered with "no take X: did you mean Y?"."""
    told.take("g-known-1")
    row = {"source": "/takes", "raw": b"{}", "generation_id": "g-known-2", "refused_at": T}
    for line, reason, detail in ((4, "missing-audioUrl", "the field audioUrl is required"), (None, "conflict", "it is another")):
        row |= {"line": line, "line_sha256": hashlib.sha256(reason.encode()).digest(), "reason": reason, "detail": detail}
        told.write(refusals, [row], "source", "line_sha256")
    with pytest.raises(ConfigurationError) as refused:
        explain(told.ledger, "g-known-2", told.folder)
    assert str(refused.value) == (
        "no take g-known-2: its record was refused at the door: conflict (it is another), from /takes; and before that "
        "missing-audioUrl (the field audioUrl is required), from /takes line 4; mend it and send it again"
    )
    told.take("g-known-2")
    assert [found["line"] for found in explain(told.ledger, "g-known-2", told.folder)["refusals"]] == [None, 4]
    with pytest.raises(ConfigurationError, match=r"no take g-known-3: did you mean g-known-\d"):
        explain(told.ledger, "g-known-3", told.folder)


@pytest.mark.parametrize("suffix", ["", "-000", "-012", "-1000", ".flac", "-003.flac"])
def test_a_take_is_found_by_what_datasets_call_it(told, suffix):
    """Ids of clips, as published, were unknown to explain."""
    told.take("gen/ü")
    assert explain(told.ledger, file_id("gen/ü") + suffix, told.folder)["generation_id"] == "gen/ü"
    with pytest.raises(ConfigurationError, match="no take 0123456789abcdef"):
        find(told.ledger, "0123456789abcdef" + suffix)


ALIKE = ["Dark TRAP, 140 bpm!", "dark trap — 140 BPM", "ｄａｒｋ trap 140 bpm", "dark\ttrap 140\nbpm"]
OTHERS = ["dark trap 140 bpm and more", "dark 140 trap bpm", "darktrap 140 bpm", "a dark trap 140 bpm", "dark trap 14 0 bpm", "…"]


def test_siblings_are_exactly_those_of_one_key_whatever_their_letters(told):
    for number, prompt in enumerate([*ALIKE, *OTHERS, "İstanbul", "i̇stanbul"]):
        told.take(f"g{number:02}", prompt)
    expected = [f"g{number:02}" for number in range(len(ALIKE))]
    for number, prompt in enumerate(ALIKE):
        assert siblings(told.ledger, f"g{number:02}", prompt) == [name for name in expected if name != f"g{number:02}"]
    assert siblings(told.ledger, "g10", "İstanbul") == ["g11"]
    assert siblings(told.ledger, "g09", "…") == []


def test_of_a_plain_prompt_few_others_are_read(told, monkeypatch):
    """Every prompt of the ledger was read for each take, seconds of them at 200,000 takes, inside an open transaction."""
    for number in range(30):
        told.take(f"g{number:02}", f"piano number {number % 10}")
    read = []
    monkeypatch.setattr(
        explanations, "prompt_key", lambda prompt, key=explanations.prompt_key: read.append(prompt) or key(prompt)
    )
    with told.ledger.begin() as connection:
        maybe = connection.execute(sa.text(explanations._MAYBE_ALIKE), {"words": "%piano%number%3%"}).all()
    assert sorted(row.generation_id for row in maybe) == ["g03", "g13", "g23"]
    assert siblings(told.ledger, "g03", "Piano, number 3") == ["g13", "g23"] and len(read) == 2


def test_where_a_takes_audio_lies_asks_for_no_sibling(told):
    """`keeptake open` read every prompt of the ledger to print a path."""
    told.stored()
    told.take("g1", audio_status="stored", audio_sha256=SHA256)
    told.take("g2")
    asked = []
    sa.event.listen(told.ledger.engine, "before_cursor_execute", lambda *event: asked.append(event[2]))
    assert (find(told.ledger, "g1"), audio_of(told.ledger, "g1"), audio_of(told.ledger, "g2")) == ("g1", SHA256, None)
    assert [statement for statement in asked if "user_prompt" in statement] == []


def tone(number):
    encoded = io.BytesIO()
    soundfile.write(encoded, 0.3 * np.sin(np.arange(22_050 * 2) * (0.05 + 0.01 * number)), 22_050, format="WAV")
    return encoded.getvalue()


def test_the_graph_shows_which_takes_a_policy_left_out_and_why(told, tmp_path, monkeypatch):
    """`curated_dataset` showed how many were left out by which rule, and of no take that it was; clips and takes looked alike."""
    monkeypatch.setenv("KEEPTAKE_HOME", str(tmp_path))
    monkeypatch.setenv("KEEPTAKE_DATABASE_URL", told.ledger.url)
    monkeypatch.setattr(curated_datasets, "pictures", lambda rows, lineage: {})
    monkeypatch.setattr(curated_datasets.report, "MAX_ROWS", 3)
    settings.cache_clear()
    store = AudioStore(settings().audio_location)
    for number in range(8):
        sha256 = store.put(tone(number)).sha256
        told.stored(sha256, has_clipping=number == 6, has_vocals=False)
        told.take(f"g{number}", f"beat {number}", audio_status="stored", audio_sha256=sha256, status="scored")
        score = {"generation": told.key(f"g{number}"), "formula": "seed_v1", "total": 0.1 if number == 7 else 0.9, "terms": {}}
        told.write(quality_scores, [score | {"feedback_revision": 0, "features_versions": "rhythm=1"}], "generation", "formula")
    told.take("g8", "no audio", audio_status="pending")
    told.take("g9", "erased", erased_at=T)
    resources = {"ledger": LedgerResource(), "audio_store": AudioStoreResource(url=store.url)}
    done = dg.materialize([curated_datasets.curated_dataset], resources=resources, partition_key="everything-good")
    settings.cache_clear()
    shown = done.asset_materializations_for_node("curated_dataset")[0].metadata

    assert [shown[name].value for name in ("takes_kept", "clips", "takes_left_out")] == [6, 6, 4]
    taken = [
        tuple(record.data[name] for name in ("generation_id", "reason", "detail")) for record in shown["left_out_takes"].records
    ]
    assert taken == [
        ("g8", "not-decoded", "its audio was not there: pending"),
        ("g7", "low-score", "its score 0.1 is below 0.3"),
        ("g6", "defect", "it clips"),
    ]
    assert shown["left_out_takes_shown"].value == "3 of 4 shown; `keeptake explain ID` tells any"
    assert shown["left_out"].records[0].data == {"reason": "kept", "takes": 6}
