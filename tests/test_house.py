"""The house rules: who may import whom, what loading the definitions may open, what a room may hold."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
ROOMS = ("dagster_project", "assets", "resources", "keeptake")
MAY_IMPORT = {
    "dagster_project": {"dagster_project", "assets", "resources", "keeptake"},
    "assets": {"assets", "resources", "keeptake"},
    "resources": {"resources", "keeptake"},
    "keeptake": {"keeptake"},
}
# Inside keeptake: a room that is not listed may import any other but capture and training.
INSIDE = {
    "audio": {"audio", "errors"},
    "errors": set(),
    "settings": {"errors"},
    "records": {"errors", "settings", "json_values"},
    "embedding": {
        "embedding",
        "errors",
        "settings",
        "records",
        "model_store",
        "audio",
        "custody",
        "ledger",
        "stage",
        "audio_store",
    },
}
HEAVY = ("torch", "torchaudio", "librosa", "transformers", "matplotlib", "onnxruntime", "numba")
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc"}


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((PROJECT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_only(room):
    wrong = [
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in modules(room)
        for name in imported(path)
        if name.split(".")[0] in ROOMS and name.split(".")[0] not in MAY_IMPORT[room]
    ]
    assert wrong == []


def test_the_craft_knows_nothing_of_dagster():
    assert [
        path.name for path in modules("keeptake") for name in imported(path) if name.split(".")[0].startswith("dagster")
    ] == []


def test_inside_keeptake_the_lower_rooms_do_not_look_up():
    wrong = []
    for path in modules("keeptake"):
        room = path.relative_to(PROJECT / "keeptake").parts[0].removesuffix(".py")
        for name in imported(path):
            parts = name.split(".")
            if parts[0] != "keeptake" or len(parts) < 2:
                continue
            target = parts[1]
            if target not in INSIDE.get(room, {target}) or (target in ("capture", "training") and room != target):
                wrong.append(f"{path.relative_to(PROJECT)} imports {name}")
    assert wrong == []


def test_assets_hold_no_sql_no_files_and_short_bodies():
    for path in modules("assets"):
        text = path.read_text()
        assert "SELECT " not in text, f"{path.name} holds SQL"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "open", f"{path.name} opens a file"
            is_asset = isinstance(node, ast.FunctionDef) and any("asset" in ast.unparse(mark) for mark in node.decorator_list)
            if is_asset:
                lines = (node.end_lineno or 0) - node.body[0].lineno
                assert lines <= 25, f"{node.name} has a body of {lines} lines"


def test_no_room_is_called_after_nothing():
    assert [str(path) for path in modules(*ROOMS, "tests", "benchmarks") if path.stem in FORBIDDEN_NAMES] == []
    assert not {path.name for path in (PROJECT / "tests").iterdir() if path.is_dir()} & set(ROOMS)


def test_every_package_is_listed_by_hand():
    listed = set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {".".join(path.parent.relative_to(PROJECT).parts) for path in modules(*ROOMS) if path.name == "__init__.py"}
    assert listed == found


def in_a_new_process(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEEPTAKE_", "DAGSTER_"))}
    done = subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_each_room_resolves_from_anywhere():
    found = in_a_new_process(f"import importlib\nfor room in {ROOMS}: print(importlib.import_module(room).__file__)").splitlines()
    assert [Path(path).parent for path in found] == [PROJECT / room for room in ROOMS]


def test_loading_the_definitions_opens_nothing_and_imports_nothing_heavy():
    code = (
        "import socket, sys\n"
        "def refuse(*args): raise AssertionError('a connection at import')\n"
        "socket.socket.connect = refuse\n"
        "import dagster_project.definitions\n"
        f"print(*sorted(set({HEAVY}) & set(sys.modules)))"
    )
    assert in_a_new_process(code) == ""


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [("keeptake.hearing", ("dagster", "sqlalchemy", "torch")), ("keeptake.ledger.status", ("dagster", "torch", "librosa"))],
)
def test_a_command_loads_only_its_own_room(module, unwanted):
    assert in_a_new_process(f"import sys, {module}\nprint(*sorted(set({unwanted}) & set(sys.modules)))") == ""
