"""The models that an operator chose beside the default one: each does its work, and what keeps one of them keeps no other.

Belongs here: going through the models of `KEEPTAKE_EMBEDDING_MODELS`. Does not: loading them (`models.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar, cast

from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.models import JointEmbedder, load_embedder, version_of
from keeptake.errors import KeeptakeError
from keeptake.model_store import ModelStore

R = TypeVar("R")


class JointModel(NamedTuple):
    """A model that knows text and sound, loaded only where it is needed: that takes seconds."""

    name: str
    version: str
    load: Callable[[], JointEmbedder]


def by_each_model(further: Sequence[str], do: Callable[[str], R]) -> tuple[dict[str, R], dict[str, str]]:
    """Do something by the default model and then by each further one.

    Returns
    -------
    done : dict of str to result
        By model, the default one first.
    kept_from : dict of str to str
        Why a further model could not, for a person.

    Raises
    ------
    KeeptakeError
        What keeps the default model from it.
    """
    done, kept_from = {DEFAULT_MODEL: do(DEFAULT_MODEL)}, {}
    for model in dict.fromkeys(further):
        if model != DEFAULT_MODEL:
            try:
                done[model] = do(model)
            except KeeptakeError as refusal:
                kept_from[model] = str(refusal)
    return done, kept_from


def joint_model(further: Sequence[str], store: ModelStore) -> JointModel | None:
    """The first of the models that knows text and sound; None where there is none, or its weights are missing.

    A missing one is told where it was to place takes, which comes first.
    """
    for model in further:
        if model.startswith("clap:"):
            try:
                version = version_of(model, store)
            except KeeptakeError:
                continue
            return JointModel(model, version, cast("Callable[[], JointEmbedder]", partial(load_embedder, model, store)))
    return None
