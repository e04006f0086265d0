"""The audio store, on a local folder and on a real S3 server (SeaweedFS) that enforces conditions and signatures."""

import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keeptake.audio_store import AudioStore, hash_of, key_of
from keeptake.custody.spool import Spool
from keeptake.errors import ConfigurationError, DamagedObjectError, UnavailableError

WEED = Path(sys.executable).with_name("weed")
KEYS = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "right", "AWS_REGION": "us-east-1"}


class SeaweedFS:
    """A SeaweedFS server as a direct child, on free ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        identity = {
            "name": "writer",
            "credentials": [{"accessKey": "writer", "secretKey": "right"}],
            "actions": ["Admin", "Read", "Write"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.ports = free_ports(8)
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        names = (
            "s3.port",
            "master.port",
            "volume.port",
            "filer.port",
            "s3.port.grpc",
            "master.port.grpc",
            "volume.port.grpc",
            "filer.port.grpc",
        )
        options = [f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        options += [
            f"-dir={self.folder}/data",
            "-ip=127.0.0.1",
            "-s3",
            f"-s3.config={self.folder}/s3.json",
            "-master.telemetry=false",
        ]
        options += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen([WEED, "server", *options], stdout=log, stderr=log, start_new_session=True)
        log.close()
        deadline_s = time.monotonic() + 90
        while time.monotonic() < deadline_s:
            with contextlib.suppress(Exception):
                AudioStore("s3://audio/test").put(b"ready")
                return
            time.sleep(0.2)
        raise TimeoutError(f"SeaweedFS did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in taken]
    for server in taken:
        server.close()
    return ports


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    if not WEED.is_file():
        pytest.skip("SeaweedFS is not installed: pip install -e '.[test]'")
    server = SeaweedFS(tmp_path_factory.mktemp("weed"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": server.endpoint}.items():
            patch.setenv(name, value)
        server.start()
        yield server
        server.kill()


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AudioStore:
    if request.param == "local":
        return AudioStore((tmp_path / "a dïr").as_uri())
    request.getfixturevalue("seaweed")
    return AudioStore(f"s3://audio/{tmp_path.name}")


def test_bytes_are_kept_once_under_their_hash(store, tmp_path):
    data = os.urandom(300_000)
    file = tmp_path / "take"
    file.write_bytes(data)

    first, again, from_file = store.put(data), store.put(data), store.put(file)

    assert first.sha256 == hashlib.sha256(data).hexdigest() == hash_of(file) == hash_of(data)
    assert first.key == f"sha256/{first.sha256[:2]}/{first.sha256}" and first.size_bytes == 300_000
    assert (first.is_new, again.is_new, from_file.is_new) == (True, False, False)
    assert store.read(first.sha256) == data and store.has(first.sha256)
    assert store.size_bytes("0" * 64) is None and not store.has("0" * 64)


def test_a_spooled_file_becomes_its_object_without_a_copy(tmp_path):
    store = AudioStore((tmp_path / "a dïr").as_uri())
    data = os.urandom(300_000)
    with Spool(store.spool_folder) as spool, Spool(store.spool_folder) as twin:
        for each in (spool, twin):
            each.write(data)
            each.finish()
        assert not any(store.folder.iterdir()), "a file on its way has a name"

        kept, again = store.put(spool.path, sha256=spool.sha256), store.put(twin.path)
        found = store.local_path(kept.sha256)

        assert (kept.is_new, again.is_new) == (True, False)
        assert found.stat().st_ino == spool.path.stat().st_ino != twin.path.stat().st_ino
        assert found.stat().st_mode == (store.folder / store.put(b"another").key).stat().st_mode
    assert store.read(kept.sha256) == data


def test_a_spooled_file_that_can_have_no_name_is_copied(store):
    with Spool() as spool:
        spool.write(b"RIFF" * 1000)
        spool.finish()
        kept = store.put(spool.path, sha256=spool.sha256)
    assert kept.is_new and store.read(kept.sha256) == b"RIFF" * 1000


def test_ranges(store):
    data = os.urandom(2_500_000)
    digest = store.put(data).sha256

    assert store.read_range(digest, 0, 1) == data[:1]
    assert store.read_range(digest, 1_000_000, 1_200_000) == data[1_000_000:2_200_000]
    assert store.read_range(digest, 2_499_999, 100) == data[-1:]
    assert store.read_range(digest, 2_500_000, 100) == b"" == store.read_range(digest, 5, 0)
    assert b"".join(store.chunks(digest)) == data
    for start in (-1, 2_500_001):
        with pytest.raises(ValueError, match="outside"):
            store.read_range(digest, start, 1)
    with pytest.raises(DamagedObjectError, match="missing"):
        store.read_range("1" * 64, 0, 1)


def test_as_file_and_pickling(store):
    data = os.urandom(1000)
    digest = store.put(data).sha256
    copy = pickle.loads(pickle.dumps(store))  # noqa: S301  (our own)
    with copy.as_file(digest) as path:
        assert path.read_bytes() == data
    assert (copy.local_path(digest) is not None) == (copy.folder is not None)
    with pytest.raises(DamagedObjectError), copy.as_file("2" * 64):
        pass


def test_delete(store):
    digest = store.put(b"somebody's").sha256
    store.delete(digest)
    store.delete(digest)
    assert not store.has(digest)


@pytest.mark.parametrize("sha256", ["", "0" * 63, "A" * 64, "../" + "0" * 61, "0" * 64 + "\n"])
def test_a_hash_that_is_none_never_becomes_a_path(sha256):
    with pytest.raises(ValueError, match="64 lowercase hex digits"):
        key_of(sha256)


@pytest.mark.parametrize("url", ["", "audio", "/srv/audio", "http://host/audio", "s3:///prefix"])
def test_an_address_of_another_kind_is_refused(url):
    with pytest.raises(ConfigurationError, match="KEEPTAKE_AUDIO_URL"):
        AudioStore(url)


@pytest.mark.parametrize("damaged", [b"music" * 99, b"noise" * 100], ids=["shorter", "as long"])
def test_a_damaged_object_is_noticed_and_mended_by_the_right_bytes(tmp_path, damaged):
    """One of the right length was taken for the right one, and stayed."""
    store = AudioStore(tmp_path.as_uri())
    digest = store.put(b"music" * 100).sha256
    assert store.is_sound(digest)
    (tmp_path / key_of(digest)).write_bytes(damaged)

    assert not store.is_sound(digest)
    with pytest.raises(DamagedObjectError, match="other bytes"):
        store.read(digest)
    with pytest.raises(DamagedObjectError, match="other bytes"), store.as_file(digest):
        pass
    store.put(b"music" * 100)
    assert store.read(digest) == b"music" * 100 and store.is_sound(digest)
    (tmp_path / key_of(digest)).unlink()
    assert not store.is_sound(digest)


def test_sixteen_racing_writers_have_one_winner(store):
    data = os.urandom(2_000_000)
    together = threading.Barrier(16)

    def write(_: int) -> bool:
        own = AudioStore(store.url)
        together.wait()
        return own.put(data).is_new

    with ThreadPoolExecutor(16) as threads:
        winners = list(threads.map(write, range(16)))
    assert sum(winners) == 1 and store.read(hash_of(data)) == data


def test_control_without_the_condition_every_writer_wins(seaweed):
    """What the conditional put is for: a plain one tells sixteen writers that they were the first."""
    import obstore

    store = AudioStore("s3://audio/control")
    assert len([obstore.put(store._store, "same", b"x") for _ in range(16)]) == 16


def test_wrong_credentials_are_a_clear_error(seaweed, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for act in (AudioStore("s3://audio/x").check, lambda: AudioStore("s3://audio/x").put(b"x")):
        with pytest.raises(ConfigurationError, match="credentials"):
            act()


def test_a_store_that_is_away_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    started_s = time.monotonic()
    with pytest.raises(UnavailableError, match="start or mend"):
        AudioStore("s3://audio/x").check()
    assert time.monotonic() - started_s < 30


def test_a_folder_that_may_not_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="permissions"):
        AudioStore((tmp_path / "file" / "audio").as_uri()).check()
    if os.geteuid():
        (tmp_path / "shut").mkdir(0o500)
        with pytest.raises(ConfigurationError, match="permissions"):
            AudioStore((tmp_path / "shut").as_uri()).put(b"x")


def test_a_disk_that_is_full_at_the_last_moment_is_a_clear_error(tmp_path, monkeypatch):
    """The disk says so only when it is asked to keep what it took, and that error once had no name and no address."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match=r"cannot write into the audio store .*No space left on device"):
        AudioStore(tmp_path.as_uri()).put(b"x")


def test_an_object_is_forced_to_the_disk_with_every_folder_that_names_it(tmp_path, monkeypatch):
    """After a power cut the ledger named objects whose new folder was gone: only the folder itself had been forced out."""
    forced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    kept = AudioStore(tmp_path.as_uri()).put(b"x")
    path = tmp_path / kept.key
    assert forced == [path, path.parent, path.parent.parent, tmp_path]


def read_patiently(store: AudioStore, digest: str, patience_s: float = 60) -> bytes:
    """Read as a later run would: the restarted server answers 500 until its volumes have registered."""
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            return store.read(digest)
        except UnavailableError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)


def test_killed_store_has_every_object_that_it_acknowledged(seaweed):
    """Kill -9 under load: what `put` returned for is there afterwards, and is what was put."""
    store = AudioStore("s3://audio/killed")
    acknowledged: list[str] = []
    ended = threading.Event()

    def write(seed: int) -> None:
        own = AudioStore(store.url)
        count = 0
        while not ended.is_set():
            data = hashlib.sha256(f"{seed}-{count}".encode()).digest() * 4000
            try:
                acknowledged.append(own.put(data).sha256)
            except UnavailableError:
                return
            count += 1

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(2.0)
    seaweed.kill()
    ended.set()
    seaweed.start()  # writers that were cut off try again, as a run would
    for thread in threads:
        thread.join()

    assert len(acknowledged) > 20
    for digest in acknowledged:
        assert hash_of(read_patiently(store, digest)) == digest


def test_a_killed_writer_leaves_no_object_under_a_final_name(tmp_path):
    """Local: whatever the moment of the kill, what has a final name is whole."""
    script = textwrap.dedent(
        """
        import os, sys
        from keeptake.audio_store import AudioStore
        store = AudioStore(sys.argv[1])
        print("started", flush=True)
        while True:
            store.put(os.urandom(3_000_000))
        """
    )
    for delay_s in (0.0, 0.013, 0.041, 0.107):
        with subprocess.Popen([sys.executable, "-c", script, tmp_path.as_uri()], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline()
            time.sleep(0.1 + delay_s)
            writer.kill()
    named = [path for path in (tmp_path / "sha256").glob("*/*") if len(path.name) == 64]
    assert named
    for path in named:
        assert hash_of(path) == path.name


def test_a_store_used_before_a_fork_server_child_works_in_it(store):
    store.put(b"from the parent")
    # The fork server keeps the environment of its own start, which may lie before the S3 server's: the child sets today's.
    code = "import os; os.environ.update(environment); store.put(data)"
    given = {"store": store, "environment": dict(os.environ), "data": b"from a child"}
    child = multiprocessing.get_context("forkserver").Process(target=exec, args=(code, given))
    child.start()
    child.join(30)
    assert child.exitcode == 0 and store.read(hash_of(b"from a child")) == b"from a child"


def test_a_bucket_opens_without_an_endpoint_and_an_endpoint_is_obeyed(monkeypatch):
    """The store's library refused the None that stood for "no endpoint set", so Amazon's own S3 could not be used at all."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert "endpoint" not in AudioStore("s3://audio/prefix")._store.config
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert AudioStore("s3://audio/prefix")._store.config["endpoint"] == "http://127.0.0.1:1"
