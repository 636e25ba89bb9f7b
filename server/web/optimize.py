"""The optimization API over HTTP: ask for a job, read its record, look at its report.

The same calls as `inflight.v1.Optimization` in the words of the REST interface.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final, cast

from aiohttp import web

from optimizer import report_html
from optimizer.job import Job, JobState
from optimizer.report import Model, Report
from server.errors import InvalidRequest, WrongState
from server.optimization import Optimization
from server.optimization_request import Dataset, OptimizationRequest
from server.web.infer_json import parse_json

_PATH: Final = "/api/v1/inference/optimize"
_WAIT_S: Final = 30.0
_MOST_WAIT_S: Final = 3600.0
_BODY: Final = (
    *("model_id", "optimizations", "quantization_config"),
    *("validation_dataset", "accuracy_threshold"),
)
_QUANTIZATION: Final = ("method", "precision")
_DATASET: Final = ("source", "path", "query", "database", "labels")
_REST_WORDS: Final = {"techniques": "optimizations", "quantization": "quantization_config"}
_REPORT_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    # The report is one file; nothing is loaded from anywhere else, whatever a model is called.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline';"
    " script-src 'unsafe-inline'; img-src data:",
}


class OptimizationApi:
    """The routes. Event loop only."""

    def __init__(self, optimization: Optimization) -> None:
        self._optimization = optimization

    def routes(self) -> Sequence[web.RouteDef]:
        return [
            web.post(_PATH, self._post),
            web.get(_PATH + "/{optimization_id}", self._get),
            web.get(_PATH + "/{optimization_id}/report", self._get_report),
        ]

    async def _post(self, request: web.Request) -> web.Response:
        """Waits for the job's end, or `?wait=` seconds; the job goes on if the caller leaves."""
        wait_s = _wait_s(request.query.get("wait"))
        wanted = decode(parse_json(await request.read()))
        try:
            job = await self._optimization.submit(wanted)
        except InvalidRequest as error:
            raise in_rest_words(error) from None
        return _answer(await self._optimization.wait(job.id, wait_s))

    async def _get(self, request: web.Request) -> web.Response:
        form = request.query.get("format", "json")
        if form not in ("json", "html"):
            raise InvalidRequest(f"format: expected json or html, got '{form}'")
        if form == "html":
            return await self._get_report(request)
        job = await self._optimization.get(request.match_info["optimization_id"])
        return web.json_response(record(job))

    async def _get_report(self, request: web.Request) -> web.Response:
        job = await self._optimization.get(request.match_info["optimization_id"])
        if not job.report:
            raise WrongState(f"{job.id} has no report: it is {job.state} {job.reason}".rstrip())
        page = report_html.render(Report.from_json(json.loads(job.report)))
        return web.Response(text=page, headers=_REPORT_HEADERS)


def _answer(job: Job) -> web.Response:
    return web.json_response(record(job), status=200 if job.is_ended else 202)


def decode(body: Mapping[str, Any]) -> OptimizationRequest:
    """What a body asks for.

    Raises:
        InvalidRequest: names the field that is unknown, missing or wrong.
    """
    _only(body, _BODY, "")
    quantization = _table(body, "quantization_config", _QUANTIZATION)
    threshold = body.get("accuracy_threshold")
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if threshold is not None and not is_number:
        raise InvalidRequest(f"accuracy_threshold: expected a number, got {json.dumps(threshold)}")
    model = _text(body, "model_id")
    if not model:
        raise InvalidRequest("model_id: expected the name of a model")
    try:
        return OptimizationRequest(
            model=model,
            techniques=_texts(body, "optimizations"),
            method=cast(Any, _text(quantization, "method", "quantization_config.")),
            precision=cast(Any, _text(quantization, "precision", "quantization_config.")),
            dataset=_dataset(body),
            accuracy_threshold=threshold,
        )
    except InvalidRequest as error:
        raise in_rest_words(error) from None


def in_rest_words(error: InvalidRequest) -> InvalidRequest:
    """The same error with the field called as it is called here."""
    text = str(error)
    for ours, theirs in _REST_WORDS.items():
        if text.startswith((f"{ours}:", f"{ours}.")):
            text = theirs + text.removeprefix(ours).replace("the techniques", "the optimizations")
            break
    return InvalidRequest(text)


def record(job: Job) -> dict[str, Any]:
    """A job in the form of the REST interface; of one without a report, what is known of it."""
    status: Any = "running" if not job.is_ended else str(job.state)
    if job.report:
        value: dict[str, Any] = json.loads(job.report)
    else:
        created = datetime.fromtimestamp(job.created_s, UTC).isoformat(timespec="seconds")
        value = Report(job.id, status, Model(job.model), created=created).to_json()
        value["goal"] = dict(job.goal)
        value["candidates"] = [asdict(candidate) for candidate in job.candidates]
    return value | {
        "optimization_id": job.id,
        "status": status,
        "model_id": job.model,
        "version": job.version,
        "reason": job.reason,
        "phase": "waiting" if job.state is JobState.QUEUED else job.phase,
        "percent": job.percent,
        "not_serving_reason": job.not_serving_reason,
        "log": list(job.log),
        "report_url": f"{_PATH}/{job.id}/report" if job.report else None,
    }


def _dataset(body: Mapping[str, Any]) -> Dataset | None:
    if "validation_dataset" not in body:
        return None
    table = _table(body, "validation_dataset", _DATASET)
    given = {name: _text(table, name, "validation_dataset.") for name in _DATASET}
    return Dataset(**cast(Any, given))


def _table(body: Mapping[str, Any], name: str, fields: Sequence[str]) -> Mapping[str, Any]:
    value = body.get(name, {})
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}: expected an object, got {json.dumps(value)}")
    _only(value, fields, f"{name}.")
    return value


def _only(body: Mapping[str, Any], fields: Sequence[str], within: str) -> None:
    for name in body:
        if name not in fields:
            expected = ", ".join(fields)
            raise InvalidRequest(f"{within}{name}: unknown field, expected {expected}")


def _text(body: Mapping[str, Any], name: str, within: str = "") -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"{within}{name}: expected a text, got {json.dumps(value)}")
    return value


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidRequest(f"{name}: expected a list of texts, got {json.dumps(value)}")
    return tuple(value)


def _wait_s(text: str | None) -> float:
    try:
        seconds = _WAIT_S if text is None else float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MOST_WAIT_S:
        raise InvalidRequest(f"wait: expected seconds from 0 to {_MOST_WAIT_S:g}, got '{text}'")
    return seconds
