"""Fit the three weights of `keeptake.audio.vocals` to labelled voices, and say how much to believe them.

    python benchmarks/fit_vocals.py [--set DIR]

Logistic regression of two witnesses with balanced classes and a quadratic penalty of 1 on the standardised weights (the default
of most packages, not searched). Cross-validation in five folds, ten times, leaves out groups: excerpts of one track and seeds of
one prompt stay together. Prints the weights to copy, and the mean and deviation of balanced accuracy and of the area under the
curve for both witnesses and for each alone.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from fit_tempo import DEV, group_of

from keeptake.audio.analyze import Networks
from keeptake.audio.frontend import NETWORK_RATE_HZ
from keeptake.audio.vocals import TAG_PERCENTILE, speech_evidence, tag_log_ratio
from keeptake.embedding.files import mono_of_file
from keeptake.hearing import load_networks
from keeptake.model_store import ModelStore

PENALTY = 1.0
FOLDS, REPEATS = 5, 10


def labelled_voices(folder: Path) -> list[dict[str, Any]]:
    """Lines of the set that `score.py` scores for vocals."""
    lines = [json.loads(line) for line in (folder / "labels.jsonl").read_text().splitlines()]
    return [
        line
        for line in lines
        if line.get("vocals") is not None and line.get("vocals_kind") != "speech" and line.get("scored", True)
        if not line.get("corrupt") and not line.get("duplicate_of")
    ]


def evidence_of(path: Path, networks: Networks) -> tuple[float, float]:
    """What both witnesses say about one file."""
    mono = mono_of_file(path, NETWORK_RATE_HZ)
    tags = networks.musicnn([mono])[0]
    ratio = tag_log_ratio(tags.tags_probability, networks.musicnn.tags)
    return float(np.percentile(ratio, TAG_PERCENTILE)), speech_evidence(networks.speech(mono).probability)


def fitted(evidence: np.ndarray, is_vocal: np.ndarray) -> np.ndarray:
    """Weights of a logistic model, the bias last, for evidence of shape (files, witnesses)."""
    centre, scale = evidence.mean(axis=0), evidence.std(axis=0)
    standard = (evidence - centre) / scale
    balance = np.where(is_vocal, 0.5 / is_vocal.sum(), 0.5 / (~is_vocal).sum()) * is_vocal.size
    sign = np.where(is_vocal, 1, -1)

    def loss(weights: np.ndarray) -> float:
        odds = standard @ weights[:-1] + weights[-1]
        return float((balance * np.logaddexp(0, -sign * odds)).sum() + PENALTY / 2 * (weights[:-1] ** 2).sum())

    found = scipy.optimize.minimize(loss, np.zeros(evidence.shape[1] + 1)).x
    weights = found[:-1] / scale
    return np.append(weights, found[-1] - weights @ centre)


def cross_validated(evidence: np.ndarray, is_vocal: np.ndarray, groups: list[str], seed: int) -> tuple[float, float]:
    """Balanced accuracy and area under the curve of files that the weights have not seen; groups go to folds by class."""
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    for vocal in (True, False):
        names = sorted({group for group, truth in zip(groups, is_vocal, strict=True) if truth == vocal and group not in fold_of})
        for number, at in enumerate(rng.permutation(len(names))):
            fold_of[names[at]] = number % FOLDS
    folds = np.array([fold_of[group] for group in groups])
    odds = np.zeros(is_vocal.size)
    for fold in range(FOLDS):
        weights = fitted(evidence[folds != fold], is_vocal[folds != fold])
        odds[folds == fold] = evidence[folds == fold] @ weights[:-1] + weights[-1]
    area = scipy.stats.mannwhitneyu(odds[is_vocal], odds[~is_vocal]).statistic / (is_vocal.sum() * (~is_vocal).sum())
    return float((np.mean(odds[is_vocal] > 0) + np.mean(odds[~is_vocal] <= 0)) / 2), float(area)


def main() -> None:
    """Gather, fit, validate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, default=DEV, help="folder with labels.jsonl")
    folder = parser.parse_args().set
    labels = labelled_voices(folder)
    with tempfile.TemporaryDirectory() as models:
        networks = load_networks(ModelStore(Path(models)))
        evidence = np.array([evidence_of(folder / label["file"], networks) for label in labels])
    report(evidence, np.array([bool(label["vocals"]) for label in labels]), [group_of(label) for label in labels])


def report(evidence: np.ndarray, is_vocal: np.ndarray, groups: list[str]) -> None:
    """Print the validation of each choice of witnesses, and the weights of both."""
    print(f"{is_vocal.sum()} vocal and {(~is_vocal).sum()} instrumental files in {len(set(groups))} groups")
    for name, columns in (("tags and speech", [0, 1]), ("tags", [0]), ("speech", [1])):
        scores = np.array([cross_validated(evidence[:, columns], is_vocal, groups, seed) for seed in range(REPEATS)])
        (accuracy, area), (spread, area_spread) = scores.mean(axis=0), scores.std(axis=0)
        print(f"{name:16s} balanced accuracy {accuracy:.3f} ± {spread:.3f}, area under the curve {area:.3f} ± {area_spread:.3f}")
    tag_weight, speech_weight, bias = fitted(evidence, is_vocal)
    print(f"TAG_WEIGHT, SPEECH_WEIGHT, BIAS = {tag_weight:.2f}, {speech_weight:.2f}, {bias:.2f}")


if __name__ == "__main__":
    main()
