"""Many files, several workers: what `keeptake analyze FILES…` does.

Conventions: one line a file, in the order in which the files were named, each as soon as those before it are there. Files come
from strangers, so each is heard in a worker process within limits; one that kills its worker is a line too. A script that reads
`{file, bpm, key, vocals}` takes the lines as they are, if the command runs where the names in its labels start::

    cd FOLDER && keeptake analyze audio/* --json > predictions.jsonl

Belongs here: files, workers, pictures in a folder. Does not: hearing one file (`hearing.py`), processes (`compute.py`).
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keeptake.compute import Failed, Ok, Pool
from keeptake.errors import AudioReason, KeeptakeError

if TYPE_CHECKING:
    from keeptake.audio.analyze import Networks

Line = dict[str, Any]


class FileAsked(NamedTuple):
    """A file to hear, and where its picture goes."""

    number: int
    path: Path
    picture: Path | None


def analyze_files(
    files: Sequence[Path],
    *,
    models: Path | None,
    cpu_s: float,
    memory_mb: int,
    workers: int = 0,
    plot_dir: Path | None = None,
) -> Iterator[Line]:
    """Hear files and yield their lines.

    Parameters
    ----------
    files : sequence of Path
    models : Path or None
        Folder of the model store; None hears without networks, and `vocals` and `style` are null.
    cpu_s : float, > 0
        CPU seconds that one file may take; of wall time it may take five times as much.
    memory_mb : int, > 0
        Megabytes that one file may take.
    workers : int, >= 0
        Worker processes; 0 means one for each core.
    plot_dir : Path, optional
        Folder that gets a PNG a file, `NAME.png`; made if missing.

    Yields
    ------
    dict
        `keeptake.hearing.analysis_line` of each file, in order.

    Raises
    ------
    UnavailableError
        If no worker can start, as without the models' packages: says what to install.
    """
    if not files:
        return
    if plot_dir is not None:
        plot_dir.mkdir(parents=True, exist_ok=True)
    names = Counter(path.name for path in files)
    asked = [
        FileAsked(number, path, None if plot_dir is None else plot_dir / _picture_name(path, names))
        for number, path in enumerate(files)
    ]
    waiting: dict[int, Line] = {}
    following = 0
    with Pool(workers, initializer=partial(prepare_worker, models)).at_most(len(files)) as pool:
        for ask, outcome in pool.map(line_of, asked, cpu_s=cpu_s, memory_mb=memory_mb):
            waiting[ask.number] = outcome.value if isinstance(outcome, Ok) else _lost(ask, outcome)
            while following in waiting:
                yield waiting.pop(following)
                following += 1


_networks: "Networks | None" = None


def prepare_worker(models: Path | None) -> None:
    """Load in a worker process what `line_of` needs."""
    from keeptake.hearing import load_networks
    from keeptake.model_store import ModelStore

    global _networks
    _networks = None if models is None else load_networks(ModelStore(models))


def line_of(asked: FileAsked) -> Line:
    """Hear one file in a prepared worker, and draw it where a picture is wanted."""
    from keeptake.hearing import analysis_line, draw, hear_file

    heard = hear_file(asked.path, networks=_networks)
    if asked.picture is not None and heard.status == "ok":
        asked.picture.write_bytes(draw(asked.path, heard.parts, title=asked.path.name))
    return analysis_line(heard)


def _lost(asked: FileAsked, failed: Failed) -> Line:
    """Line of a file whose worker did not answer."""
    from keeptake.hearing import FileHeard, analysis_line

    if isinstance(failed.error, OSError | KeeptakeError):  # a full disk, a model that is missing: no file's fault
        raise failed.error
    reason = AudioReason.TIMEOUT if failed.reason == "timeout" else AudioReason.CRASHED_WORKER
    return analysis_line(FileHeard(str(asked.path), "quarantined", str(reason), f"{failed.reason}: {failed.detail}", None, {}))


def _picture_name(path: Path, names: Mapping[str, int]) -> str:
    """File name of a picture: the file's own, with its folders where another file has the same."""
    return f"{path.name if names[path.name] == 1 else '_'.join(part for part in path.parts if part != os.sep)}.png"
