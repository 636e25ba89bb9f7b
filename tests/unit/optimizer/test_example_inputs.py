"""Example inputs: guesses from a signature."""

from collections.abc import Mapping

import numpy as np
import pytest

from optimizer.example_inputs import RECIPES, Recipe, find, make
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array


def signature(*inputs: tuple[str, tuple[int | str, ...]]) -> Signature:
    specs = (TensorSpec(f"x{i}", datatype, shape) for i, (datatype, shape) in enumerate(inputs))
    return Signature(tuple(specs), ())


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_has_values(datatype: str) -> None:
    array = make(signature((datatype, ("n", 8))), Recipe(), 3)["x0"]
    assert array.shape == (3, 8)
    assert array.dtype == DTYPES[datatype]
    assert len({row.tobytes() if datatype != "BYTES" else tuple(row) for row in array}) > 1


def test_whole_numbers_are_valid_ids_and_masks() -> None:
    ids = make(signature(("INT64", ("n", "s"))), Recipe(), 50)["x0"]
    assert set(np.unique(ids)) == {0, 1}
    assert (ids[:, 0] == 1).all()


def test_the_same_arguments_give_the_same_values() -> None:
    spec = signature(("FP32", ("n", 4)))
    first, again, other = (make(spec, Recipe(), 2, seed)["x0"] for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_equal_symbols_are_equal_lengths() -> None:
    spec = signature(("INT64", ("n", "s")), ("FP32", ("n", "s", 3)), ("FP32", ("n", "t")))
    arrays = make(spec, Recipe(sizes={("x0", 1): 5}), 2)
    assert [array.shape for array in arrays.values()] == [(2, 5), (2, 5, 3), (2, 16)]


def test_sums_of_symbols_are_added_up() -> None:
    spec = signature(
        ("INT64", ("n", "past + new")), ("FP32", ("n", "past")), ("FP32", ("n", "new"))
    )
    arrays = make(spec, Recipe(sizes={("x1", 1): 7, ("x2", 1): 2}), 1)
    assert arrays["x0"].shape == (1, 9)


IMAGES = {
    "channels first": (("n", 3, "h", "w"), (1, 3, 224, 224)),
    "channels last": (("n", "a", "b", 3), (1, 224, 224, 3)),
    "no channels": (("n", "c", "a", "b"), (1, 3, 224, 224)),
    "named": (("n", "image_height", "image_width"), (1, 224, 224)),
    "sequence": (("n", "time", 80), (1, 16, 80)),
}


@pytest.mark.parametrize(("declared", "shape"), IMAGES.values(), ids=IMAGES)
def test_lengths_suit_what_the_tensor_looks_like(
    declared: tuple[int | str, ...], shape: tuple[int, ...]
) -> None:
    assert make(signature(("FP32", declared)), Recipe(), 1)["x0"].shape == shape


def test_without_rows_dimension_0_is_a_dimension_like_others() -> None:
    spec = signature(("FP32", (4, 2)), ("FP32", ("n",)))
    assert [a.shape for a in make(spec, Recipe(leading=3), None).values()] == [(4, 2), (3,)]


def test_optional_inputs_are_left_out() -> None:
    spec = Signature((TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,), True)), ())
    assert [*make(spec, Recipe(), None)] == ["a"]


def test_given_rows_are_repeated() -> None:
    given = {"x0": np.array([[1.0], [2.0]], np.float32)}
    assert make(signature(("FP32", ("n", 1))), Recipe(given=given), 3)["x0"].tolist() == [
        [1],
        [2],
        [1],
    ]


def test_other_lengths_are_tried_until_the_model_answers() -> None:
    def only_multiples_of_32(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if inputs["x0"].shape[1] % 32:
            raise ValueError("not a multiple of 32")
        return inputs

    recipe, error = find(only_multiples_of_32, signature(("INT64", ("n", "s"))), RECIPES, 1)
    assert recipe is not None
    assert recipe.sequence == 32
    assert not error


def test_an_answer_of_nan_is_taken_only_if_there_is_no_other() -> None:
    def root(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        with np.errstate(invalid="ignore"):
            return {"y": np.sqrt(inputs["x0"] - 0.4)}

    one_value = signature(("FP32", ("n", 1)))
    recipe, _ = find(root, one_value, (Recipe(), Recipe(positive=True)), 1)
    assert recipe == Recipe(positive=True)
    recipe, _ = find(lambda inputs: {"y": inputs["x0"] * np.nan}, one_value, RECIPES, 1)
    assert recipe == RECIPES[0]


def test_a_model_that_answers_nothing_says_why() -> None:
    def refuses(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ValueError(f"no to {inputs['x0'].shape}")

    recipe, error = find(refuses, signature(("FP32", ("n", "s"))), RECIPES, 1)
    assert recipe is None
    assert error == "no to (1, 16)"
