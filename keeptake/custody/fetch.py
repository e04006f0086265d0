"""Brings bytes home within hard bounds: time, size, rate, redirects, addresses.

Conventions: an attempt either fills a spool with the whole file or raises `AudioRefusedError`; nothing is unpacked on the way
(identity encoding is asked for, and what comes compressed all the same is kept as it came and later refused as no audio). Only
what a retry can mend is tried again within a run: 429, 5xx, time-outs, broken connections.

Belongs here: HTTP. Does not: whether an address may be asked (`address.py`), what the bytes are (`prove.py`).
"""

import asyncio
import logging
import queue
import random
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpcore2

from keeptake.custody.address import CheckedBackend, Place, follow, read_url, scheme_of
from keeptake.custody.local_file import copy_file_url, copy_relative
from keeptake.custody.policy import FetchPolicy
from keeptake.custody.spool import Spool
from keeptake.errors import RETRYABLE_AUDIO_REASONS, AudioReason, AudioRefusedError, UnavailableError
from keeptake.retry_after import retry_after_s

LINGER_S = 0.25
_log = logging.getLogger(__name__)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = (("Accept", "audio/*, */*;q=0.1"), ("Accept-Encoding", "identity"), ("User-Agent", "keeptake"))


class Request(NamedTuple):
    """One file to fetch."""

    key: int  # the caller's own mark
    audio_url: str
    provider: str
    root: Path | None  # folder under which a relative address is read, and nowhere else


class Fetched(NamedTuple):
    """What became of a request; the caller closes the spool."""

    request: Request
    spool: Spool
    refusal: AudioRefusedError | None
    tries: int


def fetch_all(
    requests: Iterable[Request], policy: FetchPolicy, *, most: int = 64, spool_folder: Path | None = None
) -> Generator[list[Fetched], None, None]:
    """Fetch many files at once and yield them as they end, those together that end together.

    An event loop in a thread of its own does the fetching; it runs at most `2 * policy.concurrency` files ahead of the caller.
    Closing the generator ends it.

    Parameters
    ----------
    requests : iterable of Request
    policy : FetchPolicy
    most : int, > 0
        Most that are yielded together.
    spool_folder : Path, optional
        Where the bytes go, as `Spool` takes it.

    Yields
    ------
    list of Fetched
        Every request exactly once, in order of completion.

    Raises
    ------
    UnavailableError
        If there is no room to write what is fetched.
    """
    waiting = list(requests)
    arrived: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    room = asyncio.Semaphore(2 * policy.concurrency)
    work = loop.create_task(_fetch_all(waiting, policy, room, arrived, spool_folder))
    thread = threading.Thread(target=_run_loop, args=(loop, work, arrived), name="keeptake-fetch", daemon=True)
    thread.start()
    try:
        missing = len(waiting)
        while missing:
            batch = _take(arrived, min(most, missing))
            missing -= len(batch)
            for _ in batch:
                loop.call_soon_threadsafe(room.release)
            yield batch
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(work.cancel)
        thread.join()
        loop.close()
        while not arrived.empty():
            if isinstance(left := arrived.get(), Fetched):
                left.spool.close()


def _take(arrived: queue.SimpleQueue[Any], most: int) -> list[Fetched]:
    """Wait for one, then take what else comes within a moment: a commit a file would cost more than the file."""
    batch: list[Fetched] = []
    until_s = time.monotonic() + 3600.0
    while len(batch) < most:
        try:
            fetched = arrived.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            if batch:
                break
            continue
        if isinstance(fetched, BaseException):
            for whole in batch:
                whole.spool.close()
            raise fetched
        until_s = min(until_s, time.monotonic() + LINGER_S)
        batch.append(fetched)
    return batch


def _run_loop(loop: asyncio.AbstractEventLoop, work: "asyncio.Task[None]", arrived: queue.SimpleQueue[Any]) -> None:
    try:
        loop.run_until_complete(work)
    except BaseExceptionGroup as failures:  # the first one ended the other fetches
        arrived.put(failures.exceptions[0])
    except BaseException as error:  # what ends this thread is the caller's to hear of
        arrived.put(error)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())


async def _fetch_all(
    requests: list[Request],
    policy: FetchPolicy,
    room: asyncio.Semaphore,
    arrived: queue.SimpleQueue[Any],
    spool_folder: Path | None,
) -> None:
    turns = asyncio.Semaphore(policy.concurrency)
    hosts: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(policy.per_host))

    async def fetch_one(request: Request) -> None:
        # The host's queue first: rows of a slow host that wait for each other must not hold the room of all others.
        async with hosts[_host_of(request.audio_url)]:
            await room.acquire()
            spool = Spool(spool_folder)
            try:
                refusal, tries = await _try(request, spool, client, policy, turns)
            except BaseException:
                spool.close()
                raise
            arrived.put(Fetched(request, spool, refusal, tries))

    async with _client(policy) as client, asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(fetch_one(request))


async def _try(
    request: Request, spool: Spool, client: httpcore2.AsyncConnectionPool, policy: FetchPolicy, turns: asyncio.Semaphore
) -> tuple[AudioRefusedError | None, int]:
    """Attempt a request until it succeeds, cannot be mended, or has been tried often enough."""
    attempt = 0
    while True:
        attempt += 1
        spool.restart()
        async with turns:
            refusal = await _attempt(request, spool, client, policy)
        spool.finish()
        if refusal is None or attempt == policy.tries or not _is_passing(refusal):
            return refusal, attempt
        wait_s = refusal.retry_after_s or policy.backoff_s * 2 ** (attempt - 1) * random.uniform(0.8, 1.2)  # noqa: S311
        if wait_s > policy.max_wait_s:
            return refusal, attempt
        await asyncio.sleep(wait_s)


def _is_passing(refusal: AudioRefusedError) -> bool:
    # A cut transfer may well go through the next time, but is no state to stand in: the file may really be that short.
    return refusal.reason in RETRYABLE_AUDIO_REASONS or refusal.reason is AudioReason.TRUNCATED


async def _attempt(
    request: Request, spool: Spool, client: httpcore2.AsyncConnectionPool, policy: FetchPolicy
) -> AudioRefusedError | None:
    try:
        await _bring(request, spool, client, policy)
    except AudioRefusedError as refusal:
        return refusal
    except TimeoutError:
        return AudioRefusedError(AudioReason.TIMEOUT, f"not finished after {policy.timeout_s:g} s, {spool.size_bytes} bytes read")
    except httpcore2.ConnectTimeout:
        return AudioRefusedError(AudioReason.TIMEOUT, f"no connection within {policy.connect_timeout_s:g} s")
    except httpcore2.TimeoutException:
        return AudioRefusedError(AudioReason.TIMEOUT, f"silent for {policy.stall_s:g} s, {spool.size_bytes} bytes read")
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        if spool.size_bytes:
            return AudioRefusedError(AudioReason.TRUNCATED, f"the transfer broke off after {spool.size_bytes} bytes ({error})")
        return AudioRefusedError(AudioReason.SERVER_ERROR, f"the server cannot be talked to ({error})")
    except OSError as error:  # our own disk, which no other server mends
        raise UnavailableError(f"fetched audio cannot be written ({error.strerror}): free space, then repeat") from error
    except Exception as error:  # what one server makes us stumble over must not cost the others' files
        _log.exception("fetching %s", _host_of(request.audio_url))
        detail = f"the answer could not be read ({type(error).__name__}); report it, the log has the place"
        return AudioRefusedError(AudioReason.SERVER_ERROR, detail)
    return None


async def _bring(request: Request, spool: Spool, client: httpcore2.AsyncConnectionPool, policy: FetchPolicy) -> None:
    """One attempt: fill the spool, or raise."""
    scheme = scheme_of(request.audio_url)
    if not scheme:
        copy = partial(copy_relative, request.audio_url, request.root, spool)
        await asyncio.to_thread(copy, max_bytes=policy.max_bytes, within_s=policy.timeout_s)
    elif scheme == "file":
        copy = partial(copy_file_url, request.audio_url, policy.file_roots, spool)
        await asyncio.to_thread(copy, max_bytes=policy.max_bytes, within_s=policy.timeout_s)
    else:
        async with asyncio.timeout(policy.timeout_s):
            await _download(request, spool, client, policy)


async def _download(request: Request, spool: Spool, client: httpcore2.AsyncConnectionPool, policy: FetchPolicy) -> None:
    place = read_url(request.audio_url, provider=request.provider, policy=policy)
    timeouts = {"connect": policy.connect_timeout_s, "read": policy.stall_s, "write": policy.stall_s, "pool": None}
    for _ in range(policy.max_redirects + 1):
        headers = [("Host", place.host_header), *_HEADERS]
        async with client.stream("GET", place.url, headers=headers, extensions={"timeout": timeouts}) as response:
            location = _header(response, b"location")
            if response.status not in _REDIRECTS or not location:
                _judge_status(response, place)
                await _read_body(response, spool, policy)
                return
            place = follow(place, location, provider=request.provider, policy=policy)
    raise AudioRefusedError(AudioReason.SERVER_ERROR, f"more than {policy.max_redirects} redirects, the last to {place.host}")


async def _read_body(response: httpcore2.Response, spool: Spool, policy: FetchPolicy) -> None:
    length = _header(response, b"content-length")
    if length.isdecimal() and int(length) > policy.max_bytes:
        raise AudioRefusedError(AudioReason.TOO_LARGE, f"{length} bytes are announced, at most {policy.max_bytes} are kept")
    started_s = time.monotonic()
    async for chunk in response.aiter_stream():
        if spool.size_bytes + len(chunk) > policy.max_bytes:
            raise AudioRefusedError(AudioReason.TOO_LARGE, f"more than {policy.max_bytes} bytes")
        spool.write(chunk)
        took_s = time.monotonic() - started_s
        if took_s > policy.grace_s and spool.size_bytes < policy.min_rate_bytes_s * took_s:
            raise AudioRefusedError(AudioReason.TOO_SLOW, f"{spool.size_bytes} bytes in {took_s:.0f} s")


def _judge_status(response: httpcore2.Response, place: Place) -> None:
    """Raise the reason that a status stands for, unless it is 200."""
    status = response.status
    if status == 200:
        return
    if status in (404, 410):
        reason = AudioReason.NOT_FOUND
    elif status == 429:
        reason = AudioReason.RATE_LIMITED
    elif status in (408, 504):
        reason = AudioReason.TIMEOUT
    elif 400 <= status < 500:
        reason = AudioReason.FORBIDDEN
    else:
        reason = AudioReason.SERVER_ERROR
    wait_s = retry_after_s(_header(response, b"retry-after"))
    raise AudioRefusedError(reason, f"{place.host} answers {status}", retry_after_s=wait_s)


def _client(policy: FetchPolicy) -> httpcore2.AsyncConnectionPool:
    return httpcore2.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=policy.concurrency,
        max_keepalive_connections=policy.concurrency,
        keepalive_expiry=5.0,
        network_backend=CheckedBackend(policy),
    )


def _header(response: httpcore2.Response, name: bytes) -> str:
    return next((value.decode("latin-1").strip() for key, value in response.headers if key.lower() == name), "")


def _host_of(audio_url: str) -> str:
    """Key of the queue that a request waits in; only for fairness, so an unreadable URL has one of its own."""
    try:
        return urlsplit(audio_url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return audio_url
