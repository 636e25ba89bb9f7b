from collections.abc import Mapping

import pytest

from optimizer.errors import PassError
from optimizer.shape_profile import ShapeProfile, ShapeRange, profile_of
from protos.signature import Signature, TensorSpec

TEXT = Signature(
    (
        TensorSpec("ids", "INT64", ("batch", "length")),
        TensorSpec("mask", "INT64", ("batch", "length")),
        TensorSpec("scale", "FP32", ()),
    ),
    (),
)
SEEN = [
    {"ids": (4, 16), "mask": (4, 16)},
    {"ids": (1, 16), "mask": (1, 16)},
    {"ids": (200, 128), "mask": (200, 128)},
]
PROFILE = profile_of(TEXT, 32, SEEN)


def test_batches_go_to_the_largest_and_lengths_as_observed() -> None:
    expected = ShapeRange((1, 16), (32, 16), (32, 128))
    assert PROFILE.inputs == {"ids": expected, "mask": expected, "scale": SCALAR}
    assert profile_of(TEXT, 32, SEEN, opt_batch=1).inputs["ids"].opt == (1, 16)


SCALAR = ShapeRange((), (), ())


def test_fixed_shapes_stay() -> None:
    signature = Signature(
        (TensorSpec("x", "FP32", ("n", 3, 8, 8)), TensorSpec("y", "FP32", (2,))), ()
    )
    profile = profile_of(signature, 8)
    assert profile.inputs["x"] == ShapeRange((1, 3, 8, 8), (8, 3, 8, 8), (8, 3, 8, 8))
    assert profile.inputs["y"].is_fixed
    assert list(profile.dynamic) == ["x"]


def test_lengths_that_nobody_saw_cannot_be_known() -> None:
    with pytest.raises(PassError, match="input 'ids': TensorRT has to know how long 'length'"):
        profile_of(TEXT, 32)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({"ids": (1, 16), "mask": (32, 128), "scale": ()}, ""),
        (
            {"ids": (33, 16), "mask": (33, 16), "scale": ()},
            "input 'ids': 33 in dimension 0, the engine is for 1 to 32",
        ),
        (
            {"ids": (1, 16), "mask": (1, 15), "scale": ()},
            "input 'mask': 15 in dimension 1, the engine is for 16 to 128",
        ),
        (
            {"ids": (1,), "mask": (1, 16), "scale": ()},
            "input 'ids': 1 dimensions, the engine has 2",
        ),
        ({"mask": (1, 16), "scale": ()}, "input 'ids': it is missing"),
    ],
)
def test_what_is_covered(shapes: Mapping[str, tuple[int, ...]], reason: str) -> None:
    assert PROFILE.why_not(shapes) == reason
    assert PROFILE.covers(shapes) == (not reason)


def test_optional_inputs_have_no_place_in_it() -> None:
    scale = TensorSpec("scale", "FP32", ("n",), optional=True)
    assert profile_of(Signature((*TEXT.inputs, scale), ()), 32, SEEN) == PROFILE


def test_as_json_and_as_text() -> None:
    assert ShapeProfile.from_json(PROFILE.to_json()) == PROFILE
    assert str(PROFILE) == (
        "ids 1x16..32x16..32x128, mask 1x16..32x16..32x128, scale scalar..scalar..scalar"
    )


@pytest.mark.parametrize(
    "shapes", [((1,), (1, 1), (1,)), ((0,), (1,), (1,)), ((2,), (1,), (3,)), ((1,), (4,), (3,))]
)
def test_ranges_that_are_none(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(PassError, match="expected 0 < min <= opt <= max"):
        ShapeRange(*shapes)
