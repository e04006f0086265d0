"""The papers keep up with the code: every command, endpoint, reason and column is in them."""

from pathlib import Path

import typer

from dagster_project.cli import app
from keeptake.errors import AudioReason
from keeptake.ledger.dictionary import data_dictionary

PROJECT = Path(__file__).parent.parent
PAGES = {path.name: path.read_text() for path in [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]}


def commands() -> set[str]:
    group = typer.main.get_command(app)
    found = set()
    for name, command in group.commands.items():
        found |= {f"{name} {sub}" for sub in command.commands} if hasattr(command, "commands") else {name}
    return found


def test_the_data_dictionary_is_written_from_the_code():
    assert PAGES["data-dictionary.md"] == data_dictionary(), "run `make docs`"


def test_every_column_and_value_says_what_it_holds():
    rows = [line.split("|") for line in data_dictionary().splitlines() if line.startswith("| ")]
    assert [row[1].strip() for row in rows if not row[4].strip()] == []


def test_every_command_is_documented():
    assert {name for name in commands() if f"keeptake {name}" not in PAGES["commands.md"]} == set()


def test_every_audio_reason_is_explained():
    assert {reason for reason in AudioReason if f"`{reason}`" not in PAGES["quarantine.md"]} == set()


def test_links_between_pages_lead_somewhere():
    for name, text in PAGES.items():
        folder = PROJECT if name == "README.md" else PROJECT / "docs"
        for target in [part.split(")")[0] for part in text.split("](")[1:]]:
            if not target.startswith(("http", "#")):
                assert (folder / target.split("#")[0]).exists(), f"{name} links to {target}"
