"""Croissant JSON-LD: the version described for dataset search engines and `mlcroissant`.

Conventions: Croissant 1.0; files are those of the folder, found by relative paths, with the SHA-256 of the metadata files that
records are read from. Belongs here: `croissant.json`. Does not: the card that people read (`card.py`).

References
----------
.. [1] http://mlcommons.org/croissant/1.0
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.formats.audiofolder import METADATA, TYPES
from keeptake.formats.manifest import sha256_of
from keeptake.formats.sidecars import SPLITS, write_json

CROISSANT_VERSION = "2"  # 2: generation_id
CROISSANT = "croissant.json"
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def write(folder: Path, rows: pl.DataFrame, lineage: Mapping[str, Any]) -> None:
    """Describe the splits that have rows."""
    splits = [split for split in SPLITS if split in set(rows["split"])]
    described = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": lineage["name"],
        "version": f"{lineage['version'].removeprefix('v').partition('-')[0]}.0.0",
        "description": lineage["policy"]["description"] or f"Music clips chosen by the policy {lineage['name']}.",
        "license": sorted({licence or "not stated" for licence in rows["licence"]}),
        "url": Path(lineage["location"]).as_uri(),
        "distribution": [_file(folder, split) for split in splits],
        "recordSet": [_records(split) for split in splits],
    }
    write_json(folder / CROISSANT, described)


def _file(folder: Path, split: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"{split}-metadata",
        "name": f"{split}-metadata",
        "contentUrl": f"{split}/{METADATA}",
        "encodingFormat": "application/jsonlines",
        "sha256": sha256_of(folder / split / METADATA),
    }


def _records(split: str) -> dict[str, Any]:
    kinds = {str: "sc:Text", float: "sc:Float"}
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "name": name,
            "dataType": kinds[kind],
            "source": {"fileObject": {"@id": f"{split}-metadata"}, "extract": {"column": name}},
        }
        for name, kind in TYPES.items()
    ]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}
