"""Work goes on whatever one item does to its worker; the workers are real processes and are really killed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from keeptake.compute import Failed, Ok, Pool
from keeptake.errors import BusyError, UnavailableError

WORK = """
import os, signal, sys, time
from pathlib import Path

def square(x): return x * x
def die_of(x):
    with open(os.environ["DEATHS"], "a") as log: log.write(f"{x}\\n")
    if x < 0: os.kill(os.getpid(), signal.SIGKILL)
    return x
def die_once(path):
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"
def sleep(s): time.sleep(s); return s
def burn(s):
    end = time.process_time() + s
    while time.process_time() < end: pass
    return s
def allocate(mb): return len(bytearray(mb * 2**20))
def divide(x): return 1 / x
def loaded(_): return [name for name in ("torch", "dagster", "pytest", "numpy") if name in sys.modules]
def threads(_): return os.environ["OMP_NUM_THREADS"]
def broken_start(): raise RuntimeError("the model is missing")
def refused_start():
    from keeptake.errors import ModelMissingError
    raise ModelMissingError("no model X: put it into Y")
def unpicklable(_): return lambda: None
def complain(x): os.write(2, f"complaint {x}\\n".encode()); return x
def fall(x):
    os.write(2, b"half a sentence, ")
    if x < 0: os.abort()
    return x
def die_in_the_middle_of_the_answer(path):
    if os.path.exists(path): return "survived"
    open(path, "w").close()
    import gc, struct
    from multiprocessing.connection import Connection
    [pipe] = [found for found in gc.get_objects() if isinstance(found, Connection) and found.readable and found.writable]
    os.write(pipe.fileno(), struct.pack("!i", 1000) + b"half")
    os.kill(os.getpid(), signal.SIGKILL)
def start_unless_told():
    if os.path.exists(os.environ["NO_START"]): raise RuntimeError("not now")
def broken_early(): os.write(2, b"no such library"); os._exit(3)
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Functions that workers can import by name, which a test module in importlib mode is not."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "keeptake_test_work.py").write_text(WORK)
    sys.path.insert(0, str(folder))
    import keeptake_test_work

    yield keeptake_test_work
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def pool(work: ModuleType) -> Iterator[Pool]:
    with Pool(2) as pool:
        yield pool


def run(pool: Pool, function, items, *, cpu_s=30.0, timeout_s=30.0, memory_mb=512) -> dict:
    outcomes = list(pool.map(function, items, cpu_s=cpu_s, timeout_s=timeout_s, memory_mb=memory_mb))
    assert len(outcomes) == len({item for item, _ in outcomes})
    return dict(outcomes)


def test_every_item_comes_back_once_with_its_value(pool, work):
    assert run(pool, work.square, range(100)) == {x: Ok(x * x) for x in range(100)}


def test_a_killing_item_is_given_up_after_two_workers_and_takes_nobody_with_it(pool, work, tmp_path, monkeypatch):
    monkeypatch.setenv("DEATHS", str(tmp_path / "deaths"))
    with Pool(2) as fresh:  # workers take the environment when they start
        outcomes = run(fresh, work.die_of, [1, -1, 2, -2, 3, 4, 5])

    assert {x: o for x, o in outcomes.items() if x > 0} == {x: Ok(x) for x in (1, 2, 3, 4, 5)}
    assert all(isinstance(outcomes[x], Failed) and outcomes[x].reason == "crashed" for x in (-1, -2))
    tries = (tmp_path / "deaths").read_text().split()
    assert tries.count("-1") == tries.count("-2") == 2
    assert all(tries.count(str(x)) == 1 for x in (1, 2, 3, 4, 5)), "an innocent item was done twice"


def test_what_a_killed_worker_lost_is_done_again(pool, work, tmp_path):
    assert run(pool, work.die_once, [str(tmp_path / "once")]) == {str(tmp_path / "once"): Ok("survived")}


def test_the_last_words_of_a_crash_are_told_and_other_items_words_forgotten(work):
    with Pool(1) as one:
        outcomes = run(one, work.fall, [1, 2, -1])
        assert one._workers[0].last_words() == ""
    assert (outcomes[1], outcomes[2]) == (Ok(1), Ok(2))
    detail = outcomes[-1].detail
    assert detail.count("half a sentence") == 1  # of the last death alone
    assert "Fatal Python error: Aborted" in detail and "in fall" in detail


def test_the_last_words_of_a_worker_that_cannot_start_are_told(work):
    with pytest.raises(UnavailableError, match=r"exit code 3 no such library"), Pool(1, initializer=work.broken_early):
        pass


NOISY = """
import sys, keeptake_test_work as work
from keeptake.compute import Pool
if sys.argv[1] == "control":
    work.complain(1)
else:
    with Pool(1) as pool:
        print([outcome.value for _, outcome in pool.map(work.complain, [1, 2], cpu_s=30, memory_mb=512)])
"""


@pytest.mark.parametrize(("where", "written"), [("workers", ("[1, 2]\n", "")), ("control", ("", "complaint 1\n"))])
def test_what_workers_complain_of_does_not_reach_the_terminal(work, where, written):
    """A page of mpg123's complaints about one broken file once stood in the middle of a progress bar."""
    environment = os.environ | {"PYTHONPATH": str(Path(work.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", NOISY, where], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == written


def test_control_the_standard_executor_loses_its_neighbours(work, tmp_path, monkeypatch):
    """What the pool is for: one killed worker breaks all of `concurrent.futures`.

    The neighbour sleeps: fifty short ones were once all done before the executor saw the death. The item behind wakes the
    executor after its second worker was started, whose death it may miss otherwise.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    monkeypatch.setenv("DEATHS", str(tmp_path / "deaths"))
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        neighbour = executor.submit(work.sleep, 15)
        executor.submit(work.die_of, -1)
        behind = executor.submit(work.sleep, 0)
        assert isinstance(neighbour.exception(), BrokenProcessPool)
        assert isinstance(behind.exception(), BrokenProcessPool)


def test_a_slow_item_is_stopped_and_the_worker_replaced(pool, work):
    started_s = time.monotonic()
    outcomes = run(pool, work.sleep, [60, 0], timeout_s=1)

    assert outcomes[0] == Ok(0)
    assert outcomes[60].reason == "timeout" and "1 s" in outcomes[60].detail
    assert time.monotonic() - started_s < 20


def test_cpu_is_limited_apart_from_wall_time(pool, work):
    outcomes = run(pool, work.burn, [30, 0.1], timeout_s=60, cpu_s=1)

    assert outcomes[0.1] == Ok(0.1)
    assert outcomes[30].reason == "timeout" and "CPU" in outcomes[30].detail
    assert run(pool, work.sleep, [2], timeout_s=60, cpu_s=1) == {2: Ok(2)}, "sleeping is not CPU"


def test_the_cpu_limit_is_counted_an_item_not_a_worker(work):
    with Pool(1) as one:
        assert all(isinstance(o, Ok) for o in run(one, work.burn, [0.6, 0.61, 0.62, 0.63], cpu_s=1).values())


def test_memory_is_limited_and_given_back(pool, work):
    outcomes = run(pool, work.allocate, [2000, 10, 11], memory_mb=200)

    assert outcomes[2000].reason == "out-of-memory"
    assert outcomes[10] == Ok(10 * 2**20) and outcomes[11] == Ok(11 * 2**20)
    assert run(pool, work.allocate, [400], memory_mb=1000) == {400: Ok(400 * 2**20)}, "the limit outlived its item"


def test_an_error_comes_back_whole(pool, work):
    outcome = run(pool, work.divide, [0, 1])[0]
    assert outcome.reason == "raised" and isinstance(outcome.error, ZeroDivisionError) and "division by zero" in outcome.detail


def test_items_and_results_that_do_not_pickle_are_failures_of_their_own(pool, work):
    assert run(pool, work.unpicklable, [1])[1].reason == "raised"
    unsendable = lambda: None  # noqa: E731
    outcomes = list(pool.map(work.square, [2, unsendable], cpu_s=5, memory_mb=100))
    assert (2, Ok(4)) in outcomes and [o.reason for i, o in outcomes if i is unsendable] == ["raised"]


def test_workers_load_nothing_they_do_not_need_and_use_one_thread(pool, work):
    assert run(pool, work.loaded, [0]) == {0: Ok([])}
    assert run(pool, work.threads, [0]) == {0: Ok("1")}


def test_workers_that_cannot_start_blame_no_item(work):
    with pytest.raises(UnavailableError, match="the model is missing"), Pool(1, initializer=work.broken_start):
        pass


def test_a_worker_killed_in_the_middle_of_its_answer_counts_as_killed(pool, work, tmp_path):
    """What it had sent of its answer was taken for an error of the item, which was given up after one kill."""
    flag = str(tmp_path / "flag")
    assert run(pool, work.die_in_the_middle_of_the_answer, [flag]) == {flag: Ok("survived")}


def test_a_pool_whose_workers_could_not_start_for_a_while_works_again(work, tmp_path, monkeypatch):
    """A dead worker stayed in its place, and the next call ended in `handle is closed`."""
    monkeypatch.setenv("NO_START", str(tmp_path / "no-start"))
    monkeypatch.setenv("DEATHS", str(tmp_path / "deaths"))
    with Pool(1, initializer=work.start_unless_told) as pool:
        (tmp_path / "no-start").touch()
        with pytest.raises(UnavailableError, match="not now"):
            run(pool, work.die_of, [-1])
        (tmp_path / "no-start").unlink()
        assert run(pool, work.square, [3]) == {3: Ok(9)}


def test_a_machine_without_room_for_all_workers_says_so_and_keeps_none(work):
    code = (
        "import multiprocessing, resource\n"
        "from keeptake.compute import Pool\n"
        "with Pool(1): pass\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "try:\n"
        "    Pool(40).__enter__()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, len(multiprocessing.active_children()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["UnavailableError", "0"], done.stderr


def test_what_we_refuse_on_purpose_when_a_worker_starts_is_told_without_a_stack(work):
    """What to download, and to where, once stood at the end of five frames."""
    expected = "a worker process cannot start: no model X: put it into Y. No item was tried"
    with pytest.raises(UnavailableError, match=f"^{expected}"), Pool(1, initializer=work.refused_start):
        pass


def test_leaving_early_ends_what_is_in_flight(pool, work):
    generator = pool.map(work.sleep, [0, 300, 301], cpu_s=600, memory_mb=100)
    assert next(generator) == (0, Ok(0))
    started_s = time.monotonic()
    generator.close()
    assert run(pool, work.square, [3]) == {3: Ok(9)}
    assert time.monotonic() - started_s < 20


def test_two_maps_at_once_are_refused(pool, work):
    generator = pool.map(work.square, [1, 2, 3], cpu_s=5, memory_mb=100)
    next(generator)
    with pytest.raises(BusyError):
        next(pool.map(work.square, [1], cpu_s=5, memory_mb=100))
    generator.close()


def test_busy_workers_end_with_a_killed_parent(work, tmp_path: Path):
    """Workers of a killed run once went on for minutes and heard files that the next run was hearing too."""
    script = textwrap.dedent(
        """
        import multiprocessing, sys
        sys.path.insert(0, sys.argv[1])
        import keeptake_test_work as work
        from keeptake.compute import Pool
        with Pool(2) as pool:
            print(*[child.pid for child in multiprocessing.active_children()], flush=True)
            list(pool.map(work.sleep, [300, 301], cpu_s=600, memory_mb=100))
        """
    )
    folder = str(Path(work.__file__).parent)
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.5)
        os.kill(parent.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) == 2 and not alive
