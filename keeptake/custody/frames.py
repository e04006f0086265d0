"""Does MPEG audio hang together? A sound MP3 or ADTS stream is a chain of frames, each of which says where the next one begins.

Decoders look for the next frame when the chain breaks and play on, so that a damaged file passes as a shorter or noisier one. A
cut last frame alone damns nothing: recordings of streams and careless editors end so. Belongs here: walking frame headers. Does
not: decoding.
"""

import mmap
from collections.abc import Callable
from typing import IO

from keeptake.custody.probe import audio_head, id3_bytes
from keeptake.errors import AudioReason, AudioRefusedError

_STEPS = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
# kbit/s by (is MPEG-1, layer), index 1 to 14 of the header (ISO 11172-3, 13818-3)
_BIT_RATES = {
    (True, 1): _STEPS,
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # what players write behind or between frames
_FREE_FORMAT = -1


def check_frames(file: IO[bytes], container: str) -> list[str]:
    """Walk the frames of an MP3 or raw AAC file from the first to the last.

    Parameters
    ----------
    file : IO[bytes]
        A file with a descriptor.
    container : {"mp3", "aac"}

    Returns
    -------
    list of str
        `trailing-bytes`, where something that is no frame and no zeros follows the last frame; `cut-last-frame`.

    Raises
    ------
    AudioRefusedError
        `undecodable`, where bytes between frames belong to none.
    """
    length_at = _adts_length if container == "aac" else _mpeg_length
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = _first_frame(data)
        while at < len(data):
            length = length_at(data, at)
            if length == _FREE_FORMAT:
                return []  # its frames do not say how long they are
            if length == 0:
                return _what_follows(data, at, length_at)
            if at + length > len(data):
                return ["cut-last-frame"]
            at += length
    return []


def states_length(file: IO[bytes]) -> bool:
    """Whether an MP3 file begins with a frame that says how many follow (Xing, Info or VBRI)."""
    first = audio_head(file).lstrip(b"\0")[:200]
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))


def _first_frame(data: mmap.mmap) -> int:
    at = 0
    while tag_bytes := id3_bytes(data[at : at + 10]):
        at += tag_bytes
    while at < len(data) and data[at] == 0:  # padding of a tag
        at += 1
    return at


def _what_follows(data: mmap.mmap, at: int, length_at: Callable[[mmap.mmap, int], int]) -> list[str]:
    """Judge bytes that are no frame: a tag or padding at the end is fine, frames after them are not."""
    rest = data[at : at + 16]
    if any(rest.startswith(tag) for tag in _TAGS):
        return ["trailing-bytes"]
    if not rest.strip(b"\0") and not data[at:].strip(b"\0"):
        return []
    if len(data) - at < 4:
        return ["cut-last-frame"]
    resumed = _resumed_at(data, at + 1, length_at)
    if resumed is None:
        return ["trailing-bytes"]
    detail = f"{resumed - at} bytes at {at} belong to no frame, and more music follows; fetch it again"
    raise AudioRefusedError(AudioReason.UNDECODABLE, detail)


def _resumed_at(data: mmap.mmap, start: int, length_at: Callable[[mmap.mmap, int], int]) -> int | None:
    """Where frames go on after `start`: three in a row, so that chance does not look like music."""
    at = data.find(b"\xff", start)
    while at >= 0:
        probe, count = at, 0
        while count < 3 and (length := length_at(data, probe)) > 0:
            probe, count = probe + length, count + 1
        if count == 3:
            return at
        at = data.find(b"\xff", at + 1)
    return None


def _mpeg_length(data: mmap.mmap, at: int) -> int:
    """Bytes of the MPEG audio frame at `at`; 0 where there is none, `_FREE_FORMAT` where it does not say."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return 0
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    rate_index, bit_rate_index, padding = data[at + 2] >> 2 & 3, data[at + 2] >> 4, data[at + 2] >> 1 & 1
    if version == 1 or layer == 4 or rate_index == 3 or bit_rate_index == 15:
        return 0
    if bit_rate_index == 0:
        return _FREE_FORMAT
    bits_s = 1000 * _BIT_RATES[version == 3, layer][bit_rate_index - 1]
    rate_hz = _RATES_HZ[version][rate_index]
    if layer == 1:
        return 4 * (12 * bits_s // rate_hz + padding)
    slots = 72 if layer == 3 and version != 3 else 144
    return slots * bits_s // rate_hz + padding


def _adts_length(data: mmap.mmap, at: int) -> int:
    """Bytes of the ADTS frame at `at`; 0 where there is none."""
    if at + 7 > len(data) or data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        return 0
    length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    return length if length >= 7 else 0
