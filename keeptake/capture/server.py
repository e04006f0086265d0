"""Run the service: uvicorn with one or several worker processes, ended by SIGTERM or SIGINT.

Belongs here: processes and their environment. Does not: the application (`app.py`).
"""

import ipaddress
import json
import os
import signal
import tempfile
from asyncio import Transport
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from keeptake.capture.limits import limits_of, parsed_limits
from keeptake.capture.problems import MEDIA_TYPE, problem_document
from keeptake.errors import ConfigurationError
from keeptake.settings import settings

GRACE_S = 10  # for running requests at the end; an export may be longer than anybody waits
PATIENCE_S = 60  # for a worker that does not answer its supervisor: importing takes 10 s on a busy machine, and 5 is the default
_BACKLOG = 2048

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "keeptake": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # psycopg's pool quotes libpq's messages; they name hosts, never rows
        "psycopg.pool": {"handlers": ["stderr"], "level": "ERROR", "propagate": False},
    },
}


class ProblemProtocol(HttpToolsProtocol):
    """uvicorn's protocol, whose own 400 is a problem document as well."""

    transport: Transport

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP; uvicorn's own answer is plain text."""
        document = problem_document(400, "not-http", msg, instance="/", request_id="")
        body = json.dumps(document).encode()
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def serve(
    host: str | None = None, port: int | None = None, workers: int | None = None, *, database_url: str | None = None
) -> None:
    """Serve until told to end.

    Parameters
    ----------
    host, port, workers : optional
        By default those of the settings.
    database_url : str, optional
        Address of the ledger, handed to the worker processes; by default the settings'.

    Raises
    ------
    ConfigurationError
        If the bind is open to others and `KEEPTAKE_AUTH` is none, or a limit cannot be read.
    """
    chosen = settings()
    host = chosen.api_host if host is None else host
    port = chosen.api_port if port is None else port
    workers = chosen.api_workers if workers is None else workers
    check_bind(host, chosen.auth)
    parsed_limits(limits_of(chosen))  # here it ends the command with a sentence, and in a worker process with a traceback
    if database_url:
        os.environ["KEEPTAKE_DATABASE_URL"] = database_url
        settings.cache_clear()
    signal.signal(
        signal.SIGTERM, _leave
    )  # uvicorn ends gracefully, then raises the signal again: to be cleaned up after, not killed by
    with tempfile.TemporaryDirectory(prefix="keeptake-metrics-") as shared:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared  # read when prometheus_client is first imported, here and in the workers
        if workers > 1:
            os.environ["KEEPTAKE_API_SUPERVISED"] = "1"
        uvicorn.run(
            "keeptake.capture.app:create_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http=ProblemProtocol,
            ws="none",
            access_log=False,
            server_header=False,
            log_config=_LOGGING,
            timeout_graceful_shutdown=GRACE_S,
            timeout_worker_healthcheck=PATIENCE_S,
            backlog=_BACKLOG,
        )


def _leave(number: int, frame: object) -> None:
    raise SystemExit(0)


def check_bind(host: str, auth: str) -> None:
    """Refuse to serve without keys where others can call.

    Raises
    ------
    ConfigurationError
        If `auth` is none and `host` is not a loopback address.
    """
    if auth != "none":
        return
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ConfigurationError(
            f"KEEPTAKE_AUTH=none serves this machine alone: bind to 127.0.0.1 instead of {host}, or use keys"
        )
