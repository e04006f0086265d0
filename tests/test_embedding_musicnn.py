"""musicnn without TensorFlow: the folded layers say what the plain ones say."""

import pickle

import numpy as np
import pytest
import torch

from keeptake.embedding.musicnn import PATCH_FRAMES, TAGS, Musicnn, mel_patches
from keeptake.embedding.musicnn_layers import FoldedNetwork
from keeptake.embedding.musicnn_torch import TorchNetwork
from keeptake.embedding.tensorflow_checkpoint import read_checkpoint
from keeptake.errors import InvalidAudioError
from keeptake.model_store import ModelStore

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ModelStore(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=["MTT", "MSD"])
def tagger(request, store):
    return Musicnn.load(store, request.param)


@pytest.fixture(scope="module")
def sounds(signals):
    """Quiet, loud, tonal, noisy, rhythmic, silent."""
    return [
        0.01 * signals.sine(220, 4, RATE_HZ),
        signals.click_track(120, 7, RATE_HZ),
        signals.white_noise(5, RATE_HZ, amplitude=1.0),
        np.zeros(RATE_HZ, np.float32),
        signals.sine(880, 3, RATE_HZ, amplitude=1.0) + signals.white_noise(3, RATE_HZ),
    ]


def plain(tagger, patches):
    with torch.no_grad():
        return [output.numpy() for output in TorchNetwork(tagger.weights).eval()(torch.from_numpy(patches))]


def cosine(left, right):
    return np.sum(left * right, axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))


def test_folded_layers_equal_the_plain_ones(tagger, sounds):
    for output, samples in zip(tagger(sounds), sounds, strict=True):
        tags, pooled, penultimate = plain(tagger, mel_patches(samples, tagger.weights["mel"])[0])

        np.testing.assert_allclose(output.tags_probability, tags, atol=1e-4)
        np.testing.assert_allclose(output.pooled, pooled, atol=1e-2)
        assert cosine(output.pooled, pooled).min() > 1 - 1e-6
        assert cosine(output.penultimate, penultimate).min() > 1 - 1e-6


def test_control_one_living_filter_less_is_noticed(store, sounds):
    tagger = Musicnn.load(store, "MSD")
    patches = mel_patches(sounds[1], tagger.weights["mel"])[0]
    weights = dict(tagger.weights)
    weights["conv2d/kernel"] = weights["conv2d/kernel"].copy()
    weights["conv2d/kernel"][..., tagger.network.living[0]] = 0

    assert np.abs(FoldedNetwork.fold(weights)(patches)[1] - plain(tagger, patches)[1]).max() > 1e-2


def test_most_filters_of_the_msd_network_are_dead(store):
    network = Musicnn.load(store, "MSD").network

    assert [layer.sign.size for layer in network.front] == [23, 14, 3, 7, 17]


def test_reads_every_tensor_of_the_checkpoint(tagger):
    weights = {name: tensor for name, tensor in tagger.weights.items() if name != "mel"}

    assert len(weights) == 64
    assert weights["conv2d_1/kernel"].shape == (7, 67, 1, 204)
    assert sum(tensor.size for tensor in weights.values()) == 792_079
    assert all(np.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.parametrize(("index", "text"), [(b"", "magic"), (bytes(100), "magic")])
def test_other_files_are_no_checkpoint(index, text):
    with pytest.raises(ValueError, match=text):
        read_checkpoint(index, b"")


def test_torchaudio_agrees_on_the_mel_spectrogram(tagger, signals):
    """The oracle of the front end: another library's mel spectrogram of the same samples."""
    import torchaudio

    samples = signals.white_noise(PATCH_FRAMES * 256 / RATE_HZ, RATE_HZ)
    oracle = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, n_fft=512, hop_length=256, n_mels=96, power=2, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )
    expected = torch.log10(1 + 10_000 * oracle(torch.from_numpy(samples))).numpy().T[:PATCH_FRAMES]

    np.testing.assert_allclose(mel_patches(samples, tagger.weights["mel"])[0][0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(1, [0]), (186, [0]), (187, [0]), (280, [0]), (281, [0, 94]), (374, [0, 187]), (468, [0, 187, 281])],
)
def test_patches_cover_the_audio(frames, starts):
    samples = np.zeros((frames - 1) * 256 + 1, np.float32)
    patches, starts_s = mel_patches(samples, np.zeros((96, 257), np.float32))

    assert patches.shape == (len(starts), 187, 96)
    np.testing.assert_allclose(starts_s, np.array(starts) * 0.016)


def test_short_audio_is_repeated(signals):
    mel = np.ones((96, 257), np.float32)
    patches, _ = mel_patches(signals.click_track(120, 1, RATE_HZ), mel)

    np.testing.assert_array_equal(patches[0, :63], patches[0, 63:126])


def test_tags_of_loud_bass_are_numbers(tagger, signals):
    """The original rounds mel power to float16, where a full-scale bass overflows into infinity."""
    (output,) = tagger([signals.sine(60, 3, RATE_HZ, amplitude=1.0)])

    assert np.isfinite(output.tags_probability).all()


def test_silence_and_one_sample_give_one_patch(tagger):
    for output in tagger([np.zeros(1, np.float32), np.zeros(2 * RATE_HZ, np.float32)]):
        assert output.tags_probability.shape == (1, 50)
        assert output.pooled.shape == (1, 1506)
        assert output.penultimate.shape == (1, 200)
        assert 0 <= output.tags_probability.min() <= output.tags_probability.max() <= 1


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 100)), np.array([0.0, np.nan])], ids=["empty", "stereo", "nan"])
def test_what_is_no_audio_is_refused(tagger, samples):
    with pytest.raises(InvalidAudioError):
        tagger([samples.astype(np.float32)])


def test_pickles_as_the_wish_to_load(tagger):
    message = pickle.dumps(tagger)

    assert len(message) < 1000
    assert pickle.loads(message) is tagger  # noqa: S301 - our own bytes; the same process has it loaded already


def test_fifty_tags_each():
    assert {dataset: len(set(tags)) for dataset, tags in TAGS.items()} == {"MTT": 50, "MSD": 50}


def test_sine_is_no_metal(store, signals):
    tagger = Musicnn.load(store, "MTT")
    soft = signals.sine(440, 6, RATE_HZ, amplitude=0.1)
    (output,) = tagger([soft])
    probability = dict(zip(TAGS["MTT"], output.tags_probability.mean(axis=0), strict=True))

    assert probability["metal"] < 0.1
    assert max(probability, key=probability.__getitem__) in {
        "ambient",
        "electronic",
        "quiet",
        "slow",
        "synth",
        "weird",
        "flute",
        "solo",
        "piano",
        "violin",
    }
