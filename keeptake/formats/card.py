"""The dataset's card: `README.md` with front matter that makes `load_dataset(FOLDER)` work, numbers, pictures, ways in.

Conventions: everything on the card comes from the version's own rows and lineage, so that a rebuild writes the same bytes; no
date, no machine. Belongs here: the card and which pictures stand on it. Does not: drawing them (`figures.py`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats import ace_step, audiofolder, figures, hf_parquet, stable_audio, webdataset
from keeptake.formats.shares import asked_shares, split_shares
from keeptake.formats.sidecars import SPLITS

CARD_VERSION = "4"  # 4: shares beside those asked for; pictures say what they count and what they leave out
FIGURES = "figures"
_COLUMNS = (
    # In metadata.jsonl and the tars, in Parquet, and what it says.
    ("file_name", "", "the clip beside `metadata.jsonl`; not in the tars"),
    ("", "audio", "the clip itself, as FLAC"),
    ("", "id", "name of the clip's files"),
    (
        "text",
        "text",
        "what a trainer reads, by the policy: the prompt without what the clip contradicts, what was heard, or both",
    ),
    (
        "prompt",
        "prompt",
        "the enhanced prompt, else the user's; e-mail addresses, telephone numbers and URLs with names taken out",
    ),
    ("caption", "caption", "made from heard facts alone: mood, genre, instruments, tempo, key, voice"),
    ("bpm", "tempo_bpm", "tempo of the clip in beats per minute, as heard"),
    ("key", "key", "of the take, such as A minor, as heard"),
    ("genre", "genre", "of the take, as heard; what was asked for where none was heard with certainty"),
    ("mood", "mood", "of the take, as heard"),
    ("vocals", "has_vocals", "whether a voice is heard in the clip: `yes`, `no` or `unknown`; in Parquet true, false or null"),
    ("", "loudness_lufs", "integrated loudness of the clip's file in LUFS (ITU-R BS.1770); null under 0.4 s"),
    ("duration", "duration_s", "length of the clip in seconds"),
    ("quality_score", "quality_score", "of the take, in [0, 1], by the policy's formula"),
    ("", "adherence", "how far the take follows its prompt, in [0, 1]; null where nothing could be judged"),
    ("", "liked", "whether people liked the take (true) or disliked it (false); null: nobody said"),
    ("", "rating", "stars that people gave the take, 1 to 5; null: none"),
    ("", "used", "whether people used the take; null: nobody said"),
    ("provider", "provider", "who made the take"),
    ("", "model_used", "with which model, as the provider says"),
    ("licence", "licence", "under what the provider's takes may be used, as the data team has read its terms"),
    ("", "user", "a keyed pseudonym of who asked for the take"),
    ("generation_id", "generation_id", "the take, as the ledger names it: `keeptake explain` tells its story"),
    ("parent", "parent", "the take, as its clips are named"),
    ("", "start_s", "where the clip begins in the take, in seconds"),
    ("", "group_id", "component of duplicates, sibling prompts and clips of one take: never in two splits"),
)


def write(folder: Path, rows: pl.DataFrame, lineage: Mapping[str, Any]) -> None:
    """Write the card and its pictures."""
    (folder / FIGURES).mkdir(exist_ok=True)
    drawn = pictures(rows, lineage)
    for name, picture in drawn.items():
        (folder / FIGURES / f"{name}.png").write_bytes(picture)
    parts = [
        _front_matter(folder, rows, lineage),
        _title(rows, lineage),
        _counts(rows, lineage),
        *(f"![{name.replace('_', ' ')}]({FIGURES}/{name}.png)" for name in drawn),
        _left_out(lineage),
        _ways_in(folder, lineage),
        _columns(),
        _licences(rows),
        _made_by(lineage),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")


def pictures(rows: pl.DataFrame, lineage: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw a version: the same pictures stand on the card and on the asset in the UI."""
    takes = rows.unique("parent", keep="first", maintain_order=True)
    threshold = lineage["policy"]["select"]["min_score"]
    drawn = {
        "splits": figures.split_bar(split_counts(rows), asked_shares(lineage["policy"]["splits"])),
        "scores": figures.score_bars(
            lineage["score_histogram"], threshold=threshold, kept=figures.binned(takes["quality_score"].to_list())
        ),
        "genre_by_tempo": figures.genre_by_tempo(rows["genre"].to_list(), rows["tempo_bpm"].to_list()),
        "keys": figures.key_wheel(takes["key"].to_list()),
        "durations": figures.duration_histogram(rows["duration_s"].to_list()),
        "providers": figures.provider_bars(takes["provider"].to_list()),
    }
    if takes["adherence"].is_not_null().any():
        drawn["adherence"] = figures.adherence_histogram(takes["adherence"].to_list())
    if lineage["left_out"]:
        drawn["left_out"] = figures.left_out_bars(lineage["left_out"])
    return drawn


def split_counts(rows: pl.DataFrame) -> dict[str, int]:
    """Rows of each split."""
    return {split: rows.filter(pl.col("split") == split).height for split in SPLITS}


def _front_matter(folder: Path, rows: pl.DataFrame, lineage: Mapping[str, Any]) -> str:
    present = [split for split, count in split_counts(rows).items() if count]
    lines = ["---", f"pretty_name: {json.dumps(lineage['name'])}", "license: other", "task_categories: [text-to-audio]"]
    lines += [f"size_categories: [{_size(rows.height)}]", "configs:", "- config_name: default", "  drop_labels: true"]
    lines += ["  data_files:"]
    for files in audiofolder.data_files(present):
        lines += [f"  - split: {files['split']}", "    path:", *(f'    - "{path}"' for path in files["path"])]
    return "\n".join([*lines, "---"])


def _size(count: int) -> str:
    """The Hub's category of a number of rows."""
    for most, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if count < most:
            return name
    return "1M<n<10M"


def _title(rows: pl.DataFrame, lineage: Mapping[str, Any]) -> str:
    takes, hours = rows["parent"].n_unique(), rows["duration_s"].sum() / 3600
    length = f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"
    ready, wanted = lineage["counts"]["kept"], lineage["policy"]["readiness"]["takes"]
    readiness = (
        f"Ready for a first fine-tuning: {ready:,} takes, {wanted:,} are wanted."
        if ready >= wanted
        else f"Not yet ready for a first fine-tuning: {ready:,} of {wanted:,} takes ({ready / max(wanted, 1):.1%})."
    )
    described = lineage["policy"]["description"]
    said = f"{described}\n\n" if described else ""
    return (
        f"# {lineage['name']} {lineage['version']}\n\n{said}**{rows.height:,} clips of {takes:,} takes, {length}.** {readiness}"
    )


def _counts(rows: pl.DataFrame, lineage: Mapping[str, Any]) -> str:
    lines = ["| split | clips | takes | minutes | share of clips | of minutes | asked |", "|---|--:|--:|--:|--:|--:|--:|"]
    for split, clips, takes, minutes, *shares in (
        split_shares(rows, lineage["policy"]["splits"])
        .select("split", "clips", "takes", "minutes", "of_clips", "of_minutes", "asked")
        .iter_rows()
    ):
        cells = (split, f"{clips:,}", f"{takes:,}", f"{minutes:,.1f}", *(f"{share:.0%}" for share in shares))
        lines.append(f"| {' | '.join(cells)} |")
    lines[-1] += "\n\nShares are asked for of groups, which are never cut: clips and minutes come as near as these allow."
    empty = [split for split, count in split_counts(rows).items() if not count]
    note = (
        f"\n\nNothing fell into {' and '.join(empty)}: those folders do not exist, as readers refuse empty ones." if empty else ""
    )
    return "\n".join(lines) + note


def _left_out(lineage: Mapping[str, Any]) -> str:
    counts = lineage["counts"]
    lines = [f"## What was left out\n\nOf {counts['candidates']:,} takes {counts['kept']:,} are in. The others failed, first:\n"]
    lines += ["| rule | takes |", "|---|--:|", *(f"| {reason} | {count:,} |" for reason, count in lineage["left_out"].items())]
    return "\n".join(lines)


def _ways_in(folder: Path, lineage: Mapping[str, Any]) -> str:
    name = lineage["name"]
    code = [
        "import datasets, keeptake.datasets",
        'clips = datasets.load_dataset("PATH")                                # Hugging Face, musicgen-dreamboothing',
        'clips = datasets.load_dataset("audiofolder", data_dir="PATH")        # the same, by its builder',
        f'clips = keeptake.datasets.load("{name}", split="train", kind="torch")  # (waveform, text) for torch',
    ]
    if (folder / hf_parquet.FOLDER).is_dir():
        code.append('clips = datasets.load_dataset("parquet", data_dir="PATH/parquet")   # audio embedded, the columns below')
    if (folder / webdataset.FOLDER).is_dir():
        code.append('import webdataset; clips = webdataset.WebDataset("PATH/wds/train-000000.tar", shardshuffle=False)')
    lines = ["## Ways in", "`PATH` is this folder.", "```python\n" + "\n".join(code) + "\n```"]
    lines += [
        "AudioCraft: `datasource.train=PATH/train`, `valid=PATH/valid` and so on. Its manifests hold absolute paths; for a copy"
    ]
    lines[-1] += " elsewhere, `python -m keeptake.formats.relocate PATH OUT` writes all files anew that hold paths."
    audio = "the masters" if lineage["policy"]["audio"]["has_master"] else "the clips"
    if (folder / stable_audio.CONFIG).is_file():
        lines.append(f"stable-audio-tools: `--dataset-config PATH/{stable_audio.CONFIG}`, which names {audio}.")
    if (folder / ace_step.FOLDER).is_dir():
        lines.append(f"ACE-Step: `PATH/{ace_step.FOLDER}/train.json`, which names {audio}.")
    return "\n\n".join(lines)


def _columns() -> str:
    lines = ["## Columns\n", "| `metadata.jsonl` | Parquet | meaning |", "|---|---|---|"]
    lines += [f"| {name} | {in_parquet} | {said} |" for name, in_parquet, said in _COLUMNS]
    return (
        "\n".join(lines)
        + """

What is not known is `""` or `0.0` in `metadata.jsonl` and the tars, and null in Parquet. The tars' JSON has the columns of
`metadata.jsonl`, but `prompt` and `text` are both its `text`, `user_prompt` is its `prompt`, `tag` lists genre, mood and
instruments, and `original_data` holds provider, license, generation_id and parent. Rows with all that is known, such as the
loudness of the whole take, stand in `lineage/rows.parquet`."""
    )


def _licences(rows: pl.DataFrame) -> str:
    counted = rows.unique("parent").group_by("provider", "licence").len().sort("provider", "licence")
    lines = ["## Licences\n", "| provider | licence, as the data team has read it | takes |", "|---|---|--:|"]
    lines += [
        f"| {cell_text(provider)} | {cell_text(licence or 'not stated in the policy')} | {count:,} |"
        for provider, licence, count in counted.iter_rows()
    ]
    return "\n".join(lines)


def cell_text(text: str) -> str:
    """A text that neither ends its cell of a table nor its row."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _made_by(lineage: Mapping[str, Any]) -> str:
    select = lineage["policy"]["select"]
    lines = [
        "## How it was made\n",
        f"Scores by `{select['formula']}`, at least {select['min_score']:g}.",
        f"Analyses: {', '.join(lineage['features_versions'])}.",
        f"Formats: {', '.join(f'{name} {version}' for name, version in lineage['formats'].items())}.",
        "Splits belong to groups (duplicates, sibling prompts, clips of one take) and never change; a take that was in test once",
        "is never in train. The whole policy and the rows stand in `lineage/`, the SHA-256 of every file in `MANIFEST.json`.",
    ]
    if scrubbed := lineage["scrubbed"]:
        taken = ", ".join(f"{count:,} of kind {kind}" for kind, count in scrubbed.items())
        lines.append(f"Personal data taken out of texts: {taken}.")
    if contradicted := lineage.get("contradicted_prompts"):  # versions before did not tell
        lines.append(
            f"Clips whose `text` lacks what their prompt says of tempo, key or voice and they contradict: {contradicted:,}."
        )
    return "\n".join(lines)
