"""The whole story of one take: kept or left out and why, captured, fetched, heard, judged, published.

Conventions: a decision is as old as its last change, so that what happened to the take since is said beside it. Belongs here:
telling it, in sentences for people and as plain JSON. Does not: the queries (`keeptake/ledger/explanations.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from keeptake.curation.policy import Policy, load_policies
from keeptake.ledger import explanations
from keeptake.ledger.connection import Ledger
from keeptake.ledger.datasets import versions_that_hold
from keeptake.ledger.explanations import Facts, Row
from keeptake.records import file_id, rfc3339

_DEFECTS = {
    "has_clipping": "it clips",
    "is_silent": "it is silent",
    "has_dc_offset": "its waveform is off centre",
    "is_antiphase": "its channels cancel each other out",
    "is_one_sided": "it sounds on one side alone",
    "has_abrupt_start": "it begins abruptly",
    "has_abrupt_end": "it ends abruptly",
}
_BEGINNINGS = {"low-score": "its score ", "low-adherence": "its agreement with the prompt, ", "too-long": "it lasts "}
_CHOOSING = ("select", "licences", "balance", "splits", "audio")  # sections of a policy that decide over a take
_MOST_NAMED = 3  # versions that a sentence names


def explain(ledger: Ledger, generation_id: str, policies_dir: Path = Path("policies")) -> dict[str, Any]:
    """Tell what became of a take and why.

    Parameters
    ----------
    generation_id : str
        Its id, its file id, or the row id of a clip in a dataset.
    policies_dir : Path
        Folder of the present policies.

    Returns
    -------
    dict
        `generation_id, kept_or_left_out, file_id, captured, audio, heard, scores, adherence, duplicates, siblings, decisions,
        refusals, versions`; plain JSON. `kept_or_left_out` is a sentence a policy.

    Raises
    ------
    ConfigurationError
        If the ledger holds no such take; it says why its record was refused, or names one that reads alike.
    """
    generation_id = explanations.find(ledger, generation_id)
    known = explanations.facts(ledger, generation_id)
    versions = versions_that_hold(ledger, generation_id)
    same = [{"generation_id": other, "evidence": {"sha256": "the same bytes"}} for other in known.same_bytes]
    return {
        "generation_id": generation_id,
        "kept_or_left_out": _answers(known, versions, *load_policies(policies_dir)),
        "file_id": file_id(generation_id),
        "captured": _captured(known.take),
        "audio": _audio(known.take, known.audio),
        "heard": _heard(known.features, known.parts),
        "scores": [_picked(row, "formula", "total", "terms", "feedback_revision", "features_versions") for row in known.scores],
        "adherence": known.adherence and _picked(known.adherence, "total", "terms"),
        "duplicates": [*same, *known.pairs],
        "siblings": explanations.siblings(ledger, generation_id, known.take["user_prompt"]),
        "decisions": [
            _picked(row, "policy", "is_kept", "reason", "detail", "split", "group_id")
            | {"decided_at": rfc3339(row["decided_at"])}
            for row in known.decisions
        ],
        "refusals": [row | {"refused_at": rfc3339(row["refused_at"])} for row in known.refusals],
        "versions": versions,
    }


def left_out_takes(ledger: Ledger, policy: Policy, most: int) -> tuple[pl.DataFrame, int]:
    """Takes that a policy left out, the newest decisions first: `generation_id, reason, detail, decided_at`; and all of them.

    Parameters
    ----------
    most : int, > 0
        Takes at most; the number beside them counts all.
    """
    rows, count = explanations.newest_left_out(ledger, policy.name, most)
    limits = policy.model_dump(mode="json")
    told = [
        row | {"detail": readable(row["reason"], row["detail"], limits), "decided_at": _second(row["decided_at"])} for row in rows
    ]
    return pl.DataFrame(told, schema=dict.fromkeys(("generation_id", "reason", "detail", "decided_at"), pl.String)), count


def readable(reason: str, detail: str | None, policy: Mapping[str, Any] | None = None) -> str:
    """Say what a rule saw, for people; `policy` is the policy as JSON, for the limits that the detail does not name.

    >>> readable("defect", "has_clipping, is_silent"), readable("not-decoded", "audio: pending")
    ('it clips, it is silent', 'its audio was not there: pending')
    """
    detail = detail or reason
    if reason == "defect":
        return ", ".join(_DEFECTS.get(name, name) for name in detail.split(", "))
    if reason == "not-decoded":
        return detail.replace("audio: ", "its audio was not there: ", 1)
    if reason == "too-short":
        least_s = policy and max(policy["select"]["min_duration_s"], policy["audio"]["min_clip_s"])
        return f"it lasts {detail}" + (f", at least {least_s:g} s" if least_s and "least" not in detail else "")
    if reason == "provider":
        return f"takes by {detail} are not wanted"
    return _BEGINNINGS.get(reason, "") + detail


def _answers(known: Facts, versions: Sequence[Row], policies: Sequence[Policy], unreadable: Mapping[str, str]) -> list[str]:
    """A sentence for each present policy, then for each that decided and is no longer there."""
    present = {policy.name: policy.model_dump(mode="json") for policy in policies} | dict.fromkeys(unreadable)
    decided = {row["policy"]: row for row in known.decisions}
    tried_again = known.take["audio_next_attempt_at"]
    told = [f"its audio is tried again from {_second(tried_again)} on"] if tried_again else []
    for name, policy in sorted(present.items()):
        held = [version for version in versions if version["name"] == name]
        if name in decided:
            told.append(f"{name} {_answer(known, decided[name], held, policy)}")
        elif name in unreadable:
            told.append(f"{name} judges nothing: {unreadable[name]}")
        else:
            told.append(f"{name} has not judged it yet: its next version will{_still(held)}")
    for name in sorted(decided.keys() - present.keys()):
        held = [version for version in versions if version["name"] == name]
        told.append(f"{name}, which is no longer in the policies' folder, {_answer(known, decided[name], held, None)}")
    return told


def _answer(known: Facts, decision: Row, held: Sequence[Row], policy: Mapping[str, Any] | None) -> str:
    """What a policy decided, when, and whether that can still be so; `policy` is the present one, None where there is none."""
    recorded = decision["published_policy"]
    is_changed = policy is not None and recorded is not None and any(policy[name] != recorded.get(name) for name in _CHOOSING)
    if decision["is_kept"]:
        stands = f", {_named(held)}" if held else ", but no version holds it yet"
        verdict = f"keeps it in {decision['split']}{stands}"
    else:
        seen = readable(decision["reason"], decision["detail"], recorded if is_changed or not policy else policy)
        verdict = f"left it out ({decision['reason']}): {seen}{_still(held)}"
    for_version = f" for {decision['decided_for']}" if decision["decided_for"] else ""
    again = f", and again {_second(decision['judged_at'])}" if decision["judged_at"] > decision["decided_at"] else ""
    when = f"decided {_second(decision['decided_at'])}{for_version}{again}"
    since = _since(known, decision["judged_at"])
    if is_changed and decision["judged_at"] <= decision["published_at"]:
        since.append("the policy was changed")
    outlook = f"; since then {', '.join(since)}: the next version will judge it again" if since and policy else ""
    return f"{verdict}; {when}{outlook}"


def _since(known: Facts, judged_at: datetime) -> list[str]:
    """What happened to a take after a policy looked at it."""
    take = known.take
    happened = {
        "its audio was stored": take["audio_last_attempt_at"] if take["audio_status"] == "stored" else None,
        "it was heard": max((part["analyzed_at"] for part in known.parts), default=None),
        "it was scored": max((score["scored_at"] for score in known.scores), default=None),
        "feedback was given": take["feedback_at"],
        "it was held against its prompt": known.adherence and known.adherence["judged_at"],
    }
    return [f"{what} ({_second(at)})" for what, at in happened.items() if at is not None and at > judged_at]


def _still(held: Sequence[Row]) -> str:
    return f"; it still stands {_named(held)}" if held else ""


def _named(held: Sequence[Row]) -> str:
    """Versions that hold a take, oldest first, and where in them."""
    found: dict[tuple[str, str], int] = {}
    for row in held:
        place = (row["version"], row["split"])
        found[place] = found.get(place, 0) + 1
    named = [f"{version} ({split}{f', {clips} clips' if clips > 1 else ''})" for (version, split), clips in found.items()]
    if len(named) > _MOST_NAMED:
        return f"in {len(named)} versions from {named[0]} to {named[-1]}"
    return f"in {' and '.join(named)}"


def _second(time: datetime) -> str:
    return rfc3339(time.replace(microsecond=0))


def _captured(take: Row) -> dict[str, Any]:
    return _picked(take, "source", "provider") | {
        "captured_on": take["captured_on"].isoformat(),
        "created_at": rfc3339(take["created_at"]),
        "prompt": take["ai_enhanced_prompt"] or take["user_prompt"],
        "asked": take["generation_params"],
        **_picked(take, "flags", "status", "status_reason"),
        "feedback": {name: take[name] for name in ("liked", "rating", "used") if take[name] is not None},
        **_picked(take, "used_for_training", "dataset_version"),
    }


def _audio(take: Row, kept: Row | None) -> dict[str, Any]:
    said = {"status": take["audio_status"], "reason": take["audio_reason"], "attempts": take["audio_attempts"]}
    if kept is None:
        tried_again = take["audio_next_attempt_at"]
        return said | {"next_attempt_at": tried_again and rfc3339(tried_again), "detail": take["audio_detail"]}
    return said | _picked(kept, "sha256", "size_bytes", "format", "codec", "duration_s", "sample_rate_hz", "channels", "flags")


def _heard(heard: Row | None, parts: Sequence[Row]) -> dict[str, Any]:
    values = {name: value for name, value in (heard or {}).items() if value is not None and name != "audio_sha256"}
    return {"values": values, "parts": [_picked(part, "part", "version", "status", "reason") for part in parts]}


def _picked(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}
