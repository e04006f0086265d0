"""Blocking and standing checks, declared next to what they guard."""

import dagster as dg
import polars as pl

from assets import report
from assets.analyzed_features import analyzed_features
from assets.audio_files import audio_files
from assets.curated_datasets import curated_dataset
from assets.quality_scores import quality_scores
from assets.raw_generations import raw_generations
from keeptake.curation.policy import load_policies
from keeptake.curation.readiness import readiness
from keeptake.ledger import soundness
from keeptake.ledger.datasets import kept_by_genre, versions
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


def _result(
    wrong: list[str], *, well: str, ill: str, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    """Show what is wrong: `well` is the sentence of a check that passes, `ill`, after a count, that of one that fails."""
    count = f"{len(wrong):,}{' or more' if len(wrong) >= soundness.MOST else ''}"
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=severity,
        metadata={"wrong": len(wrong), "first": dg.MetadataValue.json(wrong[:20])},
        description=f"{count} {ill}" if wrong else well,
    )


@dg.asset_check(asset=raw_generations, blocking=False)
def takes_are_unique(ledger: LedgerResource) -> dg.AssetCheckResult:
    """No two generations carry one id in different spellings; legal, and mostly a client's mistake."""
    wrong = soundness.ids_that_differ_only_in_spelling(ledger.get())
    return _result(
        wrong,
        well="no two ids differ only in upper and lower case",
        ill="ids differ from another only in upper and lower case: a reader may take them for one another",
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(asset=audio_files, blocking=True)
def stored_audio_is_there(ledger: LedgerResource, audio_store: AudioStoreResource) -> dg.AssetCheckResult:
    """The newest objects that the ledger names are in the store."""
    newest, store = soundness.newest_audio(ledger.get()), audio_store.get()
    return _result(
        [sha256 for sha256 in newest if not store.has(sha256)],
        well=f"each of the newest {len(newest)} objects that the ledger names is in the store {store.url}",
        ill=f"of the newest {len(newest)} objects that the ledger names are not in the store {store.url}: see that "
        "KEEPTAKE_AUDIO_URL is the right one; restore them from a backup, or have their takes fetched again (docs/quarantine.md, "
        "damaged-object)",
    )


@dg.asset_check(asset=analyzed_features, blocking=True)
def features_cover_the_stored_audio(ledger: LedgerResource) -> dg.AssetCheckResult:
    """No analyzed take lacks its features."""
    return _result(
        soundness.analyzed_without_features(ledger.get()),
        well="every take that is called analyzed has its features",
        ill="takes are called analyzed and have no features: materialize analyzed_features for their days",
    )


@dg.asset_check(asset=quality_scores, blocking=True)
def scores_lie_in_the_unit_interval(ledger: LedgerResource) -> dg.AssetCheckResult:
    """Every total lies in [0, 1] and equals the principal score of its generation."""
    return _result(
        soundness.scores_that_disagree(ledger.get()),
        well="every score is that of its formula",
        ill="takes have another score than their formula's: something wrote into the ledger past Keeptake. Set their "
        "scored_revision to NULL there and run the job rescore",
    )


@dg.asset_check(asset=curated_dataset, blocking=False)
def enough_for_a_first_fine_tuning(ledger: LedgerResource) -> dg.AssetCheckResult:
    """How far each policy's dataset is from its goal, by genre: a warning until it is reached."""
    policies, unreadable = load_policies(settings().policies_dir)
    found = {policy.name: readiness(kept_by_genre(ledger.get(), policy.name), policy) for policy in policies}
    published = {version["name"] for version in versions(ledger.get())}
    # Before its first version nobody has chosen takes by a policy: that none is kept says nothing.
    said = {name: far.sentence() if far.takes or name in published else "never published" for name, far in found.items()}
    return dg.AssetCheckResult(
        passed=not unreadable and all(far.is_ready for far in found.values()),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join([*(f"{name}: {sentence}" for name, sentence in said.items()), *unreadable.values()]),
        metadata={name: report.table(pl.DataFrame(far.by_genre)) for name, far in found.items() if far.by_genre},
    )
