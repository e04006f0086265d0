"""Fixtures that several test files share. Belongs here: what is used by two files or more."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import make_url

from keeptake.ledger.connection import Ledger, libpq_url
from keeptake.ledger.migrate import migrate

HERE = Path(__file__).parent
DEV_DATA = HERE.parent.parent / "shared" / "data" / "dev"


@pytest.fixture(scope="session")
def signals() -> ModuleType:
    """Audio with known truth: the module `tests/signals.py`."""
    return _module("signals")


@pytest.fixture(scope="session")
def tiny_models() -> ModuleType:
    """Large models made small: the module `tests/tiny_models.py`."""
    return _module("tiny_models")


@pytest.fixture(scope="session")
def peak_memory() -> ModuleType:
    """How much memory something takes: the module `tests/peak_memory.py`."""
    return _module("peak_memory")


def _module(name: str) -> ModuleType:
    """Load `tests/NAME.py`, which importlib mode does not put on the path."""
    spec = importlib.util.spec_from_file_location(f"keeptake_test_{name}", HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dev_data() -> Path:
    """The labelled audio beside the project; tests that need it are skipped where it is missing."""
    if not (DEV_DATA / "labels.jsonl").is_file():
        pytest.skip(f"the labelled audio is not here: expected {DEV_DATA}")
    return DEV_DATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a throw-away embedded server, one a test session.

    Not under pytest's own folder: as root the server runs as another user, and each new pytest session closes that folder to all
    others, which took the data away from the servers of sessions at work.
    """
    from keeptake.ledger.server import embedded_server

    with TemporaryDirectory(prefix="keeptake-", ignore_cleanup_errors=True) as home, embedded_server(Path(home)) as url:
        yield url


@pytest.fixture(scope="session")
def template_database(postgres: str) -> str:
    """Name of a migrated database that tests are copied from."""
    _administer(postgres, "CREATE DATABASE template_ledger")
    ledger = Ledger(_in_database(postgres, "template_ledger"))
    migrate(ledger)
    ledger.dispose()
    return "template_ledger"


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """Address of an empty throw-away database."""
    name = f"test_{uuid4().hex}"
    _administer(postgres, f"CREATE DATABASE {name}")
    yield _in_database(postgres, name)
    _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ledger(postgres: str, template_database: str) -> Iterator[Ledger]:
    """An empty, migrated ledger in a throw-away database of a real Postgres."""
    name = f"test_{uuid4().hex}"
    _administer(postgres, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    ledger = Ledger(_in_database(postgres, name))
    yield ledger
    ledger.dispose()
    _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _in_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _administer(url: str, statement: str) -> None:
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
def capture_service() -> ModuleType:
    """Running services to send requests to: the module `tests/capture_service.py`."""
    return _module("capture_service")


@pytest.fixture
def service(ledger: Ledger, tmp_path: Path, capture_service: ModuleType) -> Iterator[Any]:
    """The HTTP service over a throw-away ledger, with a key for everything."""
    with capture_service.running(ledger, tmp_path) as started:
        yield started


@pytest.fixture(scope="session")
def home_up() -> ModuleType:
    """A home with everything up, and what is asked of it: the module `tests/home_up.py`."""
    return _module("home_up")


@pytest.fixture(scope="session")
def running(home_up: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The one home with everything up that several test files look at, each in its own corner."""
    with home_up.everything_up(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.fixture(scope="session")
def demo_takes(home_up: ModuleType, running: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The beat maker's takes on two capture days of the running home, scored or quarantined by its daemon."""
    takes = home_up.add_demo(running, tmp_path_factory.mktemp("demo"))
    home_up.waited_for(lambda: home_up.is_done(running), within_s=120 + 15 * len(takes))
    return list(takes)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of the running home come last: left idle, it would take a seventh of a core from the timings of others."""
    items.sort(key=lambda item: "running" in getattr(item, "fixturenames", ()))
