"""Large models of transformers as embedders: CLAP (text and audio in one space) and MERT, from a folder of the model store.

Conventions: nothing is downloaded and no code from a model folder is run (MERT's layers are those of HuBERT, which transformers
has). Sampling rate, dimension and window come from the model's own files; audio longer than a window is cut into equal pieces,
whose vectors are averaged, so that nothing depends on a random crop. The version is the hash of the weights, and of their input's
preparation a number. MERT's weights are CC BY-NC: mind what they are used for.

Belongs here: loading and running them. Does not: the default model (`models.py`), text alone (`text.py`).
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keeptake.errors import InvalidAudioError, ModelMissingError
from keeptake.model_store import ModelStore

if TYPE_CHECKING:
    from keeptake.embedding.models import Embedder

Kind = Literal["clap", "mert"]

DOWNLOAD = {
    "clap": "the files of huggingface.co/laion/larger_clap_music (config, preprocessor, tokenizer, model.safetensors)",
    "mert": "the files of huggingface.co/m-a-p/MERT-v1-95M (config, preprocessor, model.safetensors)",
}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MERT_WINDOW_S = 5.0  # the length that it was trained on
PIECES_A_BATCH = 16
TEXTS_A_BATCH = 64
PREPARATION = 2  # of the audio before the model, raised when it changes numbers; 2: at one loudness


def weights_version(kind: Kind, store: ModelStore, folder: str) -> str:
    """First 12 hex digits of the weights' SHA-256, and how audio is prepared for them.

    Raises
    ------
    ModelMissingError
        If they are not in the store.
    """
    path = store.model_folder(folder, download=DOWNLOAD[kind])
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise ModelMissingError(f"{path} has no {' or '.join(WEIGHTS)}: put {DOWNLOAD[kind]} there")
    return f"{_sha256(weights, weights.stat().st_mtime_ns)[:12]}-{PREPARATION}"


@cache
def _sha256(path: Path, modified_ns: int) -> str:
    """Hash of a file, computed once for each time that it was written."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_large(kind: Kind, folder: str, store: ModelStore, *, device: str) -> "Embedder":
    """Load a model from its folder.

    Raises
    ------
    ModelMissingError
        If transformers is not installed, the folder is not there, or its weights are another model's.
    """
    version = weights_version(kind, store, folder)
    path = store.model_folder(folder, download=DOWNLOAD[kind])
    try:
        import transformers
    except ImportError as failure:
        raise ModelMissingError("transformers is not installed: run `pip install 'keeptake[large-models]'`") from failure
    try:
        if kind == "clap":
            model = _load(transformers.ClapModel, path, device)
            return ClapEmbedder(f"clap:{folder}", version, model, transformers.ClapProcessor.from_pretrained(path))
        model = _load(transformers.HubertModel, path, device)
        return MertEmbedder(f"mert:{folder}", version, model, transformers.Wav2Vec2FeatureExtractor.from_pretrained(path))
    except ModelMissingError:
        raise
    except Exception as failure:  # transformers raises whatever its parts raise of a file that is missing or of another model
        raise ModelMissingError(f"the model in {path} does not load: {failure}. Put {DOWNLOAD[kind]} there") from failure


def _load(architecture: Any, path: Path, device: str) -> Any:  # noqa: ANN401 -- transformers' models have no useful common type
    """Weights into an architecture; a tensor that the file lacks would silently be random, so it is refused."""
    import torch

    kind = torch.float16 if device == "cuda" else torch.float32
    model, report = architecture.from_pretrained(path, local_files_only=True, dtype=kind, output_loading_info=True)
    if report["missing_keys"]:
        raise ModelMissingError(f"the weights in {path} lack {sorted(report['missing_keys'])[:3]}: they are another model's")
    return model.eval().to(device)


class ClapEmbedder:
    """Text and audio in one space."""

    def __init__(self, name: str, version: str, model: Any, processor: Any) -> None:  # noqa: ANN401 -- see _load
        self.name, self.version = name, version
        self.sample_rate_hz = int(processor.feature_extractor.sampling_rate)
        self.dims = int(model.config.projection_dim)
        self._window = int(processor.feature_extractor.nb_max_samples)
        self._model, self._processor = model, processor

    def embed(self, mono: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors of shape (n, dims), float32, of unit length before they are averaged over pieces."""

        def run(pieces: list[np.ndarray]) -> np.ndarray:
            inputs = self._processor.feature_extractor(pieces, sampling_rate=self.sample_rate_hz, return_tensors="pt")
            return _run(self._model, self._model.get_audio_features, inputs, lambda output: output.pooler_output)

        return _embed_pieces(mono, self._window, run)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """Raw vectors of shape (n, dims), float32, in the space of the audio."""

        def run(texts: Sequence[str]) -> np.ndarray:
            inputs = self._processor.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
            return _run(self._model, self._model.get_text_features, inputs, lambda output: output.pooler_output)

        batches = [texts[first : first + TEXTS_A_BATCH] for first in range(0, len(texts), TEXTS_A_BATCH)]
        return _unit(np.concatenate([np.zeros((0, self.dims), np.float32), *map(run, batches)]))


class MertEmbedder:
    """Mean over time and over all layers of MERT's transformer."""

    def __init__(self, name: str, version: str, model: Any, extractor: Any) -> None:  # noqa: ANN401 -- see _load
        self.name, self.version = name, version
        self.sample_rate_hz = int(extractor.sampling_rate)
        self.dims = int(model.config.hidden_size)
        self._model, self._extractor = model, extractor

    def embed(self, mono: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors of shape (n, dims), float32."""
        import torch

        def run(pieces: list[np.ndarray]) -> np.ndarray:
            inputs = self._extractor(pieces, sampling_rate=self.sample_rate_hz, return_tensors="pt")
            values = {"input_values": inputs["input_values"], "output_hidden_states": True}
            return _run(self._model, self._model, values, lambda output: torch.stack(output.hidden_states).mean(dim=(0, 2)))

        return _embed_pieces(mono, round(MERT_WINDOW_S * self.sample_rate_hz), run)


def _embed_pieces(mono: Sequence[np.ndarray], window: int, run: Callable[[list[np.ndarray]], np.ndarray]) -> np.ndarray:
    """Cut each audio into equal pieces of at most a window, run pieces of one length together, average each audio's."""
    pieces: list[tuple[int, np.ndarray]] = []
    for number, samples in enumerate(mono):
        if samples.ndim != 1 or samples.size == 0 or not np.isfinite(samples).all():
            raise InvalidAudioError(f"expected finite mono samples, got shape {samples.shape}")
        length = -(-samples.size // -(-samples.size // window))
        # The last piece reaches back so that it is as long as the others.
        starts = [min(start, samples.size - length) for start in range(0, samples.size, length)]
        pieces += [(number, samples[start : start + length]) for start in starts]
    vectors: dict[int, list[np.ndarray]] = {}
    for length in sorted({piece.size for _, piece in pieces}):
        alike = [each for each in pieces if each[1].size == length]
        for first in range(0, len(alike), PIECES_A_BATCH):
            batch = alike[first : first + PIECES_A_BATCH]
            for (number, _), vector in zip(batch, _unit(run([piece for _, piece in batch])), strict=True):
                vectors.setdefault(number, []).append(vector)
    return np.stack([np.mean(vectors[number], axis=0) for number in range(len(mono))])


def _run(model: Any, call: Any, inputs: Any, output_of: Callable[[Any], Any]) -> np.ndarray:  # noqa: ANN401 -- see _load
    """Run a network on its own device and in its own precision."""
    import torch

    def placed(value: Any) -> Any:  # noqa: ANN401 -- tensors and flags
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device=model.device, dtype=model.dtype if value.is_floating_point() else value.dtype)

    with torch.inference_mode():
        output = output_of(call(**{name: placed(value) for name, value in inputs.items()}))
    return np.asarray(output.float().cpu().numpy())


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
