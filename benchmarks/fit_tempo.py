"""Fit the weights of `keeptake.audio.tempo` to labelled tempi, and say how much to believe them.

    python benchmarks/fit_tempo.py [--set DIR]

Multinomial logistic regression over the tempo grid: the probability mass within 4 % of the annotation is raised. Where the set
calls the octave ambiguous, half and double count as the annotation. A quadratic penalty on the standardised weights draws them to
`START`; its strength is the one free choice (1 to 10 rank alike). Cross-validation leaves out groups: excerpts of one track,
seeds of one prompt and settings of one tune stay together. Prints the weights to copy, and the mean and range of five
cross-validations.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import soxr

from keeptake.audio import onsets, tempo
from keeptake.audio.frontend import SAMPLE_RATE_HZ, SHORT_HOP, listen, mono_mix
from keeptake.custody.decode import decode

DEV = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "dev"
START = np.array([4.0, 1.0, 1.0, 4.0, 0.0, 0.0])
PENALTY = 3.0
FOLDS, REPEATS = 5, 5
FRAME_RATE_HZ = SAMPLE_RATE_HZ / SHORT_HOP


def labelled_tempi(folder: Path) -> list[dict[str, Any]]:
    """Lines of the set that `score.py` scores for tempo."""
    lines = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    return [
        line
        for line in lines
        if line.get("bpm") and line.get("bpm_conf") in ("exact", "declared") and line.get("scored", True)
        if not line.get("corrupt") and not line.get("duplicate_of")
    ]


def evidence_of(path: Path) -> np.ndarray:
    """The grid's evidence for one file, as an analysis sees it."""
    samples, rate_hz = decode(path)
    mono = soxr.resample(mono_mix(samples), rate_hz, SAMPLE_RATE_HZ)
    envelope = onsets.onset_envelope(listen(mono).mel)
    onset_rate_hz = onsets.onset_times(envelope, frame_rate_hz=FRAME_RATE_HZ).size / (mono.size / SAMPLE_RATE_HZ)
    rhythmic = tempo.detrended(envelope, FRAME_RATE_HZ)
    return tempo.tempo_evidence(rhythmic, frame_rate_hz=FRAME_RATE_HZ, onset_rate_hz=onset_rate_hz)[0]


def right_tempi(label: dict[str, Any]) -> np.ndarray:
    """Which tempi of the grid count as the annotation."""
    factors = (0.5, 1, 2) if label.get("bpm_octave_ambiguous") else (1,)
    near = [np.abs(tempo.TEMPI_BPM / (label["bpm"] * factor) - 1) <= tempo.TOLERANCE for factor in factors]
    return np.any(near, axis=0)


def group_of(label: dict[str, Any]) -> str:
    """What must not be on both sides of a fold."""
    name = Path(label["file"]).stem
    return label.get("track_group") or label.get("prompt_group") or "_".join(name.split("_")[: 2 if "abc" in name else 3])


def fit(evidence: list[np.ndarray], right: list[np.ndarray]) -> np.ndarray:
    """Weights of the evidence."""
    scale = np.concatenate(evidence).std(axis=0)
    start = START * scale

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value = PENALTY / 2 * float(np.sum((weights - start) ** 2))
        slope = PENALTY * (weights - start)
        for given, mask in zip(evidence, right, strict=True):
            logits = (given / scale) @ weights
            odds = np.exp(logits - logits.max())
            probability = odds / odds.sum()
            mass = float(probability[mask].sum()) + 1e-12
            value -= np.log(mass)
            slope = slope + (given / scale).T @ (probability - np.where(mask, probability / mass, 0))
        return value, slope

    return scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x / scale


def chosen_tempo(evidence: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The likeliest tempo and the probabilities."""
    logits = evidence @ weights
    odds = np.exp(logits - logits.max())
    return tempo.tempo_candidates(odds / odds.sum())[0][0], odds / odds.sum()


def cross_validate(labels: list[dict[str, Any]], evidence: list[np.ndarray], right: list[np.ndarray]) -> None:
    """Print accuracies of tempi that the weights were not fitted to."""
    names = sorted({group_of(label) for label in labels})
    group = np.array([names.index(group_of(label)) for label in labels])
    rows = []
    for seed in range(REPEATS):
        fold = (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[group]
        hits, octave_hits, clear_hits, gain = [], [], [], []
        for left_out in range(FOLDS):
            kept = np.flatnonzero(fold != left_out)
            weights = fit([evidence[i] for i in kept], [right[i] for i in kept])
            for i in np.flatnonzero(fold == left_out):
                bpm, probability = chosen_tempo(evidence[i], weights)
                ratios = np.array([1, 2, 3, 0.5, 1 / 3]) * labels[i]["bpm"]
                near = np.abs(bpm / ratios - 1) <= tempo.TOLERANCE
                hits.append(near[0])
                octave_hits.append(near.any())
                if not labels[i].get("bpm_octave_ambiguous"):
                    clear_hits.append(near[0])
                gain.append(np.log(probability[right[i]].sum() + 1e-12))
        rows.append([np.mean(hits), np.mean(octave_hits), np.mean(clear_hits), np.mean(gain)])
    table = np.array(rows)
    for name, column in zip(("Accuracy1", "Accuracy2", "Accuracy1, clear octave", "log likelihood"), table.T, strict=True):
        print(f"{name:26} {column.mean():.3f}  ({column.min():.3f} to {column.max():.3f} over {REPEATS} cross-validations)")


def main() -> None:
    """Fit, print, cross-validate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, default=DEV, help="folder with labels.jsonl")
    folder = parser.parse_args().set
    labels = labelled_tempi(folder)
    evidence = [evidence_of(folder / label["file"]) for label in labels]
    right = [right_tempi(label) for label in labels]
    print(f"{len(labels)} files, {len({group_of(label) for label in labels})} groups")
    print("WEIGHTS:", dict(zip(tempo.EVIDENCE, fit(evidence, right).round(2).tolist(), strict=True)))
    cross_validate(labels, evidence, right)


if __name__ == "__main__":
    main()
