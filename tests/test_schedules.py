"""The closed form of every schedule equals the loop that a paper or a notebook writes, at every step."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from harness.schedules import (
    KINDS,
    Annealed,
    Constant,
    Cosine,
    Decoupled,
    Exponential,
    Growing,
    Increasing,
    Learned,
    Linear,
    NoSchedule,
    Schedule,
    ScheduleConfig,
    Step,
)

SPE, EPOCHS = 469, 10  # MNIST with batches of 128
N = SPE * EPOCHS


def taus(schedule: Schedule, steps_per_epoch: int = SPE, n_steps: int = N) -> list[float]:
    return [schedule.tau(step, steps_per_epoch=steps_per_epoch, n_steps=n_steps) for step in range(n_steps)]


def test_constant_stays():
    assert set(taus(Constant(tau=0.7))) == {0.7}


def test_exponential_is_the_rule_of_jang_gu_and_poole():
    schedule = Exponential(initial=1.0, rate=1e-3, floor=0.5, every=500)
    tau, expected = 1.0, []
    for step in range(N):
        if step % 500 == 0:
            tau = max(0.5, 1.0 * math.exp(-1e-3 * step))
        expected.append(tau)
    assert taus(schedule) == pytest.approx(expected, rel=1e-14)
    assert expected[0] == 1.0
    assert expected[-1] == 0.5


def test_exponential_with_the_switches_of_the_seed_recipe_is_its_loop():
    """The notebook's own loop: τ local to the epoch, multiplied again on every batch with index ≡ 1 (mod 100)."""
    expected = []
    for _ in range(EPOCHS):
        tau = 1.0
        for batch in range(SPE):
            if batch % 100 == 1:
                tau = max(tau * math.exp(-3e-5 * batch), 0.5)
            expected.append(tau)
    schedule = Exponential(
        initial=1.0, rate=3e-5, floor=0.5, every=100, offset=1, compounding=True, restart_each_epoch=True
    )
    assert taus(schedule) == pytest.approx(expected, rel=1e-14)
    assert min(expected) == pytest.approx(math.exp(-3e-5 * (1 + 101 + 201 + 301 + 401)))


@given(
    rate=st.floats(0, 0.1),
    every=st.integers(1, 50),
    offset=st.integers(0, 49),
    floor=st.floats(0.01, 1.0),
    compounding=st.booleans(),
    restart=st.booleans(),
    unit=st.sampled_from(["step", "epoch"]),
)
def test_exponential_equals_its_loop_for_every_setting(rate, every, offset, floor, compounding, restart, unit):
    offset, restart = offset % every, restart and unit == "step"
    expected = []
    tau = 1.0
    for step in range(120):
        epoch, batch = divmod(step, 30)
        if restart and batch == 0:
            tau = 1.0
        t = batch if restart else step if unit == "step" else epoch
        starts = unit == "step" or batch == 0
        if starts and t % every == offset:
            tau = max((tau if compounding else 1.0) * math.exp(-rate * t), floor)
        expected.append(tau)
    schedule = Exponential(
        rate=rate,
        floor=floor,
        every=every,
        offset=offset,
        compounding=compounding,
        restart_each_epoch=restart,
        unit=unit,
    )
    assert taus(schedule, 30, 120) == pytest.approx(expected, rel=1e-9)


def test_linear_and_cosine_go_from_initial_to_final_exactly():
    for kind in (Linear, Cosine):
        values = taus(kind(initial=2.0, final=0.1))
        assert (values[0], values[-1]) == (2.0, 0.1)
        assert values == sorted(values, reverse=True)
    assert taus(Linear(initial=2.0, final=0.1)) == pytest.approx([2.0 - 1.9 * i / (N - 1) for i in range(N)])
    assert taus(Cosine(initial=2.0, final=0.1)) == pytest.approx(
        [0.1 + 1.9 * (1 + math.cos(math.pi * i / (N - 1))) / 2 for i in range(N)]
    )


def test_linear_reaches_final_at_its_last_change():
    values = taus(Linear(initial=1.0, final=0.5, every=1000))
    assert len(set(values)) == 5
    assert values[-1] == 0.5


def test_a_run_of_one_step_or_one_epoch_has_the_initial_temperature():
    assert Linear(final=0.1).tau(0, steps_per_epoch=1, n_steps=1) == 1.0
    assert set(taus(Cosine(final=0.1, unit="epoch"), 10, 10)) == {1.0}


def test_step_multiplies_every_period():
    expected = [max(0.1, 0.5 ** (step // 1000)) for step in range(N)]
    assert taus(Step(factor=0.5, every=1000, floor=0.1)) == expected


def test_increasing_is_the_slope_annealing_of_chung_ahn_and_bengio():
    """Slope min(5, 1 + 0.04·epoch), τ = 1 / slope."""
    schedule = Increasing(growth=0.04, floor=0.2, unit="epoch")
    epochs = [schedule.tau(epoch * SPE, steps_per_epoch=SPE, n_steps=200 * SPE) for epoch in range(200)]
    assert epochs == pytest.approx([1 / min(5, 1 + 0.04 * epoch) for epoch in range(200)])


def test_growing_multiplies_by_the_same_factor_at_each_change_and_ends_at_final_exactly():
    """The rule of Hooper and Shekhovtsov's code: t ← t · (1e6)^{1/(epochs − 1)} after each epoch, from t = 1."""
    schedule, t, expected = Growing(unit="epoch"), 1.0, []
    for _ in range(EPOCHS):
        expected += [t] * SPE
        t *= 1e6 ** (1 / (EPOCHS - 1))
    assert taus(schedule) == pytest.approx(expected, rel=1e-12)
    assert taus(schedule)[-1] == 1e6
    assert schedule.temperatures(SPE, steps_per_epoch=SPE, n_steps=N) == {"t": pytest.approx(1e6 ** (1 / 9))}
    assert taus(Growing(initial=2, final=32, every=2), 1, 6) == pytest.approx([2, 2, 8, 8, 32, 32])
    assert Growing().tau(0, steps_per_epoch=1, n_steps=1) == 1.0


def test_growing_that_does_not_grow_is_refused_in_one_line():
    with pytest.raises(ValidationError, match=r"final: expected more than initial \(10\), got 2\."):
        Growing(initial=10, final=2)


positive = st.floats(1e-3, 10)
shared = {"every": st.integers(1, 40), "unit": st.sampled_from(["step", "epoch"])}
falling = st.one_of(
    st.builds(Exponential, initial=st.floats(1, 10), floor=st.floats(0.01, 1), rate=st.floats(0, 1), **shared),
    st.builds(Step, initial=st.floats(1, 10), floor=st.floats(0.01, 1), factor=st.floats(0.01, 0.99), **shared),
    st.builds(Increasing, initial=st.floats(1, 10), floor=st.floats(0.01, 0.9), growth=st.floats(1e-3, 5), **shared),
)
schedules = st.one_of(
    falling,
    st.builds(Constant, tau=positive),
    st.builds(Linear, initial=positive, final=positive, **shared),
    st.builds(Cosine, initial=positive, final=positive, **shared),
    st.builds(Growing, initial=positive, final=st.floats(11, 1e9), **shared),
)


@given(schedules, st.integers(1, 30), st.integers(1, 6))
def test_tau_is_positive_and_starts_at_initial(schedule, steps_per_epoch, epochs):
    values = taus(schedule, steps_per_epoch, steps_per_epoch * epochs)
    assert all(0 < value < math.inf for value in values)
    assert values[0] == getattr(schedule, "initial", values[0])


@given(falling, st.integers(1, 30), st.integers(1, 6))
def test_falling_schedules_never_rise_and_never_pass_their_floor(schedule, steps_per_epoch, epochs):
    values = taus(schedule, steps_per_epoch, steps_per_epoch * epochs)
    assert all(before >= after for before, after in pairwise(values))
    assert min(values) >= schedule.floor


@given(schedules, st.integers(1, 20), st.integers(1, 5), st.data())
def test_tau_is_a_pure_function_of_the_step(schedule, steps_per_epoch, epochs, data):
    """Asking out of order, as a resumed run does, or after a round trip through JSON, gives the same bits."""
    n_steps = steps_per_epoch * epochs
    straight = taus(schedule, steps_per_epoch, n_steps)
    again = TypeAdapter(ScheduleConfig).validate_json(schedule.model_dump_json(by_alias=True))
    assert again == schedule
    for step in data.draw(st.permutations(range(n_steps))):
        assert again.tau(step, steps_per_epoch=steps_per_epoch, n_steps=n_steps) == straight[step]


@given(st.sampled_from([kind for kind, cls in KINDS.items() if issubclass(cls, Annealed)]), *[st.integers(1, 9)] * 2)
def test_the_unit_epoch_is_the_unit_step_seen_once_an_epoch(kind, steps_per_epoch, epochs):
    """With one step an epoch the units agree; otherwise τ is held for the whole epoch."""
    required = {"exponential": {"rate": 0.3}, "step": {"every": 2}, "increasing": {"growth": 0.3}, "growing": {}}
    settings = required.get(kind, {"final": 0.2})
    by_step = taus(KINDS[kind](**settings), 1, epochs)
    by_epoch = taus(KINDS[kind](**settings, unit="epoch"), steps_per_epoch, epochs * steps_per_epoch)
    assert by_epoch == [tau for tau in by_step for _ in range(steps_per_epoch)]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("constant", {"tau": 0.0}),
        ("constant", {"tau": -1.0}),
        ("constant", {"tau": float("nan")}),
        ("constant", {"tau": float("inf")}),
        ("constant", {"tau": "1"}),
        ("constant", {"tau": True}),
        ("constant", {"value": 1.0}),
        ("constant", {"label": ""}),
        ("constant", {"label": "two\nlines"}),
        ("exponential", {}),
        ("exponential", {"rate": -1e-5}),
        ("exponential", {"rate": 1e-5, "floor": 0.0}),
        ("exponential", {"rate": 1e-5, "floor": 1.5}),
        ("exponential", {"rate": 1e-5, "every": 0}),
        ("exponential", {"rate": 1e-5, "every": 1.0}),
        ("exponential", {"rate": 1e-5, "every": 10, "offset": 10}),
        ("exponential", {"rate": 1e-5, "unit": "batch"}),
        ("exponential", {"rate": 1e-5, "unit": "epoch", "restart_each_epoch": True}),
        ("exponential", {"rate": 1e-5, "compounding": 1}),
        ("linear", {}),
        ("linear", {"final": 0.0}),
        ("cosine", {"final": -1.0}),
        ("step", {"factor": 0.5}),
        ("step", {"every": 1, "factor": 1.0}),
        ("step", {"every": 1, "factor": 0.0}),
        ("increasing", {"growth": 0.0}),
        ("increasing", {"growth": -0.1}),
        ("increasing", {"growth": 0.1, "floor": 1.0}),
        ("growing", {"initial": 0.0}),
        ("growing", {"final": 1.0}),
        ("growing", {"final": 1e10}),
        ("growing", {"tau": 1.0}),
        ("learned", {"initial": 0.0}),
        ("learned", {"through": "luck"}),
        ("learned", {"lr": 0.0}),
        ("decoupled", {"forward": 0.0}),
        ("decoupled", {"backward": {"kind": "constant", "tau": -1.0}}),
        ("decoupled", {"backward": {"kind": "learned"}}),
        ("decoupled", {"forward": {"kind": "decoupled"}}),
        ("decoupled", {"forward": {"kind": "growing"}}),
    ],
)
def test_impossible_settings_are_refused(kind, settings):
    with pytest.raises(ValidationError):
        KINDS[kind](**settings)


def test_a_schedule_cannot_be_changed():
    with pytest.raises(ValidationError):
        Constant().value = 2.0


def test_labels_tell_settings_apart():
    assert Constant(tau=1).label == "constant(1)"
    assert Constant(tau=0.5).label == "constant(0.5)"
    assert Exponential(rate=3e-5, every=500).label == "exponential(1→0.5, rate=3e-05, every=500)"
    assert Exponential(rate=3e-5, restart_each_epoch=True).label == "exponential(1→0.5, rate=3e-05, restart_each_epoch)"
    assert Linear(initial=2.0, final=0.5).label == "linear(2→0.5)"
    assert Increasing(growth=0.04, floor=0.2, unit="epoch").label == "increasing(1→0.2, growth=0.04, unit=epoch)"
    assert Growing(unit="epoch").label == "growing(1→1000000.0, unit=epoch)"
    assert Exponential(rate=3e-5, label="Jang").label == "Jang"
    assert NoSchedule().label == "none"


@given(schedules, schedules)
def test_equal_labels_mean_equal_settings(one, other):
    assert (one.label == other.label) == (one == other)


def test_no_schedule_has_no_temperature():
    assert NoSchedule().temperatures(3, steps_per_epoch=1, n_steps=10) == {}


def test_a_decoupled_schedule_sets_two_temperatures_each_by_its_own_rule():
    schedule = Decoupled(forward=0.3, backward=Linear(initial=2.0, final=0.5))
    assert schedule.label == "decoupled(0.3, linear(2→0.5))"
    assert schedule.sets == ("tau_forward", "tau_backward")
    for step in range(11):
        found = schedule.temperatures(step, steps_per_epoch=11, n_steps=11)
        assert found == {"tau_forward": 0.3, "tau_backward": pytest.approx(2.0 - 0.15 * step)}


def test_labels_of_learned_schedules_tell_what_they_learn_through():
    assert Learned().label == "learned(from 1, through loss)"
    assert Learned(initial=0.5, through="variance", lr=0.01).label == "learned(from 0.5, through variance, lr=0.01)"


def test_every_kind_is_registered_under_its_own_name_and_documented():
    for kind, cls in KINDS.items():
        assert cls.model_fields["kind"].default == kind
        assert cls.__doc__
