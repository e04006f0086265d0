"""The layers of musicnn in numpy, folded for speed: the same numbers as `musicnn_torch.py` to float32 accuracy.

What makes it several times faster than the plain layers on one core, without a change of the result:

- **Dead filters go.** Weight decay has driven most front filters to zero (497 of 561 in MSD, 314 in MTT): they say the same
  whatever they hear. The constant is kept; the next convolution's weights for it have decayed as well and go (at most 3e-5 in
  all).
- **Normalisation after the maximum.** ReLU and batch normalisation are monotone, so the maximum over frequency is taken on the
  bare convolution, with the sign of a falling normalisation folded into the kernel.
- **Convolutions are matrix products over blocks** of neighbouring outputs, so that the im2col copy is several times smaller than
  one row an output, and BLAS runs at its full rate.

numpy instead of a runtime with its own graph format: worker processes load neither torch nor ONNX. Belongs here: arithmetic on
patches. Does not: weights and patches themselves (`musicnn.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit

EPSILON = 1e-3
# A filter is dead if no spectrogram can move its output by more than this; inputs are normalised, 10 is never reached.
DEAD_BELOW = 1e-3  # tags move by at most 3e-5; 1e-1 moves them by 1e-4 and is no faster
LARGEST_INPUT = 10.0
FRAMES_PER_BLOCK = 32
BANDS_PER_BLOCK = 10


Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class FrontLayer:
    """The living filters of one front convolution, with what surrounds it folded in."""

    matrix: np.ndarray  # (inputs of a block, outputs of a block · filters)
    kernel: tuple[int, int]  # frames and bands
    sign: np.ndarray  # (filters,) like the four below: -1 where the normalisation falls
    bias: np.ndarray
    scale: np.ndarray
    shift: np.ndarray

    def __call__(self, spectrogram: np.ndarray) -> np.ndarray:
        """Maximum over frequency of the normalised convolution: (frames, bands) → (frames, filters)."""
        convolve = self._over_bands if self.kernel[1] > 1 else self._over_frames
        return np.asarray(np.maximum(convolve(spectrogram) * self.sign + self.bias, 0) * self.scale + self.shift)

    def _over_bands(self, spectrogram: np.ndarray) -> np.ndarray:
        """Timbre: zeros round the time axis only; a block is a frame and `BANDS_PER_BLOCK` neighbouring positions."""
        frames, bands = self.kernel
        padded = np.pad(spectrogram, ((frames // 2, frames // 2), (0, 0)))
        width = bands + BANDS_PER_BLOCK - 1
        last = spectrogram.shape[1] - width
        starts = [*range(0, last, BANDS_PER_BLOCK), last]  # the last block overlaps: harmless under a maximum
        blocks = sliding_window_view(padded, (frames, width))[:, starts].reshape(-1, frames * width)
        return np.asarray((blocks @ self.matrix).reshape(len(spectrogram), -1, self.sign.size).max(axis=1))

    def _over_frames(self, spectrogram: np.ndarray) -> np.ndarray:
        """Rhythm: every band alone; a block is a band and `FRAMES_PER_BLOCK` neighbouring frames."""
        taps = self.kernel[0]
        before = (taps - 1) // 2
        after = taps - 1 - before + -len(spectrogram) % FRAMES_PER_BLOCK
        padded = np.pad(spectrogram, ((before, after), (0, 0)))
        blocks = sliding_window_view(padded, taps + FRAMES_PER_BLOCK - 1, axis=0)[::FRAMES_PER_BLOCK]
        return np.asarray((blocks @ self.matrix).max(axis=1).reshape(-1, self.sign.size)[: len(spectrogram)])


@dataclass(frozen=True)
class FoldedNetwork:
    """The whole network; `fold` makes it."""

    weights: Weights
    front: tuple[FrontLayer, ...]
    living: np.ndarray  # which of the 561 front channels vary
    pooled: np.ndarray  # (2, 753): mean and maximum of every channel where they are constant
    first_matrix: np.ndarray  # (living · 7, 64), the first convolution over time

    @classmethod
    def fold(cls, weights: Weights) -> "FoldedNetwork":
        """Fold the checkpoint's tensors."""
        layers, alive, constants = zip(*(_fold_front(weights, layer) for layer in range(5)), strict=True)
        living = np.flatnonzero(np.concatenate(alive))
        return cls(
            weights=weights,
            front=layers,
            living=living,
            pooled=np.tile(np.concatenate([*constants, np.zeros(192)]), (2, 1)).astype(np.float32),
            first_matrix=_over_time_matrix(weights["conv2d_5/kernel"][:, living, 0]),
        )

    def __call__(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tag probabilities (n, 50), pooled (n, 1506) and penultimate (n, 200) of patches (n, 187, 96)."""
        pooled = self.pooled_channels(patches)
        interleaved = pooled.reshape(len(pooled), 2, -1)[:, ::-1].transpose(0, 2, 1).reshape(len(pooled), -1)  # maximum, mean
        hidden = np.maximum(self._dense(self._normalize(interleaved, 9), "dense"), 0)
        penultimate = self._normalize(hidden, 10)
        return expit(self._dense(penultimate, "dense_1")), pooled, penultimate

    def pooled_channels(self, patches: np.ndarray) -> np.ndarray:
        """Mean over time of the 753 channels, then their maximum: (n, 1506)."""
        return np.stack([self._pooled(patch).reshape(-1) for patch in patches])

    def _pooled(self, patch: np.ndarray) -> np.ndarray:
        """Mean and maximum over time of the 753 channels."""
        spectrogram = self._normalize(patch, 0)
        front = np.concatenate([layer(spectrogram) for layer in self.front], axis=1)
        first = self._over_time(front, 5, self.first_matrix)
        # Here the kernel sees its 64 inputs as the bands of an image of one channel: (7, 64, 1, 64).
        second = self._over_time(first, 6, _over_time_matrix(self.weights["conv2d_6/kernel"][:, :, 0])) + first
        third = self._over_time(second, 7, _over_time_matrix(self.weights["conv2d_7/kernel"][:, :, 0])) + second
        pooled = self.pooled.copy()
        for channels, at in ((front, self.living), (np.concatenate([first, second, third], axis=1), slice(561, None))):
            pooled[0, at], pooled[1, at] = channels.mean(axis=0), channels.max(axis=0)
        return pooled

    def _over_time(self, features: np.ndarray, layer: int, matrix: np.ndarray) -> np.ndarray:
        hidden: np.ndarray = np.maximum(_windows(features) @ matrix + self.weights[f"conv2d_{layer}/bias"], 0)
        return self._normalize(hidden, layer + 1)

    def _normalize(self, values: np.ndarray, number: int) -> np.ndarray:
        scale, shift = _normalization(self.weights, number)
        return np.asarray(values * scale + shift)

    def _dense(self, values: np.ndarray, name: str) -> np.ndarray:
        return values @ self.weights[f"{name}/kernel"] + self.weights[f"{name}/bias"]


def _fold_front(weights: Weights, layer: int) -> tuple[FrontLayer, np.ndarray, np.ndarray]:
    """One front layer, which of its filters live, and the constant that each dead one says."""
    name = f"conv2d_{layer}" if layer else "conv2d"
    kernel, bias = weights[f"{name}/kernel"][:, :, 0], weights[f"{name}/bias"]  # (frames, bands, filters)
    scale, shift = _normalization(weights, layer + 1)
    alive = LARGEST_INPUT * np.abs(kernel).sum(axis=(0, 1)) * np.abs(scale) > DEAD_BELOW
    sign = np.where(scale < 0, -1, 1).astype(np.float32)[alive]
    folded = FrontLayer(
        matrix=_block_matrix(kernel[:, :, alive] * sign),
        kernel=(kernel.shape[0], kernel.shape[1]),
        sign=sign,
        bias=bias[alive],
        scale=scale[alive],
        shift=shift[alive],
    )
    return folded, alive, np.maximum(bias, 0) * scale + shift


def _block_matrix(kernel: np.ndarray) -> np.ndarray:
    """Matrix that maps the inputs of a block to its outputs, for kernels (frames, bands, filters)."""
    frames, bands, filters = kernel.shape
    if bands > 1:
        matrix = np.zeros((frames, bands + BANDS_PER_BLOCK - 1, BANDS_PER_BLOCK, filters), np.float32)
        for output in range(BANDS_PER_BLOCK):
            matrix[:, output : output + bands, output] = kernel
    else:
        matrix = np.zeros((frames + FRAMES_PER_BLOCK - 1, 1, FRAMES_PER_BLOCK, filters), np.float32)
        for output in range(FRAMES_PER_BLOCK):
            matrix[output : output + frames, :, output] = kernel
    return matrix.reshape(matrix.shape[0] * matrix.shape[1], -1)


def _over_time_matrix(kernel: np.ndarray) -> np.ndarray:
    """(frames, channels, filters) as a matrix over `_windows`."""
    return np.ascontiguousarray(kernel.transpose(1, 0, 2)).reshape(-1, kernel.shape[2])


def _windows(features: np.ndarray) -> np.ndarray:
    """Seven neighbouring frames of every channel, zeros outside: (frames, channels) → (frames, channels · 7)."""
    padded = np.pad(features, ((3, 3), (0, 0)))
    return sliding_window_view(padded, 7, axis=0).reshape(len(features), -1)


def _normalization(weights: Weights, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift that a batch normalisation comes to."""
    name = f"batch_normalization_{number}" if number else "batch_normalization"
    scale = weights[f"{name}/gamma"] / np.sqrt(weights[f"{name}/moving_variance"] + np.float32(EPSILON))
    return scale, weights[f"{name}/beta"] - weights[f"{name}/moving_mean"] * scale
