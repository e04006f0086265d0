"""What may a dataset hold, and in which shape? The policy: one small typed file, `policies/NAME.toml`.

Conventions: the file's name is the dataset's name; seconds, hertz and shares carry it in the key; every key has a default, taken
from the original goals (score above 0.7, balanced genres, takes with feedback first, 10,000 takes before a first fine-tuning).
Unknown keys are refused: a typo that silently falls back to a default would publish the wrong takes.

Belongs here: the keys, their ranges, reading them. Does not: what a rule does (`select.py`), how formats are written
(`formats/`).
"""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from keeptake.curation.quality import FORMULAS
from keeptake.errors import ConfigurationError

DEFECTS = ("has_clipping", "is_silent", "has_dc_offset", "is_antiphase", "is_one_sided", "has_abrupt_start", "has_abrupt_end")
HARD_DEFECTS = ("has_clipping", "is_silent", "is_antiphase")  # a model learns these; the others are taste, or can be mended
MAX_CLIP_S = 29.9  # trainers keep clips strictly shorter than 30 s
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

Share = Annotated[float, Field(ge=0, le=1)]
# Sources spell one provider "Suno" and "suno": compare with it in lower case, or a held-out provider is in train.
Providers = Annotated[tuple[str, ...], AfterValidator(lambda names: tuple(name.lower() for name in names))]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Select(_Section):
    """Which takes pass, one by one."""

    formula: str = Field("seed_v1", description="Quality formula that min_score is read from.")
    min_score: Share = Field(0.7, description="Lowest score that passes.")
    providers: Providers = Field((), description="Providers that pass; empty: all.")
    blocked_providers: Providers = Field((), description="Providers that never pass.")
    vocals: Literal["any", "without", "with"] = Field("any", description="Heard in the audio, whatever was asked for.")
    min_duration_s: float = Field(1.0, gt=0, description="Shortest take, as measured.")
    max_duration_s: float = Field(1800.0, gt=0, description="Longest take, as measured.")
    min_adherence: Share | None = Field(None, description="Lowest agreement with the prompt; one that nobody could judge passes.")
    defects: tuple[str, ...] = Field(HARD_DEFECTS, description="Defects that leave a take out.")
    exclude_disliked: bool = Field(True, description="Leave out takes that were disliked.")
    consent: Literal["given", "not-refused"] = Field("not-refused", description="What the user must have said.")

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.formula not in FORMULAS:
            raise ValueError(f"formula is one of {', '.join(FORMULAS)}, found {self.formula!r}")
        if unknown := sorted(set(self.defects) - set(DEFECTS)):
            raise ValueError(f"defects are among {', '.join(DEFECTS)}, found {', '.join(unknown)}")
        if self.min_duration_s > self.max_duration_s:
            raise ValueError(f"min_duration_s {self.min_duration_s:g} is above max_duration_s {self.max_duration_s:g}")
        return self


class Licences(_Section):
    """Under what a provider's takes may be used, as the data team has read its terms."""

    is_required: bool = Field(False, description="Leave out takes of providers without an entry in by_provider.")
    by_provider: Annotated[
        dict[str, str], AfterValidator(lambda by: {provider.lower(): licence for provider, licence in by.items()})
    ] = Field(default_factory=dict, description="Licence by provider.")


class Balance(_Section):
    """How many takes, of what."""

    genre_cap: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Most that one genre may hold, as a share.")
    genre_floor: Share = Field(0.0, description="Share of max_takes that a scarce genre is promised before others fill up.")
    max_takes: int | None = Field(None, ge=1, description="Most takes in all; absent: no limit.")
    is_feedback_first: bool = Field(True, description="Prefer takes that people liked, rated well or used.")


class Splits(_Section):
    """Which share goes where, and what may not be on both sides."""

    valid: Share = Field(0.1, description="Share of groups in valid.")
    test: Share = Field(0.1, description="Share of groups in test.")
    hold_out_users: bool = Field(False, description="Keep all takes of one user in one split.")
    test_providers: Providers = Field((), description="Providers whose takes go to test only.")

    @model_validator(mode="after")
    def _leave_train(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid {self.valid:g} and test {self.test:g} leave nothing for train")
        return self


class Audio(_Section):
    """The published audio."""

    sample_rate_hz: int = Field(32_000, ge=8_000, le=48_000, description="Rate of the mono training files.")
    has_master: bool = Field(False, description="Also publish each clip at its own rate and channels, under masters/.")
    cut: Literal["none", "head", "segments"] = Field(
        "segments", description="Longer takes: left out, their beginning alone, or cut at bars and sections."
    )
    min_clip_s: float = Field(1.0, gt=0, le=MAX_CLIP_S, description="Shortest published clip.")
    max_clip_s: float = Field(MAX_CLIP_S, gt=0, le=MAX_CLIP_S, description="Longest published clip.")
    loudness_lufs: Annotated[float, Field(ge=-40, le=-5)] | None = Field(
        None, description="Bring clips to this loudness; absent: untouched."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_clip_s > self.max_clip_s:
            raise ValueError(f"min_clip_s {self.min_clip_s:g} is above max_clip_s {self.max_clip_s:g}")
        return self


class Captions(_Section):
    """Which text a trainer reads."""

    trainer_reads: Literal["prompt", "heard", "both"] = Field(
        "prompt", description="The prompt, what was heard, or one after the other."
    )


class Formats(_Section):
    """What is written beside the audio, its sidecars and the original exports."""

    has_parquet: bool = Field(True, description="Parquet shards with embedded audio.")
    has_webdataset: bool = Field(True, description="WebDataset tars.")
    has_ace_step: bool = Field(False, description="ACE-Step's JSON.")
    has_stable_audio: bool = Field(False, description="A configuration for stable-audio-tools.")
    has_croissant: bool = Field(True, description="Croissant JSON-LD.")


class Readiness(_Section):
    """When a first fine-tuning makes sense."""

    takes: int = Field(10_000, ge=0, description="Takes that the dataset should hold.")


class Policy(_Section):
    """One dataset: what it may hold, and in which shape."""

    name: str = Field(description="The dataset's name, which is the file's.")
    description: str = Field("", max_length=2_000, description="A sentence for the card.")
    select: Select = Field(default_factory=Select)
    licences: Licences = Field(default_factory=Licences)
    balance: Balance = Field(default_factory=Balance)
    splits: Splits = Field(default_factory=Splits)
    audio: Audio = Field(default_factory=Audio)
    captions: Captions = Field(default_factory=Captions)
    formats: Formats = Field(default_factory=Formats)
    readiness: Readiness = Field(default_factory=Readiness)


def policy_names(policies_dir: Path) -> list[str]:
    """Names of the policies in a folder, sorted; those that cannot be read are named too, so that a trigger says why."""
    return sorted(path.stem for path in policies_dir.glob("*.toml"))


def load_policy(policy: str | Path, policies_dir: Path = Path("policies")) -> Policy:
    """Read a policy by its name in `policies_dir`, or from a path that ends in `.toml`.

    Raises
    ------
    ConfigurationError
        If there is none, if it cannot be read or is not TOML, if it names another dataset than the file does, or if a key or a
        value cannot be; it names the key and what was probably meant.
    """
    path = Path(policy) if str(policy).endswith(".toml") else policies_dir / f"{policy}.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(_no_policy(str(policy), path)) from None
    except OSError as error:
        raise ConfigurationError(f"the policy {path} cannot be read ({error.strerror}): mend or remove it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the policy {path} is not TOML: {error}") from None
    if not NAME.fullmatch(path.stem):
        raise ConfigurationError(f"the policy {path}: a name has 1 to 64 of a-z 0-9 -, as it becomes a folder")
    if fields.get("name", path.stem) != path.stem:
        raise ConfigurationError(
            f"the policy {path}: name = {fields['name']!r} would publish into another dataset's folder: leave the key out, the "
            "file's name is the dataset's"
        )
    return read_policy({"name": path.stem} | fields, origin=str(path))


def load_policies(policies_dir: Path) -> tuple[list[Policy], dict[str, str]]:
    """All policies of a folder that can be read, and why the others cannot, by name: a draft must keep no other from its work."""
    policies, unreadable = [], {}
    for name in policy_names(policies_dir):
        try:
            policies.append(load_policy(name, policies_dir))
        except ConfigurationError as refusal:
            unreadable[name] = str(refusal)
    return policies, unreadable


def read_policy(fields: dict[str, Any], *, origin: str) -> Policy:
    """Believe a policy's fields, or refuse them with `origin` and the key in the sentence."""
    try:
        return Policy.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"the policy {origin}: {_sentence(first)}") from None


def _no_policy(policy: str, path: Path) -> str:
    known = policy_names(path.parent)
    near = difflib.get_close_matches(policy, known, n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    return f"no policy {policy}: {path} is not there; {meant}"


def _sentence(error: Any) -> str:  # noqa: ANN401 -- pydantic's ErrorDetails, whose ctx is untyped
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key or 'as a whole'}: {error['msg'].removeprefix('Value error, ')}"
    section: Any = Policy
    for part in error["loc"][:-1]:
        section = section.model_fields[part].annotation
    known = list(section.model_fields)
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.5)
    meant = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
    return f"unknown key {key}; {meant}"
