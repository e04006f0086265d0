"""What may be fetched, from where, and within which bounds.

Conventions: sizes in bytes, times in seconds, hosts in lower case; a host is `name` or `name:port`, and a leading dot in a
provider's list means every name below it. Belongs here: the bounds and their defaults. Does not: enforcing them (`address.py`,
`fetch.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keeptake.errors import ConfigurationError
from keeptake.settings import Settings, listed

READY_HOSTS: Mapping[str, frozenset[str]] = {
    "suno": frozenset({"cdn1.suno.ai", "cdn2.suno.ai", "audiopipe.suno.ai"}),
    "replicate": frozenset({"replicate.delivery", ".replicate.delivery"}),
    "fal": frozenset({"fal.media", ".fal.media"}),
}
READY = "ready"  # in the setting: `suno=ready` takes the list above


@dataclass(frozen=True)
class FetchPolicy:
    """The bounds of fetching.

    Attributes
    ----------
    timeout_s, connect_timeout_s : float
        For one attempt in all, redirects included; for making one connection.
    stall_s : float
        Silence on an open connection after which an attempt ends.
    min_rate_bytes_s, grace_s : float
        An attempt that after `grace_s` has brought less than this a second, on average, is too slow.
    max_bytes : int
        Most that is read of a file.
    allow_http_hosts : frozenset of str
        Hosts that may be reached over plain http and at private addresses.
    file_roots : tuple of Path
        Folders from which `file://` may read.
    provider_hosts : mapping of str to frozenset of str
        Hosts that a provider's audio may come from; a provider without an entry may use any public host.
    concurrency, per_host : int
        Attempts at once, in all and to one host.
    tries, backoff_s : int, float
        Attempts within one run, and the wait before the second, doubled each time and jittered.
    max_wait_s : float
        Longest `Retry-After` that is waited for within a run; a longer one puts the row off.
    """

    timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    stall_s: float = 15.0
    min_rate_bytes_s: float = 1024.0
    grace_s: float = 10.0
    max_bytes: int = 200_000_000
    max_redirects: int = 5
    allow_http_hosts: frozenset[str] = frozenset()
    file_roots: tuple[Path, ...] = ()
    provider_hosts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    concurrency: int = 32
    per_host: int = 8
    tries: int = 3
    backoff_s: float = 1.0
    max_wait_s: float = 20.0

    @classmethod
    def from_settings(cls, settings: Settings) -> "FetchPolicy":
        """Read the bounds from the settings.

        Raises
        ------
        ConfigurationError
            If a provider's list cannot be read.
        """
        return cls(
            timeout_s=settings.fetch_timeout_s,
            connect_timeout_s=min(cls.connect_timeout_s, settings.fetch_timeout_s),
            allow_http_hosts=frozenset(host.lower() for host in listed(settings.fetch_allow_http_hosts)),
            file_roots=tuple(Path(root) for root in listed(settings.fetch_allow_file_roots)),
            provider_hosts=dict(_provider_hosts(entry) for entry in listed(settings.fetch_provider_hosts)),
        )

    def trusts(self, host: str, port: int) -> bool:
        """Whether configuration allows plain http and private addresses for a host."""
        return host in self.allow_http_hosts or f"{host}:{port}" in self.allow_http_hosts

    def allows(self, provider: str, host: str) -> bool:
        """Whether a provider's audio may come from a host."""
        hosts = self.provider_hosts.get(provider.lower())
        return hosts is None or host in hosts or any(name.startswith(".") and host.endswith(name) for name in hosts)


def _provider_hosts(entry: str) -> tuple[str, frozenset[str]]:
    """Read one `provider=host|host` of the setting.

    >>> _provider_hosts("Suno=cdn1.suno.ai|.suno.com")[0]
    'suno'
    """
    provider, equals, hosts = entry.partition("=")
    name = provider.strip().lower()
    if hosts.strip() == READY:
        if name not in READY_HOSTS:
            known = ", ".join(READY_HOSTS)
            raise ConfigurationError(f"KEEPTAKE_FETCH_PROVIDER_HOSTS: no ready list for {name!r}, only for {known}")
        return name, READY_HOSTS[name]
    found = frozenset(host.strip().lower() for host in hosts.split("|") if host.strip())
    if not (name and equals and found):
        raise ConfigurationError(f"KEEPTAKE_FETCH_PROVIDER_HOSTS: expected provider=host|host, got {entry!r}")
    return name, found
