"""A file's vector, whatever its rate and channels."""

import numpy as np
import pytest
import soundfile

from keeptake.embedding.files import vector_of_file
from keeptake.errors import AudioRefusedError


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def test_rate_and_channels_do_not_move_the_vector(models, tmp_path, signals):
    """The same sound below 8 kHz, as mono at 16 kHz and as stereo at 48 kHz."""
    vectors = []
    for rate_hz, channels in ((16_000, 1), (48_000, 2)):
        sound = sum(signals.sine(pitch_hz, 4, rate_hz, amplitude=0.1) for pitch_hz in (220, 330, 1_400, 3_100))
        path = tmp_path / f"{rate_hz}.wav"
        soundfile.write(path, np.tile(sound[:, None], channels), rate_hz)
        vectors.append(vector_of_file(path, models))

    assert vectors[0].shape == (336,)
    assert vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1]) > 0.999


def cosine(left, right):
    return left @ right / np.linalg.norm(left) / np.linalg.norm(right)


def at_levels(signals, folder, *levels_db):
    """One sound at several levels, as files."""
    sound = signals.drum_beat(100, 6, 16_000) + signals.cadence(0, "minor", 6, 16_000)
    for level_db in levels_db:
        path = folder / f"{level_db}.flac"
        soundfile.write(path, 0.5 * sound / np.abs(sound).max() * 10 ** (level_db / 20), 16_000, subtype="PCM_24")
        yield path


def test_level_does_not_move_the_vector(models, tmp_path, signals, monkeypatch):
    """Takes 6 dB down were no longer nearest to their own copies: the network compresses as if all came at one level.

    The control takes the levelling away.
    """
    files = list(at_levels(signals, tmp_path, 0, -6, -40))
    loud, softer, faint = (vector_of_file(path, models) for path in files)
    assert min(cosine(loud, softer), cosine(loud, faint)) > 0.9999

    monkeypatch.setattr("keeptake.audio.frontend.level_for_networks", lambda mono, _: mono)
    loud, softer, faint = (vector_of_file(path, models) for path in files)
    assert max(cosine(loud, softer), cosine(loud, faint)) < 0.999


def test_what_does_not_decode_is_refused(models, tmp_path):
    (tmp_path / "page.wav").write_bytes(b"<html>404</html>" * 100)

    with pytest.raises(AudioRefusedError):
        vector_of_file(tmp_path / "page.wav", models)


@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_samples_of_no_sound_are_refused_and_not_searched_for(models, tmp_path, signals, bad):
    """Once the sum of their squares was infinite, and the model placed a vector of NaN."""
    sound = signals.sine(440, 4, 16_000)
    sound[20_000:20_100] = bad
    soundfile.write(tmp_path / "take.wav", sound, 16_000, subtype="FLOAT")
    with pytest.raises(AudioRefusedError, match="100 samples that are NaN, infinite or beyond"):
        vector_of_file(tmp_path / "take.wav", models)
