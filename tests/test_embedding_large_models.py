"""CLAP and MERT are loaded for real, from folders of tiny random weights."""

import json
import re
import shutil

import numpy as np
import pytest

from keeptake.embedding import large_models
from keeptake.embedding.models import has_gpu, load_embedder, version_of
from keeptake.errors import ConfigurationError, InvalidAudioError, ModelMissingError
from keeptake.model_store import ModelStore

pytest.importorskip("transformers", reason="the extra large-models is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # transformers warns of its own deprecations


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_models):
    store = ModelStore(tmp_path_factory.mktemp("models"))
    tiny_models.save(store.folder)
    return store


@pytest.fixture(scope="module", params=["clap:tiny-clap", "mert:tiny-mert"])
def embedder(request, store):
    return load_embedder(request.param, store, device="cpu")


def closest(left, right):
    """Least cosine of the rows."""
    return np.min(np.sum(left * right, axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1))


def test_rate_and_dimension_come_from_the_model(store):
    clap, mert = (load_embedder(name, store, device="cpu") for name in ("clap:tiny-clap", "mert:tiny-mert"))

    assert (clap.sample_rate_hz, clap.dims) == (48_000, 24)
    assert (mert.sample_rate_hz, mert.dims) == (24_000, 32)


def test_vectors_of_audio_of_any_length(embedder, signals):
    rate_hz = embedder.sample_rate_hz
    sounds = [signals.sine(440, 0.4, rate_hz), signals.white_noise(2.5, rate_hz), signals.click_track(120, 6.1, rate_hz)]
    vectors = embedder.embed(sounds)

    assert vectors.shape == (3, embedder.dims)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_same_audio_same_vector_alone_or_in_a_batch(embedder, signals):
    """CLAP's own preprocessing crops long audio at random: two runs gave two vectors."""
    rate_hz = embedder.sample_rate_hz
    long, short = signals.white_noise(2.5, rate_hz), signals.sine(440, 0.4, rate_hz)

    np.testing.assert_allclose(embedder.embed([long, short])[0], embedder.embed([long])[0], atol=1e-5)


def test_control_the_random_crop_of_the_package_gives_two_vectors(store, signals):
    embedder = load_embedder("clap:tiny-clap", store, device="cpu")
    embedder._window = 10**9
    noise = signals.white_noise(3, embedder.sample_rate_hz)

    assert not np.allclose(embedder.embed([noise]), embedder.embed([noise]), atol=1e-5)


def test_text_lies_in_the_space_of_the_audio(store):
    embedder = load_embedder("clap:tiny-clap", store, device="cpu")
    vectors = embedder.embed_text(["slow guitar", "fast techno with guitar"])

    assert vectors.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_many_texts_are_taken_a_batch_at_a_time_and_none_is_no_vector(store, monkeypatch):
    """All prompts of a page, 20,000, once went through the network at once."""
    embedder = load_embedder("clap:tiny-clap", store, device="cpu")
    texts = ["slow guitar", "fast", "techno with guitar", "slow", "guitar"]
    at_once = embedder.embed_text(texts)
    taken = []
    inner = embedder._model.get_text_features
    monkeypatch.setattr(large_models, "TEXTS_A_BATCH", 2)
    monkeypatch.setattr(
        embedder._model, "get_text_features", lambda **inputs: taken.append(len(inputs["input_ids"])) or inner(**inputs)
    )

    np.testing.assert_allclose(embedder.embed_text(texts), at_once, atol=1e-5)
    assert taken == [2, 2, 1]
    assert embedder.embed_text([]).shape == (0, 24)


@pytest.mark.parametrize("name", ["clap:tiny-clap", "mert:tiny-mert"])
def test_half_precision_gives_the_same_vectors(store, signals, name):
    """What runs on a GPU, run here on the CPU."""
    full, half = (load_embedder(name, store, device="cpu") for _ in range(2))
    half._model.half()
    sounds = [signals.white_noise(2.5, full.sample_rate_hz), signals.click_track(120, 6.1, full.sample_rate_hz)]

    assert closest(half.embed(sounds), full.embed(sounds)) > 1 - 1e-3
    if name.startswith("clap"):
        assert closest(half.embed_text(["slow guitar"]), full.embed_text(["slow guitar"])) > 1 - 1e-3


@pytest.mark.parametrize("name", ["clap:tiny-clap", "mert:tiny-mert"])
def test_no_tensor_stays_on_another_device_than_the_network(store, signals, name):
    """Like a GPU, torch's meta device refuses tensors of the CPU; since it holds no numbers, only the result cannot be read."""
    embedder = load_embedder(name, store, device="cpu")
    embedder._model.to("meta")

    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        embedder.embed([signals.sine(440, 1, embedder.sample_rate_hz)])


def test_control_a_part_of_the_network_on_another_device_is_refused(store, signals):
    embedder = load_embedder("clap:tiny-clap", store, device="cpu")
    embedder._model.to("meta").audio_projection.to_empty(device="cpu")

    with pytest.raises(RuntimeError, match="not on the expected device"):
        embedder.embed([signals.sine(440, 1, embedder.sample_rate_hz)])


@pytest.mark.parametrize("name", ["clap:tiny-clap", "mert:tiny-mert"])
def test_gpu_gives_the_same_vectors(store, signals, name):
    if not has_gpu():
        pytest.skip("no GPU on this machine")
    on_cpu, on_gpu = (load_embedder(name, store, device=device) for device in ("cpu", "cuda"))
    sounds = [signals.white_noise(2.5, on_cpu.sample_rate_hz), signals.click_track(120, 6.1, on_cpu.sample_rate_hz)]

    assert closest(on_gpu.embed(sounds), on_cpu.embed(sounds)) > 1 - 1e-3


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 100)), np.array([np.nan])], ids=["empty", "stereo", "nan"])
def test_what_is_no_audio_is_refused(embedder, samples):
    with pytest.raises(InvalidAudioError):
        embedder.embed([samples.astype(np.float32)])


def test_version_is_that_of_the_weights(store, embedder):
    assert version_of(embedder.name, store) == embedder.version
    assert re.fullmatch(rf"[0-9a-f]{{12}}-{large_models.PREPARATION}", embedder.version)
    assert version_of("clap:tiny-clap", store) != version_of("mert:tiny-mert", store)


def test_version_needs_the_store():
    with pytest.raises(ConfigurationError, match="give the model store"):
        version_of("clap:tiny-clap")


@pytest.mark.parametrize("name", ["clap:absent", "mert:absent"])
def test_missing_model_says_what_to_put_where(store, name):
    with pytest.raises(ModelMissingError, match=r"no model 'absent' in .*put the files of huggingface.co/.* into .*absent"):
        load_embedder(name, store)


def test_folder_without_weights_says_so(store):
    (store.folder / "empty").mkdir()
    (store.folder / "empty" / "config.json").write_text("{}")

    with pytest.raises(ModelMissingError, match=r"has no model.safetensors or pytorch_model.bin"):
        load_embedder("clap:empty", store)


def test_weights_of_another_model_are_refused(store):
    """Transformers fills tensors that a file lacks with random numbers, and only warns."""
    other = store.folder / "mixed-up"
    shutil.copytree(store.folder / "tiny-mert", other)
    shutil.copy(store.folder / "tiny-clap" / "model.safetensors", other / "model.safetensors")

    with pytest.raises(ModelMissingError, match="they are another model's"):
        load_embedder("mert:mixed-up", store)


@pytest.mark.parametrize("name", ["vggish", "clap:", "mert", ""])
def test_unknown_model_names_those_there_are(store, name):
    with pytest.raises(ConfigurationError, match="there are musicnn-msd, prompts, clap:FOLDER and mert:FOLDER"):
        load_embedder(name, store)


def test_configuration_is_read_not_assumed(store):
    config = json.loads((store.folder / "tiny-clap" / "config.json").read_text())

    assert config["projection_dim"] == 24
