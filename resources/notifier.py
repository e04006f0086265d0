"""Alerts as Dagster sees them."""

import dagster as dg

from keeptake.notify import notify
from keeptake.settings import listed, settings


class NotifierResource(dg.ConfigurableResource[None]):
    """The addresses that alerts go to."""

    urls: str = ""

    def send(self, title: str, body: str) -> bool:
        """Send an alert; see `keeptake.notify.notify`."""
        return notify(title, body, listed(self.urls or settings().notify_urls))
