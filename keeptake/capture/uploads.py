"""Audio that is sent to us: received within bounds, proved in a worker process, stored under its hash.

Belongs here: one upload from request to ledger. Does not: proving and storing (`custody/keep.py`), routes (`routes_audio.py`).
"""

import asyncio
import base64
import binascii
import re
import threading
from typing import NamedTuple

from fastapi import Request

from keeptake.audio_store import AudioStore
from keeptake.capture.bodies import pieces_of, refuse_encoded
from keeptake.capture.problems import Problem
from keeptake.custody.spool import Spool
from keeptake.errors import AudioRefusedError
from keeptake.ledger.serving import BoundedLedger

MAX_AUDIO_BYTES = 50 << 20
AT_ONCE = 2  # uploads of one worker process: each may lie on the disk with its 50 MB

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]{1,64}):")


class Whose(NamedTuple):
    """The generation that audio is sent for."""

    id: int
    audio_sha256: str | None
    format: str | None
    duration_s: float | None


class Uploads:
    """The uploads of this process; its worker is started with the first one.

    Parameters
    ----------
    store : AudioStore
        Where the audio is kept.
    ledger : BoundedLedger
        Where that is noted: one whose transactions end in time, or a frozen server would hold both places for ever.
    """

    def __init__(self, store: AudioStore, ledger: BoundedLedger) -> None:
        from keeptake.compute import Pool
        from keeptake.custody.prove import prepare_worker

        self._store = store
        self._ledger = ledger
        self._pool = Pool(1, initializer=prepare_worker)
        self._is_started = False
        self._lock = threading.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def receive(self, request: Request, whose: Whose) -> str:
        """Take the audio of a generation in; returns its SHA-256.

        Raises
        ------
        Problem
            413, 408, 400 as for any body; 415 for a form or a compressed body; 400 where it is not what `Content-Digest` says;
            409 where the generation has other audio; 422 with the reason where it is no audio that can be heard.
        LedgerUnavailableError
            If the ledger does not answer in time; the audio may be sent again.
        """
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise Problem(415, "unsupported-media-type", "send the audio itself as the body, such as curl -T FILE, and no form")
        refuse_encoded(request)
        digest = _digest(request.headers.get("content-digest"))
        if self._places.locked():
            raise Problem(429, "too-many-uploads", "repeat when another upload has ended", headers={"Retry-After": "5"})
        async with self._places:
            with Spool(self._store.spool_folder) as spool:
                async for piece in pieces_of(request, MAX_AUDIO_BYTES):
                    spool.write(piece)
                if digest not in (None, spool.sha256):
                    raise Problem(400, "digest-mismatch", "the audio is not the one that Content-Digest names")
                if whose.audio_sha256 not in (None, spool.sha256):
                    raise Problem(409, "audio-conflict", "the generation has other audio, and what was kept is never overwritten")
                try:
                    is_taken = await asyncio.to_thread(self._keep, spool, whose)
                except AudioRefusedError as refused:
                    raise Problem(422, refused.reason.value, refused.detail, pointer="") from None
                if not is_taken:
                    raise Problem(409, "audio-conflict", "the generation got other audio meanwhile, or was erased")
                return spool.sha256

    def _keep(self, spool: Spool, whose: Whose) -> bool:
        from keeptake.custody.keep import outcome_of_upload, receive
        from keeptake.ledger.audio import save_outcomes

        with self._lock:
            if not self._is_started:
                self._pool.__enter__()
                self._is_started = True
            kept = receive(spool, self._store, self._pool)
        outcome = outcome_of_upload(whose.id, kept, claimed_format=whose.format, claimed_duration_s=whose.duration_s)
        with self._ledger.begin() as connection:
            return save_outcomes(connection, [outcome]) == 1

    def close(self) -> None:
        """End the worker."""
        self._pool.close()


def _digest(header: str | None) -> str | None:
    if header is None:
        return None
    found = _DIGEST.search(header)
    try:
        if found is None:
            raise ValueError("no sha-256")
        return base64.b64decode(found.group(1), validate=True).hex()
    except (ValueError, binascii.Error):
        raise Problem(400, "invalid-digest", "Content-Digest reads sha-256=:BASE64:") from None
