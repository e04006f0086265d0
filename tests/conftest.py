"""Fixtures that several test files share. Belongs here: what is used by three files or more."""

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
    """Audio with known truth: the module `tests/signals.py`, which importlib mode does not put on the path."""
    spec = importlib.util.spec_from_file_location("keeptake_test_signals", HERE / "signals.py")
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
    spec = importlib.util.spec_from_file_location("keeptake_test_capture_service", HERE / "capture_service.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def service(ledger: Ledger, tmp_path: Path, capture_service: ModuleType) -> Iterator[Any]:
    """The HTTP service over a throw-away ledger, with a key for everything."""
    with capture_service.running(ledger, tmp_path) as started:
        yield started
