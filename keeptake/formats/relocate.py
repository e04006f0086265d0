"""A version that was copied elsewhere: the files in which trainers look for paths, written anew for where it lies now.

Conventions: AudioCraft's manifests, ACE-Step's JSON and the configuration of stable-audio-tools hold absolute paths, all within
the `location` that the version's lineage names. `python -m keeptake.formats.relocate PATH OUT` writes them into OUT under the
names that they have in the version, which itself stays as it is, since its manifest holds their hashes. Belongs here: finding
those paths. Does not: what else the files say (`audiocraft.py`, `ace_step.py`, `stable_audio.py`).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keeptake.errors import ConfigurationError, KeeptakeError
from keeptake.formats import ace_step, manifest, stable_audio
from keeptake.formats.sidecars import SPLITS, write_json, write_lines

USAGE = "usage: python -m keeptake.formats.relocate PATH OUT: writes what holds paths of the version in PATH into the folder OUT"
PATHS = ("path", "audio_path", "custom_metadata_module")


def relocate(folder: Path, out: Path) -> list[Path]:
    """Write what holds absolute paths for a version where it lies now.

    Parameters
    ----------
    folder : Path
        The version.
    out : Path
        Gets `SPLIT/data.jsonl`, `ace_step/SPLIT.json` and `stable_audio.json`, those of them that the version has.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigurationError
        If the folder is no version, a path in its files leads out of it, or `out` lies in a published version.
    """
    folder, out = folder.resolve(), out.resolve()
    published = next((place for place in (out, *out.parents) if place == folder or (place / manifest.MANIFEST).is_file()), None)
    if published is not None:
        raise ConfigurationError(f"{out} lies in the version {published}, which never changes: name a folder outside of it")
    try:
        lineage = json.loads((folder / "lineage" / "lineage.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"{folder} is no published version: it has no lineage/lineage.json") from None
    names = [
        *(f"{split}/data.jsonl" for split in SPLITS),
        *(f"{ace_step.FOLDER}/{split}.json" for split in SPLITS),
        stable_audio.CONFIG,
    ]
    written = []
    for name in names:
        if not (folder / name).is_file():
            continue
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        text = (folder / name).read_text(encoding="utf-8")
        if name.endswith(".jsonl"):
            lines = (json.loads(line) for line in text.split("\n")[:-1])
            write_lines(out / name, (_moved(line, Path(lineage["location"]), folder) for line in lines))
        else:
            write_json(out / name, _moved(json.loads(text), Path(lineage["location"]), folder))
        written.append(out / name)
    return written


def _moved(value: Any, location: Path, folder: Path) -> Any:  # noqa: ANN401 -- any JSON value
    """A JSON value with the paths in it leading to `folder` instead of `location`."""
    if isinstance(value, list):
        return [_moved(each, location, folder) for each in value]
    if not isinstance(value, dict):
        return value
    moved = {name: _moved(each, location, folder) for name, each in value.items()}
    for name in PATHS:
        if name in moved:
            path = Path(moved[name])
            if not path.is_relative_to(location):
                raise ConfigurationError(
                    f"{path} does not lie in {location}, where the version was published: the file was changed"
                )
            moved[name] = str(folder / path.relative_to(location))
    return moved


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    if len(arguments) != 2:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        print(*relocate(Path(arguments[0]), Path(arguments[1])), sep="\n")
    except KeeptakeError as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
