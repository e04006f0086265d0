"""Which files of anyone's folder are copies of each other? What `keeptake duplicates` prints.

Conventions: a file is named as it was given, or by its path below the given folder's path. A file that cannot be told from others
is never dropped: it is listed with its reason. Belongs here: files in, plain JSON out. Does not: how copies are found
(`curation/duplicates.py`), takes of the ledger (`fingerprinting.py`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keeptake.audio.fingerprint import Codes
from keeptake.curation.duplicates import DuplicatePair, find_duplicates, groups, tells_enough
from keeptake.errors import AudioRefusedError, ConfigurationError, InvalidAudioError
from keeptake.fingerprinting import fingerprint_file
from keeptake.stage import Progress, silent


def duplicates_of_files(paths: Iterable[Path], *, progress: Progress = silent) -> dict[str, Any]:
    """Find copies among files.

    Parameters
    ----------
    paths : iterable of Path
        Files, and folders whose files are taken with all that lies below; files whose names begin with a dot are passed over.
    progress : callable
        Told after each file how many have been read, and of how many.

    Returns
    -------
    dict
        `groups`: a list of `{"files": [...], "evidence": [...]}`, largest first. `excerpts`: evidence of files of which one holds
        a part of the other. `not_compared`: `{"file", "reason", "detail"}` of the rest.

    Raises
    ------
    ConfigurationError
        If a path does not exist.
    """
    codes: dict[str, Codes] = {}
    not_compared: list[dict[str, str]] = []
    files = list(_files(paths))
    for done, path in enumerate(files, start=1):
        name = str(path)
        try:
            codes[name] = fingerprint_file(path)
        except AudioRefusedError as refusal:
            not_compared.append({"file": name, "reason": str(refusal.reason), "detail": refusal.detail})
        except OSError as error:
            not_compared.append({"file": name, "reason": "not-found", "detail": f"{error.strerror}: {path}"})
        except InvalidAudioError as error:
            not_compared.append({"file": name, "reason": "non-finite-samples", "detail": str(error)})
        else:
            if not tells_enough(codes[name]):
                del codes[name]
                detail = "shorter than 4.5 s, silent, or a sound that stands still: nothing to tell it from others by"
                not_compared.append({"file": name, "reason": "tells-too-little", "detail": detail})
        progress("fingerprint", done, len(files))
    pairs = find_duplicates(codes)
    return {
        "groups": [{"files": list(g.members), "evidence": [_evidence(pair) for pair in g.pairs]} for g in groups(pairs)],
        "excerpts": [_evidence(pair) for pair in pairs if pair.relation == "excerpt"],
        "not_compared": not_compared,
    }


def _evidence(pair: DuplicatePair) -> dict[str, Any]:
    fields = asdict(pair)
    return {"files": [fields.pop("a"), fields.pop("b")], **fields}


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"there is no file or folder {path}")
        found = sorted(below for below in path.rglob("*") if below.is_file()) if path.is_dir() else [path]
        for file in found:
            if file not in seen and not (path.is_dir() and file.name.startswith(".")):
                seen.add(file)
                yield file
