"""A file on its way into the store: bytes are counted and kept nameless until they are proved.

The file has no name in any folder, so that a killed run leaves nothing behind; while it is open, worker processes of the same
user reach it through `/proc`. One that lies in the store's own file system is given its name there instead of being copied.

Belongs here: the temporary file. Does not: where its bytes come from.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import IO, Self

from keeptake.custody.probe import HEAD_BYTES, media_type_of


class Spool:
    """A nameless temporary file with its size, hash and first bytes.

    Parameters
    ----------
    folder : Path, optional
        Folder whose file system the bytes go to; by default that of temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = _nameless(folder)
        self._head = b""
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._file.write(chunk)
        self._hash.update(chunk)  # here, while the bytes are warm: reading ten files back took as long as fetching four
        self.size_bytes += len(chunk)
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]

    def restart(self) -> None:
        """Forget everything, for another attempt."""
        self._file.seek(0)
        self._file.truncate()
        self._head = b""
        self._hash = hashlib.sha256()
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
        """Hash of everything written so far, as hex digits."""
        return self._hash.hexdigest()

    @property
    def first_bytes_type(self) -> str:
        """Media type of the first bytes."""
        return media_type_of(self._head)


def _nameless(folder: Path | None) -> IO[bytes]:
    if folder is not None:
        try:
            # Not by `tempfile`, whose files can never be linked (O_EXCL); the mode is that of any new file, as it may become one.
            return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), "w+b")
        except OSError:  # a file system without nameless files, such as NFS
            pass
    return tempfile.TemporaryFile(prefix="keeptake-")
