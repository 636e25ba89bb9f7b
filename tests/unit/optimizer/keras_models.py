"""Small Keras models, each with something that a converter may trip over."""

from collections.abc import Callable
from typing import Any

from optimizer.frameworks.tensorflow_import import keras, tf

layers = keras.layers


def image_classifier() -> Any:
    """The exact GELU needs Erfc, which tf2onnx does not know."""
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="gelu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def two_in_two_out() -> Any:
    """Inputs of one shape, so that only their names tell them apart; one not in order."""
    right = layers.Input((4,), name="right")
    left = layers.Input((4,), name="left")
    both = layers.Concatenate()([left, right])
    outputs = [layers.Dense(2, name="score")(both), layers.Dense(1)(left)]
    return keras.Model([right, left], outputs)


def by_key() -> Any:
    left, right = layers.Input((4,), name="left"), layers.Input((4,), name="right")
    outputs = {"sum": layers.Add()([left, right]), "difference": layers.Subtract()([left, right])}
    return keras.Model({"right": right, "left": left}, outputs)


def recurrent() -> Any:
    steps = layers.Input((None, 5), name="steps")
    hidden = layers.LSTM(6, return_sequences=True)(steps)
    return keras.Model(steps, layers.Dense(3)(layers.Bidirectional(layers.GRU(4))(hidden)))


def attention() -> Any:
    tokens = layers.Input((None, 16), name="tokens")
    hidden = layers.MultiHeadAttention(2, 8)(tokens, tokens)
    hidden = layers.LayerNormalization()(hidden + tokens)
    pooled = layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(tokens, layers.Dense(3, name="embedding")(pooled))


def called_sequential() -> Any:
    """It remembers the batch of its first call, which says nothing."""
    model = keras.Sequential([layers.Dense(4), layers.Dense(2)])
    model(tf.zeros((1, 3)))
    return model


def with_a_state() -> Any:
    return keras.Sequential([layers.Input(batch_shape=(4, 5, 3)), layers.LSTM(2, stateful=True)])


class OfOwnClass(keras.Model):  # type: ignore[misc]
    """Another process cannot load it from a .keras file."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return self.dense(x)


def of_own_class() -> Any:
    model = OfOwnClass()
    model(tf.zeros((1, 4)))
    return model


BUILDERS: dict[str, Callable[[], Any]] = {
    "image_classifier": image_classifier,
    "two_in_two_out": two_in_two_out,
    "by_key": by_key,
    "recurrent": recurrent,
    "attention": attention,
    "called_sequential": called_sequential,
    "with_a_state": with_a_state,
    "of_own_class": of_own_class,
}
