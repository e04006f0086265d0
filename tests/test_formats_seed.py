"""The seed exports against Python's own JSON and CSV, character by character."""

import csv
import io
import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeptake.formats.seed import CSV_COLUMNS, ROWS, write_csv, write_jsonl, write_parquet

GIVEN: dict[str, Any] = {
    "generation_id": "gen_xyz",
    "user_prompt": "dark trap beat",
    "ai_enhanced_prompt": "dark, trap - dark trap beat",
    "audio_url": "https://...",
    "duration_s": 30.0,
    "genre": "trap",
    "bpm": "140",
    "provider": "suno",
    "model_used": "sonic-v5",
    "generation_params": '{"bpm": 140, "genre": "trap"}',
    "liked": True,
    "rating": 5,
    "used": True,
    "created_at": "2026-01-01T00:00:00Z",
    "tempo_bpm": 139.97,
    "key": None,
    "has_vocals": False,
    "loudness_lufs": -14.0,
    "quality_score": 0.75,
}


def rows_of(*changes: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**GIVEN, **change} for change in changes], schema=ROWS)


def jsonl(rows: pl.DataFrame, tmp_path: Any) -> str:
    write_jsonl(rows, tmp_path / "x.jsonl")
    return (tmp_path / "x.jsonl").read_text("utf-8")


def test_line_is_as_the_contract_shows_it(tmp_path):
    assert jsonl(rows_of({}), tmp_path) == (
        '{"prompt": "dark, trap - dark trap beat", "audio_url": "https://...", "duration": 30, '
        '"metadata": {"generation_id": "gen_xyz", "provider": "suno", "model_used": "sonic-v5", '
        '"generation_params": {"bpm": 140, "genre": "trap"}, "liked": true, "rating": 5, '
        '"used": true, "created_at": "2026-01-01T00:00:00Z", '
        '"heard": {"tempo_bpm": 139.97, "key": null, "has_vocals": false, '
        '"loudness_lufs": -14}}, "quality_score": 0.75}\n'
    )


def test_csv_is_as_the_contract_shows_it(tmp_path):
    write_csv(rows_of({}), tmp_path / "x.csv")

    assert (tmp_path / "x.csv").read_text() == (
        "generationId,userPrompt,aiEnhancedPrompt,audioUrl,duration,genre,bpm,rating,used\n"
        'gen_xyz,dark trap beat,"dark, trap - dark trap beat",https://...,30,trap,140,5,true\n'
    )


def test_absent_values(tmp_path):
    nothing = dict.fromkeys(name for name in ROWS if name not in ("generation_id", "user_prompt"))
    (line,) = jsonl(rows_of(nothing), tmp_path).splitlines()
    shown = json.loads(line)

    assert shown["prompt"] == "dark trap beat"
    assert shown["metadata"]["generation_params"] == {}
    assert [shown["duration"], shown["quality_score"], shown["metadata"]["heard"]["key"]] == [None] * 3
    write_csv(rows_of(nothing), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().splitlines()[1] == "gen_xyz,dark trap beat,,,,,,,"


@pytest.mark.parametrize(
    ("duration_s", "printed"), [(30.0, "30"), (29.179, "29.179"), (9999.0, "9999"), (0.1, "0.1"), (1e6, "1000000"), (-0.0, "-0")]
)
def test_numbers_print_as_given(tmp_path, duration_s, printed):
    assert f'"duration": {printed}, ' in jsonl(rows_of({"duration_s": duration_s}), tmp_path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_no_line_holds_what_json_cannot(tmp_path, number):
    assert json.loads(jsonl(rows_of({"loudness_lufs": number}), tmp_path))["metadata"]["heard"]["loudness_lufs"] is None


def test_no_rows_is_a_file(tmp_path):
    assert jsonl(rows_of(), tmp_path) == ""
    write_csv(rows_of(), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == ",".join(CSV_COLUMNS) + "\n"


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    prompt=texts,
    number=st.floats(-1e17, 1e17).filter(lambda x: x == 0 or abs(x) > 1e-300),
    params=st.dictionaries(texts, texts | st.integers(0, 9)),
)
def test_every_line_is_read_back_as_it_was(tmp_path_factory, prompt, number, params):
    """Nothing in a prompt, a quote or a line separator among it, breaks a line or becomes another character."""
    folder = tmp_path_factory.mktemp("x")
    change = {"ai_enhanced_prompt": prompt, "tempo_bpm": number, "generation_params": json.dumps(params, ensure_ascii=False)}
    text = jsonl(rows_of(change), folder)

    assert text.count("\n") == 1
    shown = json.loads(text)
    assert shown["prompt"] == prompt
    assert shown["metadata"]["heard"]["tempo_bpm"] == number
    assert shown["metadata"]["generation_params"] == params


@settings(max_examples=150, deadline=None)
@given(prompt=texts.filter(bool))
def test_every_cell_is_read_back_as_it_was(tmp_path_factory, prompt):
    folder = tmp_path_factory.mktemp("x")
    write_csv(rows_of({"user_prompt": prompt}), folder / "x.csv", is_excel_safe=False)
    header, row = csv.reader(io.StringIO((folder / "x.csv").read_bytes().decode(), newline=""))

    assert tuple(header) == CSV_COLUMNS
    assert row[1] == prompt


@pytest.mark.parametrize("prompt", ['=HYPERLINK("http://x","y")', "+1", "-1", "@x", "\tx", "\rx"])
def test_cells_that_a_spreadsheet_would_run_are_quoted(tmp_path, prompt):
    write_csv(rows_of({"user_prompt": prompt, "duration_s": 30.5}), tmp_path / "x.csv")
    _, row = csv.reader(io.StringIO((tmp_path / "x.csv").read_bytes().decode(), newline=""))

    assert row[1] == f"'{prompt}"
    assert row[4] == "30.5"


def test_parquet_has_types_and_no_statistics_and_the_same_bytes(tmp_path):
    import pyarrow.parquet

    write_parquet(rows_of({}, {"key": "A minor"}), tmp_path / "a.parquet")
    write_parquet(rows_of({}, {"key": "A minor"}), tmp_path / "b.parquet")

    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    read = pl.read_parquet(tmp_path / "a.parquet")
    assert read["prompt"].to_list() == ["dark, trap - dark trap beat"] * 2
    assert (read.schema["rating"], read.schema["duration_s"], read.schema["used"]) == (pl.Int16, pl.Float64, pl.Boolean)
    footer = pyarrow.parquet.read_metadata(tmp_path / "a.parquet")
    assert all(footer.row_group(0).column(at).statistics is None for at in range(footer.num_columns))


def test_slices_leave_no_seam(tmp_path, monkeypatch):
    rows = rows_of(*({"generation_id": f"g{number}"} for number in range(10)))
    whole = jsonl(rows, tmp_path)
    monkeypatch.setattr("keeptake.formats.seed.SLICE_ROWS", 3)

    assert jsonl(rows, tmp_path) == whole
    assert whole.count("\n") == 10
