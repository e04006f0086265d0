"""Embeddings and similarity against their baselines: `python benchmarks/bench_embed.py [speed|retrieval|search] [--vectors N]`.

Each section compares in one run, prints what was measured beside a check that the output is right, and fails where a floor is
missed. `speed` and `retrieval` need the labelled audio beside the project; `search` starts a throw-away Postgres.
"""

# ruff: noqa: E402 -- the number of threads is settled before numpy is loaded
import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before numpy is loaded: figures are for one core

import numpy as np
import soxr

from keeptake.audio.frontend import level_for_networks
from keeptake.custody.decode import decode
from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.models import load_embedder
from keeptake.embedding.musicnn import Musicnn, mel_patches
from keeptake.embedding.scaler import apply_scaler, fit_scaler
from keeptake.model_store import ModelStore

DEV = Path(__file__).parents[2] / "shared" / "data" / "dev"
RATE_HZ = 16_000
PLACES = (0.0, 0.25, 0.49)
CHANNELS = 256  # of the vector; the cepstra follow
SPEED_FILES, SPEED_CLIP_S = 8, 30.0


def labelled(origins: tuple[str, ...] = ("recording", "ai-generated"), least_s: float = 25) -> list[dict]:
    """Recordings and clips of a music model of at least 25 s, or others, no made duplicates."""
    labels = [json.loads(line) for line in (DEV / "labels.jsonl").read_text().splitlines()]
    return [
        label
        for label in labels
        if label["origin"] in origins
        and (label["duration_s"] or 0) >= least_s
        and not label.get("duplicate_of")
        and not label.get("corrupt")
    ]


def mono(label: dict) -> tuple[np.ndarray, int]:
    """Samples of a labelled file at its own rate."""
    samples, rate_hz = decode(DEV / label["file"])
    return samples.mean(axis=1), rate_hz


# --------------------------------------------------------------------------------------------------------------- speed


def bench_speed(store: ModelStore) -> bool:
    """The folded layers against the plain ones in torch, front end included in both, one core, CPU time."""
    import torch

    from keeptake.embedding.musicnn_torch import TorchNetwork

    torch.set_num_threads(1)
    clips = [
        soxr.resample(samples, rate_hz, RATE_HZ)[: int(SPEED_CLIP_S * RATE_HZ)]
        for samples, rate_hz in map(mono, labelled()[:SPEED_FILES])
    ]
    duration_s = sum(clip.size for clip in clips) / RATE_HZ
    passed = True
    for dataset in ("MSD", "MTT"):
        tagger = Musicnn.load(store, dataset)
        network = TorchNetwork(tagger.weights).eval()

        def plain(tagger: Musicnn = tagger, network: TorchNetwork = network) -> list[np.ndarray]:
            with torch.inference_mode():
                return [network(torch.from_numpy(mel_patches(clip, tagger.weights["mel"])[0]))[1].numpy() for clip in clips]

        def folded(tagger: Musicnn = tagger) -> list[np.ndarray]:
            return [output.pooled for output in tagger(clips)]

        (plain_s, expected), (folded_s, found) = paired(plain, folded)
        worst = max(cosine_distance(left, right) for left, right in zip(found, expected, strict=True))
        print(
            f"speed {dataset}: plain torch {duration_s / plain_s:.0f}x, folded {duration_s / folded_s:.0f}x real time,"
            f" ratio {plain_s / folded_s:.2f} (floor 2); largest cosine distance {worst:.1e} (ceiling 1e-3)"
        )
        passed &= plain_s / folded_s >= 2 and worst < 1e-3
    return passed


def paired(*functions: Callable[[], list], rounds: int = 3) -> list[tuple[float, list]]:
    """Least CPU seconds of each over alternating rounds, and what it returned."""
    seconds: list[list[float]] = [[] for _ in functions]
    values: list[list] = [[] for _ in functions]
    for _ in range(rounds):
        for number, function in enumerate(functions):
            start = time.process_time()
            values[number] = function()
            seconds[number].append(time.process_time() - start)
    return [(min(each), value) for each, value in zip(seconds, values, strict=True)]


def cosine_distance(left: np.ndarray, right: np.ndarray) -> float:
    """Largest over rows."""
    return float(np.max(1 - np.sum(left * right, axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)))


# ----------------------------------------------------------------------------------------------------------- retrieval


def mfcc_statistics(samples: np.ndarray) -> np.ndarray:
    """Mean and deviation of 20 MFCC: 40 numbers."""
    import librosa

    return moments(librosa.feature.mfcc(y=samples, sr=RATE_HZ, n_mfcc=20))


def hand_made(samples: np.ndarray) -> np.ndarray:
    """Mean and deviation of 20 MFCC, 12 chroma, 7 contrast, and 5 shapes of the spectrum: 88 numbers."""
    import librosa.feature as feature
    from librosa import stft

    spectrum = np.abs(stft(samples))
    given = {"S": spectrum, "sr": RATE_HZ}
    parts = [
        feature.mfcc(y=samples, sr=RATE_HZ, n_mfcc=20),
        feature.chroma_stft(S=spectrum**2, sr=RATE_HZ),
        feature.spectral_contrast(**given, fmin=100),
        feature.spectral_centroid(**given),
        feature.spectral_bandwidth(**given),
        feature.spectral_rolloff(**given),
        feature.spectral_flatness(S=spectrum),
        feature.zero_crossing_rate(samples),
    ]
    return np.concatenate([moments(part) for part in parts])


def moments(values: np.ndarray) -> np.ndarray:
    """Mean and deviation over time."""
    return np.concatenate([values.mean(axis=1), values.std(axis=1)])


def bench_retrieval(store: ModelStore) -> bool:
    """Whether the nearest of all other excerpts is one of the same track: as asked for, and cut in other ways."""
    others = labelled(("midi-render", "project-render", "loop"), least_s=14)
    verdicts = [
        retrieval(store, "recordings and AI clips", labelled(), 10.0, PLACES[:1]),
        retrieval(store, "recordings and AI clips, at three places", labelled(), 10.0),
        retrieval(store, "recordings and AI clips, at three places", labelled(), 5.0),
        retrieval(store, "renders and loops, at three places", others, 5.0),
    ]
    return all(verdicts)


def retrieval(store: ModelStore, what: str, labels: list[dict], excerpt_s: float, places: tuple[float, ...] = PLACES) -> bool:
    """Mean over the places of what two excerpts a take come to."""
    audio = [mono(label) for label in labels]
    tracks = [label.get("track_group") or label.get("same_track_as") or label["file"] for label in labels for _ in range(2)]
    print(
        f"retrieval: {what}, {len(tracks)} excerpts of {excerpt_s:.0f} s, {len(set(tracks))} tracks; recall@1"
        " raw, standardised, scaled, scaled by other tracks"
    )
    rows: dict[str, list[list[float]]] = {}
    for place in places:
        excerpts = [each for take in audio for each in two_excerpts(*take, excerpt_s, place)]
        for name, vectors in candidates(store, excerpts).items():
            spaces = (vectors, standardised(vectors), apply_scaler(fit_scaler(vectors), vectors))
            row = [recall_at_1(space, tracks) for space in spaces] + [held_out(vectors, tracks)]
            rows.setdefault(f"{name:24s} {vectors.shape[1]:4d} numbers", []).append(row)
    recalls = {name: np.mean(each, axis=0) for name, each in rows.items()}
    for name, row in recalls.items():
        print(f"  {name}  " + "  ".join(f"{recall:.3f}" for recall in row))
    mfcc, by_hand, *_, ours = (row[1:3] for row in recalls.values())
    floors = np.maximum(mfcc + 0.05, by_hand)
    print(f"  standardised alike {ours[0]:.3f} (floor {floors[0]:.3f}), scaled alike {ours[1]:.3f} (floor {floors[1]:.3f})")
    return bool(np.all(ours > floors))


def two_excerpts(samples: np.ndarray, rate_hz: int, excerpt_s: float, place: float) -> list[np.ndarray]:
    """From a second off either end, moved inwards by a share of what lies between them; at one loudness, for all that compare."""
    length = int(excerpt_s * rate_hz)
    first, last = rate_hz, samples.size - length - rate_hz
    moved = int(place * max(last - first - length, 0))
    excerpts = [soxr.resample(samples[at : at + length], rate_hz, RATE_HZ) for at in (first + moved, last - moved)]
    return [level_for_networks(excerpt, RATE_HZ) for excerpt in excerpts]


def candidates(store: ModelStore, excerpts: list[np.ndarray]) -> dict[str, np.ndarray]:
    """What is compared: the two that have to be beaten, parts of our own, and our own."""
    ours = load_embedder(DEFAULT_MODEL, store).embed(excerpts)
    tagged = Musicnn.load(store, "MSD")(excerpts)
    return {
        "mfcc statistics": np.stack([mfcc_statistics(excerpt) for excerpt in excerpts]),
        "88 hand-made": np.stack([hand_made(excerpt) for excerpt in excerpts]),
        "musicnn tags": np.stack([output.tags_probability.mean(axis=0) for output in tagged]),
        "musicnn channels alone": ours[:, :CHANNELS],
        "cepstra alone": ours[:, CHANNELS:],
        "musicnn-msd": ours,
    }


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Each dimension by its deviation, no whitening."""
    return apply_scaler(fit_scaler(vectors, most_dims=None), vectors)


def recall_at_1(vectors: np.ndarray, tracks: list[str], queries: np.ndarray | None = None) -> float:
    """Share of the queries (all, by default) whose nearest other vector is of the same track."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    names = np.array(tracks)
    hits = names[np.argmax(cosines, axis=1)] == names
    return float(np.mean(hits if queries is None else hits[queries]))


def held_out(vectors: np.ndarray, tracks: list[str], folds: int = 5) -> float:
    """Recall when the scaler never saw the queries' tracks."""
    fold = np.array([hashlib.sha256(track.encode()).digest()[0] % folds for track in tracks])
    rows = [
        (recall_at_1(apply_scaler(fit_scaler(vectors[fold != each]), vectors), tracks, fold == each), np.sum(fold == each))
        for each in range(folds)
    ]
    return float(np.average([recall for recall, _ in rows], weights=[weight for _, weight in rows]))


# -------------------------------------------------------------------------------------------------------------- search

MODEL, VERSION = DEFAULT_MODEL, "1"
QUERIES = 100
MOST_P50_MS = 20
FLOAT4_OID = 700
K = 10


def corpus(count: int, dims: int = 336) -> tuple[np.ndarray, np.ndarray]:
    """Vectors like music: styles in a space of 40 latent directions, seen through many dimensions; and each one's style."""
    generator = np.random.default_rng(0)
    styles = generator.standard_normal((400, 40))
    style = generator.integers(0, 400, count)
    mixing = generator.standard_normal((40, dims)).astype(np.float32) * np.geomspace(0.01, 10, dims).astype(np.float32)
    latent = (styles[style] + 0.6 * generator.standard_normal((count, 40))).astype(np.float32)
    vectors = latent @ mixing
    vectors += 0.3 * vectors.std(axis=0) * generator.standard_normal(vectors.shape, dtype=np.float32)
    return vectors, style


def rows(count: int, style: np.ndarray) -> dict[str, Iterator[tuple]]:
    """Rows of the tables by the COPY that they go into."""
    sha = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
    generations = (
        "generation_id, identity_sha256, user_id, user_prompt, audio_url, provider, source, captured_on, created_at,"
        " audio_status, audio_sha256"
    )
    return {
        "audio (sha256, storage_key, size_bytes, format, codec, duration_s, sample_rate_hz, channels)": (
            (sha[n], sha[n], 1, "wav", "pcm", 30.0, 44100, 2) for n in range(count)
        ),
        f"generations ({generations})": (
            (
                f"g{n}",
                bytes(32),
                f"user{n % 10_000}",
                "p",
                "a",
                f"provider{style[n] % 5}",
                "api",
                "2026-11-01",
                "2026-11-01",
                "stored",
                sha[n],
            )
            for n in range(count)
        ),
        "features (audio_sha256, versions, tempo_bpm, key, genre)": (
            (sha[n], "", 50 + n % 1_000 / 10, f"key{n % 100}", f"genre{style[n] % 25}") for n in range(count)
        ),
    }


def bench_search(count: int) -> bool:
    """Ingest, index and search; every filter against an exact search, and the index alone as the control."""
    import psycopg

    from keeptake.ledger.connection import Ledger, libpq_url
    from keeptake.ledger.embeddings import read_scaler, renew_space, scaler_in_use
    from keeptake.ledger.migrate import migrate
    from keeptake.ledger.server import embedded_server
    from keeptake.ledger.similarity import Filters

    vectors, style = corpus(count)
    with tempfile.TemporaryDirectory() as home, embedded_server(Path(home)) as url:
        ledger = Ledger(url)
        migrate(ledger)
        with psycopg.connect(libpq_url(url)) as connection, connection.cursor() as cursor:
            for target, lines in rows(count, style).items():
                with cursor.copy(f"COPY {target} FROM STDIN") as copy:
                    for line in lines:
                        copy.write_row(line)
            start = time.perf_counter()
            with cursor.copy("COPY embeddings (audio_sha256, model, version, vector) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "text", "text", "bytea"])  # sent as what it is: an array's own binary form
                for n, vector in enumerate(vectors):
                    copy.write_row((hashlib.sha256(str(n).encode()).hexdigest(), MODEL, VERSION, real_array(vector)))
            print(f"search: {count} raw vectors of {vectors.shape[1]} numbers ingested in {time.perf_counter() - start:.0f} s")
        start = time.perf_counter()
        report = renew_space(ledger, MODEL, VERSION)
        print(f"  scaled to {report.scaler.dims} and indexed in {time.perf_counter() - start:.0f} s")
        with psycopg.connect(libpq_url(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        with ledger.begin() as connection:
            transform = read_scaler(connection, scaler_in_use(connection, MODEL))
        stored = apply_scaler(transform, vectors).astype(np.float16).astype(np.float32)
        unit = stored / np.linalg.norm(stored, axis=1, keepdims=True)
        n = np.arange(count)
        cases = {
            "all": (Filters(), n >= 0),
            "half, by tempo": (Filters(tempo_to_bpm=99.95), n % 1_000 < 500),
            "a fifth, a provider that sounds alike": (Filters(provider="provider3"), style % 5 == 3),
            "10 %, that provider and a tempo": (
                Filters(provider="provider3", tempo_to_bpm=99.95),
                (style % 5 == 3) & (n % 1_000 < 500),
            ),
            "10 %, by tempo": (Filters(tempo_to_bpm=59.95), n % 1_000 < 100),
            "6 %, by tempo": (Filters(tempo_to_bpm=55.95), n % 1_000 < 60),
            "4 %, a genre that sounds alike": (Filters(genre="genre7"), style % 25 == 7),
            "1 %, by key": (Filters(key="key42"), n % 100 == 42),
            "0.1 %, by key and tempo": (Filters(key="key42", tempo_to_bpm=54.25), n % 1_000 == 42),
            "0.01 %, by user": (Filters(user_id="user77"), n % 10_000 == 77),
        }
        verdicts = [search_case(ledger, name, filters, allowed, unit) for name, (filters, allowed) in cases.items()]
        ledger.dispose()
    return all(verdicts)


def real_array(vector: np.ndarray) -> bytes:
    """A `real[]` in Postgres' binary form: text of 70 million numbers would be most of the ingest."""
    header = np.array([1, 0, FLOAT4_OID, vector.size, 1], ">i4").tobytes()
    elements = np.empty(vector.size, [("bytes", ">i4"), ("value", ">f4")])
    elements["bytes"], elements["value"] = 4, vector
    return header + elements.tobytes()


def cpu_s(backend: int) -> float:
    """CPU seconds of this process and of a server process so far."""
    return time.process_time() + int(Path(f"/proc/{backend}/schedstat").read_text().split()[0]) / 1e9


def search_case(ledger: object, name: str, filters: object, allowed: np.ndarray, unit: np.ndarray) -> bool:
    """Time and recall of one filter, and how many rows the index alone would have found."""
    from keeptake.ledger.similarity import similar

    queries = np.random.default_rng(1).integers(0, len(unit), QUERIES)
    similar(ledger, f"g{queries[0]}", K, filters)
    with ledger.begin() as connection:  # the pool gives the same one to every search that follows
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    milliseconds, cpu_milliseconds, hits, wanted, lost = [], [], 0, 0, 0
    truth = [nearest_exact(unit, query, allowed) for query in queries]  # before: numpy's threads idle noisily after a product
    for query, expected in zip(queries, truth, strict=True):
        start, start_cpu_s = time.perf_counter(), cpu_s(backend)
        found = similar(ledger, f"g{query}", K, filters)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        cpu_milliseconds.append(1e3 * (cpu_s(backend) - start_cpu_s))
        hits, wanted = hits + len({take.generation_id for take in found} & expected), wanted + len(expected)
        lost += len(expected) - len(found)
    alone = sum(index_alone(ledger, f"g{query}", filters) for query in queries)
    (p50, p99), (cpu_p50, cpu_p99) = np.percentile(milliseconds, (50, 99)), np.percentile(cpu_milliseconds, (50, 99))
    print(
        f"  {name:38s} {allowed.mean():8.3%} pass: p50 {p50:5.1f} p99 {p99:6.1f} ms wall,"
        f" {cpu_p50:5.1f} and {cpu_p99:6.1f} ms CPU, recall@10 {hits / wanted:.3f},"
        f" rows lost {lost} of {wanted}; the index alone lost {wanted - alone}"
    )
    # The floor of time is in CPU of client and server: a busy machine's wall measures others.
    return lost == 0 and hits / wanted >= 0.99 and cpu_p50 <= MOST_P50_MS


def nearest_exact(unit: np.ndarray, query: int, allowed: np.ndarray) -> set[str]:
    """Ids of the nearest by brute force."""
    cosines = np.where(allowed, unit @ unit[query], -np.inf)
    cosines[query] = -np.inf
    nearest = np.argpartition(-cosines, K)[:K]
    return {f"g{n}" for n in nearest if cosines[n] > -np.inf}


def index_alone(ledger: object, generation_id: str, filters: object) -> int:
    """Rows that plain HNSW gives behind the filter: the negative control."""
    import sqlalchemy as sa

    from keeptake.ledger import similarity
    from keeptake.ledger.embeddings import current_scaler

    scaler = current_scaler(ledger, MODEL)
    conditions, values = similarity._filter(filters, generation_id)
    source, where = similarity._source(conditions)
    with ledger.begin() as connection:
        vector = similarity._vector(connection, generation_id, scaler)
        for setting in ("hnsw.iterative_scan = off", "hnsw.ef_search = 100", "enable_seqscan = off", "enable_sort = off"):
            connection.execute(sa.text(f"SET LOCAL {setting}"))
        joined = source.replace("generations g", "generations g ON g.audio_sha256 = s.audio_sha256", 1)
        query = (
            f"SELECT g.generation_id FROM scaled_embeddings s JOIN {joined} WHERE s.scaler = {scaler.id} AND {where}"
            f" ORDER BY s.vector::halfvec({scaler.dims}) <=> CAST(:vector AS halfvec({scaler.dims})) LIMIT {K}"
        )
        return len(connection.execute(sa.text(query), {**values, "vector": vector}).all())


def main() -> int:
    """Run the sections asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=["speed", "retrieval", "search"])
    parser.add_argument("--vectors", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder))
        sections = {
            "speed": lambda: bench_speed(store),
            "retrieval": lambda: bench_retrieval(store),
            "search": lambda: bench_search(given.vectors),
        }
        passed = {section: sections[section]() for section in given.sections}
    print(" ".join(f"{section}: {'ok' if ok else 'FLOOR MISSED'}" for section, ok in passed.items()))
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
