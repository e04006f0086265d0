"""Runs from the command line: what a failure says."""

import dagster as dg
import pytest

from dagster_project import runs
from keeptake.errors import ConfigurationError, KeeptakeError, PublicationError


def fail(kind, monkeypatch, *, cause=None):
    """The sentence that a job's failure becomes."""

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
    return str(failed.value)


@pytest.mark.parametrize("kind", [PublicationError, ConfigurationError, KeeptakeError])
def test_a_failure_on_purpose_is_one_sentence_and_nothing_else_on_the_terminal(kind, monkeypatch, capfd):
    """A policy that kept no take once printed three stacks of Dagster's."""
    said = fail(kind, monkeypatch)
    assert said.endswith(f"of broken failed: broken_step: keeptake.errors.{kind.__name__}: there is no such thing")
    assert capfd.readouterr().err == ""


def test_a_mistake_of_ours_comes_with_its_stack(monkeypatch):
    said = fail(ZeroDivisionError, monkeypatch)
    assert "ZeroDivisionError: there is no such thing" in said
    assert "in broken_step" in said and "test_runs.py" in said


def test_control_at_dagsters_own_level_the_stack_stands_on_the_terminal(monkeypatch, capfd):
    monkeypatch.setattr(runs, "QUIET", {"loggers": {"console": {"config": {"log_level": "ERROR"}}}})
    fail(PublicationError, monkeypatch)
    assert "Stack Trace" in capfd.readouterr().err


def test_our_own_sentence_is_told_not_what_it_came_from(monkeypatch):
    """A full disk was told as `OSError: [Errno 28]` with its stack, without what to do."""
    said = fail(PublicationError, monkeypatch, cause=OSError(28, "No space left on device"))
    assert said.endswith("keeptake.errors.PublicationError: there is no such thing")
    assert "No space left" in fail(RuntimeError, monkeypatch, cause=OSError(28, "No space left on device"))  # not ours: its cause
