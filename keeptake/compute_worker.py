"""Life of one worker process of `compute.py`: it gets ready, then answers one item after the other, each within limits.

Conventions: times in seconds, memory in megabytes. Soft limits of the process alone are moved, so that they can be lifted again.
Belongs here: what runs inside the process. Does not: starting, watching and replacing it.
"""

import contextlib
import faulthandler
import math
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from keeptake.errors import KeeptakeError

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Limits:
    """What an item may take: seconds of wall time and of CPU, megabytes beyond what its worker had before it."""

    timeout_s: float
    cpu_s: float
    memory_mb: int


def work(pipe: Connection, stderr: Connection, initializer: bytes, path: list[str], environment: dict[str, str]) -> None:
    """Life of a worker: get ready, then answer one item after the other until the pipe closes."""
    os.dup2(stderr.fileno(), 2)
    stderr.close()
    faulthandler.enable(2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle: it ends us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ.clear()  # what the fork server has is as old as its start
    os.environ.update(environment, **dict.fromkeys(ONE_THREAD, "1"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.path[:] = path
    try:
        prepare = pickle.loads(initializer)  # noqa: S301  (written by our own parent)
        if prepare is not None:
            prepare()
    except KeeptakeError as refusal:  # says what to do, which a stack would bury
        pipe.send(("broken", str(refusal)))
        return
    except BaseException:
        pipe.send(("broken", traceback.format_exc(limit=5)))
        return
    pipe.send(("ready", ""))
    while True:
        try:
            payload = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(_result(payload))


def _result(payload: bytes) -> bytes:
    try:
        function, item, limits = pickle.loads(payload)  # noqa: S301  (written by our own parent)
        with _limited(limits):
            return pickle.dumps(("ok", function(item), None))
    except MemoryError:
        return pickle.dumps(("out-of-memory", "it asked for more memory than it may take", None))
    except Exception as error:
        detail = traceback.format_exc(limit=8)
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301  (our own: an error that does not survive the trip must not break it)
            return pickle.dumps(("raised", detail, error))
        except Exception:
            return pickle.dumps(("raised", detail, None))


@contextlib.contextmanager
def _limited(limits: Limits) -> Iterator[None]:
    """Hold this process to the limits of one item; only soft limits move, so that they can be lifted again."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_end_s = math.ceil(used.ru_utime + used.ru_stime + limits.cpu_s)
    # RLIMIT_DATA, not RLIMIT_AS: mapped libraries and model files are not what an item asks for.
    data_end = _data_bytes() + limits.memory_mb * 2**20
    hard = {kind: resource.getrlimit(kind)[1] for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA)}
    for kind, soft in ((resource.RLIMIT_CPU, cpu_end_s), (resource.RLIMIT_DATA, data_end)):
        ceiling = hard[kind]
        resource.setrlimit(kind, (soft if ceiling == resource.RLIM_INFINITY else min(soft, ceiling), ceiling))
    try:
        yield
    finally:
        for kind, ceiling in hard.items():
            resource.setrlimit(kind, (ceiling, ceiling))


def _data_bytes() -> int:
    """Private writable memory of this process, as RLIMIT_DATA counts it."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123  (runs around every item)
        return int(file.read().split()[5]) * resource.getpagesize()


def _end_with_parent() -> None:
    """Leave when the parent is gone: a busy worker would otherwise outlive a killed run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
