"""`keeptake datasets …`: what was published, its differences, its soundness, its rebuilding."""

from pathlib import Path
from typing import Annotated

import typer

from dagster_project.cli_output import Json, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="Published datasets.")


@app.command("list")
def list_(name: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """Published versions, oldest first."""
    from keeptake.datasets import list_versions

    print_rows(list_versions(name), as_json, "Published datasets")


@app.command()
def show(name: str, version: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """What a version says of itself; the newest where none is named."""
    from keeptake.datasets import show_version

    shown = show_version(name, version)
    if as_json:
        print_json(shown)
    else:
        print_rows([{"what": key, "is": value} for key, value in shown.items()], False, f"{name} {shown['version']}")


@app.command()
def diff(name: str, old: str, new: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """How a version was made otherwise than another, and the rows added, removed and changed, each with its reason."""
    from keeptake.datasets import diff as differences

    print_rows(differences(name, old, new).to_dicts(), as_json, f"{name}: {old} → {new or 'newest'}")


@app.command()
def verify(name: str, version: Annotated[str | None, typer.Argument()] = None, as_json: Json = False) -> None:
    """Check every file of a version against its manifest; exit 1 where one is missing, strange or changed."""
    from keeptake.datasets import verify as problems

    wrong = problems(name, version)
    print_rows([{"problem": problem} for problem in wrong], as_json, f"Problems of {name}")
    raise typer.Exit(bool(wrong))


@app.command()
def rebuild(
    name: str, version: str, to: Annotated[Path, typer.Option(help="An empty or missing folder.")], as_json: Json = False
) -> None:
    """Build a version anew from its rows and the stored audio; exit 1 where a byte differs."""
    from keeptake.audio_store import AudioStore
    from keeptake.curation.building import rebuild as build
    from keeptake.datasets import find
    from keeptake.settings import settings

    wrong = build(find(name, version), to, read_audio=AudioStore(settings().audio_location).read)
    print_rows([{"difference": difference} for difference in wrong], as_json, f"Differences of {name} {version}")
    raise typer.Exit(bool(wrong))
