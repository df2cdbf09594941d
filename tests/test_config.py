import dataclasses
import json
import pickle
from types import SimpleNamespace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilljax.config import Config, FieldError, chooses, describe, option
from distilljax.types import InputError


@dataclasses.dataclass(frozen=True)
class Inner(Config):
    window: int | None = option(None, "Window.", low=1)
    lr: float = option(0.1, "Learning rate.", above=0, high=10)


@dataclasses.dataclass(frozen=True)
class Pair(Config):
    first: int = option(1, "First.")
    second: int = option(2, "Second.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first >= self.second:
            raise InputError("first must be below second")


@dataclasses.dataclass(frozen=True)
class Outer(Config):
    ipc: int = option(10, "Images per class.", low=1, high=50)
    soft: bool = option(False, "Soft labels.")
    name: str = option("", "Name.")
    norm: Literal["none", "instance"] = option("none", "Norm.")
    level: Literal[1, 2] = option(1, "Level.")
    # Defaults that differ from Inner's own.
    inner: Inner = option(Inner(window=7, lr=0.5), "Inner loop.")
    spare: Inner | None = option(None, "A group that may be absent.")
    pair: Pair = option(Pair(), "A group with a rule of its own.")


@chooses("solver", {"inner": SimpleNamespace(Config=Inner)}, "inner", "Only solver.")
@chooses(
    "net",
    {"small": SimpleNamespace(Config=Inner), "large": SimpleNamespace(Config=Pair)},
    "small",
    "Network.",
    changed={"small": {"window": 3}},
)
@dataclasses.dataclass(frozen=True)
class Choice(Config):
    mode: Literal["small", "large"] = option("small", "Not a selector.")


def test_the_chosen_group_is_that_of_the_selector() -> None:
    assert Choice().chosen("net") == ("small", Inner(window=3))
    assert Choice().chosen("solver") == ("inner", Inner())
    changed = Choice().replace({"net": "large", "large": {"second": 5}, "mode": "small"})
    assert changed.chosen("net") == ("large", Pair(second=5))


@pytest.mark.parametrize("name", ["mode", "small", "solvers"])
def test_only_a_selector_chooses(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}' is not a selector of Choice"):
        Choice().chosen(name)


@pytest.mark.parametrize(
    ("config_class", "field", "value", "reason"),
    [
        (Outer, "ipc", "ten", "expected an integer"),
        (Outer, "ipc", 1.0, "expected an integer"),
        (Outer, "ipc", True, "expected an integer"),
        (Outer, "ipc", None, "expected an integer"),
        (Outer, "ipc", 0, "must be at least 1"),
        (Outer, "ipc", 51, "must be at most 50"),
        (Outer, "ipc", 10**400, "must be at most 50"),
        (Outer, "soft", 1, "expected true or false"),
        (Outer, "name", 3, "expected a string"),
        (Outer, "norm", "batch", "expected one of none, instance"),
        (Outer, "norm", None, "expected one of none, instance"),
        (Outer, "level", True, "expected one of 1, 2"),
        (Inner, "window", 0, "must be at least 1"),
        (Inner, "window", "all", "expected an integer or none"),
        (Inner, "lr", 0, "must be greater than 0"),
        (Inner, "lr", "fast", "expected a number"),
        (Inner, "lr", False, "expected a number"),
        (Inner, "lr", float("nan"), "must be a finite number"),
        (Inner, "lr", float("inf"), "must be a finite number"),
        (Inner, "lr", -float("inf"), "must be a finite number"),
    ],
)
def test_refused_value(
    config_class: type[Config], field: str, value: Any, reason: str
) -> None:
    with pytest.raises(FieldError) as caught:
        config_class(**{field: value})
    assert str(caught.value) == f"{field}={value!r}: {reason}"
    assert (caught.value.path, caught.value.reason) == (field, reason)


@pytest.mark.parametrize(
    ("field", "value"),
    [("window", None), ("window", 1), ("lr", 1), ("lr", 10.0), ("lr", 1e-12)],
)
def test_accepted_value(field: str, value: Any) -> None:
    assert getattr(Inner(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window", np.int64(3)),
        ("lr", np.float32(0.5)),
        ("lr", np.float64(0.5)),
        ("lr", np.array(0.5)),
        ("lr", jnp.asarray(0.5)),
    ],
)
def test_scalars_of_arrays_are_numbers(field: str, value: Any) -> None:
    config = Inner(**{field: value})
    assert type(getattr(config, field)) in (int, float)
    assert getattr(config, field) == value
    assert json.loads(json.dumps(config.to_dict()))[field] == value


def test_an_array_is_no_number() -> None:
    with pytest.raises(FieldError, match="expected a number"):
        Inner.from_dict({"lr": np.array([0.5])})


def test_group_must_be_of_its_type() -> None:
    with pytest.raises(FieldError, match=r"expected a .*test_config\.Inner"):
        Outer(inner=3)  # type: ignore[arg-type]


def test_a_mapping_changes_the_defaults_of_a_group() -> None:
    made = Outer(inner={"lr": np.float32(0.25)}, spare={"window": 2})  # type: ignore[arg-type]
    assert made.inner == Inner(window=7, lr=0.25)
    assert made.spare == Inner(window=2)
    with pytest.raises(FieldError, match=r"^inner\.window=0: must be at least 1"):
        Outer(inner={"window": 0})  # type: ignore[arg-type]
    with pytest.raises(FieldError, match=r"^inner\.rate=1: unknown field"):
        Outer(inner={"rate": 1})  # type: ignore[arg-type]
    with pytest.raises(FieldError, match=r"^ipc=.*expected an integer"):
        Outer(ipc={"lr": 1})  # type: ignore[arg-type]


def test_describe_names_every_alternative() -> None:
    assert describe(Literal["all", "half"] | int | None) == (
        "one of all, half or an integer or none"
    )


inners = st.builds(
    Inner,
    window=st.none() | st.integers(1, 2**31 - 1),
    lr=st.floats(2e-38, 10),
)


@given(
    st.builds(
        Outer,
        ipc=st.integers(1, 50),
        soft=st.booleans(),
        name=st.text(),
        norm=st.sampled_from(["none", "instance"]),
        level=st.sampled_from([1, 2]),
        inner=inners,
        spare=st.none() | inners,
        pair=st.just(Pair(3, 4)),
    )
)
def test_dictionary_round_trip_through_json(config: Outer) -> None:
    assert Outer.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_absent_fields_take_the_defaults_of_the_group_they_are_in() -> None:
    config = Outer.from_dict({"inner": {"lr": 0.25}, "spare": {"lr": 0.25}})
    assert config == Outer(inner=Inner(window=7, lr=0.25), spare=Inner(lr=0.25))


def test_replace_changes_only_what_is_named() -> None:
    config = Outer(ipc=3, inner=Inner(window=2))
    assert config.replace({"inner": {"lr": 1.0}}) == Outer(
        ipc=3, inner=Inner(window=2, lr=1.0)
    )
    assert config.replace({"inner": Inner(lr=2.0)}) == Outer(ipc=3, inner=Inner(lr=2.0))
    assert config == Outer(ipc=3, inner=Inner(window=2))


def test_rules_between_fields_see_all_changes_at_once() -> None:
    assert Pair().replace({"first": 5, "second": 6}) == Pair(5, 6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"icp": 3}, "icp=3: unknown field; did you mean ipc?"),
        (
            {"inner": {"windwo": 3}},
            "inner.windwo=3: unknown field; did you mean window?",
        ),
        ({"qqq": 3}, "qqq=3: unknown field"),
        ({"inner": {"window": 0}}, "inner.window=0: must be at least 1"),
        ({"ipc": "ten"}, "ipc='ten': expected an integer"),
        ({"pair": {"first": 9}}, "pair: first must be below second"),
    ],
)
def test_from_dict_names_the_path_of_a_mistake(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        Outer.from_dict(values)
    assert str(caught.value) == message


def test_field_error_survives_pickling() -> None:
    error = FieldError("a.b", 3, "must be at least 4")
    assert str(pickle.loads(pickle.dumps(error))) == "a.b=3: must be at least 4"


@dataclasses.dataclass(frozen=True)
class Numbers(Config):
    """Without limits of their own."""

    number: int = option(0, "An integer.")
    rate: float = option(0.0, "A number.")


@pytest.mark.parametrize("number", [2**31, -(2**31), 10**30])
def test_integers_beyond_int32_are_refused(number):
    with pytest.raises(FieldError, match="must be within ±2147483647"):
        Numbers(number=number)
    assert Numbers(number=2**31 - 1).number == 2**31 - 1


@pytest.mark.parametrize("rate", [1e-46, -1e-40, 1e39, -1e300])
def test_numbers_that_float32_does_not_hold_are_refused(rate):
    with pytest.raises(FieldError, match="is no number of float32"):
        Numbers(rate=rate)
    assert Numbers(rate=1e-37).rate == 1e-37
