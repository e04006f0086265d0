"""Routes about published datasets: versions, what they say of themselves, their differences, their files.

Conventions: a version never changes, so that what is said of one may be kept for ever; a file is found through its manifest
alone, never by a path from outside. Belongs here: headers of caches and ranges. Does not: reading versions
(`keeptake/datasets.py`).
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel, Field
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from keeptake import datasets
from keeptake.capture.access import Guard, Principal
from keeptake.capture.answers import UNCHANGED, header_parameters, is_unchanged, json_answer, operation
from keeptake.capture.problems import Problem
from keeptake.capture.ranges import byte_range
from keeptake.errors import ConfigurationError
from keeptake.formats import manifest

PREFIX = "/api/datasets"
PIECE_BYTES = 1 << 18
FOR_EVER = "private, max-age=31536000, immutable"
MEDIA_TYPES = {".flac": "audio/flac", ".json": "application/json", ".jsonl": "application/x-ndjson", ".csv": "text/csv"}
MEDIA_TYPES |= {".md": "text/markdown", ".png": "image/png", ".tar": "application/x-tar", ".parquet": "application/octet-stream"}

Exporting = Annotated[Principal, Depends(Guard("export:read", "read"))]
Name = Annotated[str, InPath(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$", description="Name of the dataset, which is its policy's.")]
Version = Annotated[str, InPath(pattern=r"^v[0-9]{1,6}-[0-9a-f]{12}$", examples=["v1-0123456789ab"])]
Other = Annotated[str, Query(pattern=r"^v[0-9]{1,6}-[0-9a-f]{12}$", description="The newer version.")]
_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(tags=["datasets"])


class DatasetVersion(BaseModel):
    """A published version."""

    name: str
    version: str
    rows: dict[str, int] = Field(description="By split.")


class DatasetVersions(BaseModel):
    """Published versions, oldest first."""

    items: list[DatasetVersion]


@router.get("", **operation(DatasetVersions))
async def list_datasets(request: Request, principal: Exporting) -> Response:
    """Published versions of all datasets, oldest first."""
    return json_answer({"items": await asyncio.to_thread(_listed, None, _folder(request))})


@router.get("/{name}", **operation(DatasetVersions, 404))
async def list_versions(name: Name, request: Request, principal: Exporting) -> Response:
    """Published versions of one dataset, oldest first."""
    return json_answer({"items": await _found(_listed, name, _folder(request))})


@router.get("/{name}/{version}", **operation(dict[str, Any], 404))
async def show_version(name: Name, version: Version, request: Request, principal: Exporting) -> Response:
    """What a version says of itself: policy, lineage, counts, and every file with its size and SHA-256."""
    folder = await _found(_version, name, version, _folder(request))
    shown = await asyncio.to_thread(_shown, folder)
    return json_answer(shown, headers={"Cache-Control": FOR_EVER})


@router.get("/{name}/{version}/diff", **operation(dict[str, Any], 404))
async def diff_versions(name: Name, version: Version, to: Other, request: Request, principal: Exporting) -> Response:
    """How a version was made otherwise than an older one, and the rows added, removed and changed, each with its reason."""
    changes = await _found(_changes, name, version, to, _folder(request))
    return json_answer({"items": changes}, headers={"Cache-Control": FOR_EVER})


@router.get(
    "/{name}/{version}/files/{file:path}",
    **operation(None, 404, 416, content=_FILE, others={206: {"description": "The range.", "content": _FILE}, **UNCHANGED}),
    openapi_extra=header_parameters("Range", "If-Range", "If-None-Match"),
)
async def send_file(
    name: Name, version: Version, file: Annotated[str, InPath(max_length=512)], request: Request, principal: Exporting
) -> Response:
    """A file of a version, whole or in one range; its name is one that the version lists."""
    folder = await _found(_version, name, version, _folder(request))
    promised = (await asyncio.to_thread(manifest.read, folder))["files"].get(file)
    if promised is None:
        raise Problem(404, "file-unknown", "the version lists no such file: see its description for those that it has")
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{promised["sha256"]}"', "Cache-Control": FOR_EVER}
    if is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    size_bytes = promised["size_bytes"]
    asked = request.headers
    first, last, is_part = byte_range(asked.get("range"), size_bytes, if_range=asked.get("if-range"), etag=headers["ETag"])
    headers["Content-Length"] = str(last - first + 1)
    if is_part:
        headers["Content-Range"] = f"bytes {first}-{last}/{size_bytes}"
    media_type = MEDIA_TYPES.get(Path(file).suffix, "application/octet-stream")
    pieces = iterate_in_threadpool(_pieces(folder / file, first, last))
    return StreamingResponse(pieces, 206 if is_part else 200, headers=headers, media_type=media_type)


def _folder(request: Request) -> Path:
    folder: Path = request.app.state.settings.datasets_location
    return folder


async def _found(read: Any, *given: Any) -> Any:  # noqa: ANN401 -- whatever the reader gives
    try:
        return await asyncio.to_thread(read, *given)
    except ConfigurationError:  # its own sentence names the folder on this machine
        raise Problem(
            404, "dataset-unknown", f"no such dataset or version: GET {PREFIX} names those that are published"
        ) from None


def _listed(name: str | None, folder: Path) -> list[dict[str, Any]]:
    return [{key: row[key] for key in ("name", "version", "rows")} for row in datasets.list_versions(name, datasets_dir=folder)]


def _version(name: str, version: str, folder: Path) -> Path:
    return datasets.find(name, version, datasets_dir=folder)


def _shown(folder: Path) -> dict[str, Any]:
    shown = datasets.show_version(folder.parent.name, folder.name, datasets_dir=folder.parent.parent)
    lineage = {key: value for key, value in shown["lineage"].items() if key != "location"}  # no folders of this machine
    about = {key: value for key, value in shown.items() if key not in ("path", "lineage", "files")}
    return {**about, "lineage": lineage, "files": manifest.read(folder)["files"]}


def _changes(name: str, version: str, to: str, folder: Path) -> list[dict[str, Any]]:
    return datasets.diff(name, version, to, datasets_dir=folder).to_dicts()


def _pieces(path: Path, first: int, last: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(first)
        left = last - first + 1
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            yield piece
