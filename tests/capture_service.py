"""Running services for the tests: in a thread of this process, or as processes of their own that can be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import httpx2
import uvicorn

from keeptake.capture.app import PREFIX, create_app
from keeptake.capture.server import ProblemProtocol
from keeptake.ledger.keys import SCOPES, create_key
from keeptake.settings import Settings

EXAMPLE = {
    "userId": "user123",
    "generationId": "gen_xyz",
    "userPrompt": "dark trap beat 140 bpm",
    "aiEnhancedPrompt": "dark, trap, 140 BPM - dark trap beat",
    "generationParams": {"genre": "trap", "bpm": 140, "mood": "dark", "duration": 30},
    "audioUrl": "https://cdn.example.com/gen_xyz.mp3",
    "provider": "suno",
    "modelUsed": "sonic-v5",
}


def take(generation_id, **changes):
    """A record like the original's example."""
    return EXAMPLE | {"generationId": generation_id} | changes


class Service:
    """A running service and a client with a key for everything."""

    def __init__(self, ledger, base_url, key):
        self.ledger = ledger
        self.base_url = base_url
        self.key = key
        self.url = base_url + PREFIX
        self.client = self.new_client(key)

    def new_client(self, key=None, **headers):
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # No certificates are looked at here, and reading them costs more than a request.
        return httpx2.Client(base_url=self.base_url, headers=headers, timeout=30, verify=False)

    def key_for(self, *scopes, **more):
        return create_key(self.ledger, scopes, **more)

    def post(self, record, client=None):
        return (client or self.client).post(PREFIX, json=record)

    def feedback(self, generation_id, changes, client=None):
        return (client or self.client).put(f"{PREFIX}/{generation_id}/feedback", json=changes)

    def get(self, path, client=None, **more):
        return (client or self.client).get(PREFIX + path, **more)

    def query(self, text, *given):
        with self.ledger.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(text, given)]


def settings_for(folder, **more):
    given = {"home": folder / "home", "rate_limit_write": "1000000/minute", "rate_limit_read": "1000000/minute"}
    return Settings(_env_file=None, **(given | {"rate_limit_export": "1000000/minute"} | more))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def running(ledger, folder, *, has_key=True, **more):
    """A service in a thread."""
    app = create_app(settings_for(folder, **more), database_url=ledger.url)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=ProblemProtocol, access_log=False, log_config=None, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    service = Service(ledger, f"http://127.0.0.1:{port}", create_key(ledger, SCOPES) if has_key else None)
    try:
        yield service
    finally:
        service.client.close()
        server.should_exit = True
        thread.join(10)


RUN = """
import json, os, signal, sys
given = json.loads(sys.argv[1])
from keeptake.capture import server
server.serve("127.0.0.1", given["port"], given["workers"], database_url=given["url"])
"""

# Put before `RUN`: a service that reads an export to its end before it sends the first byte.
READ_WHOLE = """
from keeptake.ledger.exports import CopyReader
def whole(reader, read=CopyReader.read):
    return b"".join(iter(lambda: read(reader), b""))
CopyReader.read = whole
"""


class Process:
    """A service in a process of its own, which can be killed and started again on the same port."""

    def __init__(self, url, folder, *, workers=1, program=RUN, **environment):
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._given = {"url": url, "port": self.port, "workers": workers}
        self._program = program
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KEEPTAKE_", "PROMETHEUS_"))},
            "KEEPTAKE_HOME": str(folder / "home"),
            **{f"KEEPTAKE_RATE_LIMIT_{kind}": "1000000/minute" for kind in ("WRITE", "READ", "EXPORT")},
            **environment,
        }
        self.log = folder / "service.log"
        self.process = None

    def start(self, *, wait_s=90, **more):
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", self._program, json.dumps(self._given | more)]
            self.process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, cwd=self.log.parent, start_new_session=True
            )
        ends = time.monotonic() + wait_s
        while time.monotonic() < ends:
            assert self.process.poll() is None, self.log.read_text()
            with suppress(httpx2.TransportError):
                if httpx2.get(self.base_url + "/healthz", verify=False).status_code == 200:
                    return self
            time.sleep(0.05)
        raise AssertionError(f"the service did not answer in {wait_s} s: {self.log.read_text()}")

    def kill(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.kill()
