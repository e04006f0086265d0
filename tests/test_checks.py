"""What the checks of the graph say to a person, and for which dataset: on a real ledger and a real Dagster instance."""

from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from assets import checks, exports
from assets.partitions import by_policy, policies
from assets.raw_generations import raw_generations
from dagster_project import failures
from dagster_project.failures import evaluations_of, failure_of
from dagster_project.home import dagster_url, write_instance
from keeptake.curation.publish import LEAKS
from keeptake.ledger.datasets import record_version
from keeptake.ledger.scores import score_lagging
from keeptake.settings import settings
from keeptake.sources.pull import today
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource

TAKE = """
    INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on,
        created_at, status, quality_score)
    VALUES (:id, '\\x00', 'u', 'p', 'a.wav', 'suno', 'test', '2026-01-02', now(), :status, :score)
"""
AUDIO = """
    INSERT INTO audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)
    VALUES (:sha256, :sha256, 1, 'wav', 'pcm', 1, 8000, 1)
"""


def put(ledger, statement, **values):
    with ledger.begin() as connection:
        connection.execute(sa.text(statement), values)


@pytest.fixture
def found(ledger, tmp_path):
    """What a check says of the ledger."""
    connections = {"ledger": LedgerResource(url=ledger.url), "audio_store": AudioStoreResource(url=tmp_path.as_uri())}

    def look(check):
        return check(**{name: connections[name] for name in check.required_resource_keys if name in connections})

    return look


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (checks.takes_are_unique, "no two ids differ only in upper and lower case"),
        (checks.features_cover_the_stored_audio, "every take that is called analyzed has its features"),
        (checks.scores_lie_in_the_unit_interval, "every score is that of its formula"),
        (failures.announced_generations_are_saved, "every generation that was announced was saved"),
        (failures.no_day_has_failed_rows, "no take failed for good"),
    ],
)
def test_a_check_that_passes_says_what_is_well(found, check, sentence):
    """Beside *Passed* stood "takes called analyzed that have no features" and "0 announced generations were never saved"."""
    said = found(check)
    assert (said.passed, said.description) == (True, sentence)


def test_a_check_that_fails_says_how_much_is_wrong_and_what_to_do(found, ledger):
    for name, status, score in (("a", "analyzed", None), ("A", "quarantined", None), ("b", "scored", None)):
        put(ledger, TAKE, id=name, status=status, score=score)
    said = {check: found(check) for check in (checks.takes_are_unique, checks.features_cover_the_stored_audio)}
    assert not any(each.passed for each in said.values())
    assert said[checks.takes_are_unique].description.startswith("1 ids differ from another only in upper and lower case")
    assert said[checks.features_cover_the_stored_audio].description == (
        "2 takes are called analyzed and have no features: materialize analyzed_features for their days"
    )
    assert found(failures.no_day_has_failed_rows).description == "1 takes on 1 days failed for good: see docs/quarantine.md"


def test_what_the_check_of_scores_says_to_do_mends_them(found, ledger):
    sha256 = f"{1:064}"
    put(ledger, AUDIO, sha256=sha256)
    put(ledger, TAKE, id="a", status="embedded", score=None)
    put(ledger, "INSERT INTO features (audio_sha256, versions, rhythm_confidence) VALUES (:id, 'rhythm=1', 0.5)", id=sha256)
    put(ledger, "UPDATE generations SET audio_sha256 = :id, audio_status = 'stored'", id=sha256)
    score_lagging(ledger)
    assert found(checks.scores_lie_in_the_unit_interval).passed
    put(ledger, "UPDATE generations SET quality_score = quality_score / 2")
    said = found(checks.scores_lie_in_the_unit_interval)
    assert not said.passed
    assert said.description.endswith("Set their scored_revision to NULL there and run the job rescore")
    score_lagging(ledger)
    assert not found(checks.scores_lie_in_the_unit_interval).passed  # control: by itself nothing lags
    put(ledger, "UPDATE generations SET scored_revision = NULL")
    score_lagging(ledger)
    assert found(checks.scores_lie_in_the_unit_interval).passed


def test_missing_audio_is_told_with_its_share_and_its_store(found, ledger, tmp_path):
    """The check said "wrong 48": not of how many, nor in which store."""
    store = AudioStoreResource(url=tmp_path.as_uri()).get()
    put(ledger, AUDIO, sha256=store.put(b"kept").sha256)
    assert found(checks.stored_audio_is_there).description == (
        f"each of the newest 1 objects that the ledger names is in the store {tmp_path.as_uri()}"
    )
    for number in range(2):
        put(ledger, AUDIO, sha256=f"{number:064}")
    said = found(checks.stored_audio_is_there)
    assert not said.passed and said.metadata["wrong"].value == 2
    where = f"2 of the newest 3 objects that the ledger names are not in the store {tmp_path.as_uri()}: "
    assert said.description.startswith(where)


def test_a_policy_without_a_version_is_no_dataset_of_no_takes(found, ledger):
    """A policy that was never published was said to hold 0 of 10,000 takes."""
    first, *others = policies()
    record_version(
        ledger,
        {
            "name": first,
            "version": "v1-0",
            "ordinal": 1,
            "path": "p",
            "manifest_sha256": "m",
            "row_count": 0,
            "policy": "{}",
            "lineage": "{}",
        },
        [],
    )
    said = found(checks.enough_for_a_first_fine_tuning)
    assert not said.passed
    assert [each.split(": ")[1] for each in said.description.split("; ")] == ["not ready", *["never published"] * len(others)]


@pytest.fixture
def instance(ledger, tmp_path, monkeypatch):
    """An instance as every home has it, its tables in the throw-away database."""
    monkeypatch.setenv("KEEPTAKE_DAGSTER_URL", dagster_url(ledger.url))
    monkeypatch.setenv("DAGSTER_HOME", str(write_instance(tmp_path, Path("policies"))))
    with dg.DagsterInstance.get() as found:
        yield found


def test_a_blocking_checks_own_sentence_is_what_people_are_told(ledger, instance, tmp_path):
    """An alert read "1 blocking asset check failed with ERROR severity", with the check's name and a stack of Dagster's."""
    put(ledger, AUDIO, sha256=f"{1:064}")
    definitions = dg.Definitions(
        asset_checks=[checks.stored_audio_is_there],
        jobs=[dg.define_asset_job("look", dg.AssetSelection.checks(checks.stored_audio_is_there))],
        resources={"ledger": LedgerResource(url=ledger.url), "audio_store": AudioStoreResource(url=tmp_path.as_uri())},
        executor=dg.in_process_executor,
    )
    done = definitions.resolve_job_def("look").execute_in_process(instance=instance, raise_on_error=False)
    (step,) = [event for event in done.all_events if event.is_step_failure]
    said = failure_of(step, evaluations_of(instance, done.run_id)).sentence
    assert said.startswith(
        "audio_files: the check stored_audio_is_there failed, and what follows waits: 1 of the newest 1 objects"
    )
    assert "\n" not in said
    assert "1 blocking asset check failed" in failure_of(step).sentence  # control: without what the checks found


def test_a_datasets_failed_check_does_not_go_under_in_anothers_pass(instance):
    """The checks of a version had no partition: who looked after another policy's run saw a pass."""
    bad, good = policies()[:2]

    @dg.asset(name="dataset_manifest", partitions_def=by_policy, check_specs=list(exports.dataset_manifest.check_specs))
    def versions(context: dg.AssetExecutionContext):
        for spec in exports.dataset_manifest.check_specs:
            passed = context.partition_key != bad
            yield dg.AssetCheckResult(check_name=spec.name, passed=passed, severity=dg.AssetCheckSeverity.WARN)
        yield dg.MaterializeResult()

    for policy in (bad, good):
        dg.materialize([versions], instance=instance, partition_key=policy)
    key = dg.AssetCheckKey(dg.AssetKey("dataset_manifest"), LEAKS)
    seen = instance.event_log_storage.get_asset_check_partition_info([key])
    assert {each.partition_key: each.latest_execution_status.value for each in seen} == {bad: "FAILED", good: "SUCCEEDED"}


def test_a_source_that_cannot_be_read_is_a_warning_of_the_days_run(ledger, tmp_path, monkeypatch):
    """A feed that failed stood in a JSON text that nobody opens, while the others made the run look well."""
    (tmp_path / "feeds.toml").write_text("[[table]]\nname = 'away'\nurl = 'env:KEEPTAKE_NO_SUCH_VARIABLE'\n")
    monkeypatch.setenv("KEEPTAKE_FEEDS_FILE", str(tmp_path / "feeds.toml"))
    monkeypatch.setenv("KEEPTAKE_HOME", str(tmp_path))
    settings.cache_clear()

    def look(day):
        done = dg.materialize([raw_generations], resources={"ledger": LedgerResource(url=ledger.url)}, partition_key=day)
        (check,) = done.get_asset_check_evaluations()
        return check

    try:
        warned = look(today())
        assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert "away: the environment variable KEEPTAKE_NO_SUCH_VARIABLE" in warned.description
        assert look("2026-01-02").passed, "another day pulls nothing"
    finally:
        settings.cache_clear()
