"""What a generation costs beside its hearing: Dagster, ledger, custody's rows, scoring, snapshot, export of the original lines.

Runs the whole `take_to_score` job over days of 1,000 and of 10,000 generations with analyzers that answer at once, exports every
row as JSONL and CSV, and counts CPU of this process, its children and its Postgres. Floors: at most 10 ms a generation, and at
10,000 at most 1.2 times that at 1,000.

    python benchmarks/bench_pipeline.py [--most 10000]
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import dagster as dg
import numpy as np
import psutil

from dagster_project.definitions import build_definitions
from dagster_project.home import open_home
from keeptake.audio.analyze import FEATURE_COLUMNS, PART_VERSIONS, Part
from keeptake.audio_store import AudioStore
from keeptake.compute import Ok
from keeptake.ledger.analyses import Heard, ToHear
from keeptake.ledger.bulk import upsert
from keeptake.ledger.connection import Ledger
from keeptake.ledger.duplicates import Fingerprinted, ToFingerprint
from keeptake.ledger.exports import CopyReader, csv_queries, jsonl_queries
from keeptake.ledger.serving import connect_arguments
from keeptake.ledger.status import status
from keeptake.ledger.tables import audio, generations
from keeptake.ledger.vectors import Embedded, ToEmbed
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.compute import ComputeResource

MOST_MS = 10.0
MOST_GROWTH = 1.2
FEATURES = {"tempo_bpm": 120.0, "key": "A minor", "rhythm_confidence": 0.8, "tempo_stability": 0.9, "no_clipping": 1.0}


class InstantPool:
    """In the place of worker processes: answers at once, so that what remains is everything but the hearing."""

    def at_most(self, items: int) -> "InstantPool":
        """Be as it is."""
        return self

    def __enter__(self) -> "InstantPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def map(self, function: Callable[[Any], Any], items: Iterable[Any], **limits: float) -> Iterator[tuple[Any, Ok[Any]]]:
        """Answer every item with an analysis, a fingerprint or a vector that costs nothing."""
        for item in items:
            yield item, Ok(answer(item))


def answer(item: ToHear | ToFingerprint | ToEmbed) -> Heard | Embedded | Fingerprinted:
    """Make up what a worker would have heard."""
    if isinstance(item, ToHear):
        parts = {name: Part(version, "ok", None, {}, 0.01) for name, version in PART_VERSIONS.items()}
        columns = dict.fromkeys(column for names in FEATURE_COLUMNS.values() for column in names)
        return Heard(item.sha256, parts, {**columns, **FEATURES})
    if isinstance(item, ToFingerprint):
        return Fingerprinted(item.sha256, np.zeros(0, np.uint64))
    seed = int(item.sha256[:8], 16)
    return Embedded(item.sha256, np.random.default_rng(seed).standard_normal(336).astype(np.float32))


class InstantCompute(ComputeResource):
    """Hands out the pool that answers at once."""

    def pool(self, initializer: Callable[[], None]) -> Any:  # noqa: ANN401 -- in the place of a Pool
        """Make such a pool."""
        return InstantPool()


class FullStore(AudioStore):
    """Has every object: custody is measured by its own benchmark."""

    def has(self, sha256: str) -> bool:
        """Say yes."""
        return True


class FullStoreResource(AudioStoreResource):
    """Hands out the store that has everything."""

    def get(self) -> AudioStore:
        """Make such a store."""
        return FullStore(settings().audio_location)


def fill(ledger: Ledger, day: str, count: int) -> None:
    """Put a day of generations with audio in custody into the ledger."""
    hashes = [hashlib.sha256(f"{day} {number}".encode()).hexdigest() for number in range(count)]
    with ledger.begin() as connection:
        upsert(
            connection,
            audio,
            (
                {
                    "sha256": sha256,
                    "storage_key": f"sha256/{sha256[:2]}/{sha256}",
                    "size_bytes": 1,
                    "format": "wav",
                    "codec": "pcm",
                    "duration_s": 30.0,
                    "sample_rate_hz": 44_100,
                    "channels": 2,
                }
                for sha256 in hashes
            ),
            conflict=("sha256",),
        )
        upsert(
            connection,
            generations,
            (
                {
                    "generation_id": f"{day}-{number}",
                    "identity_sha256": bytes.fromhex(sha256),
                    "user_id": f"u{number % 50}",
                    "user_prompt": f"a beat at {80 + number % 100} bpm",
                    "generation_params": {"bpm": 80 + number % 100, "genre": "house"},
                    "audio_url": "https://example.com/a.wav",
                    "provider": "suno",
                    "source": "bench",
                    "captured_on": day,
                    "created_at": f"{day}T00:00:00Z",
                    "status": "audio-ready",
                    "audio_status": "stored",
                    "audio_sha256": sha256,
                }
                for number, sha256 in enumerate(hashes)
            ),
            conflict=("generation_id",),
        )


def cpu_s(home: Path) -> float:
    """CPU seconds of this process, its children and the embedded Postgres, dead backends included."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    postmaster = psutil.Process(int((home / "pg" / "postmaster.pid").read_text().split()[0]))
    for process in (postmaster, *postmaster.children()):
        with suppress(psutil.NoSuchProcess):  # a backend that ended meanwhile counts among its parent's children
            times = process.cpu_times()
            total += times.user + times.system
    ended = postmaster.cpu_times()
    return total + ended.children_user + ended.children_system


def exported_lines(ledger: Ledger) -> tuple[int, int]:
    """Lines of the whole JSONL and of the whole CSV export."""
    found = []
    for queries in (jsonl_queries(), csv_queries()):
        reader, lines = CopyReader(connect_arguments(ledger.url), queries, owner="bench"), 0
        while piece := reader.read():
            lines += piece.count(b"\n")
        reader.close()
        found.append(lines)
    return found[0], found[1]


def measure(ledger: Ledger, day: str, count: int) -> float:
    """CPU milliseconds a generation of one run over a day of so many."""
    fill(ledger, day, count)
    before, home = status(ledger)["scored"], settings().home
    job = build_definitions(resources={"compute": InstantCompute(), "audio_store": FullStoreResource()}).resolve_job_def(
        "take_to_score"
    )
    quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
    begun_s, begun_cpu_s = time.monotonic(), cpu_s(home)
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(partition_key=day, instance=instance, run_config=quiet)
    jsonl, csv = exported_lines(ledger)
    spent_ms = 1000 * (cpu_s(home) - begun_cpu_s) / count
    assert result.success
    assert status(ledger)["scored"] - before == count, "not every generation was scored"
    assert (jsonl, csv - 1) == (before + count, before + count), "not every generation was exported"
    took_s = time.monotonic() - begun_s
    print(f"{count:>7,} generations: {spent_ms:6.2f} ms CPU each, {took_s:.1f} s in all; all scored and exported")
    return spent_ms


def main() -> int:
    """Measure small and large days in one home; 1 where a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=10_000)
    most = parser.parse_args().most
    with tempfile.TemporaryDirectory(prefix="keeptake-bench-") as folder:
        os.environ["KEEPTAKE_HOME"] = folder
        Path(folder).chmod(0o755)  # the embedded server may run as another user
        settings.cache_clear()
        with open_home() as ledger:
            measure(ledger, "2025-06-01", 50)  # imports and caches
            small = measure(ledger, "2025-06-02", most // 10)
            large = measure(ledger, "2025-06-03", most)
    print(f"growth from {most // 10:,} to {most:,}: {large / small:.2f} (floor {MOST_GROWTH}); most {MOST_MS} ms")
    return int(max(small, large) > MOST_MS or large / small > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
