"""Broken audio files, generated: each pair is a name that says what is wrong and the bytes. Seeded, so that a failure repeats."""

import io
import struct
from collections.abc import Iterator

import av
import numpy as np
import soundfile

RATE_HZ = 22_050
TEN_HOURS_S = 36_000


PAGES = (
    b"<!DOCTYPE html>", b'{"error": "expired"}', b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"PK\x03\x04", b"#EXTM3U\nhttp://127.0.0.1/a",
    b"MThd\x00\x00\x00\x06", b"ffconcat version 1.0\nfile /etc/passwd", b"\x1f\x8b\x08", b"None", b"\x7fELF", b"<?xml ?>",
)  # fmt: skip
MAGIC = (
    b"RIFF....WAVE", b"fLaC", b"OggS", b"\x1a\x45\xdf\xa3", b"....ftyp", b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80",
    b"FORM....AIFF", b"caff", b".snd", b"wvpk", b"MAC ", b"\x0b\x77", b"#!AMR\n", b"0&\xb2u\x8ef\xcf\x11",
)  # fmt: skip


def encode(samples: np.ndarray, kind: str) -> bytes:
    """Samples (n, channels) as a sound file: wav, aiff, flac, ogg, mp3 by libsndfile; m4a, webm by FFmpeg."""
    out = io.BytesIO()
    if kind in ("m4a", "webm"):
        codec, container, rate_hz = ("aac", "mp4", RATE_HZ) if kind == "m4a" else ("libopus", "webm", 48_000)
        with av.open(out, "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate_hz, layout="mono")
            frame = av.AudioFrame.from_ndarray(samples[:, :1].T.astype(np.float32).copy(), format="fltp", layout="mono")
            frame.sample_rate = rate_hz
            file.mux(stream.encode(frame) if kind == "m4a" else _in_pieces(stream, frame))
            file.mux(stream.encode(None))
        return out.getvalue()
    subtype = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    soundfile.write(out, samples, RATE_HZ, format=kind.upper(), subtype=subtype)
    return out.getvalue()


def _in_pieces(stream: "av.AudioStream", frame: "av.AudioFrame") -> list["av.Packet"]:
    fifo = av.AudioFifo()
    fifo.write(frame)
    packets = []
    while (piece := fifo.read(960)) is not None:
        packets += stream.encode(piece)
    return packets


def wav(
    data: bytes, *, channels: int = 1, rate_hz: int = RATE_HZ, bits: int = 16, claimed: int | None = None, tag: int = 1
) -> bytes:
    """A WAV file with a header of our choice."""
    size = len(data) if claimed is None else claimed
    align = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def id3(size: int, body: bytes = b"") -> bytes:
    """An ID3v2 tag that claims `size` bytes."""
    return b"ID3\x04\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + body


def music(duration_s: float, seed: int) -> np.ndarray:
    """Noise under a melody: it does not compress into nothing."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * f * time_s) for f in rng.uniform(100, 4000, 4))
    return (0.15 * tones + rng.normal(0, 0.05, time_s.size)).astype(np.float32)[:, None]


def corrupt_files(seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Two hundred files that no store should take."""
    rng = np.random.default_rng(seed)
    sound = {kind: encode(music(4.0, seed), kind) for kind in ("wav", "aiff", "flac", "ogg", "mp3", "m4a", "webm")}
    for kind, whole in sound.items():
        for cut in rng.integers(len(whole) // 20, len(whole) * 9 // 10, 14):
            yield f"truncated-{kind}-{cut}", whole[:cut]
    for kind in ("flac", "ogg", "mp3", "m4a"):
        for turn in range(8):
            flipped = np.frombuffer(sound[kind], np.uint8).copy()
            places = rng.integers(0, flipped.size, flipped.size // 50)
            flipped[places] ^= (1 << rng.integers(0, 8, places.size)).astype(np.uint8)
            yield f"flipped-{kind}-{turn}", flipped.tobytes()
    pcm = (music(1.0, seed) * 20_000).astype("<i2").tobytes()
    for channels in (0, 33, 1024, 65_535):
        yield f"channels-{channels}", wav(pcm, channels=channels)
    for rate_hz in (0, 1, 999, 768_000, 4_000_000_000):
        yield f"rate-{rate_hz}", wav(pcm, rate_hz=rate_hz)
    for bits in (0, 1, 7, 255):
        yield f"bits-{bits}", wav(pcm, bits=bits)
    for samples in (0, 1, 2, 500, 1102):
        yield f"samples-{samples}", wav(pcm[: 2 * samples])
    for claim in (len(pcm) + 1000, 2 * RATE_HZ * TEN_HOURS_S, 0xFFFFFFFE):
        yield f"claims-{claim}", wav(pcm, claimed=claim)
    for claim in (2, 200, 2000):
        yield f"admits-{claim}", wav(pcm, claimed=claim)
    for place, value in ((0, np.nan), (5_000, np.inf), (-1, -np.inf), (9, 1e20)):
        floats = music(1.0, seed)[:, 0].copy()
        floats[place] = value
        yield f"holds-{value}", wav(floats.astype("<f4").tobytes(), bits=32, tag=3)
    yield "half-an-hour-and-more", encode(np.zeros((RATE_HZ * 1801, 1), np.float32), "flac")
    long = bytearray(sound["flac"])
    long[21] = long[21] & 0xF0 | 0x0F  # STREAMINFO's number of samples, of which 36 bits remain
    long[22:26] = b"\xff\xff\xff\xff"
    yield "ten-hours-of-flac", bytes(long)
    for size in (0x0FFFFFFF, 1_000_000, 10):
        yield f"tag-bomb-{size}", id3(size, b"TIT2" + b"\xff" * 100)
    yield "tag-chain", id3(0) * 5_000
    yield "tag-of-20-megabytes", id3(20_000_000, bytes(20_000_000))
    yield "chunk-bomb", b"RIFF\xff\xff\xff\xffWAVELIST\xf0\xff\xff\xff" + bytes(100)
    yield "chunk-chain", b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\x00\x00\x00\x00" * 20_000
    yield "box-bomb", b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00M4A mp42\xff\xff\xff\xf0moov" + bytes(500)
    for number, page in enumerate(PAGES):
        yield f"not-audio-{number}", page + bytes(200)
    for number, magic in enumerate(MAGIC):
        yield f"magic-alone-{number}", magic + rng.bytes(3000)
    for size in (0, 1, 3, 11, 44):
        yield f"bytes-{size}", sound["wav"][:size]
    for turn in range(8):
        yield f"random-{turn}", b"\x01" + rng.bytes(int(rng.integers(100, 50_000)))
