"""Jobs, swaps and roll backs with the whole server; only the optimizer itself is a fake.

That the real one is wired in is shown by `test_optimizing_process.py`.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from client import AsyncClient, InferenceError
from optimizer.errors import SourceError, StageFailed
from protos import optimization_pb2 as pb
from server.job_queue import QUEUE_LIMIT
from tests import models
from tests.integration.optimizing_server import FakeOptimizer, Running, optimizing
from tests.integration.server_process import write_models

X = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
PATH = "/api/v1/inference/optimize"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_models(tmp_path / "models", {"mlp/1/model.onnx": models.mlp()})
    return tmp_path


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Running]:
    async with optimizing(folder) as running:
        yield running
        running.optimizer.gate.set()


async def ended(server: Running, job: pb.OptimizationJob) -> pb.OptimizationJob:
    last = job
    async for last in server.client.watch_optimization(job.id):  # noqa: B007
        pass
    return await server.client.optimization(last.id)


async def refused(call: Any, code: grpc.StatusCode) -> str:
    with pytest.raises(InferenceError) as error:
        await call
    assert error.value.code is code
    return error.value.message


async def test_a_job_is_queued_runs_and_its_winner_serves(server: Running) -> None:
    before = await server.client.infer("mlp", {"x": X})
    server.optimizer.gate.clear()
    job = await server.client.optimize("mlp", techniques=["graph"], accuracy_threshold=0.5)
    assert (job.model, job.version, job.is_automatic) == ("mlp", 1, False)
    states = server.client.watch_optimization(job.id)
    seen = [await anext(states)]
    while not seen[-1].log:
        seen.append(await anext(states))
    assert seen[-1].state == pb.JOB_STATE_RUNNING
    assert (seen[-1].phase, seen[-1].percent) == ("building", 50.0)
    assert [(c.name, c.state) for c in seen[-1].candidates] == [("graph level basic", "building")]
    assert [*seen[-1].log] == ["building the only candidate"]
    server.optimizer.gate.set()
    seen += [state async for state in states]
    assert seen[-1].state == pb.JOB_STATE_COMPLETED
    done = await server.client.optimization(job.id)
    assert (done.is_serving, [*done.techniques], done.reason) == (True, ["graph"], "it is faster")
    assert done.created_ms <= done.started_ms <= done.ended_ms
    after = await server.client.infer("mlp", {"x": X})
    assert after.served_by == done.artifact_id != before.served_by
    np.testing.assert_allclose(after.outputs["y"], before.outputs["y"], rtol=1e-5, atol=1e-6)
    _, _, goal = server.optimizer.asked[0]
    assert (goal.techniques, goal.accuracy_threshold) == (("graph",), 0.5)
    (listed,) = await server.client.optimizations("mlp")
    assert (listed.id, listed.is_serving, listed.report_json) == (job.id, True, "")
    assert await server.client.optimizations("other") == []


async def test_what_serves_is_shown_everywhere(server: Running) -> None:
    job = await ended(server, await server.client.optimize("mlp"))
    (version,) = (await server.client.model("mlp")).versions
    assert (version.artifact_id, version.optimization_id) == (job.artifact_id, job.id)
    (summary,) = await server.client.models()
    assert (summary.artifact_id, [*summary.techniques]) == (job.artifact_id, ["graph"])
    _, page = await server.get("/dashboard.json")
    assert page["models"][0]["techniques"] == ["graph"]
    assert page["models"][0]["optimization_id"] == job.id
    status, metrics = await server.get("/metrics")
    assert status == 200
    assert 'inflight_optimization_jobs_total{outcome="completed"} 1.0' in metrics
    assert (
        'inflight_optimization_stage_duration_seconds_bucket{le="3.0",stage="build"} 1.0' in metrics
    )
    assert 'inflight_optimization_stage_duration_seconds_sum{stage="build"} 2.0' in metrics
    assert 'inflight_artifact_cache_lookups_total{result="miss"} 0.0' in metrics


async def test_the_file_is_put_back_and_the_artifact_promoted_again(server: Running) -> None:
    original = (await server.client.infer("mlp", {"x": X})).served_by
    message = await refused(server.client.roll_back("mlp"), grpc.StatusCode.FAILED_PRECONDITION)
    assert "is served from its own file already" in message
    message = await refused(server.client.promote("mlp"), grpc.StatusCode.FAILED_PRECONDITION)
    assert "no artifact has served for it yet" in message
    job = await ended(server, await server.client.optimize("mlp"))
    form = await server.client.roll_back("mlp")
    assert (form.artifact_id, [*form.techniques], form.id) == (original, [], "")
    assert (await server.client.infer("mlp", {"x": X})).served_by == original
    assert not (await server.client.optimization(job.id)).is_serving
    form = await server.client.promote("mlp")
    assert (form.artifact_id, form.id) == (job.artifact_id, job.id)
    assert (await server.client.infer("mlp", {"x": X})).served_by == job.artifact_id
    message = await refused(server.client.promote("mlp"), grpc.StatusCode.FAILED_PRECONDITION)
    assert "serves already" in message


async def test_a_result_may_be_kept_and_promoted_later(server: Running) -> None:
    job = await ended(server, await server.client.optimize("mlp", do_not_promote=True))
    assert (job.state, job.is_serving) == (pb.JOB_STATE_COMPLETED, False)
    form = await server.client.promote("mlp", job_id=job.id)
    assert form.artifact_id == job.artifact_id


async def test_no_request_fails_or_is_wrong_while_forms_are_exchanged(server: Running) -> None:
    expected = (await server.client.predict("mlp", {"x": X}))["y"]
    seen: set[str] = set()
    stop = asyncio.Event()

    async def send(client: AsyncClient) -> int:
        count = 0
        while not stop.is_set():
            answer = await client.infer("mlp", {"x": X}, timeout_s=30)
            np.testing.assert_allclose(answer.outputs["y"], expected, rtol=1e-4, atol=1e-5)
            seen.add(answer.served_by)
            count += 1
        return count

    senders = [asyncio.ensure_future(send(server.client)) for _ in range(8)]
    job = await ended(server, await server.client.optimize("mlp"))
    for _ in range(3):
        await server.client.roll_back("mlp")
        await server.client.promote("mlp", job_id=job.id)
    stop.set()
    counts = await asyncio.gather(*senders)
    assert min(counts) > 0
    assert len(seen) == 2
    (latency,) = await server.client.latency("mlp")
    assert latency.failures == 0


async def test_a_restart_serves_the_winner_at_once(folder: Path) -> None:
    async with optimizing(folder, optimize="auto") as server:
        job = await ended(server, await first_job(server))
        assert (job.is_automatic, job.state) == (True, pb.JOB_STATE_COMPLETED)
        _, metrics = await server.get("/metrics")
        assert 'inflight_artifact_cache_lookups_total{result="miss"} 1.0' in metrics
    async with optimizing(folder, optimize="auto") as server:
        await server.until_served(lambda artifact_id: artifact_id == job.artifact_id)
        assert (await server.served_by())[1] == ("graph",)
        assert server.optimizer.asked == []
        (remembered,) = await server.client.optimizations()
        assert (remembered.id, remembered.is_serving) == (job.id, True)
        assert remembered.state == pb.JOB_STATE_COMPLETED
        assert (await server.client.optimization(job.id)).report_json
        _, metrics = await server.get("/metrics")
        assert 'inflight_artifact_cache_lookups_total{result="hit"} 1.0' in metrics
    (folder / "state" / "serving.json").unlink()  # the store alone remembers it too
    async with optimizing(folder, optimize="auto") as server:
        await server.until_served(lambda artifact_id: artifact_id == job.artifact_id)
        assert server.optimizer.asked == []


async def test_a_changed_configuration_starts_a_job_while_the_winner_serves(folder: Path) -> None:
    settings, rows = folder / "models/mlp/model.toml", folder / "models/mlp/rows.npz"
    np.savez(rows, x=X)
    settings.write_text('[data]\npath = "rows.npz"')
    original, winner = await served_during_and_after_a_job(folder, FakeOptimizer(remembers=False))
    settings.write_text('[optimization]\nlossless_only = true\n[data]\npath = "rows.npz"')
    served = await served_during_and_after_a_job(folder, FakeOptimizer(remembers=False))
    assert served == (winner, winner)
    np.savez(rows, x=X[:2])
    served = await served_during_and_after_a_job(folder, FakeOptimizer(remembers=False))
    assert served == (winner, winner)
    async with optimizing(folder, optimize="auto") as server:
        await server.until_served(lambda artifact_id: artifact_id == winner)
        assert server.optimizer.asked == [], "nothing has changed"
    settings.write_text("[optimization]\naccuracy_threshold = 1.0")
    served = await served_during_and_after_a_job(folder, FakeOptimizer(finds=False))
    assert served == (winner, original), "the winner is not acceptable any more"


async def served_during_and_after_a_job(folder: Path, optimizer: FakeOptimizer) -> tuple[str, str]:
    """By which artifacts the version is served that is loaded when the server starts."""
    optimizer.gate.clear()
    async with optimizing(folder, optimizer, optimize="auto") as server:
        assert await asyncio.to_thread(optimizer.entered.acquire, timeout=60), "no job began"
        during = (await server.served_by())[0]
        optimizer.gate.set()
        await ended(server, await first_job(server))
        return during, (await server.served_by())[0]


async def first_job(server: Running) -> pb.OptimizationJob:
    async for _ in server.client.watch_latency("mlp", interval_s=0.1):
        jobs = await server.client.optimizations()
        if jobs:
            return jobs[0]
    raise AssertionError("the server stopped")


async def test_what_was_rolled_back_stays_so_over_a_restart(folder: Path) -> None:
    async with optimizing(folder, optimize="auto") as server:
        original = (await server.served_by())[0]
        optimized = await server.until_served(lambda artifact_id: artifact_id != original)
        await server.client.roll_back("mlp")
    async with optimizing(folder, optimize="auto") as server:
        job = await server.client.optimize("mlp", do_not_promote=True)  # greetings come first
        await ended(server, job)
        assert (await server.served_by())[0] == original
        assert len(server.optimizer.asked) == 1
        assert (await server.client.promote("mlp")).artifact_id == optimized
    async with optimizing(folder, optimize="auto") as server:
        await server.until_served(lambda artifact_id: artifact_id == optimized)


async def test_nothing_is_optimized_by_itself_where_that_is_switched_off(folder: Path) -> None:
    (folder / "models/mlp/model.toml").write_text("[optimization]\nenabled = false")
    async with optimizing(folder, optimize="auto") as server:
        await ended(server, await server.client.optimize("mlp"))
        assert len(server.optimizer.asked) == 1
        assert [job.is_automatic for job in await server.client.optimizations()] == [False]


async def test_nothing_better_is_a_normal_end_that_is_remembered(folder: Path) -> None:
    async with optimizing(folder, FakeOptimizer(finds=False)) as server:
        job = await ended(server, await server.client.optimize("mlp"))
        assert (job.state, job.reason) == (pb.JOB_STATE_REJECTED, "nothing is better")
        assert (job.artifact_id, job.is_serving) == ("", False)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (SourceError("it needs another framework"), "it needs another framework"),
        (StageFailed('prepare crashed\n  File "/srv/x.py"'), "prepare crashed"),
        (ZeroDivisionError("secret"), "internal error, the server's log says more"),
    ],
)
async def test_a_failed_job_says_why_and_the_next_one_runs(
    server: Running, failure: Exception, reason: str
) -> None:
    server.optimizer.failure = failure
    job = await ended(server, await server.client.optimize("mlp"))
    assert (job.state, job.reason) == (pb.JOB_STATE_FAILED, reason)
    server.optimizer.failure = None
    job = await ended(server, await server.client.optimize("mlp"))
    assert job.state == pb.JOB_STATE_COMPLETED


@pytest.mark.parametrize(
    ("replacement", "reason"),
    [
        (models.mlp(features=17), r'cannot stand in: input "x": expected FP32'),
        (b"no model", "onnx"),
    ],
)
async def test_a_winner_that_cannot_serve_leaves_what_serves(
    server: Running, replacement: bytes, reason: str
) -> None:
    original = (await server.served_by())[0]
    server.optimizer.replacement = replacement
    job = await ended(server, await server.client.optimize("mlp"))
    assert (job.state, job.is_serving) == (pb.JOB_STATE_COMPLETED, False)
    assert reason in job.not_serving_reason
    assert (await server.served_by())[0] == original
    await server.client.predict("mlp", {"x": X})


async def test_a_running_job_and_a_waiting_one_are_cancelled(server: Running) -> None:
    server.optimizer.gate.clear()
    running = await server.client.optimize("mlp")
    await asyncio.to_thread(server.optimizer.entered.acquire)
    waiting = await server.client.optimize("mlp")
    assert waiting.queue_position == 1
    answer = await server.client.cancel_optimization(waiting.id)
    assert answer.state == pb.JOB_STATE_CANCELLED
    await server.client.cancel_optimization(running.id)
    job = await ended(server, running)
    assert job.state == pb.JOB_STATE_CANCELLED
    assert job.reason.startswith("cancelled by ")
    for done in (running, waiting):
        call = server.client.cancel_optimization(done.id)
        message = await refused(call, grpc.StatusCode.FAILED_PRECONDITION)
        assert "has ended already: cancelled" in message
    assert len(server.optimizer.asked) == 1
    server.optimizer.gate.set()
    job = await ended(server, await server.client.optimize("mlp"))
    assert job.state == pb.JOB_STATE_COMPLETED


async def test_the_queue_has_an_end(server: Running) -> None:
    server.optimizer.gate.clear()
    await server.client.optimize("mlp")
    await asyncio.to_thread(server.optimizer.entered.acquire)
    for _ in range(QUEUE_LIMIT):
        await server.client.optimize("mlp")
    message = await refused(server.client.optimize("mlp"), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert f"{QUEUE_LIMIT} optimization jobs wait already" in message
    status, answer = await server.post(f"{PATH}?wait=0", {"model_id": "mlp"})
    assert (status, answer) == (429, {"error": message})


async def test_a_model_that_changes_ends_its_jobs(folder: Path) -> None:
    async with optimizing(folder, load_control="explicit") as server:
        await server.client.load("mlp")
        server.optimizer.gate.clear()
        job = await server.client.optimize("mlp")
        await asyncio.to_thread(server.optimizer.entered.acquire)
        write_models(folder / "models", {"mlp/1/model.onnx": models.mlp(classes=5)})
        await server.client.load("mlp")
        done = await ended(server, job)
        assert done.state == pb.JOB_STATE_CANCELLED
        assert "changed or unloaded meanwhile" in done.reason
        job = await server.client.optimize("mlp")
        await asyncio.to_thread(server.optimizer.entered.acquire)
        await server.client.unload("mlp")
        assert (await ended(server, job)).state == pb.JOB_STATE_CANCELLED


async def test_a_job_on_files_that_changed_on_disk_fails(folder: Path, server: Running) -> None:
    write_models(folder / "models", {"mlp/1/model.onnx": models.mlp(classes=5)})
    job = await ended(server, await server.client.optimize("mlp"))
    assert job.state == pb.JOB_STATE_FAILED
    assert "the model's files were changed" in job.reason
    assert server.optimizer.asked == []


async def test_an_artifact_of_other_content_is_not_promoted(folder: Path) -> None:
    async with optimizing(folder, load_control="explicit") as server:
        await server.client.load("mlp")
        job = await ended(server, await server.client.optimize("mlp"))
        write_models(folder / "models", {"mlp/1/model.onnx": models.mlp(classes=5)})
        await server.client.load("mlp")
        for call in (server.client.promote("mlp"), server.client.promote("mlp", job_id=job.id)):
            message = await refused(call, grpc.StatusCode.FAILED_PRECONDITION)
            assert "has been changed since" in message
        y = (await server.client.predict("mlp", {"x": X}))["y"]
        assert y.shape == (3, 5)


async def test_stopping_cancels_jobs_and_says_so(folder: Path) -> None:
    optimizer = FakeOptimizer()
    optimizer.gate.clear()
    async with optimizing(folder, optimizer) as server:
        running = await server.client.optimize("mlp")
        await asyncio.to_thread(optimizer.entered.acquire)
        waiting = await server.client.optimize("mlp")
    async with optimizing(folder) as server:
        for job in (running, waiting):
            record = await server.client.optimization(job.id)
            assert record.state == pb.JOB_STATE_CANCELLED
            assert record.reason == "the server was stopped"
    assert [*(folder / "state" / "work").iterdir()] == []


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"model": "nope"}, grpc.StatusCode.NOT_FOUND, "'nope' is not found"),
        ({"version": 7}, grpc.StatusCode.NOT_FOUND, "version 7 is not found"),
        ({"techniques": ["magic"]}, grpc.StatusCode.INVALID_ARGUMENT, "techniques: unknown"),
        ({"method": "magic"}, grpc.StatusCode.INVALID_ARGUMENT, "quantization.method"),
        ({"data_file": "/etc/passwd"}, grpc.StatusCode.INVALID_ARGUMENT, "in no folder"),
        ({"query": "SELECT 1"}, grpc.StatusCode.INVALID_ARGUMENT, "there is no connection"),
        ({"time_limit_minutes": -1}, grpc.StatusCode.INVALID_ARGUMENT, "time limit"),
        ({"accuracy_threshold": 2}, grpc.StatusCode.INVALID_ARGUMENT, "accuracy_threshold"),
    ],
)
async def test_what_cannot_be_asked_is_refused(
    server: Running, options: dict[str, Any], code: grpc.StatusCode, text: str
) -> None:
    model = options.pop("model", "mlp")
    assert text in await refused(server.client.optimize(model, **options), code)


async def test_unknown_jobs_are_not_found(server: Running) -> None:
    for call in (
        server.client.optimization("opt-1"),
        server.client.cancel_optimization("opt-1"),
        server.client.promote("mlp", job_id="opt-1"),
        anext(server.client.watch_optimization("opt-1")),
    ):
        message = await refused(call, grpc.StatusCode.NOT_FOUND)
        assert message == "there is no optimization 'opt-1'"
    assert (await server.get(f"{PATH}/opt-1"))[0] == 404


async def test_a_state_folder_that_cannot_be_used_costs_only_the_optimizations(
    folder: Path,
) -> None:
    (folder / "state").write_text("a file")
    async with optimizing(folder, optimize="auto") as server:
        await server.client.predict("mlp", {"x": X})
        message = await refused(server.client.optimize("mlp"), grpc.StatusCode.UNAVAILABLE)
        assert "nothing can be optimized: " in message


# -- REST


async def test_rest_waits_for_the_end(server: Running) -> None:
    body = {
        "model_id": "mlp",
        "optimizations": ["graph", "quantization"],
        "quantization_config": {"method": "static", "precision": "int8"},
        "accuracy_threshold": 0.9,
    }
    status, record = await server.post(PATH, body)
    assert (status, record["status"]) == (200, "completed")
    assert record["optimization_id"].startswith("opt-")
    assert record["artifact_id"] == (await server.served_by())[0]
    assert record["benchmark"]["batch_sizes"] == [1, 16, 32, 64]
    assert {"original", "optimized", "improvement", "candidates"} <= record.keys()
    (_, _, goal) = server.optimizer.asked[0]
    assert set(goal.techniques) == {"graph", "int8_static", "int8_smoothquant", "mixed_precision"}
    status, again = await server.get(f"{PATH}/{record['optimization_id']}")
    assert (status, again) == (200, record)


async def test_rest_answers_before_the_end_where_it_takes_longer(server: Running) -> None:
    server.optimizer.gate.clear()
    status, record = await server.post(f"{PATH}?wait=0", {"model_id": "mlp"})
    assert (status, record["status"]) == (202, "running")
    assert (record["original"]["latency_ms"], record["optimized"]) == (None, None)
    await asyncio.to_thread(server.optimizer.entered.acquire)
    path = f"{PATH}/{record['optimization_id']}"
    status, early = await server.get(path)
    assert (status, early.keys()) == (200, record.keys())
    status, answer = await server.get(f"{path}/report")
    assert status == 400
    assert "has no report" in answer["error"]
    server.optimizer.gate.set()
    async for _ in server.client.watch_optimization(record["optimization_id"]):
        pass
    status, done = await server.get(path)
    assert (done["status"], done["report_url"]) == ("completed", f"{path}/report")


async def test_rest_shows_the_report_as_a_page(server: Running) -> None:
    _, record = await server.post(PATH, {"model_id": "mlp"})
    path = f"{PATH}/{record['optimization_id']}"
    for page_path in (f"{path}/report", f"{path}?format=html"):
        status, page = await server.get(page_path)
        assert status == 200
        assert page.lower().startswith("<!doctype html>")
        assert "mlp" in page
    assert (await server.get(f"{path}?format=pdf"))[0] == 400


async def test_rest_takes_data_of_the_repository_and_named_connections(folder: Path) -> None:
    np.savez(folder / "models/mlp/rows.npz", x=X)
    databases = {"default": "sqlite:///rows.db"}
    async with optimizing(folder, databases=databases) as server:
        datasets = [
            {"source": "file", "path": "rows.npz"},
            {"source": "sql", "query": "SELECT x FROM rows"},
            {"source": "live"},
        ]
        for dataset in datasets:
            body = {"model_id": "mlp", "validation_dataset": dataset}
            status, _ = await server.post(PATH, body)
            assert status == 200
    file, query, live = (data for _, data, _ in server.optimizer.asked)
    assert file is not None
    assert file.path == (folder / "models/mlp/rows.npz").resolve()
    assert query is not None
    assert (query.query, query.database) == ("SELECT x FROM rows", "default")
    assert live is None


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"model_id": "nope"}, 404, "'nope' is not found"),
        ({}, 400, "model_id: expected the name of a model"),
        ({"model_id": 3}, 400, "model_id: expected a text, got 3"),
        ({"model_id": "mlp", "optimisations": []}, 400, "optimisations: unknown field, expected"),
        ({"model_id": "mlp", "optimizations": "graph"}, 400, "optimizations: expected a list"),
        ({"model_id": "mlp", "optimizations": ["x"]}, 400, "optimizations: unknown technique 'x'"),
        (
            {"model_id": "mlp", "optimizations": ["pruning"]},
            400,
            "optimizations: technique 'pruning' is not available",
        ),
        (
            {"model_id": "mlp", "quantization_config": {"method": "x"}},
            400,
            'quantization_config.method: expected one of "dynamic", "static", got "x"',
        ),
        (
            {"model_id": "mlp", "quantization_config": {"bits": 8}},
            400,
            "quantization_config.bits: unknown field",
        ),
        (
            {"model_id": "mlp", "quantization_config": 8},
            400,
            "quantization_config: expected an obj",
        ),
        (
            {
                "model_id": "mlp",
                "optimizations": ["graph"],
                "quantization_config": {"method": "static"},
            },
            400,
            'quantization_config: needs "quantization" among the optimizations',
        ),
        (
            {"model_id": "mlp", "validation_dataset": {"source": "s3"}},
            400,
            "validation_dataset.source: expected one of",
        ),
        (
            {"model_id": "mlp", "validation_dataset": {"source": "file", "path": "/etc/passwd"}},
            400,
            "validation_dataset.path: '/etc/passwd' is in no folder",
        ),
        (
            {"model_id": "mlp", "validation_dataset": {"source": "sql", "url": "sqlite://"}},
            400,
            "validation_dataset.url: unknown field",
        ),
        ({"model_id": "mlp", "accuracy_threshold": "x"}, 400, "accuracy_threshold: expected a num"),
        ({"model_id": "mlp", "accuracy_threshold": 1.1}, 400, "accuracy_threshold: expected a rat"),
        ("[]", 400, "the request body"),
        ("{", 400, "is not valid JSON"),
    ],
)
async def test_rest_names_what_is_wrong(
    server: Running, body: object, status: int, text: str
) -> None:
    answered, answer = await server.post(PATH, body)
    assert answered == status
    assert text in answer["error"]
    assert server.optimizer.asked == []


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "4000"])
async def test_rest_refuses_other_waits(server: Running, wait: str) -> None:
    status, answer = await server.post(f"{PATH}?wait={wait}", {"model_id": "mlp"})
    assert status == 400
    assert answer["error"] == f"wait: expected seconds from 0 to 3600, got '{wait}'"
