"""`keeptake keys …`: who may call the API."""

from typing import Annotated

import typer

from dagster_project.cli_output import Json, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="Keys of the HTTP API.")


@app.command()
def create(
    scope: Annotated[list[str], typer.Option(help="metadata:write, feedback:write, export:read, …; repeatable.")],
    expires: Annotated[float | None, typer.Option(help="Days until it ends.")] = None,
    note: Annotated[str | None, typer.Option(help="Who it is for.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    from dagster_project.home import open_home
    from keeptake.ledger.keys import create_key

    with open_home() as ledger:
        key = create_key(ledger, scope, expires, note)
    print_json({"key": key}) if as_json else print(key)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """All keys, never their secrets."""
    from dagster_project.home import open_home
    from keeptake.ledger.keys import list_keys

    with open_home() as ledger:
        print_rows([key._asdict() for key in list_keys(ledger)], as_json, "Keys")


@app.command()
def revoke(key_id: str, as_json: Json = False) -> None:
    """End a key, within three seconds everywhere; exit 1 where there is none of that id."""
    from dagster_project.home import open_home
    from keeptake.ledger.keys import revoke_key

    with open_home() as ledger:
        is_revoked = revoke_key(ledger, key_id)
    print_json({"revoked": is_revoked}) if as_json else print("revoked" if is_revoked else f"no key {key_id}")
    raise typer.Exit(not is_revoked)
