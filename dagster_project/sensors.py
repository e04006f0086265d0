"""What starts runs by itself: thin shells round pure functions.

A sensor never relies on a `run_key`, which deduplicates for ever: it asks the ledger what is pending and Dagster what is in
flight.
"""

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import dagster as dg

from assets.partitions import known_days, known_policies
from dagster_project.jobs import place_anew, publish_dataset, renew_snapshots, rescore, take_to_score, tick_key
from keeptake.curation.policy import Policy, load_policies
from keeptake.embedding import DEFAULT_MODEL
from keeptake.embedding.models import version_of
from keeptake.ledger.scores import count_lagging
from keeptake.ledger.soundness import problems
from keeptake.ledger.status import good_takes, pending_by_day
from keeptake.ledger.vectors import outdated_by_day
from keeptake.settings import settings
from keeptake.sources.pull import has_news, read_asks, today
from keeptake.warehouse import outdated_snapshots
from resources.audio_store import AudioStoreResource
from resources.ledger import LedgerResource

MAX_DAYS_A_TICK = 10
MIN_GROWTH = 0.02
REST_S, MOST_REST_S = 15.0, 900.0  # after a failure half a minute, doubling with each further one
PARTITION_TAG = "dagster/partition"
IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def days_to_request(pending: Mapping[str, int], in_flight: Collection[str], *, most: int) -> list[str]:
    """Capture days with pending rows that no run is working on, newest first, at most `most`.

    Newest first: an import of a year's history must not keep today's takes waiting.
    """
    return sorted((day for day, rows in pending.items() if rows > 0 and day not in in_flight), reverse=True)[:most]


def partitions_in_flight(instance: dg.DagsterInstance, job_name: str) -> set[str]:
    """Partitions of a job's queued and running runs; an unpartitioned run counts as the empty text."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=IN_FLIGHT))
    return {run.tags.get(PARTITION_TAG, "") for run in runs}


def resting(outcomes: Iterable[tuple[str, bool, float]], now_s: float) -> set[str]:
    """Partitions whose last runs failed, for as long as it makes no sense to ask again.

    Parameters
    ----------
    outcomes : iterable of (partition, has failed, end in seconds)
        Ended runs, the newest first.
    now_s : float

    >>> sorted(resting([("a", True, 100.0), ("b", False, 100.0), ("b", True, 90.0)], now_s=110.0))
    ['a']
    """
    failures: dict[str, list[float]] = {}
    has_succeeded: set[str] = set()
    for partition, has_failed, ended_s in outcomes:
        if not has_failed:
            has_succeeded.add(partition)
        elif partition not in has_succeeded:
            failures.setdefault(partition, []).append(ended_s)
    return {day for day, ends_s in failures.items() if now_s < ends_s[0] + min(REST_S * 2 ** len(ends_s), MOST_REST_S)}


def resting_partitions(instance: dg.DagsterInstance, job_name: str) -> set[str]:
    """What `resting` says of a job's ended runs; an unpartitioned run counts as the empty text."""
    return resting(_outcomes(instance, job_name), time.time())


def _outcomes(instance: dg.DagsterInstance, job_name: str) -> Iterator[tuple[str, bool, float]]:
    ended = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]
    since = datetime.now(UTC) - timedelta(seconds=2 * MOST_REST_S)
    for record in instance.get_run_records(dg.RunsFilter(job_name=job_name, statuses=ended, updated_after=since)):
        run = record.dagster_run
        has_failed = run.status == dg.DagsterRunStatus.FAILURE
        yield run.tags.get(PARTITION_TAG, ""), has_failed, record.end_time or record.update_timestamp.timestamp()


@dg.sensor(
    job=take_to_score,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for one run for every capture day that has something to do: new takes, news in a source, a retry that is "
    "due. A day whose run failed rests longer each time.",
)
def arrivals(context: dg.SensorEvaluationContext, ledger: LedgerResource) -> dg.SensorResult | dg.SkipReason:
    """Ask for the days with pending rows."""
    pending = pending_by_day(ledger.get())
    asks = read_asks(context.cursor)
    if has_news(ledger.get(), settings(), asks):
        pending[today()] = pending.get(today(), 0) + 1
    context.update_cursor(json.dumps(asks))
    busy = partitions_in_flight(context.instance, take_to_score.name)
    tired = resting_partitions(context.instance, take_to_score.name) if pending else set()
    days = days_to_request(pending, busy | tired, most=MAX_DAYS_A_TICK)
    if not days:
        waits = (
            f"; {', '.join(sorted(tired & set(pending)))} failed and will be tried again later" if tired & set(pending) else ""
        )
        return dg.SkipReason(f"nothing is pending that no run is working on{waits}")
    return dg.SensorResult(run_requests=[dg.RunRequest(partition_key=day) for day in days])


@dg.sensor(
    job=rescore,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for new scores where feedback changed after the last ones.",
)
def feedback_moved(context: dg.SensorEvaluationContext, ledger: LedgerResource) -> dg.RunRequest | dg.SkipReason:
    """Ask for one run over all scores that lag."""
    if partitions_in_flight(context.instance, rescore.name) or partitions_in_flight(context.instance, take_to_score.name):
        return dg.SkipReason("a run that scores is queued or at work")
    lagging = count_lagging(ledger.get())
    if not lagging:
        return dg.SkipReason("every score is up to date")
    if resting_partitions(context.instance, rescore.name):
        return dg.SkipReason("the last run failed; it will be tried again later")
    return dg.RunRequest(tags={"keeptake/lagging": str(lagging)})


@dg.sensor(
    job=place_anew,
    minimum_interval_seconds=120,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="After an upgrade, lets the new version of the embedding model place the takes of the old one, when nothing "
    "newer waits.",
)
def outdated_places(context: dg.SensorEvaluationContext, ledger: LedgerResource) -> dg.SensorResult | dg.SkipReason:
    """Ask for the days with older vectors; a take that a run fails at is quarantined, so no day is asked for for ever."""
    if partitions_in_flight(context.instance, take_to_score.name):
        return dg.SkipReason("new takes come first")
    outdated = outdated_by_day(ledger.get(), DEFAULT_MODEL, version_of(DEFAULT_MODEL))
    tired = resting_partitions(context.instance, place_anew.name) if outdated else set()
    days = days_to_request(outdated, partitions_in_flight(context.instance, place_anew.name) | tired, most=MAX_DAYS_A_TICK)
    if not days:
        return dg.SkipReason("every take is placed by the present version, a run is at it, or its last one failed a moment ago")
    return dg.SensorResult(run_requests=[dg.RunRequest(partition_key=day) for day in days])


@dg.schedule(
    job=renew_snapshots,
    cron_schedule="0 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every night at 02:00 UTC: renews the snapshots of days whose takes were scored anew or erased.",
)
def nightly_snapshots(context: dg.ScheduleEvaluationContext, ledger: LedgerResource) -> list[dg.RunRequest]:
    """Ask for outdated days: feedback reaches any day, all day long. Behind everything else, since it may be all days."""
    busy = partitions_in_flight(context.instance, renew_snapshots.name)
    outdated = known_days(outdated_snapshots(ledger.get(), settings().snapshots_location))
    return [
        dg.RunRequest(run_key=tick_key(context, day), partition_key=day, tags={"dagster/priority": "-1"})
        for day in outdated
        if day not in busy
    ]


class Asked(NamedTuple):
    """What stood when a version of a policy's dataset was last asked for."""

    good: int = 0  # takes
    rules: str | None = None  # `rules_of` the policy; a cursor of an older Keeptake has none


def read_asked(cursor: str | None) -> dict[str, Asked]:
    """What stood when a version of each policy was last asked for; a cursor that makes no sense counts as none.

    >>> read_asked('{"a": [3, "f00d"], "b": "x"}'), read_asked("no JSON"), read_asked(None)
    ({'a': Asked(good=3, rules='f00d')}, {}, {})
    >>> read_asked('{"a": 3}')  # as it was written before it knew of rules
    {'a': Asked(good=3, rules=None)}
    """
    try:
        found = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return {name: asked for name, kept in found.items() if (asked := _asked(kept))} if isinstance(found, dict) else {}


def _asked(kept: object) -> Asked | None:
    match kept:
        case int():
            return Asked(kept)
        case [int() as good, str() | None as rules]:
            return Asked(good, rules)
    return None


def with_rules(asked: Mapping[str, Asked], now: Mapping[str, Asked]) -> dict[str, Asked]:
    """What was asked for before there were rules in the cursor counts as asked for under those of now."""
    return {
        name: before if before.rules or name not in now else before._replace(rules=now[name].rules)
        for name, before in asked.items()
    }


def rules_of(policy: Policy) -> str:
    """Hash of what a policy says. A key that a new Keeptake adds is no change of rules while it stands at its default."""
    return hashlib.sha256(policy.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]


def policies_to_publish(
    now: Mapping[str, Asked], asked: Mapping[str, Asked], in_flight: Collection[str], *, after: int
) -> list[str]:
    """Policies to ask a version of, none of which has a run at work.

    Those with `wanted` more good takes than when a version was last asked for, and those whose rules have changed since and that
    have a good take: counts under other rules cannot be compared.
    """
    return sorted(
        name for name, found in now.items() if name not in in_flight and _is_due(found, asked.get(name, Asked()), after)
    )


def _is_due(found: Asked, before: Asked, after: int) -> bool:
    has_changed = before.rules not in (None, found.rules)
    return found.good > 0 if has_changed else found.good - before.good >= wanted(before, after)


def wanted(before: Asked, after: int) -> int:
    """How many more good takes a version is worth: a share of a large dataset, since each version writes all of it anew.

    >>> wanted(Asked(good=300), 200), wanted(Asked(good=100_000), 200)
    (200, 2000)
    """
    return max(after, int(MIN_GROWTH * before.good))


def why_none(now: Mapping[str, Asked], asked: Mapping[str, Asked], in_flight: Collection[str], *, after: int) -> str:
    """Say to a person how far each policy is from its next version.

    >>> why_none({"pop": Asked(43), "jazz": Asked(2)}, {"pop": Asked(30)}, ["jazz"], after=30)
    'new good takes: jazz 2 of 30 (a run is at work), pop 13 of 30'
    """
    far = []
    for name, found in sorted(now.items()):
        before = asked.get(name, Asked())
        at_work = " (a run is at work)" if name in in_flight else ""
        far.append(f"{name} {max(0, found.good - before.good)} of {wanted(before, after)}{at_work}")
    return f"new good takes: {', '.join(far)}" if far else "there is no policy that can be asked for"


@dg.sensor(
    job=publish_dataset,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a new version of a dataset where enough new takes reach its policy's score, or the policy has changed, "
    "and nothing is wrong with the ledger. A tick that asks for none says how far each policy is.",
)
def enough_new_takes(
    context: dg.SensorEvaluationContext, ledger: LedgerResource, audio_store: AudioStoreResource
) -> dg.SensorResult | dg.SkipReason:
    """The gate before a new version."""
    policies, unreadable = load_policies(settings().policies_dir)
    for refusal in unreadable.values():
        context.log.warning(refusal)
    known = known_policies(policy.name for policy in policies)
    now = {
        policy.name: Asked(good_takes(ledger.get(), policy.select.formula, policy.select.min_score), rules_of(policy))
        for policy in policies
        if policy.name in known
    }
    late = sorted({policy.name for policy in policies} - set(known))
    asked = with_rules(read_asked(context.cursor), now)
    context.update_cursor(json.dumps(asked, sort_keys=True))
    in_flight = partitions_in_flight(context.instance, publish_dataset.name)
    after = settings().publish_after_rows
    names = policies_to_publish(now, asked, in_flight, after=after)
    if not names:
        coming = [f"{name} was added a moment ago: the daemon takes it up within two minutes" for name in late]
        return dg.SkipReason("; ".join([why_none(now, asked, in_flight, after=after), *coming, *unreadable.values()]))
    if wrong := problems(ledger.get(), audio_store.get().has):
        return dg.SkipReason(f"blocking checks fail: {'; '.join(wrong)}")
    context.update_cursor(json.dumps({**asked, **{name: now[name] for name in names}}, sort_keys=True))
    return dg.SensorResult(run_requests=[dg.RunRequest(partition_key=name) for name in names])
