"""What does publishing cost? Choosing among a million takes, and writing clips, shards and tars.

    python benchmarks/bench_publish.py [choose near write] [--takes 1000000] [--vectors 100000] [--clips 2000]

`choose`: rules, groups, duplicates, quotas and splits over synthetic candidates, beside a bare Polars pass that only filters by
score and sorts (the least that any choice costs); checked: every take is told once, and no shared prompt stands in two splits.
`near`: pairs of vectors that point the same way, among clusters as wide as takes of one style, beside all pairs by blocks of a
matrix product; checked: the same pairs, planted ones among them.
`write`: clips, FLAC sidecars, Parquet and tar of a version, beside decoding, resampling and encoding the same clips alone;
checked: the documented readers lose no row. Each part runs in a process of its own, and prints CPU seconds of all threads, a
ratio and the peak of memory. Exits with 1 where a floor is missed.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import soundfile
import soxr

from keeptake.curation.building import FORMAT_VERSIONS, Stage, write_audio, write_csv, write_jsonl, write_parquet
from keeptake.curation.leaks import MIN_COSINE
from keeptake.curation.policy import read_policy
from keeptake.curation.select import CANDIDATE, PAIRS, choose
from keeptake.curation.versions import ROW, row_hash
from keeptake.custody.decode import decode
from keeptake.embedding.near_pairs import near_pairs
from keeptake.formats import audiocraft, audiofolder, hf_parquet, webdataset

MAX_CHOOSE_CPU_S = 3.0
MAX_CHOOSE_MEMORY_MB = 1500.0
MAX_WRITE_RATIO = 1.5
GENRES = ("trap", "lofi", "jazz", "rock", "techno", "house", "ambient", "pop")
CLIP_S, SOURCE_RATE_HZ, RATE_HZ, SOURCES = 10.0, 44_100, 32_000, 8


def candidates(count: int) -> pl.DataFrame:
    """Synthetic takes: half a million prompts for a million takes, skewed genres, a third with feedback."""
    rng = np.random.default_rng(0)
    numbers = np.arange(count)
    names = [f"gen_{number}" for number in numbers]
    columns = {
        "generation": numbers,
        "generation_id": names,
        "file_id": [hashlib.sha256(name.encode()).hexdigest()[:16] for name in names],
        "user_id": pl.Series(rng.integers(0, count // 50 + 1, count)).cast(pl.String),
        "provider": np.array(["suno", "udio", "musicgen"])[rng.integers(0, 3, count)],
        "prompt_key": "dark beat number " + pl.Series(rng.integers(0, count // 2 + 1, count)).cast(pl.String),
        "genre": np.array(GENRES)[np.minimum(rng.geometric(0.3, count) - 1, len(GENRES) - 1)],
        "audio_sha256": [hashlib.sha256(b"%d" % number).hexdigest() for number in numbers],
        "duration_s": rng.uniform(0.5, 200, count),
        "is_heard": np.ones(count, bool),
        "score": rng.random(count).round(4),
        "adherence": rng.random(count),
        "liked": rng.random(count) < 0.2,
        "used": rng.random(count) < 0.1,
        "is_erased": np.zeros(count, bool),
        **{name: rng.random(count) < 0.02 for name in ("has_clipping", "is_silent", "is_antiphase", "has_vocals")},
    }
    frame = pl.DataFrame(columns)
    absent = [pl.lit(None, kind).alias(name) for name, kind in CANDIDATE.items() if name not in columns]
    return frame.with_columns(absent).select([pl.col(name).cast(kind) for name, kind in CANDIDATE.items()])


def bench_choose(count: int) -> bool:
    """Choose, and print."""
    takes = candidates(count)
    rng = np.random.default_rng(1)
    ends = [takes["audio_sha256"].gather(rng.integers(0, count, count // 50)) for _ in PAIRS]
    pairs = pl.DataFrame(dict(zip(PAIRS, ends, strict=True)))
    sections = {"select": {"min_score": 0.2, "exclude_disliked": False}, "balance": {"genre_cap": 0.25, "max_takes": count // 3}}
    policy = read_policy({"name": "bench", **sections}, origin="bench")
    before_mb = peak_mb()
    began = time.process_time()
    baseline = takes.filter(pl.col("score") >= 0.2).sort("score", descending=True).head(count // 3)
    bare_s = time.process_time() - began
    began = time.process_time()
    found = choose(takes, policy, pairs=pairs)
    ours_s = time.process_time() - began
    told = found.kept.height + found.left_out.height
    apart = found.kept.group_by("prompt_key").agg(pl.col("split").n_unique())["split"].max()
    print(f"choose   {count:,} takes: {ours_s:.2f} s CPU, bare filter and sort {bare_s:.2f} s, ratio {ours_s / bare_s:.1f}")
    print(f"         peak {peak_mb():,.0f} MB, of which candidates and Python {before_mb:,.0f} MB")
    print(f"         kept {found.kept.height:,} (bare: {baseline.height:,}), told {told:,}, splits a prompt {apart}")
    is_right = told == count and apart == 1
    scale = max(1.0, count / 1_000_000)
    return is_right and ours_s <= MAX_CHOOSE_CPU_S * scale and peak_mb() <= MAX_CHOOSE_MEMORY_MB * scale


def bench_near(count: int) -> bool:
    """Find near pairs both ways, and print."""
    rng = np.random.default_rng(0)
    styles = rng.standard_normal((500, 256), dtype=np.float32)
    vectors = styles[rng.integers(0, len(styles), count)] + rng.standard_normal((count, 256), dtype=np.float32)
    twins = rng.permutation(count)[: count // 50].reshape(2, -1)
    vectors[twins[1]] = vectors[twins[0]] + rng.uniform(0, 0.35, (twins.shape[1], 1)) * rng.standard_normal((twins.shape[1], 256))
    began = time.process_time()
    expected = all_near_pairs(vectors)
    bare_s = time.process_time() - began
    before_mb = peak_mb()
    began = time.process_time()
    found = near_pairs(vectors, least=MIN_COSINE)
    ours_s = time.process_time() - began
    missed = len(set(map(tuple, expected.tolist())) - set(map(tuple, found.tolist())))
    print(f"near     {count:,} vectors: {ours_s:.1f} s CPU, all pairs {bare_s:.1f} s, {bare_s / ours_s:.1f} times as fast")
    print(
        f"         {len(found):,} pairs, {missed} of {len(expected):,} missed; peak {peak_mb():,.0f} MB ({before_mb:,.0f} before)"
    )
    return missed <= len(expected) / 1000 and len(found) + missed == len(expected) > count // 200


def all_near_pairs(vectors: np.ndarray, block: int = 2048) -> np.ndarray:
    """The baseline: every pair, by blocks of a matrix product."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = []
    for start in range(0, len(unit), block):
        near = np.argwhere(np.triu(unit[start : start + block] @ unit[start:].T >= MIN_COSINE, k=1))
        found.append(near + start)
    return np.concatenate(found)


def music(number: int) -> bytes:
    """Ten seconds of tones and noise in stereo, as an MP3 that a provider would send."""
    rng = np.random.default_rng(number)
    times_s = np.arange(round(CLIP_S * SOURCE_RATE_HZ)) / SOURCE_RATE_HZ
    tones = sum(np.sin(2 * np.pi * frequency * times_s) for frequency in rng.uniform(60, 4000, 12)) / 30
    both = np.stack([tones, tones[::-1]], axis=1) + 0.05 * rng.standard_normal((times_s.size, 2))
    encoded = io.BytesIO()
    soundfile.write(encoded, both, SOURCE_RATE_HZ, format="MP3")
    return encoded.getvalue()


def rows_of(count: int) -> pl.DataFrame:
    """Rows of a version: every clip from one of a few sources."""
    rows = []
    for number in range(count):
        row = {
            **dict.fromkeys(ROW),
            "id": f"{number:016x}",
            "split": "test" if number % 10 == 9 else "train",
            "text": "dark beat",
        }
        row |= {
            "prompt": "dark beat",
            "caption": "trap",
            "instruments": [],
            "duration_s": CLIP_S,
            "start_s": 0.0,
            "end_s": CLIP_S,
        }
        row |= {"provider": "suno", "generation_id": f"gen_{number}", "generation_params": "{}", "parent": f"{number:016x}"}
        row |= {"audio_url": "https://cdn.example/x.mp3", "audio_sha256": f"{number:064x}", "quality_score": 0.8}
        rows.append({**row, "row_sha256": row_hash(row)})
    return pl.DataFrame(rows, schema={**ROW, "row_sha256": pl.String})


def bench_write(count: int) -> bool:
    """Write a version and the bare clips in turns, so that a busy machine slows both, and print."""
    sources = [music(number) for number in range(SOURCES)]
    rows = rows_of(count)
    policy = read_policy({"name": "bench"}, origin="bench").model_dump(mode="json")
    ours_s = bare_s = 0.0
    losses: list[str] = []
    turns = 4
    for turn in range(turns):
        part = rows.slice(turn * count // turns, count // turns)
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            for number, row_id in enumerate(part["id"]):
                samples, rate_hz = decode(sources[number % SOURCES])
                mono = soxr.resample(samples.mean(axis=1, dtype=np.float32), rate_hz, RATE_HZ)
                soundfile.write(Path(folder) / f"{row_id}.flac", mono, RATE_HZ, subtype="PCM_16")
            bare_s += time.process_time() - began
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage("bench", "v1-0123456789ab", Path(folder), Path(folder), is_new=True)
            lineage = {
                "policy": policy,
                "formats": FORMAT_VERSIONS,
                "left_out": {},
                "counts": {"candidates": count, "kept": count},
            }
            began = time.process_time()
            write_audio(stage, part, lineage, lambda sha256: sources[int(sha256, 16) % SOURCES])
            write_jsonl(stage)
            write_parquet(stage)
            write_csv(stage)
            ours_s += time.process_time() - began
            losses += _losses(Path(folder), part)
    ratio = ours_s / bare_s
    print(f"write    {count:,} clips of {CLIP_S:g} s: {ours_s:.1f} s CPU")
    print(f"         decode, resample and encode alone {bare_s:.1f} s, ratio {ratio:.2f}")
    print(f"         peak {peak_mb():,.0f} MB; rows that documented readers lose: {len(losses)}")
    return not losses and ratio <= MAX_WRITE_RATIO


def _losses(folder: Path, rows: pl.DataFrame) -> list[str]:
    lost = []
    for split, part in audiocraft.by_split(rows):
        readings = [
            audiocraft.read_back(folder, split, location=folder),
            audiofolder.read_back(folder, split),
            hf_parquet.read_back(folder, split, rows_in=part.height),
            webdataset.read_back(folder, split, rows_in=part.height),
        ]
        lost += [why for reading in readings for why in reading.losses]
        lost += [reading.reader for reading in readings if reading.rows_out != part.height]
    return lost


def peak_mb() -> float:
    """Most memory that this process held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["choose", "near", "write"], metavar="choose|near|write")
    parser.add_argument("--takes", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=2000)
    asked = parser.parse_args()
    parts = {"choose": (bench_choose, asked.takes), "near": (bench_near, asked.vectors), "write": (bench_write, asked.clips)}
    is_met = True
    for name in asked.parts:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            is_met &= pool.apply(parts[name][0], (parts[name][1],))
    print(json.dumps({"floors met": is_met}))
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
