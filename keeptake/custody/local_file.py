"""Reads audio from a folder that we were given, and from nowhere else.

Conventions: whether a file lies inside its root is decided on the file that was opened, not on the path that was asked for: links
are followed first. A copy ends itself when its time is over: a thread cannot be stopped from outside, and one that went on would
write into the next attempt. Belongs here: relative paths of a source and `file://` URLs. Does not: the network (`address.py`).
"""

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from keeptake.custody.spool import Spool
from keeptake.errors import AudioReason, AudioRefusedError

CHUNK_BYTES = 1 << 20


def copy_relative(path: str, root: Path | None, spool: Spool, *, max_bytes: int, within_s: float) -> None:
    """Copy a file that a source names relative to its own folder.

    Raises
    ------
    AudioRefusedError
        `blocked-scheme` without a folder, `blocked-path` outside of it, `not-found`, `forbidden`, `too-large`, `timeout`,
        `server-error` where the file system fails.
    """
    if root is None:
        detail = "the address has no scheme and its source no folder; send an https URL, or upload the audio"
        raise AudioRefusedError(AudioReason.BLOCKED_SCHEME, detail)
    _copy(root / path, [root], spool, max_bytes, within_s)


def copy_file_url(url: str, roots: Sequence[Path], spool: Spool, *, max_bytes: int, within_s: float) -> None:
    """Copy the file of a `file://` URL that lies under one of the allowed folders.

    Raises
    ------
    AudioRefusedError
        `blocked-scheme` where no folder is allowed, else as `copy_relative`.
    """
    if not roots:
        detail = "file:// is not read; use the incoming folder, or allow its folder (KEEPTAKE_FETCH_ALLOW_FILE_ROOTS)"
        raise AudioRefusedError(AudioReason.BLOCKED_SCHEME, detail)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise AudioRefusedError(AudioReason.BLOCKED_PATH, f"file:// on another host ({parts.netloc[:80]})")
    _copy(Path(unquote(parts.path)), roots, spool, max_bytes, within_s)


def _copy(path: Path, roots: Sequence[Path], spool: Spool, max_bytes: int, within_s: float) -> None:
    end_s = time.monotonic() + within_s
    try:
        # Non-blocking, so that a named pipe does not hold us up before it is recognised.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        _require_inside(path.resolve(), roots)  # the same answer for what is there and what is not
        raise AudioRefusedError(AudioReason.NOT_FOUND, f"there is no file {path.name[:80]!r} in its folder") from None
    except PermissionError:
        _require_inside(path.resolve(), roots)
        raise AudioRefusedError(AudioReason.FORBIDDEN, f"{path.name[:80]!r} may not be read; mend its permissions") from None
    except (OSError, ValueError) as error:
        raise AudioRefusedError(AudioReason.BLOCKED_PATH, f"the path cannot be opened ({error})") from error
    try:
        _require_inside(Path(f"/proc/self/fd/{descriptor}").resolve(), roots)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise AudioRefusedError(AudioReason.BLOCKED_PATH, f"{path.name[:80]!r} is not a plain file")
        while chunk := _read(descriptor, path):
            if time.monotonic() > end_s:
                raise AudioRefusedError(AudioReason.TIMEOUT, f"not read after {within_s:g} s, {spool.size_bytes} bytes came")
            if spool.size_bytes + len(chunk) > max_bytes:
                raise AudioRefusedError(AudioReason.TOO_LARGE, f"over {max_bytes} bytes")
            spool.write(chunk)
    finally:
        os.close(descriptor)


def _read(descriptor: int, path: Path) -> bytes:
    try:
        return os.read(descriptor, CHUNK_BYTES)
    except OSError as error:
        detail = f"{path.name[:80]!r} cannot be read ({error.strerror}); look at the disk that it lies on"
        raise AudioRefusedError(AudioReason.SERVER_ERROR, detail) from error


def _require_inside(path: Path, roots: Sequence[Path]) -> None:
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise AudioRefusedError(AudioReason.BLOCKED_PATH, "the path leads out of its source's folder")
