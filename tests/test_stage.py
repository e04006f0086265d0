"""The loop of a stage: what it keeps when it is ended, and what an item may take. The workers are real processes."""

import sys
import time
from collections import Counter
from functools import partial

import pytest

from keeptake.compute import Pool
from keeptake.errors import UnavailableError
from keeptake.stage import Limits, work_through

WORK = """
import os, signal, time
from pathlib import Path

def start(gone):
    if Path(gone).exists(): raise RuntimeError("the weights are gone")
def last_kills_for_good(gone, item):
    if item == 20:
        Path(gone).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item
def wait(s): time.sleep(s); return s
def burn(s):
    end = time.process_time() + s
    while time.process_time() < end: pass
    return s
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Functions that workers can import by name, which a test module in importlib mode is not."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "keeptake_test_stage_work.py").write_text(WORK)
    sys.path.insert(0, str(folder))
    import keeptake_test_stage_work

    yield keeptake_test_stage_work
    sys.path.remove(str(folder))


def limits(chunk_rows=32, item_cpu_s=30.0):
    return Limits(budget_s=120, chunk_rows=chunk_rows, item_cpu_s=item_cpu_s, item_memory_mb=512)


def reason(_item, failure):
    return failure.reason


def test_what_was_done_is_saved_when_workers_cannot_start_any_more(work, tmp_path):
    """Twenty heard takes of an open chunk were lost when a killed worker could not be replaced."""
    gone = str(tmp_path / "gone")
    saved = []
    pool = Pool(1, initializer=partial(work.start, gone))
    function = partial(work.last_kills_for_good, gone)
    with pytest.raises(UnavailableError, match="the weights are gone"):
        work_through("test", pool, function, range(21), save=saved.extend, fail=reason, limits=limits())
    assert saved == list(range(20))


def test_a_chunk_that_could_not_be_saved_is_not_saved_again(work):
    tries = []

    def save(results):
        tries.append(list(results))
        raise UnavailableError("the ledger does not answer")

    with pytest.raises(UnavailableError, match="does not answer"):
        work_through("test", Pool(1), work.wait, [0.0, 0.01, 0.02], save=save, fail=reason, limits=limits(chunk_rows=2))
    assert tries == [[0.0, 0.01]]


def test_an_item_is_held_to_its_cpu_time_and_may_wait_longer_than_that(work):
    """Takes that waited for a busy machine were quarantined for good, after as much wall time as they may take of CPU."""
    saved = []
    report = work_through("test", Pool(1), work.wait, [2.5], save=saved.extend, fail=reason, limits=limits(item_cpu_s=1))
    assert (saved, report.done) == ([2.5], 1)

    began_s = time.monotonic()
    report = work_through("test", Pool(1), work.burn, [60], save=saved.extend, fail=reason, limits=limits(item_cpu_s=1))
    assert (report.done, report.failed) == (0, Counter({"timeout": 1}))
    assert time.monotonic() - began_s < 40
