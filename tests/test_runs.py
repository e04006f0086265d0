"""Runs from the command line: what a failure says."""

import re

import dagster as dg
import pytest

from dagster_project import cli, runs
from keeptake.errors import (
    BusyError,
    ConfigurationError,
    KeeptakeError,
    LedgerUnavailableError,
    PublicationError,
    UnavailableError,
)
from keeptake.settings import settings


def fail(kind, monkeypatch, *, cause=None):
    """What a job's failure becomes."""

    @dg.op
    def broken_step():
        raise kind("there is no such thing") from cause

    @dg.job(executor_def=dg.in_process_executor)
    def broken():
        broken_step()

    monkeypatch.setattr(runs, "defs", dg.Definitions(jobs=[broken]))
    with dg.DagsterInstance.ephemeral() as instance, monkeypatch.context() as patch:
        patch.setattr(dg.DagsterInstance, "get", lambda: instance)
        with pytest.raises(KeeptakeError) as failed:
            runs.execute("broken")
    return failed.value


@pytest.mark.parametrize("kind", [PublicationError, ConfigurationError, KeeptakeError])
def test_a_failure_on_purpose_is_one_sentence_and_nothing_else_on_the_terminal(kind, monkeypatch, capfd):
    """A policy that kept no take once printed three stacks of Dagster's."""
    said = str(fail(kind, monkeypatch))
    assert said.endswith(f"of broken failed: broken_step: keeptake.errors.{kind.__name__}: there is no such thing")
    assert capfd.readouterr().err == ""


def test_a_mistake_of_ours_comes_with_its_stack(monkeypatch):
    said = str(fail(ZeroDivisionError, monkeypatch))
    assert "ZeroDivisionError: there is no such thing" in said
    assert "in broken_step" in said and "test_runs.py" in said


def test_control_at_dagsters_own_level_the_stack_stands_on_the_terminal(monkeypatch, capfd):
    monkeypatch.setattr(runs, "QUIET", {"loggers": {"console": {"config": {"log_level": "ERROR"}}}})
    fail(PublicationError, monkeypatch)
    assert "Stack Trace" in capfd.readouterr().err


def test_our_own_sentence_is_told_not_what_it_came_from(monkeypatch):
    """A full disk was told as `OSError: [Errno 28]` with its stack, without what to do."""
    said = str(fail(PublicationError, monkeypatch, cause=OSError(28, "No space left on device")))
    assert said.endswith("keeptake.errors.PublicationError: there is no such thing")
    cause = OSError(28, "No space left on device")
    assert "No space left" in str(fail(RuntimeError, monkeypatch, cause=cause))  # not ours: its cause


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConfigurationError, 2),
        (UnavailableError, 3),
        (LedgerUnavailableError, 3),
        (BusyError, 4),
        (PublicationError, 5),
        (KeeptakeError, 1),
        (ZeroDivisionError, 1),
    ],
)
def test_the_exit_code_tells_what_kind_of_failure_it_was(kind, code, monkeypatch):
    """Publishing ended with 5 whatever had failed: with S3 away for a minute, scripts gave up instead of trying again."""
    failure = fail(kind, monkeypatch)
    assert next((code for ours, code in cli.EXIT_CODES.items() if isinstance(failure, ours)), 1) == code


@pytest.mark.parametrize("policy", ["{elsewhere}/mine.toml", "../elsewhere/mine", "drafts/mine", "{home}/drafts/mine.toml"])
def test_a_policy_of_another_folder_is_refused_in_a_sentence(policy, tmp_path, ledger, monkeypatch):
    """`keeptake publish other/mine.toml` ended in Dagster's own traceback about a partition that it does not know."""
    for folder in ("policies/drafts", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "mine.toml").write_text("")
    monkeypatch.setenv("KEEPTAKE_POLICIES_DIR", str(tmp_path / "policies"))
    settings.cache_clear()
    given = policy.format(elsewhere=tmp_path / "elsewhere", home=tmp_path / "policies")
    with pytest.raises(ConfigurationError, match=f"the policy {re.escape(given)} does not lie in {tmp_path / 'policies'}: move"):
        runs.publish_policy(ledger, given)
    settings.cache_clear()
