"""What clients would notice: a table of two forms of one model."""

from dataclasses import dataclass
from typing import Any, cast

import pytest

from protos.signature import Signature, TensorSpec
from server.interchange import difference
from server.probe import Profile
from server.served import ServedVersion


@dataclass
class Form:
    """As much of a served version as is compared."""

    signature: Signature
    profile: Profile


def form(x: TensorSpec | None = None, y: TensorSpec | None = None, **profile: Any) -> ServedVersion:
    inputs = (x or TensorSpec("x", "FP32", ("n", 4)),)
    outputs = (y or TensorSpec("y", "FP32", ("n", 2)),)
    made = Form(Signature(inputs, outputs), Profile(**{"batchable": True, **profile}))
    return cast(ServedVersion, made)


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        pytest.param(form(), "", id="the same"),
        pytest.param(form(TensorSpec("x", "FP32", ("batch", 4))), "", id="a dimension's name"),
        pytest.param(form(TensorSpec("x", "FP32", ("n", "m"))), "", id="takes more"),
        pytest.param(form(TensorSpec("x", "FP32", ("n", 4), True)), "", id="may be left out"),
        pytest.param(form(y=TensorSpec("y", "FP32", ("n", "m"))), "", id="says less of an output"),
        pytest.param(
            form(TensorSpec("x", "FP32", (1, 4))),
            'input "x": expected FP32[-1, 4], got FP32[1, 4]',
            id="takes less",
        ),
        pytest.param(
            form(TensorSpec("x", "FP16", ("n", 4))),
            'input "x": expected FP32[-1, 4], got FP16[-1, 4]',
            id="datatype",
        ),
        pytest.param(form(TensorSpec("x", "FP32", ("n",))), 'input "x": expected', id="rank"),
        pytest.param(
            form(TensorSpec("z", "FP32", ("n", 4))), "expected the inputs x, got z", id="name"
        ),
        pytest.param(
            form(y=TensorSpec("y", "FP32", ("n", 3))),
            'output "y": expected FP32[-1, 2], got FP32[-1, 3]',
            id="output's size",
        ),
        pytest.param(
            form(y=TensorSpec("y", "INT64", ("n", 2))), 'output "y": expected', id="output's type"
        ),
        pytest.param(
            form(batchable=False, reason="rows influence each other"),
            "its requests would run one by one: rows influence each other",
            id="batching",
        ),
    ],
)
def test_what_clients_would_notice(after: ServedVersion, problem: str) -> None:
    found = difference(form(), after)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


def test_what_becomes_better_is_no_difference() -> None:
    assert difference(form(batchable=False, reason="x"), form()) == ""
    optional = TensorSpec("x", "FP32", ("n", 4), True)
    assert "(optional)" in difference(form(optional), form())
