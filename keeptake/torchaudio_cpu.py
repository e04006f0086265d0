"""Make torchaudio's CUDA build importable beside a CPU torch: `python -m keeptake.torchaudio_cpu`, run once by `make setup`.

torchaudio 2.11 is published as a CUDA build only. Beside a torch without CUDA, `import torchaudio` fails while it loads its
compiled libraries, which ask for `libc10_cuda.so`; without those files it falls back to pure torch, which is all that we use of
it (MelSpectrogram, MFCC, resample). The compiled IIR filters are gone with them: `lfilter` becomes a slow loop, so filters and
loudness are scipy's business here.

The files are deleted, not renamed: pip forgives what is missing when it uninstalls, but would leave a renamed file behind, and
with it a folder that still imports. `pip install --force-reinstall --no-deps torchaudio==2.11.0` brings them back. Nothing
happens where torch has CUDA, where torchaudio is not installed, or where its libraries need no CUDA. Goes with the first CPU
wheel.
"""

import importlib.util
import sys
from pathlib import Path

CUDA_MARK = b"libc10_cuda.so"  # stands in the dynamic section of every library that was linked against torch's CUDA half


def remove_cuda_libraries(folder: Path, *, torch_cuda: str | None) -> list[Path]:
    """Delete the compiled libraries of a torchaudio that cannot load beside this torch.

    Parameters
    ----------
    folder : Path
        The `lib` folder of an installed torchaudio.
    torch_cuda : str or None
        `torch.version.cuda`; None for a CPU build.

    Returns
    -------
    list of Path
        What was deleted, sorted; empty when there was nothing to do, so a repetition is harmless.
    """
    if torch_cuda is not None:
        return []
    unloadable = [path for path in sorted(folder.glob("*.so")) if CUDA_MARK in path.read_bytes()]
    for path in unloadable:
        path.unlink(missing_ok=True)
    return unloadable


def main() -> int:
    """Mend the torchaudio of this environment and say what was done."""
    package = importlib.util.find_spec("torchaudio")  # finds without importing: importing is what fails
    if package is None or package.origin is None:
        print("torchaudio is not installed: nothing to do")
        return 0
    import torch

    removed = remove_cuda_libraries(Path(package.origin).parent / "lib", torch_cuda=torch.version.cuda)
    print(f"torchaudio: deleted {', '.join(path.name for path in removed)}" if removed else "torchaudio: nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main())
