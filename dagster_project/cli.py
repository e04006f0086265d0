"""The `keeptake` command: the one place that may see every room.

Every command imports what it needs inside itself, so that `keeptake analyze` never loads Dagster and `keeptake status` never
loads torch. With `--json`, the answer stands alone on stdout; logs and progress go to stderr. Exit codes: 0 done, 1 failed, 2
wrong use or configuration, 3 a service is away, 4 somebody else holds it, 5 a dataset was not published.
"""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Annotated, Any

import typer

from keeptake.errors import BusyError, ConfigurationError, KeeptakeError, PublicationError, UnavailableError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, alone on stdout.")]

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


def print_json(value: Any) -> None:  # noqa: ANN401 -- any JSON value
    """Print one line of JSON."""
    print(json.dumps(value, ensure_ascii=False, default=str))


def print_rows(rows: Iterable[Mapping[str, Any]], as_json: bool, title: str) -> None:
    """Print mappings as JSON lines, or as a table."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for at, row in enumerate(rows):
        if not at:
            for name in row:
                table.add_column(name)
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table if table.columns else f"{title}: none")


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
    from dagster_project.summary import print_status

    print_status(counts)


@app.command()
def refusals(as_json: Json = False) -> None:
    """Records that were refused, with their reasons."""
    from dagster_project.home import open_home
    from keeptake.ledger.status import refused

    with open_home() as ledger, closing(refused(ledger)) as found:
        print_rows(found, as_json, "Refused records")


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A folder, a JSONL file, an http(s) feed, or a postgresql:// address.")],
    as_json: Json = False,
) -> None:
    """Take generations in from a source; a repeated or interrupted import continues where it must."""
    from dagster_project.home import open_home
    from keeptake.progress import bar, to_log
    from keeptake.settings import settings
    from keeptake.sources.pull import import_source

    with open_home() as ledger, bar():
        report = import_source(source, ledger, settings(), progress=to_log(lambda line: None))
    if as_json:
        print_json(report.as_dict())
    else:
        print_rows([report.as_dict()], False, f"Imported from {source}")


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
        print_rows([done], False, "Done by this call")


if __name__ == "__main__":
    main()
