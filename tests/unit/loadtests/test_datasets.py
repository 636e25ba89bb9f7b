import numpy as np
import pytest

from loadtests.datasets import digits_data, sentences, tokenized


def test_digits_are_split_the_same_way_every_time() -> None:
    images, labels, test_images, test_labels = digits_data()
    assert (images.shape, test_images.shape) == ((1257, 1, 8, 8), (540, 1, 8, 8))
    assert (len(labels), len(test_labels)) == (1257, 540)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert set(test_labels) == set(range(10))


def test_sentences_are_different_and_begin_alike() -> None:
    many = sentences(1000)
    assert len(set(many)) == 1000
    assert many[:10] == sentences(10)
    assert all(5 <= len(sentence.split()) <= 40 for sentence in many)
    with pytest.raises(ValueError, match="1000000 sentences wanted, there are"):
        sentences(1_000_000)


def test_tokens_are_padded_on_the_right_and_cut() -> None:
    tokens = tokenized(["A short sentence.", "word " * 100], max_length=16)
    assert {array.shape for array in tokens.values()} == {(2, 16)}
    assert tokens["attention_mask"].sum(1).tolist() == [6, 16]
    assert tokens["input_ids"][0].tolist()[6:] == [0] * 10
