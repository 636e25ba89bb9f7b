import pytest

from server.commands.table import milliseconds, rate, table


def test_words_to_the_left_numbers_to_the_right() -> None:
    text = table(("NAME", "RATE", "WHY"), [("a", "1.5", ""), ("long", "100", "because")])
    assert text.splitlines() == [
        "NAME  RATE  WHY",
        "a      1.5",
        "long   100  because",
    ]


def test_a_missing_number_is_still_in_a_column_of_numbers() -> None:
    assert table(("N",), [("-",), ("10",)]).splitlines() == [" N", " -", "10"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0421, "0.042"), (1.347, "1.35"), (12.34, "12.3"), (1250.4, "1250")],
)
def test_milliseconds_have_three_digits_that_count(value: float, text: str) -> None:
    assert milliseconds(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.0"), (99.94, "99.9"), (1234.5, "1234")])
def test_rate(value: float, text: str) -> None:
    assert rate(value) == text
