"""Fixtures that several test files share. Belongs here: what is used by three files or more."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

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
