"""Failed audio is tried again from the Dagster UI: the job as the launchpad would run it."""

import os

import dagster as dg
import pytest
import sqlalchemy as sa

from dagster_project.failures import failure_of
from dagster_project.retries import retry_audio
from keeptake.ledger.audio import count_due
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource

DAY = "2026-01-02"
FAILED = """
    INSERT INTO generations (generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on,
        created_at, status, audio_status, audio_reason, audio_last_attempt_at)
    VALUES (:id, '\\x00', 'u', 'p', 'a.wav', 'suno', 'test', '2026-01-02', now(), 'quarantined', 'quarantined', :reason, now())
"""


def run(ledger, **config: object) -> dg.ExecuteInProcessResult:
    return retry_audio.execute_in_process(
        run_config={"ops": {"retry_failed_audio": {"config": config}}},
        resources={"ledger": LedgerResource(url=ledger.url), "audio_store": AudioStoreResource(url=f"file://{os.devnull}/none")},
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


@pytest.fixture
def failed(ledger):
    with ledger.begin() as connection:
        for name, reason in (("a", "not-found"), ("b", "not-found"), ("c", "not-audio")):
            connection.execute(sa.text(FAILED), {"id": name, "reason": reason})
    return ledger


def test_chosen_rows_become_due(failed):
    assert run(failed, reasons=["not-found"], dry_run=True).success and count_due(failed, DAY) == 0
    assert run(failed, reasons=["not-found"], older_than_hours=1.0).success and count_due(failed, DAY) == 0
    assert run(failed, reasons=["not-found"]).success and count_due(failed, DAY) == 2
    assert run(failed, generation_ids=["c"]).success and count_due(failed, DAY) == 3


def test_no_choice_and_an_unknown_reason_fail(failed):
    assert not run(failed).success
    assert not run(failed, reasons=["bad-luck"]).success
    assert count_due(failed, DAY) == 0


def test_an_unknown_reason_is_told_with_those_that_there_are(failed):
    """A typo in the launchpad ended in `ValueError: 'not_found' is not a valid AudioReason`, with a stack."""
    (step,) = [event for event in run(failed, reasons=["not-found", "not_found"]).all_events if event.is_step_failure]
    said = failure_of(step).sentence
    assert "ConfigurationError: 'not_found' is no reason: did you mean not-found? Reasons are not-found, forbidden, " in said
    assert said.endswith("damaged-object")


def test_the_launchpad_describes_each_field():
    fields = retry_audio.get_node_named("retry_failed_audio").definition.config_field.config_type.fields
    assert set(fields) == {"reasons", "older_than_hours", "generation_ids", "dry_run"}
    assert all(field.description for field in fields.values())
    assert fields["dry_run"].default_value is False
