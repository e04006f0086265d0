"""May we connect there? The decision is made on the resolved address that the connection then goes to.

Conventions: an address is denied unless it is public; hosts that configuration names may be private and plain http. The denied
ranges are those that microsoft-antissrf maintains. Its `requests` session was not taken: it drops the port from the Host header,
tries a host's first address alone, and bounds neither name look-up nor headers in time (docs/decisions/0040-fetching.md).

Belongs here: URLs, hosts, addresses. Does not: bytes and time (`fetch.py`), local paths (`local_file.py`).
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import httpcore2
import idna
from AntiSSRF import IPAddressRanges

from keeptake.custody.policy import FetchPolicy
from keeptake.errors import AudioReason, AudioRefusedError

MAX_URL_CHARACTERS = 8192
_DENIED = tuple(ipaddress.ip_network(network) for network in IPAddressRanges.recommended_latest)
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PLAIN_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?")
_PORTS = {"https": 443, "http": 80}


class Place(NamedTuple):
    """A URL that was read and found allowed, in the parts that go to the wire: nothing reads the text again."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> httpcore2.URL:
        """The parts as the client takes them."""
        return httpcore2.URL(scheme=self.scheme, host=self.host, port=self.port, target=self.target)

    @property
    def host_header(self) -> str:
        """Value of the Host header."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORTS[self.scheme] else f"{name}:{self.port}"


def scheme_of(url: str) -> str:
    """Scheme of a URL in lower case; empty for a relative one.

    >>> scheme_of("HTTPS://host/a.mp3"), scheme_of("audio/a.mp3")
    ('https', '')
    """
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def read_url(url: str, *, provider: str, policy: FetchPolicy) -> Place:
    """Read an http or https URL and decide whether its scheme and host may be asked at all.

    Parameters
    ----------
    url : str
        As captured, or as a redirect gave it (made absolute by `follow`).
    provider : str
        Whose list of hosts applies.
    policy : FetchPolicy

    Returns
    -------
    Place

    Raises
    ------
    AudioRefusedError
        `blocked-scheme`, or `blocked-address` for credentials, hosts that are none, and hosts that are not on the list.
    """
    scheme = scheme_of(url)
    if scheme not in _PORTS:
        raise AudioRefusedError(AudioReason.BLOCKED_SCHEME, f"{scheme or 'no'} scheme; audio is fetched over https")
    if len(url) > MAX_URL_CHARACTERS or any(character in url for character in "\\\t\r\n\0 "):
        raise _blocked("the URL is overlong or has characters that parsers disagree about")
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[scheme]
    except ValueError as error:
        raise _blocked(f"the URL cannot be read ({error})") from error
    if parts.username is not None or parts.password is not None:
        raise _blocked("the URL carries credentials")
    host = _read_host(parts.hostname or "")
    if not policy.trusts(host, port) and _is_numeric(host) and not is_public(host):
        raise _blocked(f"{host} is not public")  # as the connection would find, but without asking for https first
    if scheme == "http" and not policy.trusts(host, port):
        raise AudioRefusedError(AudioReason.BLOCKED_SCHEME, f"plain http from {host}; use https, or allow the host")
    if not policy.allows(provider, host):
        raise _blocked(f"{host} is not on the list of {provider}'s hosts")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
    return Place(scheme, host, port, path + query)


def follow(place: Place, location: str, *, provider: str, policy: FetchPolicy) -> Place:
    """Read where a redirect leads to, by the same rules.

    Raises
    ------
    AudioRefusedError
        As `read_url`.
    """
    base = f"{place.scheme}://{place.host_header}{place.target}"
    try:
        absolute = urljoin(base, location)
    except ValueError as error:
        raise _blocked(f"the redirect cannot be read ({error})") from error
    return read_url(absolute, provider=provider, policy=policy)


def is_public(address: str) -> bool:
    """Whether a numeric address is one of the public internet.

    >>> is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("1.1.1.1")
    (False, False, True)
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if isinstance(found, ipaddress.IPv6Address) and found not in _GLOBAL_UNICAST:
        return False  # neither list below knows ::127.0.0.1
    # Two opinions, and either may deny: the maintained ranges, and the registry that Python ships.
    return found.is_global and not any(found in network for network in _DENIED if network.version == found.version)


class CheckedBackend(httpcore2.AnyIOBackend):
    """Network back end that connects to public addresses only.

    It resolves a name itself, looks at every address, and hands addresses, not the name, to the connection: a name that changes
    its mind between two look-ups is never asked a second time.
    """

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a host's first address that answers.

        Raises
        ------
        AudioRefusedError
            `blocked-address`, where any address of the host is not public; `server-error`, where it has none.
        """
        addresses = await _resolve(host, port)
        if not self._policy.trusts(host, port):
            for address in addresses:
                if not is_public(address):
                    raise _blocked(f"{host} leads to {address}, which is not public")
        for address in addresses[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(self, path: str, *args: object, **kwargs: object) -> httpcore2.AsyncNetworkStream:
        """Refuse: no audio is behind a local socket."""
        raise _blocked(f"local socket {path}")


def _read_host(name: str) -> str:
    """Host in the one form that is compared, resolved and sent."""
    if ":" in name:
        try:
            return str(ipaddress.IPv6Address(name))
        except ValueError as error:
            raise _blocked(f"{name} is no address") from error
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise _blocked(f"{name!r} is no host name") from error
    if not _PLAIN_HOST.fullmatch(name):
        raise _blocked(f"{name[:80]!r} is no host name")
    return name.rstrip(".")


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AudioRefusedError(AudioReason.SERVER_ERROR, f"{host} does not resolve ({error}); repeat later") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _blocked(why: str) -> AudioRefusedError:
    return AudioRefusedError(AudioReason.BLOCKED_ADDRESS, f"{why}; store the audio at a public https address, or upload it")
