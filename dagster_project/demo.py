"""The main job, end to end, on takes of our own beat maker: what `make demo` shows a newcomer."""

import sys
from time import monotonic
from typing import Any, NamedTuple

import polars as pl

from dagster_project.home import open_home
from dagster_project.runs import publish_policy, run_pending
from keeptake.beatmaker import make_demo
from keeptake.ledger import overviews
from keeptake.ledger.status import status
from keeptake.progress import bar
from keeptake.settings import settings
from keeptake.sources.pull import import_source

POLICY = "everything-good"


class Demo(NamedTuple):
    """What the demo's summary shows."""

    counts: dict[str, Any]  # as `keeptake status`
    chosen: dict[str, int]  # kept, and left out by reason
    pairs: pl.DataFrame  # tempo and key, asked and heard
    published: dict[str, Any]  # as `keeptake publish`
    seconds: float


def run_demo(count: int) -> Demo:
    """Render takes, take them in, do all pending work, publish; a second call finds everything done."""
    begun = monotonic()
    _say("starting the embedded PostgreSQL")
    with open_home() as ledger:
        _say(f"rendering {count} demo takes")
        folder = make_demo(settings().home / "demo", count=count).parent
        with bar():
            import_source(str(folder), ledger, settings())
            _say("hearing, placing and scoring them, through the Dagster graph")
            run_pending(ledger)
            _say(f"publishing the dataset {POLICY}")
            published = publish_policy(ledger, POLICY)
        chosen = overviews.left_out(ledger, POLICY)
        return Demo(status(ledger), chosen, overviews.asked_and_heard(ledger), published, monotonic() - begun)


def _say(what: str) -> None:
    print(f"== {what}", file=sys.stderr, flush=True)
