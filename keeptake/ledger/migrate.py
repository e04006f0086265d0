"""Bring the ledger's shape up to date: Alembic, run from the package, one at a time.

Dagster's own tables live in the schema `dagster` of the same database, made here before its first use: in one schema the two
`alembic_version` tables would collide.
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from keeptake.ledger.connection import Ledger
from keeptake.ledger.tables import metadata

DAGSTER_SCHEMA = "dagster"
_LOCK = 0x4B544D47  # one migration at a time, whoever starts it


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Alembic's configuration, with the connection that its environment is to use."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def current_revision(connection: sa.Connection) -> str | None:
    """Revision that the ledger is at; None for an empty database."""
    if not connection.scalar(sa.text("SELECT to_regclass('public.alembic_version') IS NOT NULL")):
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM public.alembic_version"))
    return revision


def migrate(ledger: Ledger, revision: str = "head") -> str | None:
    """Move the ledger to a revision ("head", "base" or an id) and return the one it is at then.

    Safe to call at every start, by several processes at once; a ledger that is up to date costs one query.
    """
    with ledger.begin() as connection:
        if (
            revision == "head"
            and current_revision(connection) == ScriptDirectory.from_config(alembic_config()).get_current_head()
        ):
            return current_revision(connection)
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {DAGSTER_SCHEMA}"))
        config = alembic_config(connection)
        if revision == "base":
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)
        if revision == "head":
            _comment(connection)
        return current_revision(connection)


def _comment(connection: sa.Connection) -> None:
    """Say in the database what every column holds, for whoever reads it with SQL; words are no shape, and need no revision."""
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.comment:
                connection.execute(sa.schema.SetColumnComment(column))
