"""What is this file? Its type by its first bytes, never by its name or by a header of the server.

Conventions: a *container* is the name of a file format that we know how to decode (`wav`, `mp3`, `mp4` …); anything else has a
media type, for the evidence that a quarantined row keeps. Reading is bounded: at most `HEAD_BYTES` at a place, however large the
tags in front of the audio say that they are.

Belongs here: magic numbers. Does not: what a container says about its own length (`lengths.py`), decoding (`decode.py`).
"""

import struct
from typing import IO

HEAD_BYTES = 4096
MAX_TAGS = 16  # ID3 tags in a row before we stop believing that audio follows

# container → (offset, magic) pairs, all of which must match
_MAGIC: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    ("wav", ((0, b"RIFF"), (8, b"WAVE"))),
    ("wav", ((0, b"RF64"), (8, b"WAVE"))),
    ("wav", ((0, b"BW64"), (8, b"WAVE"))),
    ("wav", ((0, b"RIFX"), (8, b"WAVE"))),
    ("w64", ((0, b"riff\x2e\x91\xcf\x11"),)),
    ("aiff", ((0, b"FORM"), (8, b"AIFF"))),
    ("aiff", ((0, b"FORM"), (8, b"AIFC"))),
    ("flac", ((0, b"fLaC"),)),
    ("ogg", ((0, b"OggS"),)),
    ("mp4", ((4, b"ftyp"),)),
    ("mp4", ((4, b"moov"),)),
    ("mp4", ((4, b"mdat"),)),
    ("mp4", ((4, b"wide"),)),
    ("webm", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("caf", ((0, b"caff"),)),
    ("au", ((0, b".snd"),)),
    ("wma", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    ("amr", ((0, b"#!AMR"),)),
    ("wavpack", ((0, b"wvpk"),)),
    ("ape", ((0, b"MAC "),)),
    ("ac3", ((0, b"\x0b\x77"),)),
)

_OTHER_TYPES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"MThd", "audio/midi"),
    (b"#EXTM3U", "audio/x-mpegurl"),
    (b"ffconcat", "text/x-ffconcat"),
    (b"<?xml", "text/xml"),
    (b"\x7fELF", "application/x-executable"),
)


def container_of(file: IO[bytes]) -> str | None:
    """Tell the audio container of a file by its content.

    ID3 tags in front are stepped over: they precede MP3, raw AAC and, against the book, FLAC and WAV.

    Parameters
    ----------
    file : IO[bytes]
        A seekable binary file; its position is moved.

    Returns
    -------
    str or None
        The container's name, or None where it is none that we decode.
    """
    head = audio_head(file)
    is_tagged = file.seek(0) == 0 and id3_bytes(file.read(10)) > 0
    return _container_by_magic(head) or _mpeg_stream(head) or ("mp3" if is_tagged and _mpeg_stream_anywhere(head) else None)


def audio_head(file: IO[bytes]) -> bytes:
    """First bytes of a file behind its ID3 tags; its position is moved."""
    offset, head = 0, b""
    for _ in range(MAX_TAGS):
        file.seek(offset)
        head = file.read(HEAD_BYTES)
        tag_bytes = id3_bytes(head)
        if not tag_bytes:
            break
        offset += tag_bytes
    return head


def media_type_of(head: bytes) -> str:
    """Name the type of a file's first bytes, for the evidence of a refusal.

    >>> media_type_of(b"<!DOCTYPE html><html>")
    'text/html'
    >>> media_type_of(b"")
    'application/x-empty'
    """
    if not head:
        return "application/x-empty"
    if container := _container_by_magic(head) or _mpeg_stream(head) or ("mp3" if id3_bytes(head) else None):
        return f"audio/{container}"
    for magic, name in _OTHER_TYPES:
        if head.startswith(magic):
            return name
    text = head.lstrip()[:64].lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "text/html"
    if text.startswith((b"{", b"[")):
        return "application/json"
    return "text/plain" if _is_text(head) else "application/octet-stream"


def id3_bytes(head: bytes) -> int:
    """Whole length of the ID3v2 tag that `head` begins with, 0 without one."""
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _container_by_magic(head: bytes) -> str | None:
    for container, marks in _MAGIC:
        if all(head[offset : offset + len(magic)] == magic for offset, magic in marks):
            return container
    return None


def _mpeg_stream(head: bytes) -> str | None:
    """`aac` for an ADTS frame, `mp3` for an MPEG audio frame of layer I to III, by the header's own rules."""
    if len(head) < 4:
        return None
    word = struct.unpack(">I", head[:4])[0]
    if word >> 20 != 0xFFF and word >> 21 != 0x7FF:
        return None
    layer = word >> 17 & 3
    if layer == 0:
        is_adts = word >> 20 == 0xFFF and word >> 10 & 0xF < 13
        return "aac" if is_adts else None
    version, bitrate, rate = word >> 19 & 3, word >> 12 & 0xF, word >> 10 & 3
    return "mp3" if version != 1 and bitrate != 15 and rate != 3 else None


def _mpeg_stream_anywhere(head: bytes) -> bool:
    """Whether an MPEG frame begins in `head`: encoders pad with zeros between the tag and the first frame."""
    stripped = head.lstrip(b"\0")
    return _mpeg_stream(stripped) == "mp3"


def _is_text(head: bytes) -> bool:
    try:
        text = head[:512].decode("utf-8", errors="strict" if len(head) <= 512 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
