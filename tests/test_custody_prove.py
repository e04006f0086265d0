"""What is broken is told from what is merely odd: generated files of both kinds, decoded in worker processes."""

import importlib.util
import io
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import psutil
import pytest
import soundfile

from keeptake.compute import Failed, Ok, Pool
from keeptake.custody.decode import BLOCK_S, decode, open_audio
from keeptake.custody.keep import receive
from keeptake.custody.probe import media_type_of
from keeptake.custody.prove import Proof, prepare_worker, prove
from keeptake.custody.spool import Spool
from keeptake.errors import AudioReason, AudioRefusedError

RATE_HZ = 22_050


@pytest.fixture(scope="module")
def corruption() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keeptake_test_corruption", Path(__file__).parent / "corruption.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2, initializer=prepare_worker) as pool:
        yield pool


@pytest.fixture(scope="module")
def corrupt(corruption: ModuleType) -> dict[str, bytes]:
    return dict(corruption.corrupt_files())


def prove_bytes(data: bytes, tmp_path: Path) -> Proof:
    file = tmp_path / "file"
    file.write_bytes(data)
    return prove(file)


def test_two_hundred_corrupt_files_and_the_good_ones_among_them(corruption, corrupt, pool, tmp_path):
    names: dict[Path, str] = {}
    for number, (name, data) in enumerate(corrupt.items()):
        path = tmp_path / str(number)
        path.write_bytes(data)
        names[path] = name
        if number % 10 == 0:
            good = tmp_path / f"good-{number}"
            good.write_bytes(corruption.encode(corruption.music(1.0, number), ("wav", "flac", "ogg", "mp3")[number // 10 % 4]))
            names[good] = "good"
    outcomes = dict(pool.map(prove, names, timeout_s=60, cpu_s=30, memory_mb=512))

    assert len(names) >= 220 and set(outcomes) == set(names)
    accepted = [name for path, name in names.items() if isinstance(outcomes[path], Ok)]
    assert set(accepted) == {"good"} and len(accepted) == 21
    odd = {names[path]: o for path, o in outcomes.items() if isinstance(o, Failed) and not isinstance(o.error, AudioRefusedError)}
    assert odd == {}, "refused without a reason"
    assert all(process.is_running() for process in psutil.Process().children())


@pytest.mark.parametrize(
    ("prefix", "reasons"),
    [
        ("truncated-", "truncated undecodable"), ("flipped-", "undecodable truncated not-audio"), ("rate-", "undecodable"),
        ("channels-", "undecodable"), ("bits-", "undecodable"), ("samples-0", "empty"), ("samples-1", "too-short"),
        ("claims-", "truncated"), ("admits-", "truncated"), ("holds-", "non-finite-samples"), ("half-an-hour", "too-long"),
        ("ten-hours", "truncated undecodable"), ("tag-", "not-audio undecodable"), ("not-audio-", "not-audio"),
        ("random-", "not-audio"), ("bytes-0", "empty"), ("bytes-1", "not-audio"), ("bytes-44", "truncated"),
        ("box-", "truncated"), ("chunk-", "truncated"),
    ],
)  # fmt: skip
def test_each_kind_has_its_reasons(corrupt, tmp_path, prefix, reasons):
    found = set()
    for name, data in corrupt.items():
        if name.startswith(prefix):
            with pytest.raises(AudioRefusedError) as refused:
                prove_bytes(data, tmp_path)
            found.add(refused.value.reason)
    assert found and found <= set(reasons.split())


def test_control_the_decoder_alone_takes_lies(corrupt):
    """What the proof is for: libsndfile opens these without complaint."""
    lies = ("claims-", "admits-", "holds-", "bits-7", "truncated-wav", "truncated-aiff")
    for name, data in corrupt.items():
        if name.startswith(lies):
            samples, _ = soundfile.read(io.BytesIO(data))
            assert len(samples) > 0, name


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac", "ogg", "mp3", "m4a", "webm"])
def test_a_sound_file_is_measured(corruption, tmp_path, kind):
    proof = prove_bytes(corruption.encode(corruption.music(3.0, 1), kind), tmp_path)
    duration_s = 3.0 if kind != "webm" else 3.0 * RATE_HZ / 48_000  # the helper writes the same samples at 48 kHz
    assert proof.duration_s == pytest.approx(duration_s, abs=0.08)
    assert (proof.format, proof.channels, proof.flags) == (kind, 1, ())
    assert proof.sample_rate_hz == (48_000 if kind == "webm" else RATE_HZ)
    assert proof.measures["rms"] == pytest.approx(np.sqrt(4 * 0.15**2 / 2 + 0.05**2), rel=0.05)


def flags_of(samples: np.ndarray, tmp_path: Path, **options: str) -> set[str]:
    out = io.BytesIO()
    soundfile.write(out, samples.astype(np.float32), RATE_HZ, format="WAV", **options)
    return set(prove_bytes(out.getvalue(), tmp_path).flags)


def test_flags_of_legal_oddities(signals, tmp_path):
    tone = signals.sine(440, 1.0, RATE_HZ)
    quiet = signals.white_noise(1.0, RATE_HZ, amplitude=1e-3)
    stereo = {
        "antiphase": np.stack([tone, -tone], 1),
        "one-sided": np.stack([tone, 0 * tone], 1),
        "multichannel": np.stack([tone] * 6, 1),
    }
    mono = {"silent": 0 * tone, "near-silent": quiet, "dc-offset": 0.5 * tone + 0.3, "clipping": np.clip(4 * tone, -1, 1)}
    for flag, samples in (stereo | mono).items():
        assert flags_of(samples, tmp_path) == {flag}
    assert flags_of(3 * tone, tmp_path, subtype="FLOAT") == {"over-full-scale"}, "peaks of a float file are no clipping"
    assert flags_of(tone, tmp_path) == flags_of(np.stack([tone, tone], 1), tmp_path) == set()


class TestOddButSound:
    """Files that careless checks refuse."""

    @pytest.fixture
    def pcm(self, signals) -> bytes:
        return (signals.sine(440, 1.0, RATE_HZ) * 32_767).astype("<i2").tobytes()

    def test_a_streamed_wav_states_no_length(self, corruption, pcm, tmp_path):
        proof = prove_bytes(corruption.wav(pcm, claimed=0xFFFFFFFF), tmp_path)
        assert proof.flags == ("no-declared-length",) and proof.duration_s == 1.0

    def test_chunks_and_tags_may_follow_the_samples(self, corruption, pcm, tmp_path):
        whole = corruption.wav(pcm)
        assert prove_bytes(whole + b"LIST" + struct.pack("<I", 4) + b"INFO", tmp_path).flags == ()
        assert prove_bytes(whole + b"TAG" + bytes(125), tmp_path).flags == ("trailing-bytes",)
        assert prove_bytes(corruption.wav(pcm + b"\0")[:-1], tmp_path).duration_s == pytest.approx(1.0, abs=1e-3), (
            "a missing pad byte"
        )

    def test_tags_and_padding_around_mp3(self, corruption, tmp_path):
        mp3 = corruption.encode(corruption.music(2.0, 1), "mp3")
        tagged = corruption.id3(2000, b"TBPM\0\0\0\x05\0\0\x00999".ljust(2000, b"\0")) + bytes(300) + mp3
        assert prove_bytes(tagged, tmp_path).duration_s == pytest.approx(2.0, abs=0.1)
        assert prove_bytes(mp3 + b"TAG" + bytes(125), tmp_path).flags == ("trailing-bytes",)
        assert prove_bytes(mp3 + bytes(5000), tmp_path).flags == ()

    def test_an_mp3_of_changing_bit_rate_without_a_header_is_no_truncated_one(self, corruption, tmp_path):
        """Without a Xing header libsndfile guesses the length from the first frames' bit rate."""
        out = io.BytesIO()
        silence, noise = np.zeros((RATE_HZ * 5, 1), np.float32), corruption.music(5.0, 1)
        with av.open(out, "w", format="mp3", options={"write_xing": "0"}) as file:
            stream = file.add_stream("libmp3lame", rate=RATE_HZ, layout="mono")
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = 0
            for samples in (silence, noise):
                frame = av.AudioFrame.from_ndarray(samples.T.copy(), format="fltp", layout="mono")
                frame.sample_rate = RATE_HZ
                for piece in _pieces(frame, 576):
                    file.mux(stream.encode(piece))
            file.mux(stream.encode(None))
        assert b"Xing" not in out.getvalue() and b"Info" not in out.getvalue()
        assert prove_bytes(out.getvalue(), tmp_path).duration_s == pytest.approx(10.0, abs=0.1)

    def test_an_mp3_read_in_blocks_is_the_mp3_read_at_once(self, capfd):
        """Bursts of noise came out wrong by more than full scale after each block; the control is soundfile's own way to read."""
        clock_s = np.arange(25 * RATE_HZ) / RATE_HZ
        bursts = np.random.default_rng(0).standard_normal(clock_s.size) * 0.5 * ((clock_s * 4 % 1) < 0.1)
        out = io.BytesIO()
        soundfile.write(out, bursts, RATE_HZ, format="MP3", bitrate_mode="AVERAGE", compression_level=0.5)
        whole, _ = soundfile.read(io.BytesIO(out.getvalue()), dtype="float32", always_2d=True)
        assert capfd.readouterr().err == ""
        straight, _ = decode(out.getvalue())
        assert capfd.readouterr().err == ""
        np.testing.assert_allclose(straight, whole, atol=1e-6)
        out.seek(0)
        seeking = np.concatenate(list(soundfile.blocks(out, 10 * RATE_HZ, dtype="float32", always_2d=True)))
        assert np.abs(seeking - whole).max() > 1.0
        assert "libmpg123" in capfd.readouterr().err

    @pytest.mark.parametrize(
        "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610"]
    )
    def test_kinds_of_wav(self, signals, tmp_path, subtype):
        out = io.BytesIO()
        soundfile.write(out, signals.sine(440, 2.0, 8000), 8000, format="WAV", subtype=subtype)
        assert prove_bytes(out.getvalue(), tmp_path).duration_s == pytest.approx(2.0, abs=0.1)

    @pytest.mark.parametrize("container", ["WAVEX", "RF64", "W64", "CAF", "AU", "AIFF"])
    def test_containers_of_libsndfile(self, signals, tmp_path, container):
        out = io.BytesIO()
        soundfile.write(out, np.stack([signals.sine(440, 1.0, 44_100)] * 2, 1), 44_100, format=container, subtype="PCM_16")
        proof = prove_bytes(out.getvalue(), tmp_path)
        assert (proof.duration_s, proof.sample_rate_hz, proof.channels) == (1.0, 44_100, 2)

    def test_raw_adts(self, corruption, tmp_path):
        out = io.BytesIO()
        with av.open(out, "w", format="adts") as file:
            stream = file.add_stream("aac", rate=RATE_HZ, layout="mono")
            frame = av.AudioFrame.from_ndarray(corruption.music(3.0, 1).T.copy(), format="fltp", layout="mono")
            frame.sample_rate = RATE_HZ
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        proof = prove_bytes(out.getvalue(), tmp_path)
        assert proof.format == "aac" and proof.duration_s == pytest.approx(3.0, abs=0.15)
        damaged = bytearray(out.getvalue())
        damaged[len(damaged) // 2 :] = bytes(200) + damaged[len(damaged) // 2 :]
        with pytest.raises(AudioRefusedError, match="belong to no frame"):
            prove_bytes(bytes(damaged), tmp_path)


def _pieces(frame: av.AudioFrame, size: int) -> Iterator[av.AudioFrame]:
    fifo = av.AudioFifo()
    fifo.write(frame)
    while (piece := fifo.read(size)) is not None:
        piece.pts = None
        yield piece


def test_blocks_are_of_equal_length_and_nothing_is_lost(corruption, signals):
    samples = signals.white_noise(2.5, RATE_HZ)[:, None]
    data = corruption.encode(samples, "flac")
    with open_audio(data) as stream:
        blocks = list(stream.blocks(1.0))
    assert [len(block) for block in blocks] == [RATE_HZ, RATE_HZ, RATE_HZ // 2]
    whole, rate_hz = decode(data)
    assert rate_hz == RATE_HZ and whole.dtype == np.float32 and np.array_equal(np.concatenate(blocks), whole)
    assert np.abs(whole - samples).max() < 2**-15


def test_a_name_is_never_believed(corruption, tmp_path):
    """A file named .raw was once read as raw samples, whatever it held."""
    for name in ("take.raw", "take.m3u8", "take.txt"):
        (tmp_path / name).write_bytes(corruption.encode(corruption.music(1.0, 1), "flac"))
        assert prove(tmp_path / name).format == "flac"


def test_a_playlist_opens_nothing(tmp_path):
    """FFmpeg opens what a playlist names; ours chooses the demuxer by content and allows no protocol."""
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, np.zeros(8000), 8000)
    for text in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        playlist = tmp_path / "list"
        playlist.write_text(text)
        with pytest.raises(AudioRefusedError) as refused:
            prove(playlist)
        assert refused.value.reason == AudioReason.NOT_AUDIO
    with av.open(str(playlist), format="concat", options={"safe": "0"}) as opened:  # the control: FFmpeg by itself does
        assert opened.streams.audio


def test_memory_does_not_grow_with_length(dev_data, peak_memory):
    """Ten minutes decoded in blocks: 300 MB would be three times the samples."""
    with open_audio(dev_data / "audio" / "x_ten_minutes.mp3") as stream:
        blocks = stream.blocks()
        next(blocks)
        memory = peak_memory.PeakMemory()
        assert sum(len(block) for block in blocks) / stream.sample_rate_hz == pytest.approx(600 - BLOCK_S, abs=0.5)
        assert memory.added_mb() < 50


def test_an_upload_is_proved_and_kept(corruption, pool, tmp_path):
    from keeptake.audio_store import AudioStore

    store = AudioStore((tmp_path / "audio").as_uri())

    def received(data):
        with Spool(store.spool_folder) as spool:
            spool.write(data)
            return receive(spool, store, pool)

    data = corruption.encode(corruption.music(1.0, 1), "flac")
    kept = received(data)
    assert kept.is_new and kept.file.codec == "pcm_16" and store.read(kept.file.sha256) == data
    assert not received(data).is_new
    with pytest.raises(AudioRefusedError) as refused:
        received(b"<html>")
    assert refused.value.reason == AudioReason.NOT_AUDIO
    with pytest.raises(AudioRefusedError):
        received(b"")
    assert len(list((tmp_path / "audio").rglob("*"))) == 3


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"", "application/x-empty"), (b"  <html>", "text/html"), (b'{"a": 1}', "application/json"), (b"\x89PNG\r\n", "image/png"),
     (b"\xff\xfb\x90\x64", "audio/mp3"), (b"\xff\xf1\x50\x80", "audio/aac"), (b"ID3\x04\0\0\0\0\0\0", "audio/mp3"),
     (b"hello there", "text/plain"), (b"\x01\x02\x03", "application/octet-stream"), (b"RIFF\0\0\0\0WAVE", "audio/wav")],
)  # fmt: skip
def test_first_bytes(head, name):
    assert media_type_of(head) == name
