"""Alerts as Dagster sees them."""

import dagster as dg

from keeptake.notify import notify
from keeptake.settings import listed, settings


class NotifierResource(dg.ConfigurableResource[None]):
    """The addresses that alerts go to."""

    urls: str = ""

    @property
    def addresses(self) -> list[str]:
        """Where alerts go: its own addresses, else those of the settings."""
        return listed(self.urls or settings().notify_urls)

    def send(self, title: str, body: str) -> bool:
        """Send an alert; see `keeptake.notify.notify`."""
        return notify(title, body, self.addresses)
