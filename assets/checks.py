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
from keeptake.ledger.datasets import kept_by_genre
from keeptake.settings import settings
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource


def _result(
    wrong: list[str], *, meaning: str, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not wrong,
        severity=severity,
        metadata={"wrong": len(wrong), "first": dg.MetadataValue.json(wrong[:20])},
        description=meaning,
    )


@dg.asset_check(asset=raw_generations, blocking=False)
def takes_are_unique(ledger: LedgerResource) -> dg.AssetCheckResult:
    """No two generations carry one id in different spellings; legal, and mostly a client's mistake."""
    wrong = soundness.ids_that_differ_only_in_spelling(ledger.get())
    return _result(wrong, meaning="ids that a reader may take for one another", severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=audio_files, blocking=True)
def stored_audio_is_there(ledger: LedgerResource, audio_store: AudioStoreResource) -> dg.AssetCheckResult:
    """The newest objects that the ledger names are in the store."""
    missing = soundness.audio_not_in_the_store(ledger.get(), audio_store.get().has)
    return _result(missing, meaning="objects named by the ledger that the store does not have: restore them, or fetch again")


@dg.asset_check(asset=analyzed_features, blocking=True)
def features_cover_the_stored_audio(ledger: LedgerResource) -> dg.AssetCheckResult:
    """No analyzed take lacks its features."""
    return _result(soundness.analyzed_without_features(ledger.get()), meaning="takes called analyzed that have no features")


@dg.asset_check(asset=quality_scores, blocking=True)
def scores_lie_in_the_unit_interval(ledger: LedgerResource) -> dg.AssetCheckResult:
    """Every total lies in [0, 1] and equals the principal score of its generation."""
    return _result(soundness.scores_that_disagree(ledger.get()), meaning="takes whose score is not that of the formula")


@dg.asset_check(asset=curated_dataset, blocking=False)
def enough_for_a_first_fine_tuning(ledger: LedgerResource) -> dg.AssetCheckResult:
    """How far each policy's dataset is from its goal, by genre: a warning until it is reached."""
    policies, unreadable = load_policies(settings().policies_dir)
    found = {policy.name: readiness(kept_by_genre(ledger.get(), policy.name), policy) for policy in policies}
    return dg.AssetCheckResult(
        passed=not unreadable and all(far.is_ready for far in found.values()),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join([*(f"{name}: {far.sentence()}" for name, far in found.items()), *unreadable.values()]),
        metadata={name: report.table(pl.DataFrame(far.by_genre)) for name, far in found.items() if far.by_genre},
    )
