"""What does it sound like? The musicnn music taggers: audio in, tags and pooled features out, a row per patch of three seconds.

Two networks of one shape: `MTT` (MagnaTagATune: instruments, vocals or none) and `MSD` (Million Song Dataset: genres, eras,
moods). The weights are those inside the `musicnn` 0.1.0 package (ISC), converted once into the model store; neither TensorFlow
nor the package's code is used.

Conventions: input is mono float32 at 16 kHz, at the loudness that `audio.frontend.level_for_networks` brings it to: the networks
hear another sound at another level. A patch is 187 frames of 16 ms (3.0 s). Patches stand end to end; a rest of half a patch or
more gets one more patch that ends with the audio; audio shorter than a patch is repeated until it fills one. Patches in which
nothing sounds are passed over: a pause says nothing of the music.

Belongs here: weights, mel front end, patches. Does not: the layers (`musicnn_layers.py`, `musicnn_torch.py`), what tags mean for
a take (`keeptake/audio`), pooling over a take (`models.py`).

References
----------
.. [1] Pons and Serra (2019), "musicnn: Pre-trained convolutional neural networks for music audio tagging".
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import scipy.fft

from keeptake.embedding.musicnn_layers import FoldedNetwork
from keeptake.embedding.tensorflow_checkpoint import read_checkpoint
from keeptake.errors import InvalidAudioError
from keeptake.model_store import ModelStore, package_file

Dataset = Literal["MTT", "MSD"]

SAMPLE_RATE_HZ = 16_000
HOP = 256
FFT_SIZE = 512
MEL_BANDS = 96
PATCH_FRAMES = 187
LEAST_POWER = 1e-5  # of the loudest frame's: 50 dB below it are pauses, and what is left of a fade
LEAST_SOUND = 0.1  # of a patch's frames
FRAMES_A_BATCH = 256  # the spectra of ten minutes at once took 180 MB
INSTALL = "pip install --no-deps musicnn==0.1.0"

CONVERSION = 1  # raised when `_convert` changes, so that older copies in a store are left alone
SHA256 = {
    ("MTT", ".index"): "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
    ("MTT", ".data-00000-of-00001"): "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
    ("MSD", ".index"): "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
    ("MSD", ".data-00000-of-00001"): "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
}

TAGS: Mapping[Dataset, tuple[str, ...]] = {
    "MTT": (
        *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient"),
        *("beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals"),
        *("harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo"),
        *("man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp"),
        *("cello", "no voice", "weird", "country", "metal", "female voice", "choral"),
    ),
    "MSD": (
        *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock"),
        *("jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow"),
        *("electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock"),
        *("ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country"),
        *("easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb"),
        *("indie pop", "sad", "House", "happy"),
    ),
}


class MusicnnOutput(NamedTuple):
    """What the network says about one audio, a row per patch."""

    tags_probability: np.ndarray  # (patches, 50), in [0, 1], in the order of `TAGS`
    pooled: np.ndarray  # (patches, 1506): mean over time of 753 channels, then their maximum
    penultimate: np.ndarray  # (patches, 200)
    starts_s: np.ndarray  # (patches,), each patch lasts 3.0 s


class Musicnn:
    """One of the two taggers, ready to run; `Musicnn.load` is how to get one.

    Pickles as the wish to load it, so that handing it to a worker process costs nothing.
    """

    def __init__(self, dataset: Dataset, store: ModelStore, weights: Mapping[str, np.ndarray]) -> None:
        self.dataset = dataset
        self.tags = TAGS[dataset]
        self.weights = weights
        self.network = FoldedNetwork.fold(weights)
        self._store = store

    @classmethod
    def load(cls, store: ModelStore, dataset: Dataset) -> "Musicnn":
        """Load once a process.

        Raises
        ------
        ModelMissingError
            If the weights are neither in the store nor in an installed `musicnn` package.
        """
        return _load(store, dataset)

    def __reduce__(self) -> tuple[object, ...]:
        return _load, (self._store, self.dataset)

    def __call__(self, mono_16k: Iterable[np.ndarray]) -> list[MusicnnOutput]:
        """Hear audio.

        Parameters
        ----------
        mono_16k : iterable of np.ndarray [shape=(n,), float32, 16 kHz]
            Each at least one sample long.

        Raises
        ------
        InvalidAudioError
            If one is empty, not mono, or holds values that are no numbers.
        """
        outputs = []
        for samples in mono_16k:
            patches, starts_s = mel_patches(samples, self.weights["mel"])
            outputs.append(MusicnnOutput(*self.network(patches), starts_s))
        return outputs


def mel_patches(samples: np.ndarray, mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches of the compressed mel spectrogram.

    Parameters
    ----------
    samples : np.ndarray [shape=(n,), float32, 16 kHz]
    mel : np.ndarray [shape=(96, 257), float32]
        Filter bank.

    Returns
    -------
    patches : np.ndarray [shape=(patches, 187, 96), float32]
        log10(1 + 10,000 · mel power), of those patches that sound.
    starts_s : np.ndarray [shape=(patches,)]
    """
    if samples.ndim != 1 or samples.size == 0:
        raise InvalidAudioError(f"expected mono samples, got shape {samples.shape}")
    if not np.isfinite(samples).all():
        raise InvalidAudioError("samples hold values that are not finite numbers")
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)).astype(np.float32)
    compressed = np.empty((1 + samples.size // HOP, len(mel)), np.float32)
    energy = np.empty(len(compressed), np.float32)
    for start in range(0, len(compressed), FRAMES_A_BATCH):
        frames = _frames(samples, start, min(FRAMES_A_BATCH, len(compressed) - start))
        spectrum = scipy.fft.rfft(frames * window, axis=1)
        # The package rounds the mel power to float16 before the logarithm, where loud bass overflows; float32 is meant.
        bins = spectrum.real**2 + spectrum.imag**2
        power = bins @ mel.T
        energy[start : start + len(power)] = bins.sum(axis=1)
        compressed[start : start + len(power)] = np.log10(1 + 10_000 * power)
    if len(compressed) < PATCH_FRAMES:
        compressed, energy = np.resize(compressed, (PATCH_FRAMES, MEL_BANDS)), np.resize(energy, PATCH_FRAMES)
    starts = list(range(0, len(compressed) - PATCH_FRAMES + 1, PATCH_FRAMES))
    if 2 * (len(compressed) % PATCH_FRAMES) >= PATCH_FRAMES:
        starts.append(len(compressed) - PATCH_FRAMES)
    is_sound = energy >= LEAST_POWER * energy.max()
    share = np.array([is_sound[start : start + PATCH_FRAMES].mean() for start in starts])
    sounding = np.array(starts)[share >= min(LEAST_SOUND, share.max())]
    patches = np.stack([compressed[start : start + PATCH_FRAMES] for start in sounding])
    return patches, sounding * HOP / SAMPLE_RATE_HZ


def _frames(samples: np.ndarray, first: int, count: int) -> np.ndarray:
    """Some frames, shape (count, 512), float32, of audio with silence around it: ten minutes need not be held twice for that."""
    start, end = first * HOP - FFT_SIZE // 2, (first + count - 1) * HOP + FFT_SIZE // 2
    inside = samples[max(start, 0) : end].astype(np.float32, copy=False)
    padded = np.pad(inside, (max(-start, 0), max(end - samples.size, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP]


@cache
def _load(store: ModelStore, dataset: Dataset) -> Musicnn:
    weights = store.tensors(f"musicnn-{dataset.lower()}-{CONVERSION}", lambda: _convert(dataset))
    return Musicnn(dataset, store, weights)


def _convert(dataset: Dataset) -> dict[str, np.ndarray]:
    """Tensors of the package's checkpoint without those of its optimiser, and the mel filter bank."""
    import librosa

    index, data = (
        package_file("musicnn", f"{dataset}_musicnn/{end}", sha256=SHA256[dataset, end], install=INSTALL).read_bytes()
        for end in (".index", ".data-00000-of-00001")
    )
    tensors = {
        name: tensor
        for name, tensor in read_checkpoint(index, data).items()
        if not name.startswith("beta") and not name.endswith(("/Adam", "/Adam_1"))
    }
    tensors["mel"] = librosa.filters.mel(sr=SAMPLE_RATE_HZ, n_fft=FFT_SIZE, n_mels=MEL_BANDS)
    return tensors
