"""What custody costs: fetching with all its checks against a bare client, and the proof against decoding alone.

Run as `python benchmarks/bench_custody.py`. A server in its own process sends 1,000 WAV files of 1 MB over the loopback. Each
of the two ways to fetch them is timed in alternating turns; both end with every file on the disk, and every byte is compared by
hash. Exits with 1 where custody takes more than 1.5 times the bare client's wall time, or where any file differs.
"""

import asyncio
import hashlib
import multiprocessing
import os
import socketserver
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import httpx2
import numpy as np
import soundfile

from keeptake.audio_store import AudioStore
from keeptake.custody.fetch import Request, fetch_all
from keeptake.custody.policy import FetchPolicy
from keeptake.custody.prove import prove

FILES = int(os.environ.get("BENCH_FILES", "1000"))
FILE_BYTES = 1_000_000
CONCURRENCY = 32
TURNS = int(os.environ.get("BENCH_TURNS", "3"))
MOST_RATIO = 1.5
NOISE = np.random.default_rng(0).integers(-8000, 8000, FILE_BYTES // 2).astype("<i2").tobytes()


def wav_of(number: int) -> tuple[bytes, memoryview]:
    """Header and samples of one file; the first samples make each file another."""
    own = struct.pack("<4I", number, number, number, number)
    length = FILE_BYTES - 44
    header = b"RIFF" + struct.pack("<I", length + 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 2, 44_100, 176_400, 4, 16)
    return header + b"data" + struct.pack("<I", length) + own, memoryview(NOISE)[: length - len(own)]


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while head := self.request.recv(65536):
            first, rest = wav_of(int(head.split(b" ", 2)[1][1:]))
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FILE_BYTES + first)
            self.request.sendall(rest)


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 256
    daemon_threads = True


def serve(pipe: Connection) -> None:
    """Serve until killed."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        pipe.send(server.server_address[1])
        server.serve_forever()


def bare(base: str, folder: Path) -> None:
    """Fetch with an ordinary concurrent client: no limits, no checks, no hash."""

    async def fetch_one(client: httpx2.AsyncClient, number: int) -> None:
        response = await client.get(f"{base}/{number}")
        (folder / str(number)).write_bytes(response.content)

    async def fetch_everything() -> None:
        limits = httpx2.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
        async with httpx2.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:
            await asyncio.gather(*(fetch_one(client, number) for number in range(FILES)))

    asyncio.run(fetch_everything())


def custody(base: str, folder: Path) -> None:
    """Fetch with every check and store under the hash, as a day's run does, without the proof."""
    host = base.removeprefix("http://")
    policy = replace(FetchPolicy(), allow_http_hosts=frozenset({host}), concurrency=CONCURRENCY, per_host=CONCURRENCY)
    store = AudioStore(folder.as_uri())
    requests = [Request(number, f"{base}/{number}", "bench", None) for number in range(FILES)]
    with ThreadPoolExecutor(8) as puts:
        for batch in fetch_all(requests, policy, spool_folder=store.spool_folder):
            assert all(fetched.refusal is None for fetched in batch)
            list(puts.map(lambda fetched: store.put(fetched.spool.path, sha256=fetched.spool.sha256), batch))
            for fetched in batch:
                fetched.spool.close()


def timed(way: Callable[[str, Path], None], base: str) -> tuple[float, float]:
    """Wall and CPU seconds of one turn; fails where a byte differs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        way(base, folder)
        took_s, took_cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        found = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file())
    expected = sorted(hashlib.sha256(b"".join(wav_of(number))).hexdigest() for number in range(FILES))
    assert found == expected, f"{way.__name__} brought other bytes"
    return took_s, took_cpu_s


def seconds_per_cpu_second(measure: Callable[[Path], float], path: Path) -> float:
    """Seconds of audio per CPU second, the best of some turns."""
    best = 0.0
    for _ in range(5):
        started_s = time.process_time()
        audio_s = measure(path)
        best = max(best, audio_s / (time.process_time() - started_s))
    return best


def soundfile_alone(path: Path) -> float:
    """Decode and look at nothing."""
    with soundfile.SoundFile(path) as file:
        while len(file.read(file.samplerate * 10, dtype="float32")):
            pass
        return float(file.frames / file.samplerate)


def proof_table() -> str:
    """Proof against decoding alone, a line a format."""
    samples = np.random.default_rng(0).normal(0, 0.1, (44_100 * 60, 2)).astype(np.float32)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for kind, subtype in (("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS"), ("mp3", "MPEG_LAYER_III")):
            path = Path(name) / f"take.{kind}"
            with soundfile.SoundFile(path, "w", 44_100, 2, format=kind.upper(), subtype=subtype) as file:
                for start in range(0, len(samples), 44_100):  # libsndfile's Vorbis writer overflows its stack on a minute at once
                    file.write(samples[start : start + 44_100])
            alone, proved = (
                seconds_per_cpu_second(soundfile_alone, path),
                seconds_per_cpu_second(lambda p: prove(p).duration_s, path),
            )
            rates = f"{proved:8,.0f} s of audio per CPU second, soundfile alone {alone:8,.0f}"
            lines.append(f"proof {kind:5} {rates}, ratio {alone / proved:.2f}")
    return "\n".join(lines)


def main() -> int:
    """Run everything and say whether the floor holds."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{ours.recv()}"
    times: dict[str, list[tuple[float, float]]] = {"bare": [], "custody": []}
    for _ in range(TURNS):
        times["bare"].append(timed(bare, base))
        times["custody"].append(timed(custody, base))
    server.kill()
    pairs = list(zip(times["bare"], times["custody"], strict=True))
    ratio = statistics.median(ours_s / bare_s for (bare_s, _), (ours_s, _) in pairs)
    for name, taken in times.items():
        print(
            f"{name:8} {FILES} files of {FILE_BYTES / 1e6:g} MB: "
            + ", ".join(f"{s:.2f} s (CPU {cpu_s:.2f} s)" for s, cpu_s in taken)
        )
    print(f"ratio    {ratio:.2f} of wall time (median of paired turns; at most {MOST_RATIO})")
    print(proof_table())
    return 0 if ratio <= MOST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
