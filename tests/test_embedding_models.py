"""The default embedder: one vector an audio, the same on every path."""

import subprocess
import sys

import numpy as np
import pytest

from keeptake.embedding import DEFAULT_MODEL, models, musicnn
from keeptake.embedding.models import MusicnnEmbedder, has_gpu, load_embedder, version_of
from keeptake.embedding.musicnn import Musicnn, mel_patches
from keeptake.embedding.scaler import apply_scaler, fit_scaler
from keeptake.embedding.shared_pass import SharedPass
from keeptake.errors import InvalidAudioError
from keeptake.model_store import ModelStore

RATE_HZ = 16_000
CHANNELS = 256  # of the network; what follows are the cepstra


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ModelStore(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def embedder(store):
    return load_embedder(DEFAULT_MODEL, store, device="cpu")


def cosine(left, right):
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_what_it_says_of_itself(embedder):
    assert (embedder.name, embedder.version) == ("musicnn-msd", version_of("musicnn-msd"))
    assert (embedder.dims, embedder.sample_rate_hz) == (336, RATE_HZ)


def test_audio_of_any_length_gives_one_vector(embedder, signals):
    sounds = [signals.sine(440, 0.1, RATE_HZ), signals.white_noise(3, RATE_HZ), signals.click_track(120, 11, RATE_HZ)]
    vectors = embedder.embed(sounds)

    assert vectors.shape == (3, 336)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()


def test_a_batch_gives_what_each_gives_alone(embedder, signals):
    sounds = [signals.white_noise(7, RATE_HZ), signals.click_track(97, 4, RATE_HZ)]
    together = embedder.embed(sounds)

    for vector, sound in zip(together, sounds, strict=True):
        np.testing.assert_allclose(vector, embedder.embed([sound])[0], atol=1e-5)


def test_no_audio_no_vector(embedder):
    assert embedder.embed([]).shape == (0, 336)


def test_the_cepstra_are_those_of_the_log_mel_spectrogram(store, embedder, signals):
    """An independent way to them, by the definition of the cosine transform."""
    sound = signals.drum_beat(100, 9, RATE_HZ)  # three patches, so that no frame is left out
    patches, _ = mel_patches(sound, Musicnn.load(store, "MSD").weights["mel"])
    spectra = patches.reshape(-1, 96)
    band, number = np.arange(96) + 0.5, np.arange(40)
    basis = np.cos(np.pi / 96 * np.outer(number, band)) * np.where(number, np.sqrt(2 / 96), np.sqrt(1 / 96))[:, None]
    expected = np.concatenate([basis @ spectra.mean(axis=0), basis @ np.log(spectra.std(axis=0))])

    np.testing.assert_allclose(embedder.embed([sound])[0][CHANNELS:], expected, atol=1e-3)


def test_excerpts_of_a_sound_are_nearer_than_other_sounds(embedder, signals):
    """Each dimension standardised, no more: what the network's own numbers alone do less well on real takes (RESULTS.md)."""
    sounds = [
        *(signals.drum_beat(tempo, 10, RATE_HZ) for tempo in (90, 140)),
        *(signals.sine(frequency, 10, RATE_HZ) for frequency in (220, 880)),
        signals.white_noise(10, RATE_HZ),
        signals.click_track(100, 10, RATE_HZ),
    ]
    halves = embedder.embed([half for sound in sounds for half in np.split(sound, 2)])
    unit = apply_scaler(fit_scaler(halves, most_dims=None), halves)
    cosines = unit @ unit.T - 2 * np.eye(len(unit))

    assert [int(row.argmax()) for row in cosines] == [n ^ 1 for n in range(len(halves))]


def test_a_pause_does_not_move_the_place(embedder, signals, monkeypatch):
    """Ten seconds of silence behind 30 of music left a take at a cosine of 0.72 to itself. The control lets pauses count."""
    sound = signals.drum_beat(100, 9, RATE_HZ)  # three patches
    with_pause = np.concatenate([sound, np.zeros(12 * RATE_HZ, np.float32)])
    assert cosine(*embedder.embed([sound, with_pause])) > 0.999

    monkeypatch.setattr(musicnn, "LEAST_SOUND", 0.0)
    assert cosine(*embedder.embed([sound, with_pause])) < 0.99


@pytest.mark.parametrize("level_db", [0, -30])
@pytest.mark.parametrize("pitch_hz", [55, 440])
def test_an_intro_of_one_instrument_is_no_pause(store, signals, pitch_hz, level_db):
    """Told by how much of the spectrum sounds, a bass alone was passed over as if it were silence."""
    intro = signals.sine(pitch_hz, 6, RATE_HZ, amplitude=0.3 * 10 ** (level_db / 20))
    sound = np.concatenate([intro, signals.white_noise(9, RATE_HZ), np.zeros(6 * RATE_HZ, np.float32)])
    _, starts_s = mel_patches(sound, Musicnn.load(store, "MSD").weights["mel"])
    assert starts_s.round(1).tolist() == [0.0, 3.0, 6.0, 9.0, 12.0]


def test_silence_has_a_place(embedder):
    assert np.isfinite(embedder.embed([np.zeros(4 * RATE_HZ, np.float32)])).all()


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 100)), np.array([np.nan])], ids=["empty", "stereo", "nan"])
def test_what_is_no_audio_is_refused(embedder, samples):
    with pytest.raises(InvalidAudioError):
        embedder.embed([samples.astype(np.float32)])


def test_one_pass_tags_and_places_alike(store, embedder, signals):
    sounds = [signals.drum_beat(100, seconds, 16_000) for seconds in (2.0, 7.5)]
    shared, alone = SharedPass(store), Musicnn.load(store, "MSD")
    assert shared.vector is None and shared.tags == alone.tags
    for sound in sounds:
        (heard,), (expected,) = shared([sound]), alone([sound])
        np.testing.assert_array_equal(heard.tags_probability, expected.tags_probability)
        np.testing.assert_allclose(shared.vector, embedder.embed([sound])[0], atol=1e-6)


def test_half_precision_in_torch_gives_the_same_vector(store, embedder, signals):
    """What runs on a GPU, run here on the CPU: other layers, other precision."""
    (patch,) = [signals.click_track(130, 3, RATE_HZ) + signals.sine(220, 3, RATE_HZ, amplitude=0.1)]
    half = MusicnnEmbedder(Musicnn.load(store, "MSD"), torch_device="cpu")

    on_gpu, on_cpu = half.embed([patch])[0], embedder.embed([patch])[0]
    assert 1 - cosine(on_gpu, on_cpu) < 1e-3
    assert 1 - cosine(on_gpu[:CHANNELS], on_cpu[:CHANNELS]) < 1e-3  # the rest is the same arithmetic on both


def test_a_long_take_goes_through_torch_a_batch_of_patches_at_a_time(store, signals, monkeypatch):
    half = MusicnnEmbedder(Musicnn.load(store, "MSD"), torch_device="cpu")
    sounds = [signals.white_noise(16, RATE_HZ), signals.drum_beat(100, 7, RATE_HZ)]
    at_once = half.embed(sounds)
    monkeypatch.setattr(models, "PATCHES_A_BATCH", 3)

    np.testing.assert_allclose(half.embed(sounds), at_once, atol=1e-2)


def test_no_tensor_stays_on_another_device_than_the_network(store):
    """Like a GPU, torch's meta device refuses tensors of the CPU; it works out shapes and precisions alone."""
    import torch

    from keeptake.embedding.musicnn_torch import TorchNetwork

    network = TorchNetwork(Musicnn.load(store, "MSD").weights).eval().to(device="meta", dtype=torch.float16)
    patches = torch.empty((2, 187, 96), device="meta", dtype=torch.float16)

    assert [(each.device.type, each.dtype, each.shape[1]) for each in network(patches)] == [
        ("meta", torch.float16, outputs) for outputs in (50, 1506, 200)
    ]
    network.register_buffer("dense_1-bias", torch.zeros(50, dtype=torch.float16))
    with pytest.raises(RuntimeError, match="not on the expected device"):
        network(patches)
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        MusicnnEmbedder(Musicnn.load(store, "MSD"), torch_device="meta").embed([np.ones(RATE_HZ, np.float32)])


def test_gpu_gives_the_same_vectors(store, embedder, signals):
    if not has_gpu():
        pytest.skip("no GPU on this machine")
    sounds = [signals.white_noise(40, RATE_HZ), signals.click_track(120, 11, RATE_HZ)]
    on_gpu = load_embedder(DEFAULT_MODEL, store, device="cuda").embed(sounds)

    for left, right in zip(on_gpu, embedder.embed(sounds), strict=True):
        assert 1 - cosine(left, right) < 1e-3
        assert 1 - cosine(left[:CHANNELS], right[:CHANNELS]) < 1e-3


def test_embedding_loads_no_torch(store):
    """Every worker process pays for what is imported: torch costs seconds and 200 MB."""
    code = (
        "import sys; import numpy as np; from pathlib import Path; from keeptake.model_store import ModelStore;"
        "from keeptake.embedding.models import load_embedder;"
        f"load_embedder('musicnn-msd', ModelStore(Path({str(store.folder)!r}))).embed([np.ones(16000, np.float32)]);"
        "print({'torch', 'librosa', 'transformers', 'onnxruntime'} & set(sys.modules))"
    )
    Musicnn.load(store, "MSD")  # so that the weights are converted already

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
