"""A home made ready: the ledger joined or started, migrated, and Dagster's instance pointed at it.

Belongs here: what every command does before its own work. Does not: the commands (`cli.py`), the children of `up`
(`launcher.py`).
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keeptake.curation.policy import policy_names
from keeptake.ledger.connection import Ledger, driver_url
from keeptake.ledger.migrate import DAGSTER_SCHEMA, migrate
from keeptake.ledger.server import ledger_url
from keeptake.settings import settings

DATASET_TAG = "keeptake/dataset"  # of runs that publish; those with the same value take turns


def dagster_url(url: str) -> str:
    """Address of Dagster's tables: the same database, a schema of their own, through the driver that Dagster ships."""
    own = driver_url(url, "psycopg2").update_query_dict({"options": f"-csearch_path={DAGSTER_SCHEMA}"})
    return own.render_as_string(hide_password=False)


def write_instance(home: Path, policies_dir: Path) -> Path:
    """Put the instance's configuration into HOME/dagster and return that folder.

    Runs of one dataset take turns: two at once would claim one folder, and one of them would fail. Runs of a day need none: each
    stage waits for the claim of another. The tag counts for policies of any age; single assets that somebody materializes by hand
    have only their partition, and Dagster reads this file once.
    """
    folder = home.resolve() / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    turns = [
        {"key": DATASET_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1},
        *({"key": "dagster/partition", "value": policy, "limit": 1} for policy in policy_names(policies_dir)),
    ]
    template = (Path(__file__).parent / "instance" / "dagster.yaml").read_text()
    aside = folder / f"dagster.{os.getpid()}.writing"
    aside.write_text(template.replace("TURNS", json.dumps(turns)))
    aside.replace(folder / "dagster.yaml")
    return folder


@contextmanager
def open_home() -> Iterator[Ledger]:
    """Join or start the configured ledger for the length of the block, migrated; child processes inherit the way there."""
    chosen = settings()
    chosen.home.mkdir(parents=True, exist_ok=True)
    with ledger_url(chosen) as url:
        os.environ["KEEPTAKE_DATABASE_URL"] = url
        os.environ["KEEPTAKE_DAGSTER_URL"] = dagster_url(url)
        os.environ["DAGSTER_HOME"] = str(write_instance(chosen.home, chosen.policies_dir))
        settings.cache_clear()
        ledger = Ledger(url)
        try:
            migrate(ledger)
            yield ledger
        finally:
            ledger.dispose()
