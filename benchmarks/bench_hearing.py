"""How well is it heard? Tempo, beats, tempo changes, sections, loops, key and vocals against labels.

    python benchmarks/bench_hearing.py [--set DIR] [--no-networks] [--predictions OUT.jsonl]

Every labelled file is heard as an analysis hears it, whole; `score.py` beside the set scores tempo, key and vocals. Named
baseline in the same run, on the same samples: librosa's `beat_track` (tempo and beats) at its defaults. Beats are judged where
the truth is known to the sample: renders at one exact tempo, whose first beat is their first sample; F-measure of mir_eval,
70 ms, at the best of the annotated, double and half level. Intervals are 95 % bootstrap over groups of files (excerpts of one
track, seeds of one prompt, settings of one tune). Exits with 1 where a floor of the issue is missed.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import mir_eval
import numpy as np
import scipy.stats
import soxr
from fit_tempo import DEV, group_of

from keeptake.audio.analyze import Part
from keeptake.audio.frontend import SAMPLE_RATE_HZ, mono_mix
from keeptake.custody.decode import decode
from keeptake.errors import AudioRefusedError
from keeptake.hearing import hear, load_networks
from keeptake.model_store import ModelStore

PARTS = ("rhythm", "tonal", "structure")
NETWORK_PARTS = ("vocals",)
FLOORS = {
    "acc2": 0.975,
    "acc1_no_ambiguous_octave": 0.85,
    "key_mirex": 0.95,
    "vocals_bal_acc": 0.82,
    "beats": 0.90,
}
MAX_MEDIAN_ERROR_PERCENT = 0.1
RESAMPLES = 2000

Label = dict[str, Any]
Heard = dict[str, dict[str, Part]]


def hear_set(folder: Path, labels: list[Label], *, with_networks: bool) -> Heard:
    """Parts of every file that decodes."""
    networks = load_networks(ModelStore(Path(tempfile.mkdtemp()))) if with_networks else None
    parts = PARTS + (NETWORK_PARTS if with_networks else ())
    heard = {}
    for label in labels:
        try:
            heard[label["file"]] = hear(folder / label["file"], parts=parts, networks=networks)[1]
        except AudioRefusedError as refusal:
            print(f"not heard: {label['file']}: {refusal.reason}")
    return heard


def predictions_of(heard: Heard) -> dict[str, dict[str, Any]]:
    """What `score.py` reads, a line a file."""
    return {
        file: {
            "file": file,
            "bpm": parts["rhythm"].values.get("tempo_bpm"),
            "key": parts["tonal"].values.get("key"),
            "vocals": parts["vocals"].values.get("has_vocals") if "vocals" in parts else None,
        }
        for file, parts in heard.items()
    }


def load_scorer(path: Path) -> Callable[..., dict[str, dict[str, float]]]:
    """Load `evaluate` of the set's own score.py."""
    spec = importlib.util.spec_from_file_location("labelled_audio_score", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"no scorer at {path}; give --set a folder that lies beside score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evaluate: Callable[..., dict[str, dict[str, float]]] = module.evaluate
    return evaluate


def interval(labels: list[Label], score: Callable[[list[Label]], float | None]) -> str:
    """95 % bootstrap interval of a score over groups of files."""
    groups: dict[str, list[Label]] = {}
    for label in labels:
        groups.setdefault(group_of(label), []).append(label)
    members = list(groups.values())
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        sample = [label for number in rng.integers(0, len(members), len(members)) for label in members[number]]
        if (value := score(sample)) is not None:
            drawn.append(value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{low:.3f} to {high:.3f}"


def score_section(labels: list[Label], heard: Heard, baseline: dict[str, float], evaluate: Callable[..., Any]) -> list[str]:
    """Tempo, key and vocals as `score.py` has them; names of the floors that were missed."""
    predictions = predictions_of(heard)
    scores = evaluate(labels, predictions)
    missed = []
    for subset, values in scores.items():
        print(f"[{subset}] " + "  ".join(f"{name}={value:.3f}" for name, value in values.items()))
    judged = ["acc1", "acc2", "acc1_no_ambiguous_octave", "key_mirex"]
    judged += ["vocals_bal_acc"] if scores["all"].get("vocals_answered") else []
    for name in judged:
        if name in scores["all"]:
            print(f"  {name:26} {interval(labels, lambda drawn, name=name: evaluate(drawn, predictions)['all'].get(name))}")
            if name in FLOORS and scores["all"][name] < FLOORS[name]:
                missed.append(name)
    plain = evaluate(labels, {file: {"file": file, "bpm": bpm} for file, bpm in baseline.items()})["all"]
    print(f"  librosa beat_track: acc1={plain['acc1']:.3f} acc2={plain['acc2']:.3f}")
    if scores["all"]["median_rel_err_when_acc1_pct"] > MAX_MEDIAN_ERROR_PERCENT:
        missed.append("median tempo error")
    return missed


def vocals_section(labels: list[Label], heard: Heard) -> None:
    """Area under the curve of `vocals_probability`."""
    pairs = [
        (bool(label["vocals"]), heard[label["file"]]["vocals"].values.get("vocals_probability"))
        for label in labels
        if label.get("vocals") is not None and label.get("vocals_kind") != "speech" and not label.get("duplicate_of")
        if label["file"] in heard and "vocals" in heard[label["file"]]
    ]
    sung = [value for has, value in pairs if has and value is not None]
    plain = [value for has, value in pairs if not has and value is not None]
    if sung and plain:
        area = scipy.stats.mannwhitneyu(sung, plain).statistic / (len(sung) * len(plain))
        print(f"vocals: AUC {area:.3f} ({len(sung)} sung, {len(plain)} not, {len(pairs) - len(sung) - len(plain)} null)")


def beat_truth(label: Label) -> list[np.ndarray]:
    """Beats of a render at the annotated, the double and both half levels."""
    period_s = 60 / label["bpm"]
    grids = ((0, period_s), (0, period_s / 2), (0, 2 * period_s), (period_s, 2 * period_s))
    return [np.arange(first_s, label["duration_s"], step_s) for first_s, step_s in grids]


def best_f_measure(label: Label, beats_s: np.ndarray) -> float:
    """F-measure at the best metrical level, the first five seconds left out as mir_eval advises."""
    estimate = mir_eval.beat.trim_beats(np.asarray(beats_s, float))
    return max(float(mir_eval.beat.f_measure(mir_eval.beat.trim_beats(truth), estimate)) for truth in beat_truth(label))


def beats_section(labels: list[Label], heard: Heard, baseline_beats: dict[str, np.ndarray]) -> list[str]:
    """Beats of the renders with one exact tempo, ours beside librosa's."""
    exact = [label for label in labels if label["file"] in baseline_beats]
    ours = {label["file"]: best_f_measure(label, heard[label["file"]]["rhythm"].values.get("beats_s", [])) for label in exact}
    theirs = [best_f_measure(label, baseline_beats[label["file"]]) for label in exact]
    mean = float(np.mean(list(ours.values())))
    spread = interval(exact, lambda drawn: float(np.mean([ours[label["file"]] for label in drawn])))
    print(f"beats: F {mean:.3f} ({spread}), librosa {np.mean(theirs):.3f}, {len(exact)} renders")
    print("  below 0.9: " + ", ".join(f"{Path(file).stem} {value:.2f}" for file, value in ours.items() if value < 0.9))
    return ["beats"] if mean < FLOORS["beats"] else []


def change_section(labels: list[Label], heard: Heard) -> list[str]:
    """Flags of tempo change: on files that change, and on files whose tempo is exact."""
    wrong = []
    counts = {True: 0, False: 0}
    for label in labels:
        if label["file"] not in heard or (not label.get("tempo_segments") and label.get("bpm_conf") != "exact"):
            continue
        has_change = bool(label.get("tempo_segments"))
        counts[has_change] += 1
        if bool(heard[label["file"]]["rhythm"].values.get("has_tempo_change")) != has_change:
            wrong.append(Path(label["file"]).stem)
    print(f"tempo changes: {len(wrong)} wrong of {counts[True]} that change and {counts[False]} steady ones {wrong or ''}")
    return ["tempo changes"] if wrong else []


def structure_section(labels: list[Label], heard: Heard) -> None:
    """Boundaries within 0.5 s and 3 s, pairwise labels, and loops."""
    for label in labels:
        if not label.get("sections"):
            continue
        sections = heard[label["file"]]["structure"].values["sections"]
        end_s = sections[-1]["end_s"]
        truth = np.array([[start_s, min(stop_s, end_s)] for start_s, stop_s, _ in label["sections"]])
        truth[-1, 1] = end_s
        estimate = np.array([[section["start_s"], section["end_s"]] for section in sections])
        narrow, wide = (mir_eval.segment.detection(truth, estimate, window=window, trim=True)[2] for window in (0.5, 3.0))
        names = [name for *_, name in label["sections"]]
        alike = mir_eval.segment.pairwise(truth, names, estimate, [section["label"] for section in sections])[2]
        print(f"sections: {Path(label['file']).stem}: F 0.5 s {narrow:.2f}, 3 s {wide:.2f}, pairwise {alike:.2f}")
    loops = [label for label in labels if label["file"] in heard and label["subset"] != "case" and not label.get("duplicate_of")]
    is_loop = {label["file"]: bool(heard[label["file"]]["structure"].values.get("is_loop")) for label in loops}
    made = [label["file"] for label in loops if label["origin"] == "loop"]
    found = [file for file in made if is_loop[file]]
    others = [Path(file).stem for file, flag in is_loop.items() if flag and file not in made]
    print(
        f"loops: {len(found)} of {len(made)} found; of {len(loops) - len(made)} other files {len(others)} flagged {others or ''}"
    )
    print("  not found: " + ", ".join(Path(file).stem for file in made if not is_loop[file]))


def librosa_baseline(folder: Path, labels: list[Label]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Tempo of every scored file and beats of the exact renders, by librosa's defaults on the same mono mix."""
    tempi, beats = {}, {}
    for label in labels:
        scored = label.get("bpm") and not label.get("duplicate_of") and not label.get("corrupt") and label.get("scored", True)
        if not scored:
            continue
        samples, rate_hz = decode(folder / label["file"])
        mono = soxr.resample(mono_mix(samples), rate_hz, SAMPLE_RATE_HZ)
        tempo, beats_s = librosa.beat.beat_track(y=mono, sr=SAMPLE_RATE_HZ, units="time")
        tempi[label["file"]] = float(np.atleast_1d(tempo)[0])
        if label["subset"] == "rendered" and label["bpm_conf"] == "exact":
            beats[label["file"]] = beats_s
    return tempi, beats


def main() -> None:
    """Hear the set, print the sections, exit with 1 where a floor is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, default=DEV, help="folder with labels.jsonl, beside score.py")
    parser.add_argument("--no-networks", action="store_true", help="leave vocals out")
    parser.add_argument("--predictions", type=Path, help="where to write the lines that score.py reads")
    options = parser.parse_args()
    labels = [json.loads(line) for line in (options.set / "labels.jsonl").read_text().splitlines()]
    heard = hear_set(options.set, labels, with_networks=not options.no_networks)
    if options.predictions:
        options.predictions.write_text("".join(json.dumps(line) + "\n" for line in predictions_of(heard).values()))
    tempi, beats = librosa_baseline(options.set, labels)
    missed = score_section(labels, heard, tempi, load_scorer(options.set.parent / "score.py"))
    vocals_section(labels, heard)
    missed += beats_section(labels, heard, beats)
    missed += change_section(labels, heard)
    structure_section(labels, heard)
    if missed:
        sys.exit(f"floors missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
