"""The ledger as Dagster sees it: an address; what it hands out is a plain `keeptake.ledger.connection.Ledger`."""

import dagster as dg
from pydantic import PrivateAttr

from keeptake.errors import ConfigurationError
from keeptake.ledger.connection import Ledger
from keeptake.settings import settings


class LedgerResource(dg.ConfigurableResource[Ledger]):
    """Postgres, at the configured address (`keeptake up` and `keeptake run` put the embedded server's there)."""

    url: str = ""
    _ledger: Ledger | None = PrivateAttr(default=None)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections when the run is over."""
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
