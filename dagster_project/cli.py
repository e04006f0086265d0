"""The `keeptake` command: the one place that may see every room.

Every command imports what it needs inside itself, so that `keeptake analyze` never loads Dagster and `keeptake status` never
loads torch. What a user of the command should know stands in `HELP`.
"""

import logging
import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dagster_project import cli_datasets, cli_keys, cli_quarantine
from dagster_project.cli_output import Json, flat, print_json, print_rows
from keeptake.embedding import DEFAULT_MODEL, PROMPTS
from keeptake.errors import BusyError, ConfigurationError, KeeptakeError, PublicationError, UnavailableError

if TYPE_CHECKING:
    import numpy as np

HELP = """Turns AI music generations into training data: takes them in, keeps and hears them, scores them, publishes datasets.

With --json the answer stands alone on stdout; logs and progress go to stderr. Exit codes: 0 done, 1 failed, 2 wrong use or
configuration, 3 a service is away, 4 somebody else holds it, 5 a dataset was not published.
"""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)

app.add_typer(cli_datasets.app, name="datasets")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_quarantine.app, name="quarantine")

STATUS_DAYS = 30  # that `status` draws
EXIT_CODES: Mapping[type[KeeptakeError], int] = {ConfigurationError: 2, UnavailableError: 3, BusyError: 4, PublicationError: 5}


def main() -> None:
    """Run the command line; what we raise on purpose becomes one sentence and an exit code."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except KeeptakeError as failure:
        print(f"keeptake: {failure}", file=sys.stderr)
        sys.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(failure, kind)), 1))
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(0)


@app.command()
def up() -> None:
    """Start the ledger, the Dagster UI and daemon, and the API; end all of them on Ctrl-C."""
    from dagster_project.launcher import up as start

    raise typer.Exit(start())


@app.command()
def migrate(as_json: Json = False) -> None:
    """Bring the ledger's shape up to date."""
    from dagster_project.home import open_home
    from keeptake.ledger.migrate import current_revision

    with open_home() as ledger, ledger.begin() as connection:
        revision = current_revision(connection)
    print_json({"revision": revision}) if as_json else print(f"the ledger is at revision {revision}")


@app.command()
def status(as_json: Json = False, rows: Annotated[bool, typer.Option(help="Print a line a generation.")] = False) -> None:
    """How far everything has come."""
    from dagster_project.home import open_home
    from keeptake.ledger import status as queries

    with open_home() as ledger:
        if rows:
            with closing(queries.status_rows(ledger)) as found:
                print_rows(found, as_json, "Generations")
            return
        counts = queries.status(ledger)
        if as_json:
            print_json(counts)
            return
        by_day, by_tenth = queries.takes_by_day(ledger, days=STATUS_DAYS), queries.scores_by_tenth(ledger)
    from dagster_project.summary import print_status

    print_status(counts, by_day=by_day, by_tenth=by_tenth)


@app.command()
def refusals(as_json: Json = False) -> None:
    """Records that were refused, with their reasons."""
    from dagster_project.home import open_home
    from keeptake.ledger.status import refused

    with open_home() as ledger, closing(refused(ledger)) as found:
        print_rows(found, as_json, "Refused records")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(help="A folder, a JSONL file, an http(s) feed, a postgresql:// address, or a name of the feeds file.")
    ],
    as_json: Json = False,
) -> None:
    """Take generations in from a source; a repeated or interrupted import continues where it must."""
    from dagster_project.home import open_home
    from keeptake.progress import bar
    from keeptake.settings import settings
    from keeptake.sources.pull import import_source

    with open_home() as ledger, bar() as progress:
        report = import_source(source, ledger, settings(), progress=progress)
    if as_json:
        print_json(report.as_dict())
    else:
        rows = [{"what": what, "records": count} for what, count in flat(report.as_dict())]
        print_rows(rows, False, f"Imported from {source}")


@app.command()
def run(as_json: Json = False) -> None:
    """Do all pending work, from pulling the sources to scores, without the UI."""
    from dagster_project.home import open_home
    from dagster_project.runs import run_pending
    from keeptake.progress import bar

    with open_home() as ledger, bar():
        done = run_pending(ledger)
    if as_json:
        print_json(done)
    else:
        print_rows([{"what": what, "files or takes": count} for what, count in flat(done)], False, "Done by this call")


@app.command()
def demo(count: Annotated[int, typer.Option(min=48, help="Takes to render.")] = 60, as_json: Json = False) -> None:
    """The main job, end to end: demo takes are rendered, taken in, heard, scored and published as a dataset."""
    from dagster_project.demo import run_demo
    from dagster_project.summary import print_demo

    done = run_demo(count)
    print_json(done._asdict() | {"pairs": done.pairs.to_dicts()}) if as_json else print_demo(*done)


@app.command()
def publish(policy: Annotated[str, typer.Argument(help="Name of a policy, or its file.")], as_json: Json = False) -> None:
    """Publish a policy's dataset through the graph, or find that the present version already says the same."""
    from dagster_project.home import open_home
    from dagster_project.runs import publish_policy
    from keeptake.progress import bar

    with open_home() as ledger, bar():
        published = publish_policy(ledger, policy)
    if as_json:
        print_json(published)
    else:
        print_rows([published], False, f"Published {published['name']}")


@app.command()
def explain(
    generation_id: Annotated[str, typer.Argument(help="A generation's id, or the id of its file or of a clip in a dataset.")],
    as_json: Json = False,
) -> None:
    """The story of one take: kept or left out, by which rule and when; captured, fetched, heard, judged; in which versions."""
    from dagster_project.home import open_home
    from keeptake.curation.explain import explain as tell
    from keeptake.settings import settings

    with open_home() as ledger:
        story = tell(ledger, generation_id, settings().policies_dir)
    if as_json:
        print_json(story)
        return
    from dagster_project.summary import print_story

    print_story(story)


@app.command("open")
def open_(generation_id: str, as_json: Json = False) -> None:
    """Print where a take's audio and the datasets that hold it lie."""
    from dagster_project.home import open_home
    from keeptake.audio_store import AudioStore
    from keeptake.ledger.datasets import versions_that_hold
    from keeptake.ledger.explanations import audio_of, find
    from keeptake.settings import settings

    with open_home() as ledger:
        generation_id = find(ledger, generation_id)
        sha256, versions = audio_of(ledger, generation_id), versions_that_hold(ledger, generation_id)
    audio = str(AudioStore(settings().audio_location).local_path(sha256) or "") if sha256 else None
    datasets = list(dict.fromkeys(version["path"] for version in versions))  # a version is told of every clip
    if as_json:
        print_json({"audio": audio, "datasets": datasets})
        return
    for path in filter(None, (audio, *datasets)):  # bare lines: a table would break a path in two
        print(path)
    if not audio:
        print(f"no audio of {generation_id} lies on this machine: keeptake explain {generation_id}", file=sys.stderr)


@app.command()
def analyze(
    files: list[Path],
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(help="Folder for a picture a file.")] = None,
    networks: Annotated[bool, typer.Option(help="Hear vocals and style by their networks.")] = True,
) -> None:
    """Hear files and print a line of JSON for each; one that does not decode is a line with its reason."""
    from keeptake.hearing_files import analyze_files
    from keeptake.progress import bar
    from keeptake.settings import settings
    from keeptake.stage import silent

    chosen = settings()
    lines = analyze_files(
        files,
        models=chosen.models_location if networks else None,
        cpu_s=chosen.analysis_timeout_s,
        memory_mb=chosen.analysis_memory_mb,
        workers=chosen.workers,
        plot_dir=plot,
    )
    with (
        nullcontext(silent) if sys.stdout.isatty() else bar() as listen
    ):  # on a terminal the lines themselves show how far it has come
        for done, line in enumerate(lines, start=1):
            print_json(line)  # JSON either way: an analysis has too many fields for a table
            listen("analyze", done, len(files))


def _heard_key(text: str) -> str:
    """A key as the analysis spells it, from any usual spelling."""
    from keeptake.curation.prompts import parse_key

    if (key := parse_key(text)) is None:
        raise typer.BadParameter("give a tonic and a mode, such as F# minor or Eb major")
    return key


TempoBpm = Annotated[float | None, typer.Option(min=0, help="Heard beats per minute, this one included.")]


@app.command()
def similar(
    target: Annotated[str, typer.Argument(help="A generation's id, an audio file, or words with --words.")],
    k: Annotated[int, typer.Option("-k", "--k", min=1, max=200, help="How many.")] = 10,
    user: Annotated[str | None, typer.Option(help="Only takes of this user.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only takes of this provider.")] = None,
    genre: Annotated[str | None, typer.Option(help="Heard genre.")] = None,
    key: Annotated[str | None, typer.Option(help="Heard key, such as Am or Eb major.", parser=_heard_key)] = None,
    tempo_from: TempoBpm = None,
    tempo_to: TempoBpm = None,
    model: Annotated[str, typer.Option(help="Whose space: musicnn-msd, or one of KEEPTAKE_EMBEDDING_MODELS.")] = DEFAULT_MODEL,
    words: Annotated[bool, typer.Option("--words", help="TARGET is words of a prompt: takes asked for alike.")] = False,
    as_json: Json = False,
) -> None:
    """The takes that sound most like a take or a file, or were asked for in words like these."""
    from dagster_project.home import open_home
    from keeptake.embedding.files import vector_of_file
    from keeptake.embedding.models import version_of
    from keeptake.ledger.similarity import Filters
    from keeptake.ledger.similarity import similar as nearest
    from keeptake.model_store import ModelStore
    from keeptake.settings import settings

    if tempo_from is not None and tempo_to is not None and not tempo_from <= tempo_to:
        raise typer.BadParameter("--tempo-from is above --tempo-to")
    filters = Filters(user_id=user, provider=provider, genre=genre, key=key, tempo_from_bpm=tempo_from, tempo_to_bpm=tempo_to)
    models = settings().models_location
    wanted: str | np.ndarray = target
    version = None
    if words:
        from keeptake.embedding.text import embed_text

        wanted, model = embed_text([target])[0], PROMPTS
    elif Path(target).is_file():
        wanted, version = vector_of_file(Path(target), models, model=model), version_of(model, ModelStore(models))
    with open_home() as ledger:
        found = nearest(ledger, wanted, k, filters, model=model, version=version)
    print_rows([each._asdict() for each in found], as_json, f"Most like {target}")


@app.command()
def duplicates(paths: list[Path], as_json: Json = False) -> None:
    """Groups of near-duplicates among anyone's files and folders."""
    from keeptake.duplicate_files import duplicates_of_files
    from keeptake.progress import bar

    with bar() as progress:
        found = duplicates_of_files(paths, progress=progress)
    if as_json:
        print_json(found)
        return
    print_rows([{"files": "\n".join(group["files"])} for group in found["groups"]], False, "Near-duplicates")
    shared = [{"files": "\n".join(pair["files"]), "matched_s": pair["matched_s"]} for pair in found["excerpts"]]
    for rows, title in ((shared, "One holds a part of the other"), (found["not_compared"], "Not compared")):
        if rows:
            print_rows(rows, False, title)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen at; KEEPTAKE_API_HOST if not given.")] = None,
    port: Annotated[int | None, typer.Option(help="Its port; KEEPTAKE_API_PORT if not given.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer; KEEPTAKE_API_WORKERS if not given.")] = None,
) -> None:
    """Serve the HTTP API alone."""
    from dagster_project.home import open_home
    from keeptake.capture.server import serve

    with open_home() as ledger:
        serve(host, port, workers, database_url=ledger.url)


if __name__ == "__main__":
    main()
