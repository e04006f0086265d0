"""Fetching from servers that lie, stall and never end, each a real server on the loopback."""

import errno
import gzip
import os
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from keeptake.custody import fetch as fetching
from keeptake.custody import local_file
from keeptake.custody.fetch import Fetched, Request, fetch_all
from keeptake.custody.policy import FetchPolicy
from keeptake.custody.spool import Spool
from keeptake.errors import AudioReason, UnavailableError

CAP = 4_000_000
DEADLINE_S = 3.0
Send = Callable[[bytes], None]


class HostileServer(socketserver.ThreadingTCPServer):
    """Answers each path as the test says; counts connections and the bytes that it could send."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Callable[[Send], None]] = {}
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.at_once = 0
        self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"


class _Handler(socketserver.BaseRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            chunk = self.request.recv(65536)
            if not chunk:
                return
            head += chunk
        path = head.split(b" ")[1].decode()
        with self.server.lock:
            self.server.asked[path] += 1
            self.server.headers[path] = head.decode("latin-1")
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        try:
            self.server.answers[path](self.request.sendall)
        except OSError:  # the client had enough
            pass
        finally:
            with self.server.lock:
                self.server.at_once -= 1


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def policy(server: HostileServer) -> FetchPolicy:
    return FetchPolicy(
        timeout_s=DEADLINE_S, stall_s=2.0, grace_s=1.0, max_bytes=CAP, tries=1, backoff_s=0.05,
        allow_http_hosts=frozenset({server.host}),
    )  # fmt: skip


def head(status: str = "200 OK", **fields: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


def answer(body: bytes, status: str = "200 OK", **fields: object) -> Callable[[Send], None]:
    return lambda send: send(head(status, Content_Length=len(body), Connection="close", **fields) + body)


def endless(send: Send) -> None:
    send(head())
    while True:
        send(b"\0" * 65536)


def trickle(send: Send) -> None:
    send(head(Content_Length=100_000))
    while True:
        send(b"\0")
        time.sleep(0.2)


def trickled_headers(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n")
    while True:
        send(b"X")
        time.sleep(0.2)


def silence(send: Send) -> None:
    time.sleep(30)


def cut(send: Send) -> None:
    send(head(Content_Length=1000) + b"RIFF" + bytes(500))


BOMB = gzip.compress(bytes(100_000_000), 1)


def bomb(send: Send) -> None:
    send(head(Content_Length=len(BOMB), Content_Encoding="gzip") + BOMB)


HOSTILE = {
    "endless": (endless, {"too-large"}),
    "one-byte-a-fifth-of-a-second": (trickle, {"too-slow"}),
    "trickled-headers": (trickled_headers, {"timeout"}),
    "silent": (silence, {"timeout"}),
    "ten-gigabytes": (lambda send: send(head(Content_Length=10_000_000_000) + bytes(1000)), {"too-large"}),
    "cut": (cut, {"truncated"}),
    "not-http": (lambda send: send(b"SSH-2.0-OpenSSH_9.2\r\n"), {"server-error"}),
    "endless-headers": (lambda send: [send(b"HTTP/1.1 200 OK\r\n"), *(send(b"A" * 60_000) for _ in "x" * 99)], {"server-error"}),
}  # fmt: skip


def fetch(url: str, policy: FetchPolicy, root: Path | None = None, provider: str = "suno") -> Fetched:
    [[fetched]] = list(fetch_all([Request(1, url, provider, root)], policy))
    return fetched


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_server_is_left_in_time_and_in_bounds(server, policy, kind, peak_memory):
    server.answers["/a.wav"], reasons = HOSTILE[kind]
    memory = peak_memory.PeakMemory()
    started_s = time.monotonic()

    fetched = fetch(server.url("/a.wav"), policy)

    with fetched.spool as spool:
        assert time.monotonic() - started_s < DEADLINE_S + 1
        assert fetched.refusal is not None and fetched.refusal.reason in reasons, fetched.refusal
        assert spool.size_bytes <= CAP + 65536
    assert memory.added_mb() < 32


def test_a_gzip_bomb_is_never_unpacked(server, policy):
    server.answers["/bomb"] = bomb
    with fetch(server.url("/bomb"), policy).spool as spool:
        assert spool.size_bytes <= CAP and spool.first_bytes_type == "application/gzip"
    assert "Accept-Encoding: identity" in server.headers["/bomb"]


def test_control_a_plain_client_unpacks_the_bomb(server):
    """What the bound is for: a client that unpacks gets over 200 bytes for each that was sent."""
    import httpx2

    server.answers["/bomb"] = bomb
    received = 0
    with httpx2.stream("GET", server.url("/bomb")) as response:
        for chunk in response.iter_bytes():
            received += len(chunk)
            if received > 4 * CAP:
                break
    assert received > 4 * CAP


def test_bytes_arrive_whole_and_hashed(server, policy):
    import hashlib

    body = os.urandom(3_000_000)
    server.answers["/a.wav?x=1&y=%20"] = answer(body, Content_Type="audio/wav")
    with fetch(server.url("/a.wav?x=1&y=%20"), policy).spool as spool:
        assert spool.path.read_bytes() == body and spool.sha256 == hashlib.sha256(body).hexdigest()
    assert f"Host: {server.host}\r\n" in server.headers["/a.wav?x=1&y=%20"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", "not-found"), ("410 Gone", "not-found"), ("403 Forbidden", "forbidden"), ("401 No", "forbidden"),
        ("451 Law", "forbidden"), ("400 Bad", "forbidden"), ("429 Slow", "rate-limited"), ("500 Oops", "server-error"),
        ("503 Busy", "server-error"), ("408 Late", "timeout"), ("504 Late", "timeout"), ("204 None", "server-error"),
        ("304 Same", "server-error"), ("206 Part", "server-error"), ("302 No location", "server-error"),
    ],
)  # fmt: skip
def test_a_status_is_a_reason(server, policy, status, reason):
    server.answers["/a"] = answer(b"", status)
    with (fetched := fetch(server.url("/a"), policy)).spool:
        assert fetched.refusal is not None and fetched.refusal.reason == reason


@pytest.mark.parametrize(("status", "tries"), [("503 Busy", 3), ("429 Slow", 3), ("404 Not Found", 1), ("403 Forbidden", 1)])
def test_only_what_a_retry_can_mend_is_tried_again(server, policy, status, tries):
    server.answers["/a"] = answer(b"", status)
    with (fetched := fetch(server.url("/a"), replace(policy, tries=3))).spool:
        assert server.asked["/a"] == tries == fetched.tries


def test_a_retry_that_succeeds_leaves_nothing_of_the_failure(server, policy):
    turns = iter([cut, answer(b"", "500 Oops"), answer(b"RIFF" + bytes(100))])
    server.answers["/a"] = lambda send: next(turns)(send)
    with (fetched := fetch(server.url("/a"), replace(policy, tries=3))).spool as spool:
        assert fetched.refusal is None and fetched.tries == 3 and spool.path.read_bytes() == b"RIFF" + bytes(100)


def test_retry_after_is_obeyed(server, policy):
    turns = iter([answer(b"", "429 Slow", Retry_After=1), answer(b"fine")])
    server.answers["/a"] = lambda send: next(turns)(send)
    started_s = time.monotonic()
    with (fetched := fetch(server.url("/a"), replace(policy, tries=2))).spool:
        assert fetched.refusal is None and time.monotonic() - started_s >= 1.0


def test_a_long_retry_after_puts_the_row_off_instead(server, policy):
    server.answers["/a"] = answer(b"", "429 Slow", Retry_After=7200)
    with (fetched := fetch(server.url("/a"), replace(policy, tries=3))).spool:
        assert server.asked["/a"] == 1 and fetched.refusal is not None and fetched.refusal.retry_after_s == 7200


@pytest.mark.parametrize("wait", ["Fri, 31 Dec 99999999999999 23:59:59 GMT", "Fri, 31 Dec 2027 23:59:59 +999999999999999999999"])
def test_a_hostile_retry_after_costs_its_own_file_alone(server, policy, wait):
    """No calendar holds it: the error ended the fetching of the whole day, at every run."""
    server.answers = {f"/{i}": answer(b"fine") for i in range(20)} | {"/7": answer(b"", "503 Busy", Retry_After=wait)}
    requests = [Request(i, server.url(f"/{i}"), "p", None) for i in range(20)]
    refusals = {}
    for fetched in (fetched for batch in fetch_all(requests, policy) for fetched in batch):
        fetched.spool.close()
        refusals[fetched.request.key] = fetched.refusal
    assert [key for key, refusal in refusals.items() if refusal] == [7]
    assert len(refusals) == 20


def test_what_one_answer_makes_us_stumble_over_costs_no_other_file(server, policy, monkeypatch):
    def stumbling(response, place):
        if place.target == "/3":
            raise RuntimeError("a mistake of ours")
        judge(response, place)

    judge = fetching._judge_status
    monkeypatch.setattr(fetching, "_judge_status", stumbling)
    server.answers = {f"/{i}": answer(b"fine") for i in range(6)}
    requests = [Request(i, server.url(f"/{i}"), "p", None) for i in range(6)]
    refusals = {}
    for fetched in (fetched for batch in fetch_all(requests, policy) for fetched in batch):
        fetched.spool.close()
        refusals[fetched.request.key] = fetched.refusal
    assert [key for key, refusal in refusals.items() if refusal] == [3]
    assert "RuntimeError" in refusals[3].detail


def test_a_retry_of_a_slow_disk_is_not_written_to_by_the_attempt_before(policy, tmp_path, monkeypatch):
    """A time-out left the first copy's thread at work: 8 MiB arrived as 9, with a hash that agreed with them."""
    (tmp_path / "take.wav").write_bytes(os.urandom(8 << 20))
    slow = iter([0.4, 0.4])

    def read(descriptor: int, size: int) -> bytes:
        time.sleep(next(slow, 0.0))
        return at_once(descriptor, size)

    at_once = os.read
    monkeypatch.setattr(local_file.os, "read", read)
    policy = replace(policy, timeout_s=0.3, tries=3, backoff_s=0.01, max_bytes=64 << 20)
    with (fetched := fetch("take.wav", policy, root=tmp_path)).spool as spool:
        assert fetched.refusal is None and fetched.tries > 1
        assert spool.path.read_bytes() == (tmp_path / "take.wav").read_bytes()


def test_a_file_that_its_disk_gives_up_costs_no_other_file(policy, tmp_path, monkeypatch):
    for name in ("bad", "good"):
        (tmp_path / name).write_bytes(b"music")

    def read(descriptor: int, size: int) -> bytes:
        if Path(f"/proc/self/fd/{descriptor}").resolve().name == "bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return at_once(descriptor, size)

    at_once = os.read
    monkeypatch.setattr(local_file.os, "read", read)
    requests = [Request(i, name, "p", tmp_path) for i, name in enumerate(("bad", "good"))]
    reasons = {}
    for fetched in (fetched for batch in fetch_all(requests, replace(policy, tries=1)) for fetched in batch):
        fetched.spool.close()
        reasons[fetched.request.audio_url] = fetched.refusal and fetched.refusal.reason
    assert reasons == {"bad": AudioReason.SERVER_ERROR, "good": None}


def test_a_full_disk_is_said_and_is_no_files_fault(server, policy, monkeypatch):
    def full(spool: Spool, chunk: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Spool, "write", full)
    server.answers = {f"/{i}": answer(b"music") for i in range(3)}
    with pytest.raises(UnavailableError, match="No space left on device"):
        list(fetch_all([Request(i, server.url(f"/{i}"), "p", None) for i in range(3)], policy))


def test_redirects_are_followed_up_to_five(server, policy):
    for hop in range(7):
        server.answers[f"/{hop}"] = answer(b"", "302 Found", Location=f"/{hop + 1}")
    server.answers["/7"] = answer(b"music")
    with (fetched := fetch(server.url("/2"), policy)).spool as spool:
        assert fetched.refusal is None and spool.size_bytes == 5
    with (fetched := fetch(server.url("/1"), policy)).spool:
        assert fetched.refusal is not None and "redirects" in fetched.refusal.detail
    server.answers["/loop"] = answer(b"", "301 Moved", Location="/loop")
    with (fetched := fetch(server.url("/loop"), policy)).spool:
        assert fetched.refusal is not None and server.asked["/loop"] == 6


def test_one_host_is_asked_by_few_at_once_and_the_day_is_concurrent(server, policy):
    def slow(send: Send) -> None:
        time.sleep(0.2)
        answer(b"x")(send)

    server.answers = {f"/{i}": slow for i in range(40)}
    started_s = time.monotonic()
    done = [f for batch in fetch_all([Request(i, server.url(f"/{i}"), "p", None) for i in range(40)], policy) for f in batch]
    assert time.monotonic() - started_s < 40 * 0.2 / 2, "one by one"
    assert server.most_at_once <= policy.per_host and {f.request.key for f in done} == set(range(40))
    for fetched in done:
        fetched.spool.close()
        assert fetched.refusal is None


def test_a_slow_host_does_not_hold_up_the_others(server, policy):
    server.answers = {f"/{i}": silence for i in range(20)} | {"/fine": answer(b"x")}
    other = HostileServer()
    other.answers = {"/fine": answer(b"x")}
    thread = threading.Thread(target=other.serve_forever, args=(0.02,))
    thread.start()
    both = replace(policy, allow_http_hosts=frozenset({server.host, other.host}), concurrency=16)
    requests = [Request(i, server.url(f"/{i}"), "p", None) for i in range(20)] + [Request(99, other.url("/fine"), "p", None)]
    started_s = time.monotonic()
    batches = fetch_all(requests, both)
    [first] = next(batches)
    assert first.request.key == 99 and time.monotonic() - started_s < 1.5
    first.spool.close()
    batches.close()
    other.shutdown()
    thread.join()
    other.server_close()


def test_leaving_early_ends_the_fetching(server, policy):
    server.answers = {"/fine": answer(b"x"), "/silent": silence}
    requests = [Request(0, server.url("/fine"), "p", None), *(Request(i, server.url("/silent"), "p", None) for i in range(1, 5))]
    batches = fetch_all(requests, policy)
    [first] = next(batches)
    first.spool.close()
    started_s = time.monotonic()
    batches.close()
    assert time.monotonic() - started_s < 1.5
    assert not any(thread.name == "keeptake-fetch" for thread in threading.enumerate())


def test_nothing_is_left_open(server, policy):
    """Spools once stayed open for rows that were given up, until a day ran out of descriptors."""
    server.answers = {"/fine": answer(b"x"), "/none": answer(b"", "404 Not Found")}
    open_before = psutil.Process().num_fds()
    for _ in range(5):
        for path in server.answers:
            fetch(server.url(path), policy).spool.close()
    assert psutil.Process().num_fds() <= open_before + 2


def test_a_closed_port_and_an_unknown_name_are_the_servers_fault(policy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with (fetched := fetch(f"http://{host}/a", replace(policy, allow_http_hosts=frozenset({host})))).spool:
            assert fetched.refusal is not None and fetched.refusal.reason == "server-error"


class TestLocalFiles:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a b.wav").write_bytes(b"inside")
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
        (tmp_path / "in" / "alias").symlink_to(tmp_path / "in" / "a b.wav")
        os.mkfifo(tmp_path / "in" / "pipe")
        return tmp_path / "in"

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("a b.wav", None), ("./a b.wav", None), ("alias", None), ("none.wav", "not-found"), ("a b.wav/x", "not-found"),
            ("../secret", "blocked-path"), ("../none", "blocked-path"), ("link", "blocked-path"), ("/etc/passwd", "blocked-path"),
            ("/proc/self/environ", "blocked-path"), ("pipe", "blocked-path"), (".", "blocked-path"), ("", "blocked-path"),
            ("a\0b", "blocked-path"), ("//host/a.wav", "blocked-path"), ("x" * 5000, "blocked-path"),
        ],
    )  # fmt: skip
    def test_relative_paths_stay_in_their_root(self, root, url, reason):
        started_s = time.monotonic()
        with (fetched := fetch(url, FetchPolicy(), root)).spool as spool:
            assert (fetched.refusal and fetched.refusal.reason) == reason, fetched.refusal
            assert spool.size_bytes == (0 if reason else 6)
        assert time.monotonic() - started_s < 2

    def test_without_a_root_nothing_is_read(self):
        with (fetched := fetch("etc/passwd", FetchPolicy())).spool:
            assert fetched.refusal is not None and fetched.refusal.reason == "blocked-scheme"

    def test_file_urls_are_read_under_allowed_roots_only(self, root):
        allowed = FetchPolicy(file_roots=(root,))
        for url, reason in [
            ((root / "a b.wav").as_uri(), None), ((root / "link").as_uri(), "blocked-path"),
            ("file:///etc/passwd", "blocked-path"), (f"file://elsewhere{root}/x", "blocked-path"),
            (f"file://{root}/../secret", "blocked-path"),
        ]:  # fmt: skip
            with (fetched := fetch(url, allowed)).spool:
                assert (fetched.refusal and fetched.refusal.reason) == reason, (url, fetched.refusal)
        with (fetched := fetch((root / "a b.wav").as_uri(), FetchPolicy())).spool:
            assert fetched.refusal is not None and fetched.refusal.reason == "blocked-scheme"

    def test_a_file_over_the_cap_is_too_large(self, root):
        with (fetched := fetch("a b.wav", FetchPolicy(max_bytes=5), root)).spool:
            assert fetched.refusal is not None and fetched.refusal.reason == "too-large"
