"""Which key profiles, and how to sum chroma: published choices side by side on labelled keys and on synthetic cadences.

    python benchmarks/compare_keys.py [--set DIR]

MIREX score (mir_eval's weights) of every profile with plain and with compressed sums of the same chroma, its 95 % bootstrap
interval over groups of files, and librosa's `chroma_cqt` with Krumhansl's profiles as the baseline. What `keeptake.audio.tonal`
uses is marked. Exits with 1 where its score is under 0.95.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import librosa
import mir_eval
import numpy as np
import soxr
from fit_tempo import DEV, group_of

from keeptake.audio import tonal
from keeptake.audio.frontend import SAMPLE_RATE_HZ, listen, mono_mix
from keeptake.custody.decode import decode

LEAST = 0.95
RESAMPLES = 2000
PROFILES = {
    "bgate (Faraldo 2017)": tonal.PROFILES,
    "edma (Faraldo 2016)": np.array(
        [
            [1.0, 0.2875, 0.5020, 0.4048, 0.6050, 0.5614, 0.3205, 0.7966, 0.3159, 0.4506, 0.4202, 0.3889],
            [1.0, 0.3096, 0.4415, 0.5827, 0.3262, 0.4948, 0.2889, 0.7804, 0.4328, 0.2903, 0.5331, 0.3217],
        ]
    ),
    "Krumhansl-Kessler 1982": np.array(
        [
            [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
            [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
        ]
    ),
    "Temperley 1999": np.array(
        [
            [5.0, 2.0, 3.5, 2.0, 4.5, 4.0, 2.0, 4.5, 2.0, 3.5, 1.5, 4.0],
            [5.0, 2.0, 3.5, 4.5, 2.0, 4.0, 2.0, 4.5, 3.5, 2.0, 1.5, 4.0],
        ]
    ),
    "Albrecht-Shanahan 2013": np.array(
        [
            [0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081],
            [0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052],
        ]
    ),
}
SUMS = {
    "plain": lambda frames: frames.sum(axis=0),
    "compressed": lambda frames: np.log1p(tonal.COMPRESSION * frames / frames.max()).sum(axis=0),
}


def labelled_keys(folder: Path) -> list[dict[str, Any]]:
    """Lines of the set that `score.py` scores for key."""
    lines = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    return [
        line
        for line in lines
        if line.get("key") and line.get("key_conf") in ("exact", "declared") and line.get("scored", True)
        if not line.get("corrupt") and not line.get("duplicate_of")
    ]


def score(truth: str, guess: str) -> float:
    """MIREX weight of a guess."""
    return float(mir_eval.key.weighted_score(truth, guess))


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, default=DEV, help="folder with labels.jsonl")
    folder = parser.parse_args().set
    labels = labelled_keys(folder)
    groups = np.array([group_of(label) for label in labels])
    scores: dict[str, list[float]] = {}
    for label in labels:
        samples, rate_hz = decode(folder / label["file"])
        mono = soxr.resample(mono_mix(samples), rate_hz, SAMPLE_RATE_HZ)
        peaks = tonal.spectral_peaks(listen(mono).long)
        frames = tonal.with_harmonics(tonal.chromagram(peaks, tuning_cents=tonal.tuning(peaks)[0]))
        guesses = {
            f"{profile}, {how} sum": tonal.find_key(total(frames), templates=tonal.templates(values)).name
            for profile, values in PROFILES.items()
            for how, total in SUMS.items()
        }
        cqt = librosa.feature.chroma_cqt(y=mono, sr=SAMPLE_RATE_HZ).mean(axis=1)
        krumhansl = tonal.templates(PROFILES["Krumhansl-Kessler 1982"])
        guesses["librosa chroma_cqt, Krumhansl-Kessler"] = tonal.find_key(cqt, templates=krumhansl).name
        for name, guess in guesses.items():
            scores.setdefault(name, []).append(score(label["key"], guess))
    print(f"{len(labels)} files in {len(set(groups))} groups")
    for name, values in scores.items():
        low, high = interval(np.array(values), groups)
        used = "  <- used" if name == "bgate (Faraldo 2017), compressed sum" else ""
        print(f"{name:44s}{np.mean(values):.3f}  [{low:.3f}, {high:.3f}]{used}")
    return 0 if np.mean(scores["bgate (Faraldo 2017), compressed sum"]) >= LEAST else 1


def interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, drawing groups."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    means = [
        values[np.concatenate([members[number] for number in rng.integers(len(members), size=len(members))])].mean()
        for _ in range(RESAMPLES)
    ]
    return float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))


if __name__ == "__main__":
    sys.exit(main())
