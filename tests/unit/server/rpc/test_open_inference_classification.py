"""The classification extension."""

import numpy as np
import pytest

from protos.tensors import Array
from server.errors import InvalidRequest
from server.rpc.open_inference_classification import classify

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]], np.float32)


def test_the_best_classes_of_each_row_come_first_and_ties_keep_their_order() -> None:
    assert classify(SCORES, 2, batched=True).tolist() == [
        [b"0.700000:1", b"0.200000:2"],
        [b"0.500000:0", b"0.500000:2"],
    ]


def test_labels_are_added_where_there_are_any() -> None:
    labels = ("cat", "")
    assert classify(SCORES[:1], 9, batched=True, labels=labels).tolist() == [
        [b"0.700000:1", b"0.200000:2", b"0.100000:0:cat"]
    ]


def test_without_a_batch_dimension_the_whole_output_is_one_row() -> None:
    assert classify(SCORES, 1, batched=False).tolist() == [b"0.700000:1"]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (np.array([[3, -1]], np.int64), [[b"3:0"]]),
        (np.array([[1, 2**64 - 1]], np.uint64), [[b"18446744073709551615:1"]]),
        (np.array([[0.25]], np.float64), [[b"0.250000:0"]]),
        (np.zeros((0, 3), np.float32), []),
        (np.array([[[1, 2], [9, 3]]], np.uint8), [[b"9:2"]]),
    ],
    ids=["signed", "largest", "double", "no rows", "more dimensions"],
)
def test_scores_of_other_kinds(scores: Array, expected: list[list[bytes]]) -> None:
    assert classify(scores, 1, batched=True).tolist() == expected


@pytest.mark.parametrize(
    ("scores", "datatype"),
    [
        (np.array([[True]]), "BOOL"),
        (np.array([[1]], np.float16), "FP16"),
        (np.array([[b"a"]], object), "BYTES"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores: Array, datatype: str) -> None:
    with pytest.raises(InvalidRequest, match=f"unsupported type '{datatype}'"):
        classify(scores, 1, batched=True)
