"""Speech probability by silero-vad's network, in one call for many frames."""

import pickle

import numpy as np
import pytest
from scipy.signal import lfilter

from keeptake.embedding.speech import load_speech
from keeptake.errors import InvalidAudioError
from keeptake.model_store import ModelStore

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return load_speech(ModelStore(tmp_path_factory.mktemp("models")))


def vowels(duration_s):
    """A crude voice: a gliding buzz through the formants of five vowels, eight of them a second."""
    n, piece = round(duration_s * RATE_HZ), RATE_HZ // 8
    pitch_hz = 120 + 30 * np.sin(2 * np.pi * 1.3 * np.arange(n) / RATE_HZ)
    buzz = np.diff(np.floor(np.cumsum(pitch_hz) / RATE_HZ), prepend=0)
    breath = 0.002 * np.random.default_rng(0).standard_normal(n)
    source = lfilter([1], [1, -0.95], buzz) + breath
    formants_hz = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
    sound = np.zeros(n)
    for number, start in enumerate(range(0, n, piece)):
        vowel = source[start : start + piece]
        for formant_hz, width_hz in zip(formants_hz[number % 5], (60, 90, 120), strict=True):
            radius = np.exp(-np.pi * width_hz / RATE_HZ)
            vowel = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant_hz / RATE_HZ), radius**2], vowel)
        sound[start : start + piece] = vowel * np.hanning(vowel.size) ** 0.5
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)


def test_voice_is_speech_and_noise_is_not(speech, signals):
    assert speech(vowels(3)).probability.max() > 0.9
    assert speech(signals.white_noise(3, RATE_HZ)).probability.max() < 0.5
    assert speech(np.zeros(RATE_HZ, np.float32)).probability.max() < 0.1


def test_calls_join_without_a_seam(speech):
    """More frames than one call takes: equal to the package's own loop over frames."""
    import torch
    from silero_vad import load_silero_vad

    samples = np.tile(vowels(3), 7)[: 600 * 512]
    oracle = load_silero_vad(onnx=True)
    expected = [oracle(torch.from_numpy(samples[at : at + 512]), RATE_HZ).item() for at in range(0, samples.size, 512)]

    np.testing.assert_allclose(speech(samples).probability, expected, atol=1e-3)


def test_frames_carry_their_times(speech):
    output = speech(np.zeros(1025, np.float32))

    np.testing.assert_allclose(output.starts_s, [0, 0.032, 0.064])
    assert output.probability.shape == (3,)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros((2, 100)), np.array([np.inf])], ids=["empty", "stereo", "infinite"])
def test_what_is_no_audio_is_refused(speech, samples):
    with pytest.raises(InvalidAudioError):
        speech(samples.astype(np.float32))


def test_pickles_as_the_wish_to_load(speech):
    assert pickle.loads(pickle.dumps(speech)) is speech  # noqa: S301 - our own bytes
