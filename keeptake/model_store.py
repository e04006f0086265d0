"""Model weights: found in installed packages or in a local folder, verified by hash, converted once.

Nothing is ever downloaded here. Weights come from three places: data files of an installed package (`package_file`), the store's
own converted copies (`tensors`), and folders that somebody put there (`model_folder`). A missing one is a `ModelMissingError`
that says what to install, or what to put where.

A converted copy is a safetensors file whose name carries its own SHA-256, so content and hash cannot disagree by halves: it is
written under a temporary name and renamed, several processes may do so at once, and a damaged copy is converted anew. Belongs
here: where bytes of models are and whether they are the right ones. Does not: what a network computes (`embedding/`).
"""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keeptake.errors import ModelMissingError

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class ModelStore:
    """The folder of model weights.

    Parameters
    ----------
    folder : Path
        Made when the first model is converted; the setting `KEEPTAKE_MODELS_DIR`.
    """

    folder: Path

    def tensors(self, name: str, convert: Callable[[], Mapping[str, np.ndarray]]) -> Tensors:
        """Weights by name, converted on first use.

        Parameters
        ----------
        name : str
            Model and version of the conversion; another version is another name.
        convert : callable
            Makes the tensors from their source; called only when no sound copy is in the store.

        Raises
        ------
        ModelMissingError
            If `convert` finds no source.
        """
        from safetensors.numpy import load, save

        for path in sorted(self.folder.glob(f"{name}.*.safetensors")):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == path.name.split(".")[-2]:
                return load(content)
        content = save({key: np.ascontiguousarray(tensor) for key, tensor in convert().items()})
        sha256 = hashlib.sha256(content).hexdigest()
        _write_whole(self.folder / f"{name}.{sha256}.safetensors", content)
        return load(content)

    def model_folder(self, name: str, *, download: str) -> Path:
        """Folder of a model that somebody put into the store.

        Parameters
        ----------
        name : str
            Name of the sub-folder.
        download : str
            For a person: what to put there.

        Raises
        ------
        ModelMissingError
            If there is no `config.json` in it.
        """
        path = self.folder / name
        if not (path / "config.json").is_file():
            raise ModelMissingError(f"no model {name!r} in {self.folder}: put {download} into {path}")
        return path


def package_file(package: str, path: str, *, sha256: str, install: str) -> Path:
    """Data file of an installed package, found without importing the package, and verified.

    Parameters
    ----------
    package : str
        Top-level import name.
    path : str
        Path inside the package.
    sha256 : str
        What the file must hash to: another release's weights would silently be another model.
    install : str
        The command that brings the right release.

    Raises
    ------
    ModelMissingError
        If the package or the file is missing, or the hash is another.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelMissingError(f"package {package!r} is not installed: run `{install}`")
    file = Path(next(iter(spec.submodule_search_locations))) / path
    if not file.is_file():
        raise ModelMissingError(f"{file} is missing: run `{install}`")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise ModelMissingError(f"{file} has SHA-256 {found[:16]}…, expected {sha256[:16]}…: run `{install}`")
    return file


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file that others see whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
