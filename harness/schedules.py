"""Temperature schedules: τ as a pure function of the step, so that a resumed run has the τ of an uninterrupted one.

Each schedule is a small frozen pydantic model, chosen in a grid by its `kind`. Formulas and papers: docs/schedules.md.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from functools import cached_property
from math import cos, exp, pi
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Unit = Literal["step", "epoch"]
Positive = Annotated[float, Field(gt=0)]
LargestT = Annotated[float, Field(gt=0, le=1e9)]
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Label = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Settings(BaseModel):
    """Base of every configuration model: frozen, strict (only int → float is coerced), no unknown keys, no NaN or ∞."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, hide_input_in_errors=True
    )

    derived: ClassVar[tuple[str, ...]] = ()
    """Fields that the harness fills in: no keys of a grid, and no axes."""

    @cached_property
    def canonical(self) -> str:
        """The settings without labels, as text for the run key. Equal texts mean equal runs."""
        return self.canonical_without(set())

    def canonical_without(self, excluded: Set[str]) -> str:
        """Return the same without some settings."""
        values = self.model_dump(mode="json", by_alias=True, exclude={"custom_label", *excluded})
        return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def __hash__(self) -> int:
        return hash(self.canonical)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copy = super().model_copy(update=update, deep=deep)
        for name in ("canonical", "key"):  # cached properties that the update made stale
            copy.__dict__.pop(name, None)
        return copy


class NoSchedule(Settings):
    """The schedule of an estimator without a temperature. A grid cannot name it."""

    sets: ClassVar[tuple[str, ...]] = ()
    kind: Literal["none"] = "none"

    @property
    def label(self) -> str:
        return "none"

    def temperatures(self, step: int, *, steps_per_epoch: int, n_steps: int) -> dict[str, float]:
        return {}


class Schedule(Settings, ABC):
    """Base of the schedules. `kind` is the name of the class in a grid; `label` replaces the automatic label."""

    sets: ClassVar[tuple[str, ...]] = ("tau",)  # the temperatures that it sets
    custom_label: Label | None = Field(default=None, alias="label")

    @abstractmethod
    def temperatures(self, step: int, *, steps_per_epoch: int, n_steps: int) -> dict[str, float]:
        """Return the temperatures, by name, for update `step` (global, from 0) of a run of `n_steps` updates."""

    @property
    def label(self) -> str:
        """The user's label, or the kind with every setting that is not a default. Different settings never share it."""
        return self.custom_label or f"{self.model_dump()['kind']}({', '.join(self._described())})"

    @abstractmethod
    def _described(self) -> list[str]:
        """Return the parts of the automatic label between its parentheses."""


class SingleTau(Schedule, ABC):
    """A schedule of one temperature: of τ, unless `sets` has another name."""

    @abstractmethod
    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        """Return τ for update `step` (global, from 0) of a run of `n_steps` updates."""

    def temperatures(self, step: int, *, steps_per_epoch: int, n_steps: int) -> dict[str, float]:
        (key,) = self.sets
        return {key: self.tau(step, steps_per_epoch=steps_per_epoch, n_steps=n_steps)}


class Constant(SingleTau):
    """τ is constant."""

    kind: Literal["constant"] = "constant"
    value: Positive = Field(default=1.0, alias="tau")

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        return self.value

    def _described(self) -> list[str]:
        return [short(self.value)]


class Learned(SingleTau):
    """τ is trained, starting from `initial`, through the loss or through the variance of the gradient.

    `harness.training.learned_tau` trains log τ with Adam at `lr`.
    """

    kind: Literal["learned"] = "learned"
    initial: Positive = 1.0
    through: Literal["loss", "variance"] = "loss"
    lr: Positive = 1e-3

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        return self.initial

    def _described(self) -> list[str]:
        rate = [] if self.lr == 1e-3 else [f"lr={short(self.lr)}"]
        return [f"from {short(self.initial)}", f"through {self.through}", *rate]


class Annealed(SingleTau, ABC):
    """A schedule that starts at `initial` and changes every `every` units (steps or epochs)."""

    ends_at: ClassVar[str]  # the field with the last τ
    initial: Positive = 1.0
    every: PositiveInt = 1
    unit: Unit = "step"

    def _described(self) -> list[str]:
        parts = [f"{short(self.initial)}→{short(getattr(self, self.ends_at))}"]
        own = type(self).__annotations__  # settings of this kind come before those of all kinds
        for name, field in sorted(type(self).model_fields.items(), key=lambda item: item[0] not in own):
            value = getattr(self, name)
            if name not in ("kind", "custom_label", "initial", self.ends_at) and value != field.default:
                parts.append(name if value is True else f"{name}={short(value)}")
        return parts

    def elapsed(self, step: int, steps_per_epoch: int) -> int:
        """Return the units passed at the latest change of τ: the progress, rounded down to a multiple of `every`."""
        passed = step if self.unit == "step" else step // steps_per_epoch
        return passed - passed % self.every

    def fraction(self, step: int, steps_per_epoch: int, n_steps: int) -> float:
        """Return the progress, from 0 at the first update to 1 at the last change of τ in the run."""
        end = self.elapsed(max(n_steps, 1) - 1, steps_per_epoch)
        return min(1.0, self.elapsed(step, steps_per_epoch) / end) if end else 0.0


class Falling(Annealed, ABC):
    """A schedule that never goes below `floor`."""

    ends_at: ClassVar[str] = "floor"
    floor: Positive = 0.5

    @model_validator(mode="after")
    def _starts_above_the_floor(self) -> Self:
        if self.initial < self.floor:
            raise ValueError(f"floor: expected at most initial ({short(self.initial)}), got {short(self.floor)}.")
        return self


class Exponential(Falling):
    """τ = max(floor, initial·exp(−rate·t)), t the progress at the latest change of τ (Jang, Gu and Poole 2017).

    `compounding` multiplies the current τ, not the initial one, by exp(−rate·t) at each change, as some public code
    does. `offset` puts the changes at progress ≡ offset (mod every). `restart_each_epoch` restarts in every epoch.
    """

    kind: Literal["exponential"] = "exponential"
    rate: Annotated[float, Field(ge=0)]
    offset: Annotated[int, Field(ge=0, le=10**9)] = 0
    compounding: bool = False
    restart_each_epoch: bool = False

    @model_validator(mode="after")
    def _changes_are_well_defined(self) -> Self:
        if self.offset >= self.every:
            raise ValueError(f"offset: expected less than every ({self.every}), got {self.offset}.")
        if self.restart_each_epoch and self.unit == "epoch":
            raise ValueError("restart_each_epoch: expected false where unit is epoch, got true. Set unit: step.")
        return self

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        if self.restart_each_epoch:
            step %= steps_per_epoch
        passed = step if self.unit == "step" else step // steps_per_epoch
        if passed < self.offset:
            return self.initial
        n = (passed - self.offset) // self.every  # the changes are at t_j = offset + j·every for j = 0 … n
        last = self.offset + n * self.every
        total = (n + 1) * (self.offset + last) // 2 if self.compounding else last  # Σ t_j, or t_n
        return max(self.floor, self.initial * exp(-self.rate * total))


class Linear(Annealed):
    """τ goes linearly from `initial` to `final` over the run and ends at `final` exactly."""

    ends_at: ClassVar[str] = "final"
    kind: Literal["linear"] = "linear"
    final: Positive

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        done = self.fraction(step, steps_per_epoch, n_steps)
        return (1 - done) * self.initial + done * self.final


class Cosine(Annealed):
    """τ goes from `initial` to `final` along half a cosine over the run."""

    ends_at: ClassVar[str] = "final"
    kind: Literal["cosine"] = "cosine"
    final: Positive

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        left = (1 + cos(pi * self.fraction(step, steps_per_epoch, n_steps))) / 2
        return left * self.initial + (1 - left) * self.final


class Step(Falling):
    """τ = max(floor, initial·factor^n) after n periods of `every` units."""

    kind: Literal["step"] = "step"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    every: PositiveInt

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        periods = self.elapsed(step, steps_per_epoch) // self.every
        return max(self.floor, self.initial * self.factor**periods)


class Increasing(Falling):
    """Slope annealing: the slope 1/τ increases by `growth` per unit, until τ = floor (Chung, Ahn and Bengio 2017).

    τ = max(floor, 1 / (1/initial + growth·t)). The paper's slope min(5, 1 + 0.04·epoch) is
    `initial: 1, growth: 0.04, floor: 0.2, unit: epoch`.
    """

    kind: Literal["increasing"] = "increasing"
    growth: Positive

    @model_validator(mode="after")
    def _has_room_to_increase(self) -> Self:
        if self.floor == self.initial:
            raise ValueError(f"floor: expected less than initial, so that the slope can grow, got {short(self.floor)}.")
        return self

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        return max(self.floor, self.initial / (1 + self.initial * self.growth * self.elapsed(step, steps_per_epoch)))


class Growing(Annealed):
    """The `t` of `mve` goes geometrically from `initial` to `final` over the run (Hooper and Shekhovtsov 2026).

    t = initial · (final/initial)^f, f the progress from 0 to 1. It sets t, which is no temperature: it has estimators
    with a `t` only, and they have no other schedule.
    """

    sets: ClassVar[tuple[str, ...]] = ("t",)
    ends_at: ClassVar[str] = "final"
    kind: Literal["growing"] = "growing"
    initial: LargestT = 1.0
    final: LargestT = 1e6

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.final <= self.initial:
            raise ValueError(f"final: expected more than initial ({short(self.initial)}), got {short(self.final)}.")
        return self

    def tau(self, step: int, *, steps_per_epoch: int, n_steps: int) -> float:
        done = self.fraction(step, steps_per_epoch, n_steps)
        return self.final if done == 1 else self.initial * (self.final / self.initial) ** done


Single = Annotated[Constant | Exponential | Linear | Cosine | Step | Increasing, Field(discriminator="kind")]


class Decoupled(Schedule):
    """Two temperatures, `forward` for the sample and `backward` for its gradient, each a number or a schedule."""

    sets: ClassVar[tuple[str, ...]] = ("tau_forward", "tau_backward")
    kind: Literal["decoupled"] = "decoupled"
    forward: Positive | Single = 1.0
    backward: Positive | Single = 1.0

    def temperatures(self, step: int, *, steps_per_epoch: int, n_steps: int) -> dict[str, float]:
        def tau(part: float | SingleTau) -> float:
            return part if isinstance(part, float) else part.tau(step, steps_per_epoch=steps_per_epoch, n_steps=n_steps)

        return {"tau_forward": tau(self.forward), "tau_backward": tau(self.backward)}

    def _described(self) -> list[str]:
        return [part.label if isinstance(part, Schedule) else short(part) for part in (self.forward, self.backward)]


AnySchedule = Constant | Exponential | Linear | Cosine | Step | Increasing | Growing | Learned | Decoupled
ScheduleConfig = Annotated[AnySchedule | NoSchedule, Field(discriminator="kind")]
KINDS: Mapping[str, type[Schedule]] = MappingProxyType(
    {cls.model_fields["kind"].default: cls for cls in get_args(AnySchedule)}
)
"""The schedules that a grid may name."""


def short(value: Any) -> str:
    """Return a value as tables show it: 1.0 → 1, 0.0003 → 0.0003, None → none, (512, 256) → [512, 256]."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e6 else repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(short, value))}]"
    return ascii(value) if isinstance(value, str) and not value.isprintable() else str(value)
