from pathlib import Path

import pytest

from server.fingerprint import Fingerprint
from server.load_plan import LoadPlan, Origin, plan_load, settled_changes
from server.model_config import BatchingConfig, ModelConfig
from server.repository import VersionFile

OLD: Fingerprint = (("model.onnx", 1, 1, 1),)
NEW: Fingerprint = (("model.onnx", 2, 2, 1),)


def origin(fingerprint: Fingerprint = OLD, error: str = "", ordered: bool = False) -> Origin:
    said = ModelConfig("m", BatchingConfig(preserve_ordering=ordered))
    return Origin(VersionFile(Path("model.onnx"), fingerprint, error), said)


@pytest.mark.parametrize(
    ("wanted", "serving", "plan"),
    [
        pytest.param({1: origin()}, {}, LoadPlan((1,), (), ()), id="first load"),
        pytest.param({1: origin()}, {1: origin()}, LoadPlan((), (), ()), id="nothing changed"),
        pytest.param({1: origin(NEW)}, {1: origin()}, LoadPlan((1,), (), ()), id="file changed"),
        pytest.param(
            {1: origin(ordered=True)},
            {1: origin()},
            LoadPlan((1,), (), ()),
            id="configuration changed, by a load call",
        ),
        pytest.param({2: origin()}, {1: origin()}, LoadPlan((2,), (), (1,)), id="next version"),
        pytest.param({}, {1: origin(), 2: origin()}, LoadPlan((), (), (1, 2)), id="none wanted"),
        pytest.param(
            {1: origin(), 2: origin()}, {1: origin()}, LoadPlan((2,), (), ()), id="one more"
        ),
        pytest.param(
            {2: origin(error="pickle")}, {1: origin()}, LoadPlan((), (2,), (1,)), id="broken"
        ),
    ],
)
def test_plan(wanted: dict[int, Origin], serving: dict[int, Origin], plan: LoadPlan) -> None:
    assert plan_load(wanted, serving) == plan


@pytest.mark.parametrize(
    ("now", "before", "acted_on", "changes"),
    [
        pytest.param({"m": OLD}, {"m": OLD}, {"m": OLD}, [], id="nothing changed"),
        pytest.param({"m": NEW}, {"m": OLD}, {"m": OLD}, [], id="changed just now: wait"),
        pytest.param({"m": NEW}, {"m": NEW}, {"m": OLD}, ["m"], id="changed and at rest"),
        pytest.param({"m": NEW}, {}, {}, [], id="new, perhaps still being copied"),
        pytest.param({"m": NEW}, {"m": NEW}, {}, ["m"], id="new and at rest"),
        pytest.param({}, {"m": OLD}, {"m": OLD}, [], id="gone, perhaps being replaced"),
        pytest.param({}, {}, {"m": OLD}, ["m"], id="gone for good"),
        pytest.param({"m": OLD}, {}, {"m": OLD}, [], id="gone and back"),
        pytest.param({}, {"m": OLD}, {}, [], id="came and went before it was acted on"),
    ],
)
def test_settled_changes(
    now: dict[str, Fingerprint],
    before: dict[str, Fingerprint],
    acted_on: dict[str, Fingerprint],
    changes: list[str],
) -> None:
    assert settled_changes(now, before, acted_on) == changes
