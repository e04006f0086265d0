"""stable-audio-tools: a dataset configuration over the clips, and the small module that finds their prompts.

Conventions: rules as observed at 50049e3: folders of `audio_dir`, suffixes wav mp3 flac ogg aif opus, the prompt from
`get_custom_metadata`; paths in the configuration are absolute, so a version that was moved needs its `path`s mended. Belongs
here: both files. Does not: the clips.
"""

import json
from pathlib import Path

from keeptake.formats.readers import Reading
from keeptake.formats.sidecars import SPLITS, write_json

STABLE_AUDIO_VERSION = "1"
CONFIG = "stable_audio.json"
MODULE = "stable_audio_metadata.py"
_SOURCE = '''"""Prompt of a clip for stable-audio-tools, from the sidecar beside it."""

import json
from pathlib import Path


def get_custom_metadata(info, audio):
    sidecar = Path(info["path"]).with_suffix(".json")
    if not sidecar.is_file():
        return {"__reject__": True}
    return {"prompt": json.loads(sidecar.read_text(encoding="utf-8"))["description"]}
'''


def write(folder: Path, *, location: Path) -> None:
    """Write the configuration (train only: it is what the tool trains on) and its module."""
    (folder / MODULE).write_text(_SOURCE, encoding="utf-8")
    datasets = [
        {"id": split, "path": str(location / split), "custom_metadata_module": str(location / MODULE)}
        for split in SPLITS
        if split == "train" and (folder / split).is_dir()
    ]
    write_json(folder / CONFIG, {"dataset_type": "audio_dir", "datasets": datasets, "random_crop": False, "drop_last": False})


def read_back(folder: Path, split: str, *, rows_in: int) -> Reading:
    """Ask the module for the prompt of each clip that the tool's scanner would find."""
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
    find = module["get_custom_metadata"]
    for path in sorted((folder / split).glob("*.flac")):
        found = find({"path": str(path)}, None)  # type: ignore[operator]  # a function of the module just run
        if found.get("__reject__") or not found.get("prompt"):
            reading.lose(path.name, "no prompt: the clip is skipped")
        else:
            reading.rows_out += 1
    return reading
