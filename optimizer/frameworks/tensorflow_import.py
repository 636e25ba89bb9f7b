"""TensorFlow and Keras, imported with TensorFlow's talk turned down and Keras on top of it.

Both are told through the environment, before the first import: import them from here only.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

__all__ = ["keras", "tf"]
