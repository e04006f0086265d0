"""Does a file hold as much as its header promises? libsndfile opens files that lie about it without complaint.

Conventions: one function a family of containers, each reading headers alone, never samples. Only what the container states
outright is judged here; a stated duration that decoding does not reach is found by `prove.py`.

Belongs here: RIFF and AIFF chunks, MP4 boxes, the last Ogg page. Does not: decoding, chains of frames (`frames.py`).
"""

import os
import struct
from collections.abc import Callable
from typing import IO

from keeptake.custody.frames import check_frames
from keeptake.errors import AudioReason, AudioRefusedError

UNKNOWN_SIZE = 0xFFFFFFFF  # what streaming writers leave in a header that they could not go back to
STRAY_BYTES = 4096  # behind the audio: players append tags of this order; more of it is audio that the header hides
_OGG_TAIL_BYTES = 131_072  # two of the largest pages
_CAPTURE = b"OggS"


def check_length(file: IO[bytes], container: str) -> list[str]:
    """Compare what a container promises with the bytes that are there.

    Parameters
    ----------
    file : IO[bytes]
        A seekable binary file; its position is moved.
    container : str
        As `container_of` names it; containers without a checkable promise pass.

    Returns
    -------
    list of str
        Flags: `no-declared-length` (a streamed header), `trailing-bytes` (something after the audio that is no part of it).

    Raises
    ------
    AudioRefusedError
        `truncated`, where the file holds less audio than it promises, or hides most of what it holds.
    """
    if container in ("mp3", "aac"):
        return check_frames(file, container)
    check = _CHECKS.get(container)
    return check(file, file.seek(0, os.SEEK_END)) if check else []


def _check_chunks(file: IO[bytes], size: int) -> list[str]:
    """RIFF, RF64 and AIFF: walk the chunks up to the samples and look at what follows them."""
    file.seek(0)
    form = file.read(12)
    order, data_id = (">", b"SSND") if form[:4] == b"FORM" else (">" if form[:4] == b"RIFX" else "<", b"data")
    long_size = None
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, declared = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"fmt ":
            _check_format(file.read(16), order)
        if name == b"ds64":
            long_size = struct.unpack("<Q", file.read(24)[8:16].ljust(8, b"\0"))[0]
        if name == data_id:
            if declared == UNKNOWN_SIZE and long_size is not None:
                declared = long_size
            return _check_data(file, size, at + 8, declared)
        at += 8 + declared + declared % 2
    raise AudioRefusedError(AudioReason.TRUNCATED, f"the file ends after {size} bytes, before its samples; fetch it again")


def _check_format(fields: bytes, order: str) -> None:
    """Hold a PCM header's own numbers against each other: libsndfile takes seven bits for eight."""
    if len(fields) < 16:
        raise AudioRefusedError(AudioReason.TRUNCATED, "the file ends inside its header; fetch it again")
    tag, channels, _, _, align, bits = struct.unpack(f"{order}HHIIHH", fields)
    if tag == 1 and (bits % 8 or bits == 0 or align != channels * bits // 8):
        detail = f"the header contradicts itself: {channels} channels of {bits} bits in {align} bytes; render the take again"
        raise AudioRefusedError(AudioReason.UNDECODABLE, detail)


def _check_data(file: IO[bytes], size: int, start: int, declared: int) -> list[str]:
    present = size - start
    if declared == UNKNOWN_SIZE and present > 0:
        return ["no-declared-length"]
    if declared > present + 1:  # an odd chunk's pad byte is often forgotten
        detail = f"the header promises {declared} bytes of samples and {present} are there; fetch it again"
        raise AudioRefusedError(AudioReason.TRUNCATED, detail)
    stray = _stray_bytes(file, size, start + declared + declared % 2)
    if stray > max(STRAY_BYTES, declared // 100):
        detail = f"the header admits {declared} bytes of samples and {stray} more follow that belong to no chunk; fetch it again"
        raise AudioRefusedError(AudioReason.TRUNCATED, detail)
    return ["trailing-bytes"] if stray else []


def _stray_bytes(file: IO[bytes], size: int, at: int) -> int:
    """Bytes from `at` on that are no well-formed chunks."""
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        name, lengths = head[:4], (int.from_bytes(head[4:], "little"), int.from_bytes(head[4:], "big"))
        length = min(lengths)
        if not (name.isascii() and name.decode("ascii").isprintable()) or at + 8 + length > size + 1:
            break
        at += 8 + length + length % 2
    return max(0, size - at)


def _check_boxes(file: IO[bytes], size: int) -> list[str]:
    """MP4: every box at the top must fit into the file, and one of them is the index."""
    at, has_index = 0, False
    while at + 8 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        has_index |= name in (b"moov", b"moof")
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        elif length == 0:  # up to the end of the file
            length = size - at
        if length < 8:
            return ["trailing-bytes"]
        if at + length > size:
            title = name.decode("ascii", "replace")
            detail = f"its {title} box promises {length} bytes and {size - at} are there; fetch it again"
            raise AudioRefusedError(AudioReason.TRUNCATED, detail)
        at += length
    if not has_index:
        raise AudioRefusedError(AudioReason.TRUNCATED, "the file ends before its index (moov); fetch it again")
    return []


def _check_pages(file: IO[bytes], size: int) -> list[str]:
    """Ogg: the last page is whole and says that it is the last."""
    file.seek(max(0, size - _OGG_TAIL_BYTES))
    tail = file.read(_OGG_TAIL_BYTES)
    at = tail.rfind(_CAPTURE)
    page = tail[at:] if at >= 0 else b""
    if len(page) >= 27 and page[5] & 4 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return []
    raise AudioRefusedError(AudioReason.TRUNCATED, "the stream ends without its last page; fetch it again")


_CHECKS: dict[str, Callable[[IO[bytes], int], list[str]]] = {
    "wav": _check_chunks,
    "aiff": _check_chunks,
    "mp4": _check_boxes,
    "ogg": _check_pages,
}
