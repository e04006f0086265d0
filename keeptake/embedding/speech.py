"""Does somebody speak? Speech probability every 32 ms, by the silero-vad network inside the package of that name (MIT).

Conventions: mono float32 at 16 kHz, frames of 512 samples, the last one filled with zeros. The package's "sequence" variant is
run: the same probabilities as frame by frame, in one call for 16 s instead of one for each 32 ms. It was trained on speech:
singing in a full mix is often missed, so it witnesses beside musicnn's vocal tags, not instead of them.

Belongs here: running the network. Does not: what makes a take vocal (`keeptake/audio`).
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from keeptake.errors import InvalidAudioError
from keeptake.model_store import ModelStore, package_file

SAMPLE_RATE_HZ = 16_000
FRAME = 512
CONTEXT = 64  # samples of the frame before that the network sees again
FRAMES_A_CALL = 512
STATE_SHAPE = (1, 1, 128)
SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"


class SpeechOutput(NamedTuple):
    """Speech over time."""

    probability: np.ndarray  # (frames,), in [0, 1]
    starts_s: np.ndarray  # (frames,), each frame lasts 32 ms


class Speech:
    """The network, ready to run; `load_speech` is how to get one. Pickles as the wish to load it."""

    def __init__(self, store: ModelStore, path: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = options.intra_op_num_threads = 1  # parallelism is a matter of files, not of frames
        self._session = onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])
        self._store = store

    def __reduce__(self) -> tuple[object, ...]:
        return load_speech, (self._store,)

    def __call__(self, mono_16k: np.ndarray) -> SpeechOutput:
        """Hear one audio.

        Parameters
        ----------
        mono_16k : np.ndarray [shape=(n,), float32, 16 kHz]

        Raises
        ------
        InvalidAudioError
            If it is empty, not mono, or holds values that are no numbers.
        """
        if mono_16k.ndim != 1 or mono_16k.size == 0 or not np.isfinite(mono_16k).all():
            raise InvalidAudioError(f"expected finite mono samples, got shape {mono_16k.shape}")
        count = -(-mono_16k.size // FRAME)
        hidden = cell = np.zeros(STATE_SHAPE, np.float32)
        probabilities = []
        for first in range(0, count, FRAMES_A_CALL):
            frames = _frames(mono_16k, first, min(FRAMES_A_CALL, count - first))
            inputs = {"input": np.ascontiguousarray(frames), "h": hidden, "c": cell}
            probability, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
            probabilities.append(probability.reshape(-1))
        return SpeechOutput(np.concatenate(probabilities), np.arange(count) * (FRAME / SAMPLE_RATE_HZ))


def _frames(mono_16k: np.ndarray, first: int, count: int) -> np.ndarray:
    """Some frames, each after its context, shape (count, CONTEXT + FRAME), float32; before and behind the audio is silence."""
    start, end = first * FRAME - CONTEXT, (first + count) * FRAME
    inside = mono_16k[max(start, 0) : end].astype(np.float32, copy=False)
    padded = np.pad(inside, (max(-start, 0), max(end - mono_16k.size, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]


@cache
def load_speech(store: ModelStore) -> Speech:
    """Load once a process.

    Raises
    ------
    ModelMissingError
        If the package is not installed, or in another release.
    """
    path = package_file(
        "silero_vad", "data/silero_vad_16k_sequence.onnx", sha256=SHA256, install="pip install 'silero-vad>=6.2.3,<6.3'"
    )
    return Speech(store, str(path))
