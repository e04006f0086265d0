"""stable-audio-tools: a dataset configuration over the clips, and the small module that finds their prompts.

Conventions: rules as observed at 50049e3: folders of `audio_dir`, suffixes wav mp3 flac ogg aif opus, the prompt from
`get_custom_metadata`; paths in the configuration are absolute, so a version that was moved gets another one from `relocate.py`.
The tool trains at 44.1 kHz and in stereo, so the folder is that of the masters, where the policy has them; they are clips as
well. The sidecar of a master lies beside the clip of its name. Belongs here: both files. Does not: the clips.
"""

import json
from pathlib import Path

from keeptake.formats.clips import MASTERS, finest_folder
from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import write_json

STABLE_AUDIO_VERSION = "2"  # 2: masters, where there are any
CONFIG = "stable_audio.json"
MODULE = "stable_audio_metadata.py"
_SOURCE = '''"""Prompt of a clip for stable-audio-tools, from its sidecar; that of masters/SPLIT/ID.flac is SPLIT/ID.json."""

import json
from pathlib import Path


def get_custom_metadata(info, audio):
    sidecar = Path(info["path"]).with_suffix(".json")
    if not sidecar.is_file():
        sidecar = sidecar.parent.parent.parent / sidecar.parent.name / sidecar.name
    if not sidecar.is_file():
        return {"__reject__": True}
    return {"prompt": json.loads(sidecar.read_text(encoding="utf-8"))["description"]}
'''


def write(folder: Path, *, location: Path, has_master: bool) -> None:
    """Write the configuration (train only: it is what the tool trains on) and its module.

    Parameters
    ----------
    folder : Path
        Where the files are written.
    location : Path
        Where the folder will lie once it is published.
    has_master : bool
        Whether the version has masters, which the tool then reads.
    """
    (folder / MODULE).write_text(_SOURCE, encoding="utf-8")
    path, module = location / finest_folder("train", has_master=has_master), location / MODULE
    train = {"id": "train", "path": str(path), "custom_metadata_module": str(module)}
    datasets = [train] if (folder / "train").is_dir() else []
    write_json(folder / CONFIG, {"dataset_type": "audio_dir", "datasets": datasets, "random_crop": False, "drop_last": False})


def read_back(folder: Path, split: str, *, rows_in: int, location: Path) -> Reading:
    """Ask the module for the prompt of each clip that the tool's scanner would find, with `location` standing for the folder."""
    reading = Reading("stable-audio-tools", split, "documented rules of stable-audio-tools 50049e3", rows_in=rows_in)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        module: dict[str, object] = {}
        source = (folder / MODULE).read_text(encoding="utf-8")
        if source != _SOURCE:
            return reading.fail(f"{MODULE} is not the one that was written")
        exec(compile(source, MODULE, "exec"), module)  # noqa: S102 -- our own constant, as just compared
    except (OSError, ValueError, SyntaxError) as error:
        return reading.fail(error)
    if config.get("dataset_type") != "audio_dir" or config.get("drop_last", True):
        return reading.fail("the configuration is no audio_dir, or drops the last batch: small sets give none")
    finest = finest_folder(split, has_master=(folder / MASTERS / split).is_dir())
    if split == "train" and [train.get("path") for train in config.get("datasets", [])] != [str(location / finest)]:
        return reading.fail(f"the configuration does not name {location / finest} as its only folder")
    find = module["get_custom_metadata"]
    for path in sorted((folder / finest).glob("*.flac")):
        found = find({"path": str(path)}, None)  # type: ignore[operator]  # a function of the module just run
        if found.get("__reject__") or not found.get("prompt"):
            reading.lose(path.name, "no prompt: the clip is skipped")
        else:
            reading.rows_out += 1
    return reading
