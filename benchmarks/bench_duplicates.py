"""Do copies come out, and only copies, and how does the cost grow? For `curation/duplicates.py`.

    python benchmarks/bench_duplicates.py [--data ../shared/data/dev] [--takes 100000]

Accuracy on the labelled audio, decoded and fingerprinted under random names; baseline: code words compared frame by frame with
neither offset, speed nor rotation. Renders of six demos, among them siblings of one prompt that play one progression, each beside
altered copies; baseline: the same without asking a match to hold together. Scale on synthetic chromagrams with planted copies: a
tenth of the takes first, then all of them, each in a process of its own. Exits with 1 where a floor is missed.
"""

import argparse
import itertools
import json
import multiprocessing
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.signal import butter, sosfilt

from keeptake.audio.fingerprint import BITS, Codes, code_words, differing_bits, fingerprint, rotate
from keeptake.audio.frontend import mono_mix
from keeptake.beatmaker import plan_demo, render
from keeptake.curation import duplicates
from keeptake.curation.duplicates import MIN_UNBROKEN, find_duplicates, groups
from keeptake.errors import AudioRefusedError, InvalidAudioError
from keeptake.fingerprinting import fingerprint_file
from keeptake.instruments import SAMPLE_RATE_HZ

EASY = ("mp3_96k", "trim_1s", "gain_-6dB", "lowpass_noise")
FLOORS = {"easy": 0.95, "stretch_3pct": 0.8, "pitch_+1": 0.5}
MIN_PRECISION = 0.98
NEW = 200  # copies that arrive in one day
MAX_CPU_S, MAX_MEMORY_GB, MAX_GROWTH = 600.0, 4.0, 2.0  # one thread: CPU seconds are wall time on a machine of one's own


def accuracy(data: Path) -> bool:
    """Pair precision, recall by kind, sibling pairs; true where every floor holds."""
    labels = [json.loads(line) for line in (data / "labels.jsonl").read_text().splitlines()]
    labels = [label for label in labels if label["subset"] != "case"]  # cut from one take, without labels of what copies what
    rng = np.random.default_rng(6)
    names = {label["file"]: f"{rng.integers(1 << 60):015x}" for label in labels}
    began, heard_s, codes = time.process_time(), 0.0, {}
    for label in labels:
        try:
            codes[names[label["file"]]] = fingerprint_file(data / label["file"])
            heard_s += label["duration_s"]
        except (AudioRefusedError, InvalidAudioError) as error:
            print(f"not heard: {label['file']}: {error}")
    print(f"decoded and fingerprinted {heard_s / 60:.0f} min at {heard_s / (time.process_time() - began):.0f}x of one core")
    pairs = find_duplicates(codes)
    together = {pair for group in groups(pairs) for pair in itertools.combinations(sorted(group.members), 2)}
    source = {names[label["file"]]: label.get("duplicate_of") or label["file"] for label in labels}
    true = sum(source[a] == source[b] for a, b in together)
    precision = true / max(1, len(together))
    found, total, plain = defaultdict(int), defaultdict(int), defaultdict(int)
    for label in labels:
        if not (kind := label.get("dup_kind")):
            continue
        pair = tuple(sorted((names[label["file"]], names[label["duplicate_of"]])))
        for row in (kind, *(["easy"] if kind in EASY else [])):
            total[row] += 1
            found[row] += pair in together
            plain[row] += _plainly_equal(codes[pair[0]], codes[pair[1]])
    siblings = _sibling_pairs(labels, names) & together
    print(f"pairs {len(together)}, precision {precision:.3f}, siblings called duplicates {len(siblings)}")
    for row in sorted(total):
        print(f"recall {row:14} {found[row]}/{total[row]}   frame by frame {plain[row]}/{total[row]}")
    _report_errors(codes, pairs, source)
    return precision >= MIN_PRECISION and not siblings and all(found[row] / total[row] >= floor for row, floor in FLOORS.items())


def _plainly_equal(a: Codes, b: Codes) -> bool:
    size = min(len(a), len(b))
    differ = differing_bits(a[:size], b[:size])
    return bool(differ[differ >= 0].mean() <= 0.2 * BITS)


def _sibling_pairs(labels: list[dict], names: dict[str, str]) -> set[tuple[str, str]]:
    by_prompt = defaultdict(list)
    for label in labels:
        if label.get("prompt_group"):
            by_prompt[label["prompt_group"]].append(names[label["file"]])
    return {pair for group in by_prompt.values() for pair in itertools.combinations(sorted(group), 2)}


def _report_errors(codes: dict[str, Codes], pairs: list, source: dict[str, str]) -> None:
    """Bit errors of copies, and the least over offsets and rotations of unrelated takes: the threshold stands between them."""
    copies = [pair.bit_error for pair in pairs if source[pair.a] == source[pair.b]]
    originals = sorted(set(source.values()))
    name_of = {source[name]: name for name in source if name in codes}
    takes = [codes[name_of[original]] for original in originals if len(codes[name_of[original]]) >= 100]
    rng = np.random.default_rng(0)
    tried = [_least_error(*(takes[i] for i in rng.choice(len(takes), 2, replace=False))) for _ in range(400)]
    unrelated = [error for error in tried if error < 1]  # 1: one is more than twice as long as the other
    for name, errors in (("copies", copies), ("unrelated", unrelated)):
        shown = ", ".join(f"{q}%: {np.percentile(errors, q):.3f}" for q in (0, 1, 5, 50, 95, 99, 100))
        print(f"bit error of {name:9} (n = {len(errors)})  {shown}")


def _least_error(a: Codes, b: Codes) -> float:
    """Least bit error over rotations up to three semitones and offsets that leave half of the longer take overlapping."""
    least = 1.0
    signs_b = _signs(b)
    size = 1 << int(np.ceil(np.log2(len(a) + len(b))))
    spectrum_b = np.fft.rfft(signs_b, size, axis=0)
    lag = np.arange(size)
    lag = np.where(lag < size // 2, lag, lag - size)
    overlap = np.minimum(len(a), len(b) - lag) - np.maximum(0, -lag)
    for steps in range(-6, 7):
        agreement = np.fft.irfft((np.conj(np.fft.rfft(_signs(rotate(a, steps)), size, axis=0)) * spectrum_b).sum(axis=1), size)
        enough = overlap >= max(len(a), len(b)) / 2
        error = 0.5 - 0.5 * agreement[enough] / (BITS * overlap[enough])
        least = min(least, float(error.min(initial=1.0)))
    return least


def _signs(codes: Codes) -> np.ndarray:
    bits = (codes[:, None] >> np.arange(BITS, dtype=np.uint64)) & np.uint64(1)
    return np.where(codes[:, None] == 0, 0.0, bits.astype(float) * 2 - 1)


def synthetic(takes: int, seed: int = 0, copies: float = 0.02) -> tuple[dict[str, Codes], dict[str, str]]:
    """Fingerprints of 30 s takes, of which a share are copies of others: and which of which."""
    rng = np.random.default_rng(seed)
    originals = takes - int(takes * copies)
    codes = {}
    for first in range(0, originals, 500):
        for i, words in enumerate(_chroma_codes(rng, min(500, originals - first))):
            codes[f"t{first + i}"] = words
    origin = {}
    for i in range(takes - originals):
        of = f"t{rng.integers(originals)}"
        codes[f"c{i}"], origin[f"c{i}"] = _copy(rng, codes[of]), of
    return codes, origin


def _chroma_codes(rng: np.random.Generator, takes: int, frames: int = 300) -> list[Codes]:
    """Notes of a random scale that begin on a grid and fade, each in two neighbouring quarter tones, with beats and noise.

    The grid and the beats make takes share keys as often as recordings do: 0.005 a pair of takes.
    """
    scale = rng.random((takes, 1, 24)) < 0.4
    grid = np.arange(frames)[None, :, None] % rng.integers(2, 5, (takes, 1, 1)) == 0
    onsets = (rng.random((takes, frames, 24)) < 0.10) & scale & grid
    beat = np.arange(frames)[None, :, None] % rng.integers(4, 8, (takes, 1, 1)) == 0
    level = np.zeros((takes, frames, 24), np.float32)
    fade = np.float32(0.8)
    for t in range(frames):
        level[:, t] = level[:, t - 1] * fade + onsets[:, t] * (0.5 + rng.random((takes, 24), np.float32))
    drums = np.zeros((takes, frames, 1), np.float32)
    for t in range(frames):
        drums[:, t] = drums[:, t - 1] * np.float32(0.4) + beat[:, t]
    chroma = 1 + drums + level + 0.6 * np.roll(level, 1, axis=2) + 0.05 * rng.random(level.shape, np.float32)
    return [code_words(one) for one in chroma]


def _copy(rng: np.random.Generator, codes: Codes) -> Codes:
    """Trimmed at both ends, up to 3 % faster or slower, up to a semitone higher or lower, with 6 % of the bits flipped."""
    speed = rng.uniform(0.97, 1.03)
    at = np.arange(rng.uniform(0, 30), len(codes) - rng.uniform(0, 30), speed).astype(int)
    noise = (rng.random((len(at), BITS)) < 0.06).astype(np.uint64) << np.arange(BITS, dtype=np.uint64)
    return rotate(codes[at], int(rng.integers(-2, 3))) ^ np.bitwise_or.reduce(noise, axis=1)


def _measure(takes: int, answers: multiprocessing.Queue) -> None:
    codes, origin = synthetic(takes)
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = find_duplicates(codes)
    found = groups(pairs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    member = {name: number for number, group in enumerate(found) for name in group.members}
    together = sum(len(group.members) * (len(group.members) - 1) // 2 for group in found)
    families = defaultdict(list)
    for copy, of in origin.items():
        families[of].append(copy)
    planted = [pair for of, kin in families.items() for pair in itertools.combinations([of, *kin], 2)]
    recalled = sum(member.get(a, -1) == member.get(b, -2) for a, b in planted)
    memory_gb, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.process_time()
    new = list(origin)[:NEW]  # copies arrive as a day's takes would, against all that is known
    against = find_duplicates({name: codes[name] for name in codes if name not in origin or name in new}, new=new)
    day_cpu = time.process_time() - began
    recognised = len({name for pair in against for name in (pair.a, pair.b) if name in origin and pair.relation == "duplicate"})
    answers.put((wall, cpu, memory_gb, recalled, len(planted), together, day_cpu, recognised))


def renders(seeds: range = range(1, 7)) -> bool:
    """Siblings and copies among rendered takes; true where hardly a sibling is called a duplicate and hardly a copy is lost."""
    planned = [(seed, take) for seed in seeds for take in plan_demo(60, seed=seed) if take.defect not in ("html", "silent")]
    planned = list({take.seed: (seed, take) for seed, take in reversed(planned)}.values())  # without the copy that ends a demo
    codes, prompts = {}, {}
    for seed, take in planned:
        mono = mono_mix(np.ascontiguousarray(render(take).T, np.float32))
        for kind, altered in _altered(mono, seed=take.seed):
            name = f"{seed}/{take.number}/{kind}"
            codes[name], prompts[name] = fingerprint(altered, SAMPLE_RATE_HZ), f"{seed}/{take.prompt}"
    counts = {}
    for unbroken in (MIN_UNBROKEN, 0.0):
        duplicates.MIN_UNBROKEN = unbroken
        found = find_duplicates(codes)
        pairs = [pair for pair in found if pair.relation == "duplicate"]
        if unbroken:
            apart = [
                pair
                for pair in found
                if _take_of(pair.a) != _take_of(pair.b) and pair.a.endswith("it is") and pair.b.endswith("it is")
            ]
            parts = Counter(pair.relation for pair in apart)
        takes = [[name.rsplit("/", 1) for name in (pair.a, pair.b)] for pair in pairs]
        copies = sum(a[0] == b[0] and "as it is" in (a[1], b[1]) for a, b in takes)
        plain = [pair for pair, (a, b) in zip(pairs, takes, strict=True) if a[0] != b[0] and a[1] == b[1] == "as it is"]
        siblings = sum(prompts[pair.a] == prompts[pair.b] for pair in plain)
        counts[unbroken] = copies, siblings, len(plain) - siblings
    duplicates.MIN_UNBROKEN = MIN_UNBROKEN
    altered = len(codes) - len(planned)
    for unbroken, (copies, siblings, others) in counts.items():
        print(f"renders, unbroken {unbroken}: {copies}/{altered} copies as duplicates, {siblings} siblings, {others} other takes")
    print(f"renders: of different takes {parts['excerpt']} pairs are called excerpts, {parts['alike']} alike")
    (copies, siblings, _), (most_copies, most_siblings, _) = counts.values()
    return copies >= 0.99 * most_copies and siblings <= 0.2 * most_siblings and not parts["excerpt"]


def _take_of(name: str) -> str:
    return name.rsplit("/", 1)[0]


def _altered(mono: np.ndarray, *, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """A take and copies of it: noisy at 10 dB, dull, with another last third, clipped."""
    rng = np.random.default_rng(seed)
    level = float(np.std(mono))
    yield "as it is", mono
    yield "noisy", mono + np.float32(0.316 * level) * rng.standard_normal(mono.size, dtype=np.float32)
    yield "dull", sosfilt(butter(6, 3500, fs=SAMPLE_RATE_HZ, output="sos"), mono).astype(np.float32)
    two_thirds = mono.size * 2 // 3
    yield "another end", np.concatenate([mono[:two_thirds], mono[two_thirds - 1 : mono.size // 3 - 1 : -1]])
    yield "clipped", np.clip(mono, -1.2 * level, 1.2 * level)


def scale(takes: int) -> bool:
    """Time, memory and correctness at a tenth of the takes and at all of them."""
    per_take = []
    holds = True
    for count in (takes // 10, takes):
        answers: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
        process = multiprocessing.get_context("spawn").Process(target=_measure, args=(count, answers))
        process.start()
        wall, cpu, memory_gb, recalled, planted, together, day_cpu, recognised = answers.get()
        process.join()
        per_take.append(cpu / count)
        print(
            f"{count} takes: {wall:.0f} s, {cpu:.0f} CPU s, {1e3 * cpu / count:.2f} ms a take, {memory_gb:.2f} GB at most, "
            f"{recalled}/{planted} planted pairs grouped, {together - recalled} pairs grouped that were not planted"
        )
        print(f"  {NEW} of them new, against the others: {day_cpu:.0f} CPU s, {recognised} recognised as copies")
        holds &= cpu <= MAX_CPU_S and memory_gb <= MAX_MEMORY_GB
        holds &= recalled >= 0.9 * planted and together - recalled <= 0.01 * planted
    growth = per_take[1] / per_take[0]
    print(f"cost a take at {takes} over that at {takes // 10}: {growth:.2f}")
    return holds and growth <= MAX_GROWTH


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/dev")
    parser.add_argument("--takes", type=int, default=100_000)
    given = parser.parse_args()
    missed = []
    if (given.data / "labels.jsonl").is_file():
        missed += [] if accuracy(given.data) else ["accuracy"]
    else:
        print(f"no labelled audio at {given.data}: accuracy not measured")
    missed += [] if renders() else ["renders"]
    missed += [] if scale(given.takes) else ["scale"]
    print("floors missed: " + ", ".join(missed) if missed else "every floor holds")
    sys.exit(bool(missed))
