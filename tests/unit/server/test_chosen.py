from dataclasses import replace
from pathlib import Path

import pytest

from server.chosen import Choice, Choices

CHOICE = Choice("source", "machine", "onnx-1", "opt-1")


def test_choices_are_there_after_a_restart(tmp_path: Path) -> None:
    choices = Choices(tmp_path / "serving.json")
    assert choices.get("a", 1) is None
    choices.set("a", 1, CHOICE)
    choices.set("a", 2, replace(CHOICE, is_held_back=True))
    choices.set("a", 1, replace(CHOICE, artifact_id="onnx-2"))
    again = Choices(tmp_path / "serving.json")
    assert again.get("a", 1) == replace(CHOICE, artifact_id="onnx-2")
    assert again.get("a", 2) == replace(CHOICE, is_held_back=True)
    assert again.get("b", 1) is None
    assert [file.name for file in tmp_path.iterdir()] == ["serving.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"a/1": {"source": "x"}}', '{"a/1": 3}'])
def test_a_damaged_file_counts_as_empty_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "serving.json"
    path.write_text(text)
    choices = Choices(path)
    assert choices.get("a", 1) is None
    assert "is not read, models serve as they come" in caplog.text
    choices.set("a", 1, CHOICE)
    assert Choices(path).get("a", 1) == CHOICE


def test_what_cannot_be_written_holds_until_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choices = Choices(tmp_path / "nowhere" / "serving.json")
    choices.set("a", 1, CHOICE)
    assert choices.get("a", 1) == CHOICE
    assert "cannot be written" in caplog.text
