from protos import models_pb2 as pb
from server.commands.top import Tables


def latency(
    model: str = "m", batches: int = 0, rows: int = 0, rate: float = 0.0
) -> pb.ModelLatency:
    stage = pb.StageLatency(
        count=1 if rate else 0, rate=rate, p50_ms=1, p95_ms=2, p99_ms=3, max_ms=4
    )
    return pb.ModelLatency(
        model=model, version=1, total=stage, queue=stage, compute=stage, batches=batches, rows=rows
    )


def cells(tables: Tables, *models: pb.ModelLatency) -> list[list[str]]:
    return [line.split() for line in tables.next(models).splitlines()[1:]]


def test_the_mean_batch_is_that_since_the_look_before() -> None:
    tables = Tables()
    batch = [
        cells(tables, latency(batches=batches, rows=rows))[0][3]
        for batches, rows in ((2, 10), (4, 13), (4, 13), (1, 7))
    ]
    assert batch == ["5.0", "1.5", "-", "-"]


def test_a_stage_without_requests_has_no_quantiles() -> None:
    assert cells(Tables(), latency())[0] == ["m", "1", "0.0", "-", "0", *["-"] * 12]
    assert cells(Tables(), latency(rate=5.0))[0][5:9] == ["1.00", "2.00", "3.00", "4.00"]


def test_of_many_models_the_busiest_come_first() -> None:
    models = [latency(f"m{number}", rate=number) for number in range(30)]
    assert [row[0] for row in cells(Tables(), *models)][:3] == ["m29", "m28", "m27"]


def test_few_models_keep_their_order() -> None:
    assert [row[0] for row in cells(Tables(), latency("a"), latency("b", rate=9))] == ["a", "b"]


def test_nothing_is_ready() -> None:
    assert Tables().next([]) == "no model is ready"
