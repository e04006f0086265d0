"""`MANIFEST.json`: what a version consists of, to the byte.

Conventions: paths are relative to the version's folder and sorted; the manifest names every file but itself. Belongs here: making
and checking it. Does not: what the files say.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from keeptake.errors import PublicationError
from keeptake.formats.sidecars import write_json

MANIFEST = "MANIFEST.json"
MANIFEST_VERSION = "1"


def write(folder: Path, *, about: Mapping[str, Any], row_hashes: Mapping[str, str], threads: int = 2) -> str:
    """Write the manifest over all files that lie in the folder; returns its own SHA-256."""
    files = listed(folder, threads=threads)
    write_json(folder / MANIFEST, {"manifest": MANIFEST_VERSION, **about, "row_sha256": dict(row_hashes), "files": files})
    return sha256_of(folder / MANIFEST)


def listed(folder: Path, *, threads: int = 2) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file under a folder but its manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    with ThreadPoolExecutor(threads) as pool:  # hashing lets go of the interpreter
        hashes = list(pool.map(sha256_of, paths))
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {
        name: {"size_bytes": path.stat().st_size, "sha256": sha256}
        for name, path, sha256 in sorted(zip(names, paths, hashes, strict=True))
    }


def read(folder: Path) -> dict[str, Any]:
    """Read the manifest of a published version.

    Raises
    ------
    PublicationError
        If it is not there or no JSON.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise PublicationError(f"{folder} is no published version: {MANIFEST} is not there") from None
    except ValueError as error:
        raise PublicationError(f"{folder / MANIFEST} is damaged ({error}): rebuild the version from its rows") from None
    return manifest


def problems(folder: Path) -> list[str]:
    """Tell what differs between a version's files and its manifest; nothing for a whole one."""
    promised, found = read(folder)["files"], listed(folder)
    missing = [f"{name} is missing" for name in promised if name not in found]
    strange = [f"{name} does not belong here" for name in found if name not in promised]
    changed = [f"{name} was changed" for name in promised if name in found and promised[name] != found[name]]
    return sorted([*missing, *strange, *changed])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
