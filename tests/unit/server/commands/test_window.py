from protos import models_pb2 as pb
from server.commands.window import changes, show

SETTINGS = pb.BatchingSettings(
    window_ms=0,
    max_batch=8,
    queue_limit=1024,
    queue_timeout_ms=0,
    timeout_action="reject",
    priority_levels=1,
    default_priority=1,
    slo_p99_ms=0,
    preserve_ordering=False,
)


def settings(**fields: float) -> pb.BatchingSettings:
    changed = pb.BatchingSettings()
    changed.CopyFrom(SETTINGS)
    changed.MergeFrom(pb.BatchingSettings(**fields))  # type: ignore[arg-type]
    return changed


def shown(batching: pb.Batching, *latency: pb.ModelLatency) -> str:
    return show(pb.GetBatchingResponse(model="m", version=3, batching=batching), latency)


def test_settings_are_shown_in_words() -> None:
    text = shown(pb.Batching(enabled=True, settings=SETTINGS))
    assert text.splitlines()[:3] == [
        "m version 3",
        "  batching        on",
        "  window          none, an idle instance takes what is there",
    ]
    assert "queue timeout   none" in text
    assert text.endswith("no requests in the last 60 s")


def test_the_reason_why_a_model_does_not_batch_is_shown() -> None:
    text = shown(pb.Batching(reason="rows influence each other", settings=SETTINGS))
    assert "off, requests run one by one: rows influence each other" in text


def test_the_target_stands_beside_what_was_measured() -> None:
    stage = pb.StageLatency(count=5, p99_ms=3.2)
    text = shown(
        pb.Batching(enabled=True, settings=settings(slo_p99_ms=25, queue_timeout_ms=100)),
        pb.ModelLatency(version=2, window_s=60, total=pb.StageLatency(count=1, p99_ms=9)),
        pb.ModelLatency(version=3, window_s=60, total=stage),
    )
    assert "target p99      25 ms\n  measured p99    3.20 ms over the last 60 s" in text
    assert "queue timeout   100 ms, then reject" in text


def test_levels_of_their_own_are_shown() -> None:
    own = settings()
    own.priority_queues[2].queue_limit = 5
    own.priority_queues[2].queue_timeout_ms = 10
    text = shown(pb.Batching(enabled=True, settings=own))
    assert "level 2       queue limit 5, queue timeout 10 ms" in text


def test_a_change_shows_what_was_and_what_is() -> None:
    answer = pb.SetBatchingResponse(
        model="m", version=3, previous=SETTINGS, settings=settings(window_ms=2.5, max_batch=16)
    )
    assert [" ".join(line.split()) for line in changes(answer).splitlines()] == [
        "m version 3",
        "SETTING WAS NOW",
        "window none, an idle instance takes what is there 2.5 ms",
        "max batch 8 16",
    ]


def test_a_change_of_nothing_says_so() -> None:
    answer = pb.SetBatchingResponse(model="m", version=3, previous=SETTINGS, settings=SETTINGS)
    assert "nothing changed" in changes(answer)
