import pytest

from optimizer.converters.opsets import nearest


@pytest.mark.parametrize(("asked", "made"), [(13, 18), (17, 18), (18, 18), (20, 20), (23, 23)])
def test_opset_is_the_nearest_that_can_be_made(asked: int, made: int) -> None:
    assert nearest(asked, 18, 23, "the exporter")[0] == made


def test_another_opset_than_asked_is_noted() -> None:
    assert nearest(18, 18, 23, "the exporter")[1] == ()
    assert nearest(25, 18, 23, "the exporter")[1] == (
        "opset 25 asked, 23 made: the exporter makes 18 to 23",
    )
