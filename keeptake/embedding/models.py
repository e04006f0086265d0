"""Where does it lie? Models that turn audio into vectors, by name.

    musicnn-msd       the default: channels of the MSD tagger and cepstra of the mel spectrogram that it hears, 336 numbers
    prompts           the words that a take was asked for with (`text.py`), not its sound
    clap:FOLDER       a CLAP of transformers in the model store: text and audio in one space
    mert:FOLDER       a MERT of transformers in the model store

Conventions: an embedder takes mono float32 at its own rate and gives one raw float32 vector an audio, whatever its length. A
vector belongs to a model and a version; what changes numbers raises the version. Scaling is not done here (`scaler.py`).

Belongs here: the registry and the default embedder. Does not: networks (`musicnn.py`), large models (`large_models.py`), the
nearest neighbours (`ledger/similarity.py`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from scipy.fft import dct

from keeptake.embedding import DEFAULT_MODEL, PROMPTS, text
from keeptake.embedding.musicnn import SAMPLE_RATE_HZ, Musicnn, MusicnnOutput, mel_patches
from keeptake.errors import ConfigurationError
from keeptake.model_store import ModelStore

# 2: of the mix that the analysis hears; 3: cepstra, and without the channels that the last layer sums up; 4: at one loudness,
# and without pauses
MUSICNN_VERSION = "4"
LAST_CHANNELS, ALL_CHANNELS = slice(689, 753), 753  # of the last convolution, which holds the sum of those before it
CEPSTRUM = 40  # of 96: what is above tells pitches apart, a semitone up would be another sound
LEAST_DEVIATION = 0.01  # of log mel: below it is silence, and its logarithm would say how silent
PATCHES_A_BATCH = 512  # on a GPU: 1.3 GB of activations in half precision

Device = Literal["auto", "cpu", "cuda"]


class Embedder(Protocol):
    """A model that turns audio into vectors."""

    name: str
    version: str
    dims: int
    sample_rate_hz: int

    def embed(self, mono: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors of shape (n, dims), float32, of mono audio at `sample_rate_hz`."""
        ...


class JointEmbedder(Embedder, Protocol):
    """A model that places words where their sound lies."""

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Raw vectors of shape (n, dims), float32, comparable to those of audio by cosine."""
        ...


def version_of(name: str, store: ModelStore | None = None) -> str:
    """Version of a model without loading it.

    Raises
    ------
    ConfigurationError
        If there is no such model, or it lies in a model store and none was given.
    ModelMissingError
        If it is not in the store.
    """
    if name == DEFAULT_MODEL:
        return MUSICNN_VERSION
    if name == PROMPTS:
        return text.VERSION
    from keeptake.embedding.large_models import weights_version

    kind, folder = _large(name)
    if store is None:
        raise ConfigurationError(f"the version of {name!r} is that of its weights: give the model store")
    return weights_version(kind, store, folder)


def load_embedder(name: str, store: ModelStore, *, device: Device = "auto") -> Embedder:
    """Load a model.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        auto: a GPU where there is one.

    Raises
    ------
    ConfigurationError
        If there is no such model.
    ModelMissingError
        If its weights are not on this machine.
    """
    on_gpu = device == "cuda" or (device == "auto" and has_gpu())
    if name == DEFAULT_MODEL:
        return MusicnnEmbedder(Musicnn.load(store, "MSD"), torch_device="cuda" if on_gpu else None)
    from keeptake.embedding.large_models import load_large

    return load_large(*_large(name), store, device="cuda" if on_gpu else "cpu")


def has_gpu() -> bool:
    """Whether torch can use a GPU; asks torch only where a driver is present, since importing it costs seconds."""
    if not Path("/dev/nvidiactl").exists():
        return False
    import torch

    return torch.cuda.is_available()


def _large(name: str) -> tuple[Literal["clap", "mert"], str]:
    kind, _, folder = name.partition(":")
    if kind == "clap" and folder:
        return "clap", folder
    if kind == "mert" and folder:
        return "mert", folder
    if name == PROMPTS:
        raise ConfigurationError(f"{PROMPTS!r} places what was asked for in words, not audio: give a take, or --words")
    raise ConfigurationError(f"no embedding model {name!r}: there are {DEFAULT_MODEL}, {PROMPTS}, clap:FOLDER and mert:FOLDER")


class MusicnnEmbedder:
    """Channels of the MSD tagger, and what it hears, averaged over a take.

    A vector is the mean over patches of each channel's mean (128) and maximum (128), of the front filters that vary at all and
    of the last convolution; then two cepstra [1]_ of the log mel spectrogram, of its mean and of the logarithm of its deviation
    over time (40 and 40): they tell recordings apart where the tagger has learnt to hear genres (`benchmarks/RESULTS.md`).
    On a GPU the plain torch layers run in half precision, many patches at once.

    References
    ----------
    .. [1] Davis and Mermelstein (1980), "Comparison of parametric representations for monosyllabic word recognition".
    """

    name = DEFAULT_MODEL
    version = MUSICNN_VERSION
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, tagger: Musicnn, *, torch_device: str | None = None) -> None:
        self._tagger = tagger
        channels = np.concatenate([tagger.network.living, np.arange(ALL_CHANNELS)[LAST_CHANNELS]])
        self._channels = np.concatenate([channels, ALL_CHANNELS + channels])
        self.dims = self._channels.size + 2 * CEPSTRUM
        self._pooled = _in_torch(tagger, torch_device) if torch_device else tagger.network.pooled_channels

    def embed(self, mono: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors of shape (n, 336), float32.

        Raises
        ------
        InvalidAudioError
            If one is empty, not mono, or holds values that are no numbers.
        """
        patches = [mel_patches(samples, self._tagger.weights["mel"])[0] for samples in mono]
        if not patches:
            return np.zeros((0, self.dims), np.float32)
        edges = np.cumsum([len(each) for each in patches])[:-1]
        pooled = np.split(self._pooled(np.concatenate(patches)), edges)
        return np.stack([self._vector(*each) for each in zip(patches, pooled, strict=True)])

    def hear(self, mono_16k: np.ndarray) -> tuple[MusicnnOutput, np.ndarray]:
        """What the network says about one audio, and its raw vector, shape (336,), out of one pass on the CPU."""
        patches, starts_s = mel_patches(mono_16k, self._tagger.weights["mel"])
        output = MusicnnOutput(*self._tagger.network(patches), starts_s)
        return output, self._vector(patches, output.pooled)

    def _vector(self, patches: np.ndarray, pooled: np.ndarray) -> np.ndarray:
        """Of one audio's patches, shape (patches, 187, 96), and their channels, (patches, 1506)."""
        spectra = patches.reshape(-1, patches.shape[2])
        texture = np.log(np.maximum(spectra.std(axis=0), LEAST_DEVIATION))
        cepstra = dct(np.stack([spectra.mean(axis=0), texture]), norm="ortho")[:, :CEPSTRUM]
        return np.concatenate([pooled[:, self._channels].mean(axis=0), *cepstra]).astype(np.float32)


def _in_torch(tagger: Musicnn, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """The plain layers in half precision as a function from patches to pooled channels."""
    import torch

    from keeptake.embedding.musicnn_torch import TorchNetwork

    network = TorchNetwork(tagger.weights).eval().to(device=device, dtype=torch.float16)

    def pooled(patches: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batches = torch.split(torch.from_numpy(patches), PATCHES_A_BATCH)
            return np.concatenate(
                [network(batch.to(device=device, dtype=torch.float16))[1].float().cpu().numpy() for batch in batches]
            )

    return pooled
