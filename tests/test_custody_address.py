"""No connection to an address that is not public: counted by a canary that listens on every loopback address."""

import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from keeptake.custody import address
from keeptake.custody.address import follow, is_public, read_url
from keeptake.custody.fetch import Request, fetch_all
from keeptake.custody.policy import READY_HOSTS, FetchPolicy
from keeptake.errors import AudioRefusedError, ConfigurationError
from keeptake.settings import Settings


class Canary:
    """Accepts whatever comes to a port of any local address, and counts."""

    def __init__(self, host: str = "::") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind((host, 0))
        self.socket.listen(128)
        self.port = self.socket.getsockname()[1]
        self.accepts = 0
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            while not self._ended.is_set():
                if selector.select(0.02):
                    connection, _ = self.socket.accept()
                    self.accepts += 1
                    with closing(connection):
                        connection.settimeout(0.2)
                        try:
                            path = connection.recv(65536).split(b" ")[1:2]
                            connection.sendall(self.reply(path[0].decode() if path else ""))
                        except (OSError, UnicodeDecodeError):
                            pass

    def reply(self, path: str) -> bytes:
        return self.answer

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.socket.close()


class Redirector(Canary):
    """A host that configuration trusts, and that sends its callers elsewhere."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1")
        self.targets: list[str] = []

    def reply(self, path: str) -> bytes:
        target = self.targets[int(path.strip("/"))]
        return f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.close()


@pytest.fixture
def redirector() -> Iterator[Redirector]:
    redirector = Redirector()
    yield redirector
    redirector.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Answers of the name service, one list a look-up, the last for ever: what a hostile name server would send."""
    answers: dict[str, list[list[str]]] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in answers:
            return resolve(host, port, *args, **kwargs)
        found = answers[name].pop(0) if len(answers[name]) > 1 else answers[name][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


HOSTS = """
127.0.0.1 127.1 127.0.1 127.0.0.2 127.255.255.254 2130706433 0x7f000001 0x7f.0x0.0x0.0x1
0177.0.0.1 017700000001 127.000.000.001 0 0.0.0.0 127.0.0.1. [::1] [::] [::ffff:127.0.0.1]
[::ffff:7f00:1] [0:0:0:0:0:ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::]
localhost LOCALHOST localhost. １２７.０.０.１ ①②⑦.⓪.⓪.① 127。0。0。1 ⓛocalhost user:secret@127.0.0.1
example.com@127.0.0.1 :@127.0.0.1 example.com%2F@127.0.0.1 rebind.test mixed.test
private.test 169.254.169.254 [fd00:ec2::254] 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1
168.63.129.16 [fe80::1] [fec0::1] [100::1] 198.18.0.1 224.0.0.1
"""


def hostile_urls(port: int) -> list[str]:
    urls = [f"https://{host}:{port}/a.mp3" for host in HOSTS.split()]
    urls += [f"http://{host}:{port}/latest/meta-data/" for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254")]
    urls += [
        f"ftp://127.0.0.1:{port}/a.mp3", f"gopher://127.0.0.1:{port}/_GET", f"dict://127.0.0.1:{port}/x", f"rtsp://127.0.0.1:{port}/a",
        f"concat:http://127.0.0.1:{port}/a", f"jar:http://127.0.0.1:{port}!/a", f"unix://127.0.0.1:{port}", "file:///etc/passwd",
        "data:audio/wav;base64,UklGRg==", f"https://127.0.0.1:{port}\\@example.com/", f"https://example.com\\@127.0.0.1:{port}/",
        f"https://127.0.0.1:{port}#@example.com/", f"https://127.0.0.1\t:{port}/", f"https://127.0.0.1:{port}/ HTTP/1.1\r\nX: y",
        f"https:///127.0.0.1:{port}/", f"https://:{port}/", "https://[::1", "https://127.0.0.1:99999/", f"//127.0.0.1:{port}/a",
    ]  # fmt: skip
    return urls


def redirect_targets(port: int) -> list[str]:
    return [
        f"https://127.0.0.1:{port}/", f"https://localhost:{port}/", f"https://[::1]:{port}/", f"//127.0.0.1:{port}/", f"http://127.0.0.1:{port}/",
        f"http://2130706433:{port}/", "file:///etc/passwd", f"ftp://127.0.0.1:{port}/", f"https://user@127.0.0.1:{port}/", "/0", "https://[::1",
    ]  # fmt: skip


def fetch_each(urls: list[str], policy: FetchPolicy) -> dict[str, AudioRefusedError | None]:
    requests = [Request(i, url, "suno", None) for i, url in enumerate(urls)]
    found = {}
    for batch in fetch_all(requests, policy):
        for fetched in batch:
            with fetched.spool as spool:
                assert spool.size_bytes == 0, f"{fetched.request.audio_url} brought bytes"
            found[fetched.request.audio_url] = fetched.refusal
    return found


def test_hostile_urls_reach_nobody(canary, redirector, names):
    names.update(
        {
            "rebind.test": [["10.9.8.7"], ["127.0.0.1"]],
            "mixed.test": [["1.1.1.1", "127.0.0.1"]],
            "private.test": [["192.168.7.7"]],
        }
    )
    redirector.targets = redirect_targets(canary.port)
    trusted = f"127.0.0.1:{redirector.port}"
    urls = hostile_urls(canary.port) + [f"http://{trusted}/{i}" for i in range(len(redirector.targets))]
    assert len(urls) >= 50

    refused = fetch_each(urls, FetchPolicy(tries=1, timeout_s=10, connect_timeout_s=2, allow_http_hosts=frozenset({trusted})))

    assert canary.accepts == 0
    assert set(refused) == set(urls) and all(refused.values())
    expected = {"blocked-address", "blocked-scheme"}
    assert {u: r.reason for u, r in refused.items() if r and r.reason not in expected} == {}
    assert redirector.accepts >= len(redirector.targets)


def test_control_a_plain_client_is_caught(canary, redirector, names):
    import httpx2

    names.update({"rebind.test": [["127.0.0.1"]], "mixed.test": [["127.0.0.1"]], "private.test": [["127.0.0.1"]]})
    redirector.targets = redirect_targets(canary.port)
    urls = hostile_urls(canary.port)[:36] + [f"http://127.0.0.1:{redirector.port}/{i}" for i in range(6)]
    with httpx2.Client(verify=False, follow_redirects=True, timeout=1, trust_env=False) as client:
        for url in urls:
            try:
                client.get(url)
            except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, UnicodeError, OSError):
                continue
    assert canary.accepts >= 20


def test_a_name_that_changes_its_mind_is_asked_once(names, monkeypatch):
    """The check and the connection once resolved the name on their own: the second answer was another."""
    innocent, secret = Canary("127.0.0.2"), Canary("127.0.0.1")
    monkeypatch.setattr(address, "is_public", lambda ip: ip == "127.0.0.2")
    names["rebind.test"] = [["127.0.0.2"], ["127.0.0.1"]]
    try:
        fetch_each(
            [f"https://rebind.test:{secret.port}/", f"https://rebind.test:{innocent.port}/"], FetchPolicy(tries=1, per_host=1)
        )
        assert secret.accepts == 0
        names["rebind.test"] = [["127.0.0.2"], ["127.0.0.1"]]
        fetch_each([f"https://rebind.test:{innocent.port}/"], FetchPolicy(tries=1))
        assert innocent.accepts >= 1
    finally:
        innocent.close()
        secret.close()


def test_a_hosts_next_address_is_tried_where_the_first_does_not_answer(names):
    host = Canary("127.0.0.1")
    names["two.test"] = [["127.0.0.2", "127.0.0.1"]]
    policy = FetchPolicy(tries=1, allow_http_hosts=frozenset({"two.test"}))
    try:
        ((fetched,),) = fetch_all([Request(0, f"http://two.test:{host.port}/a", "suno", None)], policy)
    finally:
        host.close()
    with fetched.spool as spool:
        assert (fetched.refusal, spool.size_bytes) == (None, len("secret"))


@pytest.mark.parametrize("ip", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses(ip):
    assert is_public(ip)


PRIVATE = """
0.0.0.0 10.1.2.3 100.64.0.1 127.9.9.9 169.254.169.254 172.31.255.255 192.0.2.1 192.168.1.1 198.18.0.1
224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16 :: ::1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::a00:1 100::1
2001::1 2001:db8::1 2002:a00:1:: fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1
"""


@pytest.mark.parametrize(
    "ip",
    PRIVATE.split(),
)
def test_private_addresses(ip):
    assert not is_public(ip)


def test_a_url_goes_to_the_wire_as_it_was_checked():
    place = read_url(
        "HTTPS://Müller.Example:8443/träck one.mp3?a=b c&sig=%2F".replace(" ", "%20"), provider="p", policy=FetchPolicy()
    )
    assert place == ("https", "xn--mller-kva.example", 8443, "/tr%C3%A4ck%20one.mp3?a=b%20c&sig=%2F")
    assert place.host_header == "xn--mller-kva.example:8443"
    assert follow(place, "../b.mp3", provider="p", policy=FetchPolicy()).target == "/b.mp3"
    assert read_url("https://[2606:4700::1111]/a", provider="p", policy=FetchPolicy()).host_header == "[2606:4700::1111]"


def test_a_scheme_has_its_own_port():
    trusting = FetchPolicy(allow_http_hosts=frozenset({"minio"}))
    for url, port in (("https://cdn.example/a.mp3", 443), ("http://minio/a.mp3", 80)):
        place = read_url(url, provider="p", policy=trusting)
        assert (place.port, place.host_header) == (port, place.host)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://user:secret@cdn.example/a.mp3", "blocked-address: the URL carries credentials"),
        ("https://user@cdn.example/a.mp3", "blocked-address: the URL carries credentials"),
        ("https://:@cdn.example/a.mp3", "blocked-address: the URL carries credentials"),
        ("http://cdn.example/a.mp3", "blocked-scheme: plain http"),
        (f"https://cdn.example/{'a' * 8192}", "blocked-address: the URL is overlong"),
        ("https://cdn.example/a b.mp3", "blocked-address: the URL is overlong or has characters"),
        ("https://cdn.example\\@other.example/", "blocked-address: the URL is overlong or has characters"),
        ("https://cdn.example/a\0.mp3", "blocked-address: the URL is overlong or has characters"),
    ],
)
def test_a_public_host_excuses_nothing(url, why):
    """The hostile addresses above lead to private hosts, which alone would keep us from them."""
    with pytest.raises(AudioRefusedError, match=f"^{why}"):
        read_url(url, provider="suno", policy=FetchPolicy())


def test_a_providers_hosts_are_kept_to():
    policy = FetchPolicy(provider_hosts={"suno": frozenset({"cdn1.suno.ai", ".suno.com"})})
    for host in ("cdn1.suno.ai", "CDN1.SUNO.AI", "a.suno.com", "cdn1.suno.ai."):
        assert read_url(f"https://{host}/a.mp3", provider="Suno", policy=policy).host == host.lower().rstrip(".")
    for host in ("suno.ai", "cdn1.suno.ai.evil.com", "evilsuno.com", "suno.com", "xcdn1.suno.ai"):
        with pytest.raises(AudioRefusedError, match="not on the list"):
            read_url(f"https://{host}/a.mp3", provider="suno", policy=policy)
    assert read_url("https://anywhere.example/a.mp3", provider="udio", policy=policy)


def test_policy_from_settings():
    settings = Settings(
        _env_file=None, fetch_timeout_s=5, fetch_allow_http_hosts="LocalHost:9000, minio", fetch_allow_file_roots="/srv/takes",
        fetch_provider_hosts="Suno = ready, udio=storage.udio.com | .udio.net",
    )  # fmt: skip
    policy = FetchPolicy.from_settings(settings)
    assert policy.timeout_s == policy.connect_timeout_s == 5
    assert policy.trusts("localhost", 9000) and policy.trusts("minio", 1) and not policy.trusts("localhost", 9001)
    assert policy.provider_hosts == {"suno": READY_HOSTS["suno"], "udio": frozenset({"storage.udio.com", ".udio.net"})}
    for wrong in ("suno", "suno=", "=host", "unheard=ready"):
        with pytest.raises(ConfigurationError, match="PROVIDER_HOSTS"):
            FetchPolicy.from_settings(settings.model_copy(update={"fetch_provider_hosts": wrong}))
