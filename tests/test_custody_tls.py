"""Fetching over real TLS: certificates are believed as the system's store says, for the name that was asked."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from keeptake.custody import fetch
from keeptake.custody.fetch import Request, fetch_all
from keeptake.custody.policy import FetchPolicy
from keeptake.errors import AudioReason

BODY = b"RIFF" + bytes(range(256)) * 400


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that distrusts the certificate hangs up in the middle of the handshake


@pytest.fixture
def authority(monkeypatch, tmp_path) -> trustme.CA:
    """An authority that this system believes for the length of a test."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return authority


@pytest.fixture
def serve() -> Iterator:
    """Start a server with a certificate, and return its port."""
    servers = []

    def start(certificate: trustme.LeafCert) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server = _Server(("127.0.0.1", 0), _Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetched(host: str, port: int):
    """Refusal and bytes of one attempt on a host that the policy lets through."""
    policy = FetchPolicy(tries=1, timeout_s=5.0, allow_http_hosts=frozenset({f"{host}:{port}"}))
    request = Request(1, f"https://{host}:{port}/a.wav", "suno", None)
    ((outcome,),) = fetch_all([request], policy)
    try:
        return outcome.refusal, outcome.spool.path.read_bytes() if outcome.spool.size_bytes else b""
    finally:
        outcome.spool.close()


def test_a_file_arrives_over_tls(authority, serve):
    refusal, body = fetched("localhost", serve(authority.issue_cert("localhost")))
    assert refusal is None
    assert body == BODY


def untrusted(authority: trustme.CA, case: str) -> trustme.LeafCert:
    if case == "another name":
        return authority.issue_cert("elsewhere.example")
    if case == "expired":
        return authority.issue_cert(
            "localhost", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime.now(UTC) - timedelta(days=1)
        )
    return trustme.CA().issue_cert("localhost")


CASES = ["another name", "expired", "unknown authority"]


@pytest.mark.parametrize("case", CASES)
def test_a_certificate_that_proves_nothing_is_refused_before_a_byte_is_read(authority, serve, case):
    refusal, body = fetched("localhost", serve(untrusted(authority, case)))
    assert refusal.reason is AudioReason.SERVER_ERROR
    assert "certificate" in str(refusal)
    assert body == b""


@pytest.mark.parametrize("case", CASES)
def test_control_without_looking_at_certificates_the_same_servers_are_believed(authority, serve, case, monkeypatch):
    def blind() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    monkeypatch.setattr(fetch.ssl, "create_default_context", blind)
    refusal, body = fetched("localhost", serve(untrusted(authority, case)))
    assert refusal is None
    assert body == BODY
