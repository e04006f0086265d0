"""Where the audio lives: write-once objects named by their own SHA-256, in a local folder or on S3.

Conventions: a hash is 64 lowercase hex digits; the key of an object is `sha256/ab/abcd…`. An object appears whole or not at all,
is never overwritten, and two writers of the same bytes end with one object. What a key promises is checked by hash when read.

Belongs here: storing and reading objects. Does not: which generation an object belongs to (`ledger/audio.py`), whether its bytes
are music (`custody/prove.py`).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store

from keeptake.errors import ConfigurationError, DamagedObjectError, KeeptakeError, UnavailableError

CHUNK_BYTES = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_OTHER_BYTES = "{} holds other bytes than were put: restore it from a backup, or fetch its takes again"
_REFUSALS = ("403 Forbidden", "404 Not Found", "Permission denied", "Read-only file system")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


class StoredObject(NamedTuple):
    """An object of the store."""

    sha256: str
    size_bytes: int
    key: str
    is_new: bool  # False: the same bytes were there before


class AudioStore:
    """Audio at one address.

    Parameters
    ----------
    url : str
        `file:///folder` or `s3://bucket/prefix`. Credentials, region and endpoint of S3 come from the usual `AWS_…` variables.

    Raises
    ------
    ConfigurationError
        If the address is of another kind.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("file", "s3") or (parts.scheme == "s3" and not parts.netloc):
            raise ConfigurationError(
                f"an audio store is s3://bucket/prefix or file:///folder, got {url!r}: mend KEEPTAKE_AUDIO_URL"
            )
        self.url = url
        self.folder = Path(unquote(parts.path)) if parts.scheme == "file" else None

    def __getstate__(self) -> dict[str, object]:
        # Connections stay with their process: a worker makes its own.
        return {"url": self.url, "folder": self.folder}

    @cached_property
    def _store(self) -> ObjectStore:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            return LocalStore(self.folder)
        parts = urlsplit(self.url)
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        return S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config={"endpoint": endpoint} if endpoint else {},  # as an argument of its own, None is refused
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=120),
            },
            # The default goes on for three minutes: a store that is away should be named while somebody still waits.
            retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=20)},
        )

    @property
    def spool_folder(self) -> Path | None:
        """Folder of a local store's file system, where nameless files become objects without a copy; None on S3."""
        if self.folder is not None:
            with self._errors_named("write into"):
                self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def check(self) -> None:
        """Ask the store for something, so that wrong credentials show at the start and not in the middle of a day.

        Raises
        ------
        ConfigurationError
            If it refuses us.
        UnavailableError
            If it does not answer.
        """
        with self._errors_named("look into"):
            next(iter(obstore.list(self._store, prefix="sha256/00", chunk_size=1)), None)

    def put(self, source: Path | bytes, *, sha256: str | None = None) -> StoredObject:
        """Keep bytes once.

        Parameters
        ----------
        source : Path or bytes
            A whole file. One without a name that was opened in `spool_folder` is given its name in the store, not copied.
        sha256 : str, optional
            Its hash, where the caller has computed it while reading it.

        Returns
        -------
        StoredObject

        Raises
        ------
        ConfigurationError, UnavailableError
            As `check`; so of a full disk.
        """
        digest = sha256 or hash_of(source)
        key = key_of(digest)
        size_bytes = source.stat().st_size if isinstance(source, Path) else len(source)
        is_new = True
        with self._errors_named("write into"):
            try:
                if not self._link(source, key):
                    obstore.put(self._store, key, source, mode="create")
            except (exceptions.AlreadyExistsError, FileExistsError):
                is_new = False
                known = self.local_path(digest)
                if obstore.head(self._store, key)["size"] != size_bytes or (known and hash_of(known) != digest):
                    obstore.put(self._store, key, source)  # damaged, and here is what it should be
            self._sync(key)
        return StoredObject(digest, size_bytes, key, is_new)

    def has(self, sha256: str) -> bool:
        """Whether an object is there."""
        return self.size_bytes(sha256) is not None

    def size_bytes(self, sha256: str) -> int | None:
        """Size of an object; None where it is missing."""
        with self._errors_named("look into"):
            try:
                return obstore.head(self._store, key_of(sha256))["size"]
            except FileNotFoundError:
                return None

    def read(self, sha256: str) -> bytes:
        """Read a whole object and check it against its name.

        Raises
        ------
        DamagedObjectError
            If it is missing, or its bytes are not those that were put.
        """
        data = b"".join(self.chunks(sha256))
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedObjectError(_OTHER_BYTES.format(f"{self.url}: {key_of(sha256)}"))
        return data

    def read_range(self, sha256: str, start: int, length: int) -> bytes:
        """Read `length` bytes from `start` on, fewer at the end; a part cannot be checked by hash."""
        return b"".join(self.chunks(sha256, start, length))

    def chunks(self, sha256: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Read an object, or a range of it, in pieces of about 1 MiB.

        Raises
        ------
        DamagedObjectError
            If it is missing.
        ValueError
            If the range begins outside of the object.
        """
        size_bytes = self.size_bytes(sha256)
        if size_bytes is None:
            raise DamagedObjectError(f"{self.url}: {key_of(sha256)} is missing; restore it or fetch its takes again")
        end = size_bytes if length is None else min(start + length, size_bytes)
        if not 0 <= start <= end:
            raise ValueError(f"a range from {start} of {length} bytes is outside of an object of {size_bytes} bytes")
        if start == end:
            return
        with self._errors_named("read from"):
            found = obstore.get(self._store, key_of(sha256), options={"range": (start, end)})
            yield from (bytes(chunk) for chunk in found.stream(min_chunk_size=CHUNK_BYTES))

    def local_path(self, sha256: str) -> Path | None:
        """Path of an object in a local store; None on S3 or where it is missing."""
        path = self.folder / key_of(sha256) if self.folder is not None else None
        return path if path is not None and path.is_file() else None

    @contextmanager
    def as_file(self, sha256: str) -> Iterator[Path]:
        """Give an object as a local file for the time of the block, checked against its name.

        Raises
        ------
        DamagedObjectError
            As `read`.
        ConfigurationError, UnavailableError
            As `check`; so of a full disk.
        """
        path = self.local_path(sha256)
        if path is not None:
            with self._errors_named("read from"):
                found = hash_of(path)
            if found != sha256:
                raise DamagedObjectError(_OTHER_BYTES.format(path))
            yield path
            return
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(prefix="keeptake-") as file:
            with self._errors_named("copy from"):
                for chunk in self.chunks(sha256):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
            if digest.hexdigest() != sha256:
                raise DamagedObjectError(_OTHER_BYTES.format(f"{self.url}: {key_of(sha256)}"))
            yield Path(file.name)

    def is_sound(self, sha256: str) -> bool:
        """Whether an object is there and holds what its name says; reads all of it.

        Raises
        ------
        ConfigurationError, UnavailableError
            As `check`.
        """
        try:
            with self.as_file(sha256):
                return True
        except DamagedObjectError:
            return False

    def delete(self, sha256: str) -> None:
        """Remove an object for good: for the erasure of a person's takes, never to make room. Missing is fine."""
        with self._errors_named("delete from"):
            try:
                obstore.delete(self._store, key_of(sha256))
            except FileNotFoundError:
                return

    def _link(self, source: Path | bytes, key: str) -> bool:
        """Name a nameless file as an object, at once and only where none is; False where that cannot be done."""
        if self.folder is None or isinstance(source, bytes) or source.stat().st_nlink:
            return False
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            # With the descriptor of a folder, for only then does Python's `link` follow what `/proc` says.
            os.link(source, path.name, dst_dir_fd=folder)
        except FileExistsError:
            raise
        except OSError:  # another file system, or a file that was made never to have a name
            return False
        finally:
            os.close(folder)
        return True

    def _sync(self, key: str) -> None:
        """Force a new local object to the disk: the ledger's row that names it survives a power cut, so must it."""
        if self.folder is None:
            return
        path = self.folder / key
        # The folders may be as new as itself, and each is named by the one above.
        for place in (path, path.parent, path.parent.parent, self.folder):
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _errors_named(self, doing: str) -> Iterator[None]:
        try:
            yield
        except KeeptakeError:
            raise
        except (exceptions.BaseError, OSError) as error:
            detail = f"cannot {doing} the audio store {self.url} ({_short(error)})"
            if _is_refusal(error):
                hint = "correct the AWS_… credentials, the bucket, or the folder and its permissions"
                raise ConfigurationError(f"{detail}: {hint}") from error
            raise UnavailableError(f"{detail}: start or mend it, then repeat") from error


def key_of(sha256: str) -> str:
    """Key of an object.

    Raises
    ------
    ValueError
        If it is not 64 lowercase hex digits (it may come from a URL).
    """
    if not _HASH.fullmatch(sha256):
        raise ValueError(f"a SHA-256 has 64 lowercase hex digits, got {sha256[:80]!r}")
    return f"sha256/{sha256[:2]}/{sha256}"


def hash_of(source: Path | bytes) -> str:
    """SHA-256 of a file or of bytes, as hex digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_refusal(error: Exception) -> bool:
    # A refused listing, or a folder that may not be made, comes as a generic error; only its text tells. A name that is missing
    # here is the bucket's.
    kinds = (
        exceptions.PermissionDeniedError,
        exceptions.UnauthenticatedError,
        PermissionError,
        NotADirectoryError,
        FileNotFoundError,
    )
    return isinstance(error, kinds) or any(text in str(error) for text in _REFUSALS)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
