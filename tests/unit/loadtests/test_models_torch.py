from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from optimizer.frameworks import load_native
from optimizer.source import source_of
from protos.tensors import Array
from tests.optimizer_models import (
    digits_cnn,
    digits_cnn_pt2,
    digits_data,
    minilm,
    minilm_pt2,
    resnet50,
    sentences,
    tokenized,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning:copyreg"),
    # The exporter: two inputs share their variable dimensions.
    pytest.mark.filterwarnings("ignore:# The axis name:UserWarning"),
]


def run(path: Path, inputs: dict[str, Array]) -> Array:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, inputs)[0]
    return answer


def test_digits_cnn_has_learned_digits(model_folder: Path) -> None:
    path = digits_cnn(model_folder)
    assert 3.2e6 < path.stat().st_size < 3.4e6
    *_, images, labels = digits_data()
    assert (run(path, {"image": images}).argmax(1) == labels).mean() >= 0.985
    assert digits_cnn(model_folder) == path


def test_digits_cnn_is_the_same_as_a_program(model_folder: Path) -> None:
    native = load_native(source_of(digits_cnn_pt2(model_folder)))
    assert native.task == "classification"
    images = digits_data()[2][:9]
    expected = run(digits_cnn(model_folder), {"image": images})
    np.testing.assert_allclose(native.predict({"image": images})["logits"], expected, atol=1e-4)


def test_sentence_encoder_knows_what_is_alike(model_folder: Path) -> None:
    texts = ["A cat sits on the mat.", "A kitten is on the rug.", "Prices of oil rose in May."]
    embeddings = run(minilm(model_folder), tokenized(texts))
    assert embeddings.shape == (3, 384)
    likeness = embeddings @ embeddings.T
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] > 0.5
    assert likeness[0, 2] < 0.2


def test_sentence_encoder_is_the_same_as_a_program(model_folder: Path) -> None:
    native = load_native(source_of(minilm_pt2(model_folder)))
    tokens = tokenized(sentences(3))
    expected = run(minilm(model_folder), tokens)
    np.testing.assert_allclose(native.predict(tokens)["embedding"], expected, atol=1e-5)


def test_resnet_answers(model_folder: Path) -> None:
    images = np.random.default_rng(0).random((2, 3, 224, 224), np.float32)
    answers = run(resnet50(model_folder), {"image": images})
    assert answers.shape == (2, 1000)
    assert np.isfinite(answers).all()
    assert answers.std() > 0.01
