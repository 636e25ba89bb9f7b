from typing import Any

from loadtests.bench import targets


def figures(bare_ms: float, ratio: float, added_p99_ms: float) -> dict[str, Any]:
    return {
        "throughput": {"ratio": ratio},
        "concurrency_1": {"bare_p50_ms": bare_ms, "added_p99_ms": added_p99_ms},
    }


def test_throughput_is_a_target_of_heavy_models_only() -> None:
    found = targets({"light": figures(0.1, 0.01, 0.2), "heavy": figures(30, 0.97, 0.2)}, None)
    assert [(target["what"], target["met"]) for target in found] == [
        ("light: p99 added at concurrency 1, ms", True),
        ("heavy: throughput ratio", True),
        ("heavy: p99 added at concurrency 1, ms", True),
    ]


def test_minimum_and_maximum_are_held_the_right_way_round() -> None:
    found = targets({"heavy": figures(30, 0.94, 0.6)}, {"ratio": 1.2})
    assert [target["met"] for target in found] == [False, False, False]
