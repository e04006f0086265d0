"""The layers of musicnn in plain torch: the reference for `musicnn_layers.py`, and what runs on a GPU.

Layer for layer what the package's TensorFlow graph does, nothing folded and nothing left out. Belongs here: the layers. Does not:
weights and patches (`musicnn.py`).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-3  # of every batch normalisation
FRONT_PADDING = ((3, 3), (3, 3), (63, 64), (31, 32), (15, 16))  # zero frames before and after, for kernels of 7, 7, 128, 64, 32


class TorchNetwork(nn.Module):
    """Five convolutions over the spectrogram, three over time, pooling, two dense layers.

    Parameters
    ----------
    weights : mapping of str to np.ndarray
        The checkpoint's tensors under the checkpoint's names.
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        for name, tensor in weights.items():
            self.register_buffer(name.replace("/", "-"), torch.tensor(tensor))

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tag probabilities (n, 50), pooled (n, 1506) and penultimate (n, 200) of patches (n, 187, 96)."""
        spectrogram = self._normalize(patches.unsqueeze(1), 0)
        front = [self._front(spectrogram, layer) for layer in range(5)]
        features = [torch.cat(front, dim=1)]  # each (n, channels, 187)
        for layer in (5, 6, 7):
            hidden = self._over_time(features[-1], layer)
            features.append(hidden if layer == 5 else hidden + features[-1])
        channels = torch.cat(features, dim=1)
        mean, peak = channels.mean(dim=2), channels.amax(dim=2)
        interleaved = torch.stack([peak, mean], dim=2).flatten(1)
        penultimate = self._normalize(functional.relu(self._dense(self._normalize(interleaved, 9), "dense")), 10)
        return torch.sigmoid(self._dense(penultimate, "dense_1")), torch.cat([mean, peak], dim=1), penultimate

    def _front(self, spectrogram: Tensor, layer: int) -> Tensor:
        before, after = FRONT_PADDING[layer]
        kernel, bias = self._kernel(layer)
        padded = functional.pad(spectrogram, (0, 0, before, after))
        return self._normalize(functional.relu(functional.conv2d(padded, kernel.permute(3, 2, 0, 1), bias)), layer + 1).amax(
            dim=3
        )

    def _over_time(self, features: Tensor, layer: int) -> Tensor:
        kernel, bias = self._kernel(layer)
        return self._normalize(
            functional.relu(functional.conv1d(features, kernel[:, :, 0].permute(2, 1, 0), bias, padding=3)), layer + 1
        )

    def _kernel(self, layer: int) -> tuple[Tensor, Tensor]:
        name = f"conv2d_{layer}" if layer else "conv2d"
        return self.get_buffer(f"{name}-kernel"), self.get_buffer(f"{name}-bias")

    def _dense(self, inputs: Tensor, name: str) -> Tensor:
        return inputs @ self.get_buffer(f"{name}-kernel") + self.get_buffer(f"{name}-bias")

    def _normalize(self, inputs: Tensor, number: int) -> Tensor:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        mean, variance, gamma, beta = (
            self.get_buffer(f"{name}-{part}") for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return functional.batch_norm(inputs, mean, variance, gamma, beta, eps=EPSILON)
