"""A configuration against the model: agreement narrows, a conflict shows both sides."""

import pytest

from protos.signature import Signature, TensorSpec
from server.declared_signature import model_signature
from server.errors import LoadFailed
from server.model_config import ModelConfig, TensorConfig

Dims = tuple[int, ...]
MODEL = Signature(
    (TensorSpec("x", "FP32", ("n", "c", 4)), TensorSpec("bias", "FP32", (4,), optional=True)),
    (TensorSpec("y", "FP32", ("n", 2)), TensorSpec("z", "INT64", ("n",))),
)
FIXED = Signature((TensorSpec("x", "FP32", (1, 4)),), (TensorSpec("y", "FP32", (1, 2)),))


def config(
    x: Dims | None = None, y: Dims | None = None, batch: int | None = 8, datatype: str = "FP32"
) -> ModelConfig:
    return ModelConfig(
        "m",
        max_batch_size=batch,
        inputs=() if x is None else (TensorConfig("x", datatype, x),),
        outputs=() if y is None else (TensorConfig("y", "FP32", y),),
        origin="repo/m/config.pbtxt",
    )


def test_nothing_declared_is_the_models_own() -> None:
    assert model_signature(ModelConfig("m"), MODEL) == MODEL


def test_declared_sizes_replace_variable_ones() -> None:
    signature = model_signature(config(x=(3, -1)), MODEL)
    assert signature.inputs[0].shape == ("n", 3, 4)


def test_outputs_and_optional_inputs_that_are_not_declared_are_hidden() -> None:
    signature = model_signature(config(x=(3, 4), y=(2,)), MODEL)
    assert [spec.name for spec in signature.inputs] == ["x"]
    assert [spec.name for spec in signature.outputs] == ["y"]


def test_optional_input_that_is_declared_is_offered() -> None:
    declared = ModelConfig(
        "m", inputs=(TensorConfig("x", "FP32", (-1, -1, 4)), TensorConfig("bias", "FP32", (4,)))
    )
    assert model_signature(declared, MODEL).inputs[1] == MODEL.inputs[1]


def test_reshape_is_what_the_model_sees() -> None:
    declared = ModelConfig(
        "m", inputs=(TensorConfig("x", "FP32", (12,), reshape=(3, 4)),), max_batch_size=8
    )
    assert model_signature(declared, MODEL).inputs[0].shape == ("n", 3, 4)


def test_unknown_rank_is_what_the_configuration_says() -> None:
    model = Signature((TensorSpec("x", "FP32", ()),), MODEL.outputs)
    assert model_signature(config(x=(3, -1)), model).inputs[0].shape == ("x[0]", 3, "x[2]")


CONFLICTS = {
    "size": (
        config(x=(3, 5)),
        MODEL,
        "repo/m/config.pbtxt: input 'x': dims [3, 5] declares FP32[?, 3, 5], the model has"
        " FP32[?, ?, 4]; change it to dims: [-1, 4] (max_batch_size > 0 adds the batch dimension)",
    ),
    "channels taken for the batch": (
        config(x=(8, 3, 4)),
        MODEL,
        "repo/m/config.pbtxt: input 'x': dims [8, 3, 4] declares FP32[?, 8, 3, 4], the model has"
        " FP32[?, ?, 4]; change it to dims: [-1, 4] (max_batch_size > 0 adds the batch dimension)",
    ),
    "rank without batch": (
        config(x=(3, 4), batch=0),
        MODEL,
        "repo/m/config.pbtxt: input 'x': dims [3, 4] declares FP32[3, 4], the model has"
        " FP32[?, ?, 4]; change it to dims: [-1, -1, 4]",
    ),
    "data type": (
        config(x=(3, 4), datatype="INT8"),
        MODEL,
        "repo/m/config.pbtxt: input 'x': data_type is INT8, the model has FP32; change data_type to"
        " TYPE_FP32",
    ),
    "unknown name": (
        ModelConfig("m", outputs=(TensorConfig("w", "FP32", (2,)),), origin="config.pbtxt"),
        MODEL,
        "config.pbtxt: output 'w' is not in the model, which has 'y', 'z'",
    ),
    "missing input": (
        ModelConfig("m", inputs=(TensorConfig("bias", "FP32", (4,)),), origin="config.pbtxt"),
        MODEL,
        "config.pbtxt: input: the model needs 'x' FP32[?, ?, 4], which is not declared; add it",
    ),
    "fixed batch": (
        config(),
        FIXED,
        "repo/m/config.pbtxt: max_batch_size is 8, but 'x' is FP32[1, 4] with a fixed dimension 0;"
        " change it to max_batch_size: 0 and write whole shapes in dims, or export the model with a"
        " variable batch dimension; ",
    ),
}


@pytest.mark.parametrize(("declared", "model", "text"), CONFLICTS.values(), ids=CONFLICTS)
def test_conflict_shows_both_sides_and_the_line_to_change(
    declared: ModelConfig, model: Signature, text: str
) -> None:
    with pytest.raises(LoadFailed) as caught:
        model_signature(declared, model)
    assert str(caught.value).startswith(text)


def test_text_is_triton_s_type_string() -> None:
    model = Signature((TensorSpec("x", "BYTES", ("n",)),), MODEL.outputs)
    with pytest.raises(LoadFailed, match="change data_type to TYPE_STRING"):
        model_signature(config(x=()), model)


def test_every_conflict_is_reported() -> None:
    with pytest.raises(LoadFailed) as caught:
        model_signature(config(x=(3, 5), y=(7,)), MODEL)
    assert "input 'x'" in str(caught.value)
    assert "output 'y'" in str(caught.value)
