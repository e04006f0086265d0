"""The one place that makes torchaudio importable beside a CPU torch."""

import subprocess
import sys

import pytest

from keeptake.torchaudio_cpu import remove_cuda_libraries


@pytest.fixture
def library_folder(tmp_path):
    (tmp_path / "_torchaudio.abi3.so").write_bytes(b"\x7fELF libc10.so\0libc10_cuda.so\0")
    (tmp_path / "libtorchaudio.abi3.so").write_bytes(b"\x7fELF libc10_cuda.so\0")
    (tmp_path / "free.so").write_bytes(b"\x7fELF libc10.so\0")
    (tmp_path / "__init__.py").write_bytes(b"# libc10_cuda.so")
    return tmp_path


def test_only_libraries_that_need_cuda_are_deleted(library_folder):
    removed = remove_cuda_libraries(library_folder, torch_cuda=None)

    assert [path.name for path in removed] == ["_torchaudio.abi3.so", "libtorchaudio.abi3.so"]
    assert sorted(path.name for path in library_folder.iterdir()) == ["__init__.py", "free.so"]


def test_repetition_deletes_nothing_more(library_folder):
    remove_cuda_libraries(library_folder, torch_cuda=None)

    assert remove_cuda_libraries(library_folder, torch_cuda=None) == []


def test_torch_with_cuda_keeps_its_libraries(library_folder):
    assert remove_cuda_libraries(library_folder, torch_cuda="12.8") == []
    assert len(list(library_folder.iterdir())) == 4


def test_torchaudio_of_this_environment_imports_and_makes_a_mel_spectrogram():
    """`import torchaudio` once died on libc10_cuda.so in every environment with a CPU torch."""
    code = "import torch, torchaudio; print(tuple(torchaudio.transforms.MelSpectrogram(n_mels=8)(torch.zeros(1, 4000)).shape))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, f"run `make setup` (python -m keeptake.torchaudio_cpu):\n{done.stderr[-500:]}"
    assert done.stdout.startswith("(1, 8, ")
