"""`keeptake up`: the only process that holds the embedded server, with the Dagster UI, the daemon and the API as its children.

Each child has a session of its own, so that all of it ends with it; a child that dies ends everything, with its log named.
Belongs here: starting, watching and ending. Does not: what the children are.
"""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import psutil

from dagster_project.home import open_home
from keeptake.errors import BusyError, ConfigurationError, UnavailableError
from keeptake.ledger.server import revive
from keeptake.settings import http_address, settings

DEFINITIONS = "dagster_project.definitions"
START_TIMEOUT_S = 120
END_TIMEOUT_S = 20
SERVER_LOOK_EVERY_S = 5
CHILDREN = "up.children"
LOG_LOOK_EVERY_S = 60
MOST_LOG_BYTES = 20_000_000  # beside as much of what came before
# Each tick of each sensor is three lines, a third of the log, and the UI lists them all with their reasons. The daemon loads the
# definitions in a new process every minute, and the old one ends with a warning that nobody calls it any more.
QUIET = ["--log-level", "warning", "--code-server-log-level", "error"]


class Child(NamedTuple):
    """A program of ours, and where it answers once it is ready."""

    name: str
    command: list[str]
    address: str | None
    ready: str | None


def children(ui_port: int, api_port: int) -> list[Child]:
    """The programs that `up` starts."""
    here = settings()
    dagster_bin = Path(sys.executable).parent
    ui = f"http://127.0.0.1:{ui_port}"
    api = http_address(here.api_host, api_port)
    keeptake = [sys.executable, "-m", "dagster_project.cli"]
    return [
        Child(
            "Dagster UI",
            [str(dagster_bin / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(ui_port), "-m", DEFINITIONS],
            ui,
            f"{ui}/server_info",
        ),
        Child("Dagster daemon", [str(dagster_bin / "dagster-daemon"), "run", "-m", DEFINITIONS, *QUIET], None, None),
        Child("API", [*keeptake, "api", "--port", str(api_port)], api, f"{api}/healthz"),
    ]


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """The wanted port, or any free one for 0.

    Raises
    ------
    BusyError
        If somebody listens there.
    ConfigurationError
        If this machine has no such address.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
        except OSError as taken:
            if taken.errno != errno.EADDRINUSE:
                detail = f"nothing can listen at {host}, port {wanted} ({taken.strerror}): correct KEEPTAKE_API_HOST or the port"
                raise ConfigurationError(detail) from taken
            raise BusyError(f"port {wanted} is taken: choose another with KEEPTAKE_UI_PORT or KEEPTAKE_API_PORT") from taken
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the home for one `up`.

    Raises
    ------
    BusyError
        If another one runs, with its process id.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise BusyError(
                f"`keeptake up` already runs on {home}: {lock.read().strip()}; end it, or use its addresses"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        yield


def up() -> int:
    """Start everything, print the addresses, and end everything on Ctrl-C, SIGTERM or the death of a child.

    Returns
    -------
    int
        0 after a signal, 1 after a child's death.
    """
    chosen = settings()
    home = chosen.home.resolve()
    with only_one(home), _ended_by_signals() as is_asked, open_home():
        end_left_behind(home)
        programs = children(free_port(chosen.ui_port), free_port(chosen.api_port, chosen.api_host))
        logs = home / "logs"
        logs.mkdir(exist_ok=True)
        cut_logs(logs)
        chosen.incoming_location.mkdir(parents=True, exist_ok=True)
        running = {program.name: _start(program, logs) for program in programs}
        _note(home, running.values())
        try:
            _announce(programs, running, is_asked, home)
            return _watch(running, is_asked, logs, None if chosen.database_url else home)
        finally:
            _end([process.pid for process in running.values()])
            for process in running.values():
                process.wait()


def end_left_behind(home: Path) -> None:
    """End the programs of an earlier `up` that was killed: they live on, and hold its ports."""
    try:
        noted = json.loads((home / CHILDREN).read_text())
    except (OSError, ValueError):
        return
    left = [pid for pid, started_s in noted if any(each.create_time() == started_s for each in _descendants(pid)[:1])]
    if left:
        print(f"Ending what an `up` that was killed has left: processes {', '.join(map(str, left))}", flush=True)
        _end(left)


def _note(home: Path, processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    started = [(each.pid, psutil.Process(each.pid).create_time()) for each in processes if psutil.pid_exists(each.pid)]
    (home / CHILDREN).write_text(json.dumps(started))


@contextmanager
def _ended_by_signals() -> Iterator[list[int]]:
    """Collect the signals that ask for the end; started with `&`, both would be ignored otherwise."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(program: Child, logs: Path) -> "subprocess.Popen[bytes]":
    with _log(logs, program.name).open("ab") as log:
        return subprocess.Popen(program.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)


def cut_logs(logs: Path, most_bytes: int = MOST_LOG_BYTES) -> None:
    """Put a log that has grown beyond `most_bytes` aside as `NAME.log.1`, over the one before, and let it begin anew.

    Copied and emptied, not renamed: the programs and their children hold the file open, and append to it. What one of them writes
    between the two is lost. Where it cannot be done, on a full disk say, the log grows on until the next look.
    """
    for log in logs.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_size > most_bytes:
                shutil.copyfile(log, log.with_name(f"{log.name}.1"))
                os.truncate(log, 0)


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.lower().replace(' ', '-')}.log"


def _announce(programs: list[Child], running: dict[str, "subprocess.Popen[bytes]"], is_asked: list[int], home: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    for program in programs:
        while program.ready and not _answers(program.ready) and not is_asked and running[program.name].poll() is None:
            if time.monotonic() > end:
                raise UnavailableError(f"{program.name} did not start in {START_TIMEOUT_S} s: read {home / 'logs'}")
            time.sleep(0.3)
        if program.address:
            print(f"{program.name:<14} {program.address}", flush=True)
    print(f"Incoming       {settings().incoming_location} (drop audio or a folder with a JSONL of records)", flush=True)
    print(f"Ledger         {os.environ['KEEPTAKE_DATABASE_URL']}", flush=True)
    print(f"Logs           {home / 'logs'}", flush=True)
    print("Running. Ctrl-C ends everything.", flush=True)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:  # noqa: S310 -- our own loopback address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _watch(running: dict[str, "subprocess.Popen[bytes]"], is_asked: list[int], logs: Path, embedded_in: Path | None) -> int:
    looked_s = cut_s = time.monotonic()
    while not is_asked:
        if time.monotonic() > cut_s + LOG_LOOK_EVERY_S:
            cut_s = time.monotonic()
            cut_logs(logs)
        if embedded_in and time.monotonic() > looked_s + SERVER_LOOK_EVERY_S:
            looked_s = time.monotonic()
            if revive(embedded_in):
                print(
                    f"The embedded PostgreSQL had ended and runs again: see {embedded_in / 'pg' / 'log'}",
                    file=sys.stderr,
                    flush=True,
                )
        for name, process in running.items():
            if process.poll() is not None:
                print(f"{name} ended with {process.returncode}: read {_log(logs, name)}", file=sys.stderr, flush=True)
                return 1
        time.sleep(0.3)
    print("Ending.", flush=True)
    return 0


def _end(pids: Sequence[int]) -> None:
    # Dagster starts its code servers in sessions of their own: they are found by descent, while their parents live.
    everyone = [child for pid in pids for child in _descendants(pid)]
    for child in everyone:
        with suppress(psutil.NoSuchProcess):
            if child.pid in pids:
                child.terminate()
    psutil.wait_procs(everyone, timeout=END_TIMEOUT_S)
    for child in everyone:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
