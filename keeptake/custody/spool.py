"""A file on its way into the store: bytes are counted and kept nameless until they are proved.

The file has no name in any folder, so that a killed run leaves nothing behind; while it is open, worker processes of the same
user reach it through `/proc`. Belongs here: the temporary file. Does not: where its bytes come from.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Self

from keeptake.custody.probe import HEAD_BYTES, media_type_of


class Spool:
    """A nameless temporary file with its size, hash and first bytes."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="keeptake-")  # noqa: SIM115  (this object is the context manager)
        self._head = b""
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)
        self.size_bytes += len(chunk)
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]

    def restart(self) -> None:
        """Forget everything, for another attempt."""
        self._file.seek(0)
        self._file.truncate()
        self._head = b""
        self.size_bytes = 0

    def finish(self) -> None:
        """Make what was written visible to other processes."""
        self._file.flush()

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    @property
    def path(self) -> Path:
        """Path under which processes of the same user open the file, as long as it is open here."""
        return Path(f"/proc/{os.getpid()}/fd/{self._file.fileno()}")

    @property
    def sha256(self) -> str:
        """Hash of everything written so far, as hex digits.

        Computed here and not while writing: hashing costs a third of what fetching does, and one thread fetches for all.
        """
        self._file.flush()
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def first_bytes_type(self) -> str:
        """Media type of the first bytes."""
        return media_type_of(self._head)
