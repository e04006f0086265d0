"""Nothing acknowledged is lost: services and servers killed under load, and frozen. Each with its control."""

import asyncio
import io
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import psycopg
import pytest
import soundfile

from keeptake.capture import app
from keeptake.capture.app import PREFIX
from keeptake.capture.saving import STEPS
from keeptake.errors import LedgerUnavailableError
from keeptake.ledger import serving
from keeptake.ledger.connection import Ledger
from keeptake.ledger.keys import SCOPES, create_key
from keeptake.ledger.migrate import migrate

CLIENTS = 48


class Load:
    """Clients that save generations and repeat each call until it is acknowledged."""

    def __init__(self, base_url, key, take, *, clients=CLIENTS):
        self.acknowledged = {}  # generationId -> every metadataId that was answered
        self.slowest_refusal_s = 0.0
        self.refusals = []
        self._base_url, self._key, self._take, self._clients = base_url, key, take, clients
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a client hangs"

    async def _run(self):
        headers = {"Authorization": f"Bearer {self._key}"}
        limits = httpx2.Limits(max_connections=self._clients)
        async with httpx2.AsyncClient(
            base_url=self._base_url, headers=headers, timeout=30, verify=False, limits=limits
        ) as client:
            await asyncio.gather(*(self._save(client, number) for number in range(self._clients)))

    async def _save(self, client, number):
        count = 0
        while not self._stop.is_set():
            name = f"c{number}-{count}"
            count += 1
            while not self._stop.is_set():
                started = time.monotonic()
                try:
                    answer = await client.post(PREFIX, json=self._take(name))
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    self.acknowledged.setdefault(name, []).append(answer.json()["metadataId"])
                    if random.random() < 0.1:  # a client that lost the answer sends it again
                        continue
                    break
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) > 0
                self.refusals.append(answer.status_code)
                self.slowest_refusal_s = max(self.slowest_refusal_s, time.monotonic() - started)
                await asyncio.sleep(0.1)

    def wait_for(self, more, *, within_s=60):
        """Wait until so many more generations are acknowledged."""
        target, ends = len(self.acknowledged) + more, time.monotonic() + within_s
        while len(self.acknowledged) < target:
            assert time.monotonic() < ends, f"only {len(self.acknowledged)} of {target} were acknowledged in time"
            time.sleep(0.02)


def stored(ledger):
    with ledger.begin() as connection:
        rows = connection.exec_driver_sql("SELECT generation_id, id::text FROM generations").all()
    assert len({name for name, _ in rows}) == len(rows)
    return dict(tuple(row) for row in rows)


def lost(acknowledged, kept):
    assert all(len(set(ids)) == 1 for ids in acknowledged.values()), "a repeat was answered with another id"
    return {name for name, ids in acknowledged.items() if kept.get(name) != ids[0]}


def test_ten_kills_of_the_service_lose_and_double_nothing(ledger, tmp_path, capture_service):
    key = create_key(ledger, SCOPES)
    with capture_service.Process(ledger.url, tmp_path) as process:
        process.start()
        with Load(process.base_url, key, capture_service.take) as load:
            for _ in range(10):
                load.wait_for(40)
                process.kill()
                process.start()
            load.wait_for(40)
    assert len(load.acknowledged) >= 400
    assert lost(load.acknowledged, stored(ledger)) == set()


KILL_AT_STEP = """
import json, os, signal, sys
given = json.loads(sys.argv[1])
import uvicorn
from keeptake.capture.app import create_app
from keeptake.settings import settings
if given.get("forgetful"):
    from keeptake.ledger import serving
    async def rows(self, query, given, deadline_s=2.0, original=serving.ServingPool.rows):
        if "INSERT INTO generations" not in query:
            return await original(self, query, given, deadline_s=deadline_s)
        global kept
        kept = (query, given)  # acknowledged now, written some time later
        return [(json.loads(given[0])[0]["generation_id"], 1, "captured")]
    serving.ServingPool.rows = rows
def step(name):
    if name == given.get("die_at"):
        os.kill(os.getpid(), signal.SIGKILL)
uvicorn.run(create_app(settings(), database_url=given["url"], step=step), port=given["port"], log_level="warning")
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_of_a_save_ends_with_one_row_and_one_id(ledger, tmp_path, capture_service, step):
    key = create_key(ledger, SCOPES)
    take = capture_service.take("g1", userFeedback={"liked": True})
    with capture_service.Process(ledger.url, tmp_path, program=KILL_AT_STEP) as process:
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=process.base_url, headers=headers, timeout=30, verify=False) as client:
            if step == "after-look":  # a step of a replay
                process.start()
                assert client.post(PREFIX, json=take).status_code == 200
                process.kill()
            process.start(die_at=step)
            with pytest.raises(httpx2.TransportError):
                client.post(PREFIX, json=take)
            process.process.wait(20)
            after_kill = stored(ledger)
            assert set(after_kill) == (set() if step == "before-save" else {"g1"})
            process.start()
            answers = [client.post(PREFIX, json=take).json() for _ in range(2)]
    assert [answer["replayed"] for answer in answers] == [step != "before-save", True]
    assert {answer["metadataId"] for answer in answers} == set(stored(ledger).values())
    with ledger.begin() as connection:
        history = connection.exec_driver_sql("SELECT revision, changes FROM feedback_history").all()
    assert [tuple(entry) for entry in history] == [(1, {"liked": True})]


def test_control_a_service_that_answers_before_it_commits_loses_saves(ledger, tmp_path, capture_service):
    key = create_key(ledger, SCOPES)
    with capture_service.Process(ledger.url, tmp_path, program=KILL_AT_STEP) as process:
        process.start(forgetful=True)
        with Load(process.base_url, key, capture_service.take, clients=4) as load:
            load.wait_for(20)
            process.kill()
    assert lost(load.acknowledged, stored(ledger)) != set()


def test_a_kill_within_the_transaction_ends_with_one_row_and_one_id(ledger, tmp_path, capture_service):
    """The statement waits in Postgres for a lock while its service dies; whether it still commits or not, the retry is right."""
    key = create_key(ledger, SCOPES)
    take = capture_service.take("g1")
    with capture_service.Process(ledger.url, tmp_path) as process:
        process.start()
        client = httpx2.Client(base_url=process.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30, verify=False)
        with client, ledger.begin() as blocking:
            blocking.exec_driver_sql("LOCK TABLE generations IN SHARE MODE")
            failed = []

            def send():
                try:
                    client.post(PREFIX, json=take)
                except httpx2.TransportError as error:
                    failed.append(error)

            sender = threading.Thread(target=send)
            sender.start()
            while not blocking.exec_driver_sql("SELECT 1 FROM pg_locks WHERE NOT granted").all():
                time.sleep(0.02)
            process.kill()
            sender.join()
        assert failed
        process.start()
        with httpx2.Client(base_url=process.base_url, headers={"Authorization": f"Bearer {key}"}, verify=False) as client:
            answers = {client.post(PREFIX, json=take).json()["metadataId"] for _ in range(3)}
    assert answers == set(stored(ledger).values())


class Server:
    """A Postgres server as a direct child of this process, to be killed and frozen."""

    def __init__(self, folder):
        from keeptake.ledger.server import _pgserver

        self.folder = folder
        self.binaries = Path(_pgserver(folder / "run").__file__).parent / "pginstall18" / "bin"
        self.process = None
        self._account = {}
        if os.getuid() == 0:  # Postgres refuses to run as root
            import pwd

            nobody = pwd.getpwnam("nobody")
            folder.chmod(0o755)
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        command = [
            self.binaries / "initdb",
            "-D",
            folder / "pg",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-instructions",
        ]
        subprocess.run(command, check=True, capture_output=True, **self._account)

    @property
    def url(self):
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def start(self):
        options = {"unix_socket_directories": self.folder, "listen_addresses": "", "wal_writer_delay": "10s"}
        command = [self.binaries / "postgres", "-D", self.folder / "pg"]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._account)
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return self
        raise AssertionError("Postgres does not start")

    def kill(self):
        """Kill the whole server at once, as a power cut would; backends that lived on would write their WAL."""
        family = self.family()
        for pid in family:
            send_signal(pid, signal.SIGKILL)
        self.process.wait()

    def family(self):
        import psutil

        return [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


def send_signal(pid, number):
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def own_server():
    with tempfile.TemporaryDirectory(prefix="kt") as folder:  # short: a socket's path has at most 107 characters
        server = Server(Path(folder))
        with server:
            ledger = Ledger(server.url)
            migrate(ledger)
            yield server, ledger
            ledger.dispose()


def lose_power_three_times(capture_service, tmp_path, options=""):
    """Acknowledged generations, and what was left of them after three kills of Postgres under load; the load itself."""
    with own_server() as (server, ledger):
        key = create_key(ledger, SCOPES)
        url = server.url + (f"&options={options}" if options else "")
        with capture_service.running(Ledger(url), tmp_path, has_key=False) as service:
            with Load(service.base_url, key, capture_service.take, clients=16) as load:
                for _ in range(3):
                    load.wait_for(60)
                    server.kill()
                    time.sleep(1.0)
                    server.start()
                    load.wait_for(1, within_s=10)  # recovery by itself
                load.wait_for(30)
            ledger.dispose()
            return load, stored(ledger)


def test_three_kills_of_postgres_lose_nothing_acknowledged(capture_service, tmp_path):
    load, kept = lose_power_three_times(capture_service, tmp_path)
    assert lost(load.acknowledged, kept) == set()
    assert load.refusals, "no call met the outage"
    assert load.slowest_refusal_s <= 2.5


def test_control_without_synchronous_commit_the_same_kills_lose_some(capture_service, tmp_path):
    load, kept = lose_power_three_times(capture_service, tmp_path, "-c%20synchronous_commit%3Doff")
    assert {name for name, ids in load.acknowledged.items() if kept.get(name) not in ids} != set()


def test_a_frozen_postgres_hangs_no_request(capture_service, tmp_path):
    with own_server() as (server, ledger), capture_service.running(ledger, tmp_path) as service:
        headers = {"Authorization": f"Bearer {service.key}"}
        with httpx2.Client(base_url=service.base_url, headers=headers, timeout=30, verify=False) as client:
            assert client.post(PREFIX, json=capture_service.take("before")).status_code == 200
            assert client.get(f"{PREFIX}/export/jsonl").status_code == 200
            family = server.family()
            for pid in family:
                send_signal(pid, signal.SIGSTOP)
            frozen_s = time.monotonic()
            took_s = asyncio.run(during_the_freeze(service.base_url, headers, capture_service.take, frozen_s + 20))
            for pid in family:
                send_signal(pid, signal.SIGCONT)
            ends = time.monotonic() + 10
            while client.post(PREFIX, json=capture_service.take("after")).status_code != 200:
                assert time.monotonic() < ends, "no recovery within 10 s"
                time.sleep(0.2)
    assert len(took_s) > 40
    assert max(took_s) <= 2.5


@pytest.fixture
def wav(signals):
    buffer = io.BytesIO()
    soundfile.write(buffer, signals.sine(440.0, 1.0, 22_050), 22_050, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def frozen_uploads(server, service, take, wav, *, thaw_after_s):
    """Two uploads whose server freezes while they send, and a third after it has thawed: seconds and status of each."""
    for name in ("before", "g1", "g2", "after"):
        assert service.post(take(name)).status_code == 200
    is_frozen = threading.Event()

    def upload(name, *, is_met=True):
        def pieces():
            yield wav[:1000]
            if is_met:
                is_frozen.wait()
            yield wav[1000:]

        started_s = time.monotonic()
        answer = service.client.put(f"{PREFIX}/{name}/audio", content=pieces())
        return time.monotonic() - started_s, answer.status_code, answer.headers.get("retry-after")

    assert upload("before", is_met=False)[1] == 201
    family = server.family()
    with ThreadPoolExecutor(2) as threads:
        uploads = [threads.submit(upload, name) for name in ("g1", "g2")]
        time.sleep(0.5)
        for pid in family:
            send_signal(pid, signal.SIGSTOP)
        thaw = threading.Timer(thaw_after_s, lambda: [send_signal(pid, signal.SIGCONT) for pid in family])
        thaw.start()
        is_frozen.set()
        met = [each.result() for each in uploads]
    thaw.join()
    return met, upload("after", is_met=False)


def test_a_postgres_that_freezes_during_an_upload_holds_no_place(capture_service, tmp_path, wav):
    """Two such uploads once hung until the server's end, and every other one was refused as one too many."""
    with own_server() as (server, ledger), capture_service.running(ledger, tmp_path) as service:
        met, after = frozen_uploads(server, service, capture_service.take, wav, thaw_after_s=8)
    assert [answer[1:] for answer in met] == [(503, "2")] * 2
    assert max(answer[0] for answer in met) <= 5
    assert after[1] == 201


def test_a_transaction_of_a_thread_is_broken_off_wherever_the_server_freezes():
    """Within a statement, which SIGSTOP between two requests never meets."""
    with own_server() as (_, ledger):
        bounded = serving.BoundedLedger(ledger.url, deadline_s=0.5)
        with bounded.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE kept (n int)")
        with pytest.raises(LedgerUnavailableError), bounded.begin() as connection:
            connection.exec_driver_sql("INSERT INTO kept VALUES (1)")
            connection.exec_driver_sql("SELECT pg_sleep(20)")
        with bounded.begin() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM kept").scalar() == 0


def test_control_a_pooled_ledger_waits_as_long_as_the_server_is_frozen(capture_service, tmp_path, wav, monkeypatch):
    monkeypatch.setattr(app, "BoundedLedger", lambda url, *, deadline_s: Ledger(url))
    with own_server() as (server, ledger), capture_service.running(ledger, tmp_path) as service:
        met, _ = frozen_uploads(server, service, capture_service.take, wav, thaw_after_s=7)
    assert max(answer[0] for answer in met) > 5


async def during_the_freeze(base_url, headers, take, ends_s):
    """Seconds that each of many different calls took until its 503."""
    calls = [
        ("POST", PREFIX, {"json": take("during")}),
        ("PUT", f"{PREFIX}/before/feedback", {"json": {"liked": True}}),
        ("GET", f"{PREFIX}/before", {}),
        ("GET", PREFIX, {}),
        ("GET", f"{PREFIX}/export/jsonl", {}),
        ("GET", f"{PREFIX}/statistics/overview", {}),
        ("GET", "/readyz", {}),
        ("POST", PREFIX, {"json": take("other")}),
    ]
    took_s = []
    async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=30, verify=False) as client:

        async def repeat(method, path, given):
            while time.monotonic() < ends_s:
                started_s = time.monotonic()
                answer = await client.request(method, path, **given)
                took_s.append(time.monotonic() - started_s)
                assert answer.status_code == 503, (path, answer.text)
                assert int(answer.headers["retry-after"]) > 0

        await asyncio.gather(*(repeat(*call) for call in calls))
    return took_s


def test_control_without_shutting_the_socket_a_frozen_postgres_hangs_a_request(capture_service, tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "break_off", lambda connection: None)
    with own_server() as (server, ledger), capture_service.running(ledger, tmp_path) as service:
        assert service.post(capture_service.take("before")).status_code == 200
        family = server.family()
        for pid in family:
            send_signal(pid, signal.SIGSTOP)
        thaw = threading.Timer(5, lambda: [send_signal(pid, signal.SIGCONT) for pid in family])
        thaw.start()
        started_s = time.monotonic()
        service.get("/before")
        took_s = time.monotonic() - started_s
        thaw.join()
    assert took_s > 2.5
