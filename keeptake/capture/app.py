"""The HTTP service, put together.

Belongs here: which routes and layers there are, and what lives as long as the process. Does not: anything of a single route.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from alembic.script import ScriptDirectory
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from keeptake.audio_store import AudioStore
from keeptake.capture import documentation, problems, routes_audio, routes_datasets, routes_read, routes_service, routes_write
from keeptake.capture.access import NOTE_USE_S, Keys
from keeptake.capture.envelope import Envelope
from keeptake.capture.exporting import Exporter
from keeptake.capture.limits import CallLimits, limits_of
from keeptake.capture.saving import Step, no_step
from keeptake.capture.scoring import Scorer
from keeptake.capture.statistics import StatisticsCache
from keeptake.capture.uploads import Uploads
from keeptake.errors import ConfigurationError, KeeptakeError
from keeptake.ledger.migrate import alembic_config
from keeptake.ledger.serving import BoundedLedger, ServingPool
from keeptake.settings import Settings, listed, settings

PREFIX = "/api/training-metadata"
ROUTERS = (
    (PREFIX, routes_write.router),
    (PREFIX, routes_read.router),
    (PREFIX, routes_audio.router),
    (routes_datasets.PREFIX, routes_datasets.router),
    ("", routes_service.router),
)
EXPORTS = PREFIX + "/export/"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH"]
_HEADERS = ["Authorization", "X-API-Key", "Content-Type", "Content-Digest", "X-Request-Id", "If-None-Match", "If-Range", "Range"]
_SHOWN_HEADERS = ["X-Request-Id", "Retry-After", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "ETag"]
_SHOWN_HEADERS += ["Content-Range"]

log = logging.getLogger("keeptake.capture")


def create_app(chosen: Settings | None = None, *, database_url: str | None = None, step: Step = no_step) -> FastAPI:
    """Build the service.

    Parameters
    ----------
    chosen : Settings, optional
        By default those of the environment.
    database_url : str, optional
        Address of the ledger; by default the settings'.
    step : callable, optional
        Told the name of each of `saving.STEPS` as a save passes it; tests kill the process there.

    Raises
    ------
    ConfigurationError
        Without an address of the ledger, or with a limit that cannot be read.
    """
    chosen = chosen or settings()
    url = database_url or chosen.database_url
    if not url:
        raise ConfigurationError("the service needs a ledger: set KEEPTAKE_DATABASE_URL, or start it with keeptake up")
    app = FastAPI(title="Keeptake", version=version("keeptake"), docs_url=None, redoc_url=None, lifespan=_lifespan)
    # A redirect would name the host that the service sees, which behind a proxy is another than the caller's.
    app.router.redirect_slashes = False
    app.state.settings = chosen
    app.state.database_url = url
    app.state.step = step
    app.state.revision = ScriptDirectory.from_config(alembic_config()).get_current_head()
    app.state.audio_store = AudioStore(chosen.audio_location)
    for prefix, router in ROUTERS:
        app.include_router(router, prefix=prefix)
    problems.install(app, _methods_of)
    documentation.install(app, ROUTERS)
    if origins := listed(chosen.cors_origins):
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_HEADERS,
            expose_headers=_SHOWN_HEADERS,
            max_age=600,
        )
    app.add_middleware(Envelope, without_head=EXPORTS)
    return app


def _methods_of(path: str) -> list[str]:
    routes = [(prefix, route) for prefix, router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    literal = [route for prefix, route in routes if path == prefix + route.path_format]
    inside = literal or [
        route for prefix, route in routes if path.startswith(prefix) and route.path_regex.match(path.removeprefix(prefix))
    ]
    methods = {method for route in inside for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods and not path.startswith(EXPORTS) else methods)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state, chosen = app.state, app.state.settings
    state.pool = ServingPool(state.database_url, deadline_s=chosen.api_deadline_s)
    state.keys = Keys(state.pool, is_open=chosen.auth == "none")
    state.limits = CallLimits(Path(chosen.home) / "run" / "api-calls", limits_of(chosen))
    state.scorer = Scorer()
    state.statistics = StatisticsCache(state.pool, deadline_s=chosen.api_deadline_s)
    state.exporter = Exporter()
    state.ledger = BoundedLedger(state.database_url, deadline_s=chosen.api_deadline_s)
    state.uploads = Uploads(state.audio_store, state.ledger)
    await state.pool.open()
    chores = [
        asyncio.create_task(_every(NOTE_USE_S, state.keys.note_use)),
        asyncio.create_task(_end_with_parent()),
    ]
    try:
        yield
    finally:
        for chore in chores:
            chore.cancel()
        with contextlib.suppress(KeeptakeError):
            await state.keys.note_use()
        state.exporter.close()
        state.scorer.close()
        state.uploads.close()
        state.ledger.dispose()
        state.limits.close()
        await state.pool.close()


async def _every(seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await chore()
        except KeeptakeError:
            log.warning("a chore waits for the ledger")


async def _end_with_parent() -> None:
    """Worker processes would outlive a killed supervisor and keep its port."""
    if os.environ.get("KEEPTAKE_API_SUPERVISED") != "1":
        return
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
