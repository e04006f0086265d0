"""Where heavy per-audio work runs: a function mapped over items on this machine's cores, each item within limits.

Conventions: times in seconds, memory in megabytes. An item that fails never takes another item with it: what a dead worker was
doing is done again, alone, when the rest is finished; only the item that kills a worker twice is given up. The worker processes
come from a fork server, load only what the function needs, use one thread each, and end with their parent. What they write to
their standard error is told where one dies, with the place in the code, and forgotten otherwise: decoders write a line on every
broken frame of a file, past Python.

Belongs here: processes, limits, retries. Does not: what the function does; which rows are pending; a cluster of machines.

`concurrent.futures` was rejected because one killed worker breaks the whole pool and nobody knows which item it had; pebble
because its workers share one pipe behind a lock that a killed worker may hold. Here each worker has a pipe of its own.
"""

import contextlib
import fcntl
import math
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import ModuleType, TracebackType
from typing import Any, Generic, Literal, TypeVar

from keeptake.compute_worker import Limits, work
from keeptake.errors import BusyError, UnavailableError

T = TypeVar("T")
R = TypeVar("R")

MAX_KILLS = 2  # workers that one item may take down before it is given up
MAX_FAILED_STARTS = 3  # starts in a row that may fail before the machine, not the items, is blamed
START_TIMEOUT_S = 120.0
WALL_PER_CPU = 5.0  # wall time that an item may take: other work on the machine, and a slow store, are no fault of it
LAST_WORDS_BYTES = 4096

FailureReason = Literal["raised", "timeout", "out-of-memory", "crashed"]


@dataclass(frozen=True)
class Ok(Generic[R]):
    """What the function returned for an item."""

    value: R


@dataclass(frozen=True)
class Failed:
    """Why there is no value for an item.

    Attributes
    ----------
    reason : {"raised", "timeout", "out-of-memory", "crashed"}
        The function raised; it took longer than allowed; it asked for more memory than allowed; it killed two workers.
    detail : str
        For a person; of a function that raised, the traceback.
    error : Exception, optional
        What the function raised, where it survives pickling.
    """

    reason: FailureReason
    detail: str
    error: Exception | None = None


@dataclass
class _Task:
    """An item on its way, with how many workers it has taken down so far."""

    item: Any
    payload: bytes
    kills: int = 0


class _Worker:
    """One process with a pipe of its own, and the task that it has."""

    def __init__(self, initializer: Callable[[], None] | None) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        # A file, not a pipe: nobody has to empty it while the worker writes.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `kill`
        fcntl.fcntl(self._said, fcntl.F_SETFL, fcntl.fcntl(self._said, fcntl.F_GETFL) | os.O_APPEND)
        stderr = Connection(os.dup(self._said.fileno()), readable=False)  # what multiprocessing can hand to a process
        self.process = context.Process(
            target=work, args=(theirs, stderr, pickle.dumps(initializer), sys.path, dict(os.environ)), daemon=True
        )
        try:
            with _no_main_module():
                self.process.start()
        except OSError:
            self.pipe.close()
            self._said.close()
            raise
        finally:
            stderr.close()
            theirs.close()  # so that reading from a dead worker ends instead of waiting
        self.task: _Task | None = None
        self.deadline_s = math.inf

    def await_ready(self) -> None:
        """Return when the worker can work; raise what kept it from it."""
        detail = "it did not answer in time"
        if self.pipe.poll(START_TIMEOUT_S):
            try:
                kind, detail = self.pipe.recv()
            except EOFError:
                self.process.join(5)
                kind, detail = "died", f"it died with exit code {self.process.exitcode} {self.last_words()}".rstrip()
            if kind == "ready":
                return
        self.kill()
        raise UnavailableError(f"a worker process cannot start: {detail}. No item was tried; mend this and repeat.")

    def give(self, task: _Task, limits: Limits) -> None:
        self.task = task
        self.deadline_s = time.monotonic() + limits.timeout_s
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died idle: noticed when its answer is awaited
            self.pipe.send_bytes(task.payload)

    def last_words(self) -> str:
        """End of what it wrote to its standard error since the last call, for a person."""
        fd = self._said.fileno()
        size = os.fstat(fd).st_size
        if not size:
            return ""
        text = os.pread(fd, LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))
        os.ftruncate(fd, 0)
        return text.decode(errors="replace").strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self._said.close()


class Pool:
    """Worker processes that outlive many calls of `map`.

    Parameters
    ----------
    workers : int, >= 0
        How many; 0 means one for each core that this process may use.
    initializer : callable, optional
        Called once in each new worker, before its first item, to load models or set limits; importable by name.

    Raises
    ------
    UnavailableError
        On entering or later, where workers cannot start: no item is blamed for that.

    Examples
    --------
    ::

        with Pool(2) as pool:
            for path, outcome in pool.map(measure, paths, cpu_s=60, memory_mb=2048):
                match outcome:
                    case Ok(value): ...
                    case Failed(reason, detail): ...
    """

    def __init__(self, workers: int = 0, *, initializer: Callable[[], None] | None = None) -> None:
        self._wanted = workers or len(os.sched_getaffinity(0))
        self._initializer = initializer
        self._workers: list[_Worker] = []
        self._is_mapping = False

    def at_most(self, items: int) -> "Pool":
        """Start no more workers than there are items: each loads models for seconds. Before entering."""
        self._wanted = max(1, min(self._wanted, items))
        return self

    def __enter__(self) -> "Pool":
        try:
            while len(self._workers) < self._wanted:
                self._workers.append(self._start())
            for worker in self._workers:
                worker.await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once, whatever they do."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.kill()

    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, cpu_s: float, memory_mb: int, timeout_s: float | None = None
    ) -> Generator[tuple[T, Ok[R] | Failed], None, None]:
        """Apply a function to every item and yield each with its outcome, as they finish.

        Items are taken from the iterable only when a worker is free. Closing the generator early ends the work in flight.

        Parameters
        ----------
        function : callable
            Importable by name; its argument and result must pickle.
        items : iterable
            What to work on.
        cpu_s : float, > 0
            Seconds of CPU that an item may take, rounded up to whole seconds.
        memory_mb : int, > 0
            Megabytes that an item may add to what the worker had before it.
        timeout_s : float, optional
            Seconds of wall time that an item may take; by default `WALL_PER_CPU` times `cpu_s`.

        Yields
        ------
        (item, Ok or Failed)
            Every item exactly once, in order of completion.

        Raises
        ------
        BusyError
            If this pool is in the middle of another `map`.
        UnavailableError
            If workers cannot be started any more.
        """
        if self._is_mapping:
            raise BusyError("this pool is already mapping: finish or close that generator first")
        limits = Limits(WALL_PER_CPU * cpu_s if timeout_s is None else timeout_s, cpu_s, memory_mb)
        self._is_mapping = True
        try:
            for dead in [worker for worker in self._workers if not worker.process.is_alive()]:  # of a `map` that could not go on
                self._replace(dead)
            suspects: deque[_Task] = deque()
            yield from self._run(_tasks(function, items, limits), limits, suspects, self._workers)
            # One at a time: two killers side by side, or a machine out of memory, would blame an innocent neighbour.
            while suspects:
                yield from self._run(iter([suspects.popleft()]), limits, suspects, self._workers[:1])
        finally:
            self._is_mapping = False
            for worker in [worker for worker in self._workers if worker.task]:
                self._replace(worker)

    def _run(
        self, tasks: Iterator[_Task | tuple[Any, Failed]], limits: Limits, suspects: deque[_Task], workers: list[_Worker]
    ) -> Iterator[tuple[Any, Ok[Any] | Failed]]:
        idle = list(workers)
        busy: list[_Worker] = []
        has_more = True
        while has_more or busy:
            while has_more and idle:
                task = next(tasks, None)
                if task is None:
                    has_more = False
                elif isinstance(task, tuple):
                    yield task
                else:
                    worker = idle.pop()
                    busy.append(worker)
                    worker.give(task, limits)
            for worker in _first_to_answer(busy):
                busy.remove(worker)
                task, outcome = worker.task, _answer(worker, limits)
                said = worker.last_words()
                assert task is not None, "a busy worker has a task"  # noqa: S101  (narrowing)
                worker.task = None
                idle.append(worker if worker.process.is_alive() else self._replace(worker))
                if outcome is None:
                    task.kills += 1
                    if task.kills < MAX_KILLS:
                        suspects.append(task)
                        continue
                    outcome = Failed("crashed", f"it ended {task.kills} worker processes, the last time alone {said}".rstrip())
                yield task.item, outcome

    def _start(self) -> _Worker:
        try:
            return _Worker(self._initializer)
        except OSError as error:  # no process, no pipe, no room
            raise UnavailableError(f"a worker process cannot start: {error}. No item was tried; mend this and repeat.") from error

    def _replace(self, worker: _Worker) -> _Worker:
        """Put a new worker in the place of a dead or busy one; its start is the probe that clears the machine of blame."""
        worker.kill()
        at = self._workers.index(worker)
        for failures in range(1, MAX_FAILED_STARTS + 1):
            try:
                self._workers[at] = self._start()
                self._workers[at].await_ready()
                break
            except UnavailableError:
                if failures == MAX_FAILED_STARTS:
                    raise
        return self._workers[at]


def _tasks(function: Callable[[Any], Any], items: Iterable[Any], limits: Limits) -> Iterator[_Task | tuple[Any, Failed]]:
    for item in items:
        try:
            payload = pickle.dumps((function, item, limits))
        except Exception as error:  # pickling calls any type's own code
            yield item, Failed("raised", f"the item cannot be sent to a worker: {error!r}", error)
        else:
            yield _Task(item, payload)


def _first_to_answer(busy: list[_Worker]) -> list[_Worker]:
    """Busy workers that have answered, died or run out of time; waits for the first."""
    if not busy:
        return []
    now_s = time.monotonic()
    patience_s = min(worker.deadline_s for worker in busy) - now_s
    ready = wait([worker.pipe for worker in busy], timeout=max(0.0, patience_s))
    now_s = time.monotonic()
    return [worker for worker in busy if worker.pipe in ready or worker.deadline_s <= now_s]


def _answer(worker: _Worker, limits: Limits) -> Ok[Any] | Failed | None:
    """Outcome of a worker's task; None where the worker died of it."""
    if not worker.pipe.poll():
        worker.process.kill()
        worker.process.join()
        return Failed("timeout", f"it took longer than {limits.timeout_s:g} s")
    try:
        answer = worker.pipe.recv_bytes()
    except (EOFError, OSError):  # it died before its answer, or in the middle of it
        worker.process.join()
        if worker.process.exitcode == -signal.SIGXCPU:
            return Failed("timeout", f"it used more than {limits.cpu_s:g} s of CPU")
        return None
    try:
        kind, value, error = pickle.loads(answer)  # noqa: S301  (written by our own worker)
    except Exception as problem:  # a result whose own code refuses to come back
        return Failed("raised", f"the result cannot be received: {problem!r}")
    return Ok(value) if kind == "ok" else Failed(kind, value, error)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide `__main__` while a process starts: its children would import the whole command that the user typed."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
