"""Are contradictions between prompt and sound found, and only those? For `curation/adherence.py`.

    python benchmarks/bench_adherence.py [--data ../shared/data/dev] [--heard CACHE.jsonl] [--rows 1000000]

Every labelled take is heard as an analysis hears it (about five CPU minutes; `--heard` keeps the result and reads it again), then
judged against its generation record. Baselines in the same run: the labels themselves as what was heard (what a perfect ear would
reach with these verdicts), and a plain comparison that does not know octaves. Then the cost of judging synthetic rows. Exits with
1 where a floor is missed.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.audio.analyze import features
from keeptake.curation.adherence import ASKED, CONTRADICTIONS, HEARD, asked, judge, terms_of
from keeptake.errors import AudioRefusedError
from keeptake.hearing import hear, load_networks
from keeptake.model_store import ModelStore

PARTS = ("rhythm", "tonal", "defects", "vocals", "style")
MISMATCH = {"tempo": "bpm", "vocals": "vocals", "key": "key"}
CONFIDENT = {"tempo": ("bpm", ("exact", "declared")), "key": ("key", ("exact", "declared")), "vocals": ("vocals", None)}
MIN_RECALL, MIN_PRECISION = 0.85, 0.8
MAX_US_A_ROW = 300.0


def heard_features(data: Path, files: list[str], cache: Path | None) -> dict[str, dict[str, Any]]:
    """Features of each file, heard now or read from an earlier run."""
    if cache is not None and cache.is_file():
        return {line["file"]: line["features"] for line in map(json.loads, cache.read_text().splitlines())}
    networks = load_networks(ModelStore(Path(tempfile.mkdtemp())))
    found = {}
    for file in files:
        try:
            found[file] = features(hear(data / file, parts=PARTS, networks=networks)[1])
        except AudioRefusedError as refusal:
            print(f"not heard: {file}: {refusal}")
    if cache is not None:
        cache.write_text("".join(json.dumps({"file": file, "features": row}) + "\n" for file, row in found.items()))
    return found


def table_of(records: list[dict[str, Any]], heard: dict[str, dict[str, Any]]) -> pl.DataFrame:
    """Requests and what was heard, a row a record."""
    rows = [
        asked(record["generationParams"], record["userPrompt"], record.get("aiEnhancedPrompt"))
        | {name: heard[record["audioUrl"]].get(name) for name in HEARD}
        | {"file": record["audioUrl"]}
        for record in records
    ]
    return pl.DataFrame(rows, schema={**ASKED, **HEARD, "file": pl.String()})


def as_labelled(label: dict[str, Any]) -> dict[str, Any]:
    """What a perfect ear hears."""
    vocals = {True: 1.0, False: 0.0}.get(label.get("vocals"))
    sure = {"tempo_confidence": 1.0, "key_confidence": 1.0, "duration_s": label["duration_s"]}
    return {"tempo_bpm": label.get("bpm"), "key": label.get("key"), "vocals_probability": vocals, **sure}


def report(name: str, flags: dict[str, set[str]], labels: dict[str, dict[str, Any]], judged_files: set[str]) -> bool:
    """Recall and precision of the flags, a term at a time; true where tempo and vocals hold their floors."""
    holds = True
    for term, (field, confidences) in CONFIDENT.items():
        known = {
            file
            for file in judged_files
            if labels[file].get(field) is not None
            and (confidences is None or labels[file].get(f"{field}_conf") in confidences)
            and labels[file].get("prompt_matches") is not None
        }
        true = {file for file in known if labels[file].get("mismatch_kind") == MISMATCH[term]}
        flagged = flags[term] & known
        hits = len(true & flagged)
        recall, precision = hits / max(1, len(true)), hits / max(1, len(flagged))
        print(f"{name:22} {term:7} recall {hits}/{len(true)} = {recall:.2f}, precision {hits}/{len(flagged)} = {precision:.2f}")
        if term != "key":
            holds &= recall >= MIN_RECALL and precision >= MIN_PRECISION
    return holds


def accuracy(data: Path, cache: Path | None) -> bool:
    """Contradictions found in the labelled takes."""
    labels = {label["file"]: label for label in map(json.loads, (data / "labels.jsonl").read_text().splitlines())}
    lines = (data / "generations.jsonl").read_text().splitlines()[: len(labels)]  # the odd and invalid records come after
    heard = heard_features(data, list(labels), cache)
    records = [record for record in map(json.loads, lines) if record["audioUrl"] in heard]
    records = [record for record in records if labels[record["audioUrl"]]["subset"] != "case"]
    files = {record["audioUrl"] for record in records}
    verdicts = judge(table_of(records, heard))
    perfect = judge(table_of(records, {file: as_labelled(labels[file]) for file in files}))
    for term in MISMATCH:
        shown = Counter(f"{row[f'{term}_verdict'] or row[f'{term}_reason']}" for row in verdicts.iter_rows(named=True))
        print(f"{term}: " + ", ".join(f"{verdict} {count}" for verdict, count in shown.most_common()))
    without_octaves = {
        row["file"]
        for row in verdicts.iter_rows(named=True)
        if row["asked_tempo_low_bpm"] and row["tempo_bpm"] and abs(row["tempo_bpm"] / row["asked_tempo_low_bpm"] - 1) > 0.04
    }
    report("labels as heard", _flags(perfect), labels, files)
    report("ignorant of octaves", {**_flags(verdicts), "tempo": without_octaves}, labels, files)
    holds = report("as heard", _flags(verdicts), labels, files)
    for row in verdicts.filter(pl.col("key_verdict").is_not_null()).iter_rows(named=True):
        label = labels[row["file"]]
        if label.get("mismatch_kind") == "key" or row["key_verdict"] == "wrong":
            print(
                f"key: {row['file']}: asked {row['asked_key']}, heard {row['key']} ({row['key_confidence']:.2f}), label "
                f"{label.get('key')} ({label.get('key_conf')}), prompt made to contradict: {label.get('mismatch_kind') == 'key'}"
            )
    return holds


def _flags(judged: pl.DataFrame) -> dict[str, set[str]]:
    return {term: set(judged.filter(pl.col(f"{term}_verdict").is_in(CONTRADICTIONS))["file"].to_list()) for term in MISMATCH}


def cost(rows: int) -> bool:
    """Microseconds a row: reading the request, judging the table, and telling its terms."""
    words = ("dark", "warm", "happy"), ("trap", "house", "jazz", "orchestral"), ("no vocals", "with a singer", "")
    began = time.process_time()
    requests = [
        asked(
            {"genre": words[1][i % 4], "mood": words[0][i % 3], "duration": 30, "model": f"m{i % 7}"},
            f"{words[0][i % 3]} {words[1][i % 4]} {60 + i % 120} bpm in {'ABCDEFG'[i % 7]} minor {words[2][i % 3]} take {i}",
        )
        for i in range(rows)
    ]
    read = time.process_time() - began
    heard = {
        "tempo_bpm": [60.0 + i % 97 for i in range(rows)],
        "tempo_confidence": [0.9] * rows,
        "key": ["A minor", "C major"] * (rows // 2),
        "key_confidence": [0.5] * rows,
        "vocals_probability": [(i % 10) / 10 for i in range(rows)],
        "duration_s": [30.0] * rows,
        "genre": ["jazz", "dance"] * (rows // 2),
        "mood": ["calm", None] * (rows // 2),
    }
    table = pl.DataFrame(requests, schema=ASKED).with_columns(**{name: pl.Series(name, values) for name, values in heard.items()})
    began = time.process_time()
    judged = judge(table)
    judging = time.process_time() - began
    began = time.process_time()
    terms = [terms_of(row) for row in judged.iter_rows(named=True)]
    telling = time.process_time() - began
    right = terms[0]["tempo"]["verdict"] == "exact" and terms[0]["vocals"]["verdict"] == "as-asked" and len(terms) == rows
    per_row = [1e6 * spent / rows for spent in (read, judging, telling)]
    shown = f"{per_row[0]:.0f} to read, {per_row[1]:.1f} to judge, {per_row[2]:.0f} to tell its terms"
    print(f"{rows} rows, in µs a row: {shown}; first row right: {right}")
    return right and sum(per_row) <= MAX_US_A_ROW


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared/data/dev")
    parser.add_argument("--heard", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    missed = [] if cost(given.rows) else ["cost"]
    if (given.data / "labels.jsonl").is_file():
        missed += [] if accuracy(given.data, given.heard) else ["accuracy"]
    else:
        print(f"no labelled audio at {given.data}: accuracy not measured")
    print("floors missed: " + ", ".join(missed) if missed else "every floor holds")
    sys.exit(bool(missed))
