"""Tables for people hold texts of users whole and as they are."""

import polars as pl

from dagster_project.cli_output import print_rows
from dagster_project.summary import print_demo, print_story

COUNTS = {"generations": 1, "audio": {}, "audio_reasons": {}, "analyzed": 1, "embedded": 1, "scored": 1}
PUBLISHED = {"name": "everything-good", "version": "v1", "rows": {"train": 1}}
PROMPT = "[Verse] dark :smile: [/Verse] [bold]trap"


def cells(printed):
    """What stands between the lines of a table, without its folds."""
    return "".join(line.strip("│ ").rpartition("│")[2].strip() for line in printed.splitlines() if "│" in line)


def test_a_prompt_with_sections_is_printed_as_it_is(capsys, monkeypatch):
    """Suno's section tags were read as markup: `[/Verse]` broke `keeptake explain` off with a traceback."""
    monkeypatch.setenv("COLUMNS", "100")
    print_story({"generation_id": "g", "captured": {"prompt": PROMPT}})
    print_rows([{"prompt": PROMPT}], False, "Takes")
    print_rows([], False, "Takes of [/nobody]")
    printed = capsys.readouterr().out
    assert printed.count(PROMPT) == 2
    assert "Takes of [/nobody]: none" in printed


def test_where_the_dataset_lies_is_told_to_the_end(capsys, monkeypatch):
    """The path in the demo's summary ended in an ellipsis where the terminal was narrow: nobody could go there."""
    monkeypatch.setenv("COLUMNS", "60")
    path = "/home/somebody/with/a/long/path/.keeptake/datasets/everything-good/v1-0eac108c8c98"
    pairs = pl.DataFrame(schema={"tempo_verdict": pl.String, "key_verdict": pl.String})
    print_demo(COUNTS, {"kept": 1}, pairs, {**PUBLISHED, "path": path}, 1.0)
    assert path in cells(capsys.readouterr().out)


def test_the_demo_tells_the_verdicts_that_the_ledger_holds(capsys, monkeypatch):
    """It judged tempo and key anew, by rules of its own: `A minor` heard as `Am` was another key."""
    monkeypatch.setenv("COLUMNS", "100")
    pairs = pl.DataFrame(
        {"tempo_verdict": ["exact", "half", "exact", None], "key_verdict": ["fifth", "exact", "not-asked", "not-asked"]}
    )
    print_demo(COUNTS, {"kept": 1}, pairs, {**PUBLISHED, "path": "p"}, 1.0)
    printed = capsys.readouterr().out
    assert "exact 2, half 1" in printed and "exact 1, fifth 1" in printed
