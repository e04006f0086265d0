"""The ledger as Dagster sees it: an address; what it hands out is a plain `keeptake.ledger.connection.Ledger`.

A run that uses it holds a claim in it for as long as its process lives: by that `dagster_project/lost_runs.py` tells a long run
from one that was killed.
"""

from contextlib import ExitStack, suppress

import dagster as dg
from pydantic import PrivateAttr

from keeptake.errors import ConfigurationError, KeeptakeError
from keeptake.ledger.connection import Ledger
from keeptake.settings import settings

CLAIMED_TAG = "keeptake/claimed"


def claim_of(run_id: str) -> str:
    """Name that a run holds while its process lives."""
    return f"the run {run_id}"


class LedgerResource(dg.ConfigurableResource[Ledger]):
    """Postgres, at the configured address (`keeptake up` and `keeptake run` put the embedded server's there)."""

    url: str = ""
    _ledger: Ledger | None = PrivateAttr(default=None)
    _held: ExitStack = PrivateAttr(default_factory=ExitStack)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Claim the run; not for sensors, which are none; where the ledger is away, the step that needs it says so."""
        if context.run is None or context.instance is None:
            return
        with suppress(KeeptakeError):
            self._held.enter_context(self.get().claim(claim_of(context.run.run_id)))
            context.instance.add_run_tags(context.run.run_id, {CLAIMED_TAG: "true"})

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Let go of the run and close the connections when it is over."""
        with suppress(KeeptakeError):  # the server went away: so did the claim
            self._held.close()
        if self._ledger is not None:
            self._ledger.dispose()

    def get(self) -> Ledger:
        """The ledger, opened at the first call.

        Raises
        ------
        ConfigurationError
            If nobody said where it is.
        """
        if self._ledger is None:
            url = self.url or settings().database_url
            if not url:
                raise ConfigurationError("no ledger: start through `keeptake up`, or set KEEPTAKE_DATABASE_URL")
            self._ledger = Ledger(url)
        return self._ledger
