from pathlib import Path

import pytest

from server.batch_policy import QueuePolicy
from server.config_toml import read_toml
from server.errors import Code
from server.model_config import (
    BatchingConfig,
    ConfigError,
    DataConfig,
    ExecutionConfig,
    ModelConfig,
    OptimizationConfig,
    VersionPolicy,
)


def read(folder: Path, text: str) -> ModelConfig:
    path = folder / "model.toml"
    path.write_text(text)
    return read_toml(path, "digits")


def test_every_key_is_read_and_times_become_seconds(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        """
        versions = [1, 3]
        [batching]
        enabled = true
        window_ms = 2.5
        max_batch = 32
        slo_p99_ms = 25
        queue_limit = 7
        queue_timeout_ms = 100
        priority_levels = 3
        default_priority = 1
        pad = "right"
        pad_mask = "attention_mask"
        preserve_ordering = true
        [execution]
        instances = 1
        threads = 2
        providers = ["cuda", "cpu"]
        warm_up = false
        [optimization]
        enabled = false
        techniques = ["graph", "fp16"]
        accuracy_threshold = 0.99
        metric = "top1"
        lossless_only = true
        [data]
        source = "file"
        path = "calibration.npz"
        labels = "label"
        """,
    )
    assert config == ModelConfig(
        name="digits",
        version_policy=VersionPolicy(specific=(1, 3)),
        batching=BatchingConfig(
            enabled=True,
            window_s=0.0025,
            max_batch=32,
            slo_p99_s=0.025,
            pad="right",
            pad_mask="attention_mask",
            priority_levels=3,
            default_priority=1,
            queue=QueuePolicy(queue_limit=7, timeout_s=0.1),
            preserve_ordering=True,
        ),
        execution=ExecutionConfig(instances=1, threads=2, providers=("cuda", "cpu"), warm_up=False),
        optimization=OptimizationConfig(False, ("graph", "fp16"), 0.99, "top1", True),
        data=DataConfig("file", tmp_path / "calibration.npz", None, "label"),
        origin=str(tmp_path / "model.toml"),
    )


def test_no_technique_named_means_all(tmp_path: Path) -> None:
    assert read(tmp_path, "[optimization]\ntechniques = []").optimization == OptimizationConfig()


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    config = read(tmp_path, "")
    assert config == ModelConfig(name="digits", origin=str(tmp_path / "model.toml"))


def test_auto_is_left_to_the_server(tmp_path: Path) -> None:
    batching = read(tmp_path, '[batching]\nwindow_ms = "auto"\nmax_batch = "auto"').batching
    assert (batching.window_s, batching.max_batch) == (None, None)


@pytest.mark.parametrize(("levels", "default"), [(1, 1), (2, 2), (3, 2), (4, 3)])
def test_requests_without_priority_are_in_the_middle(
    tmp_path: Path, levels: int, default: int
) -> None:
    batching = read(tmp_path, f"[batching]\npriority_levels = {levels}").batching
    assert batching.default_priority == default


def test_a_path_means_the_source_is_a_file(tmp_path: Path) -> None:
    assert read(tmp_path, '[data]\npath = "x.npz"').data.source == "file"
    assert read(tmp_path, '[data]\nquery = "SELECT 1"').data.source == "sql"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ('versions = "all"', VersionPolicy(latest=None)),
        ("versions = 2", VersionPolicy(latest=2)),
        ("versions = [4]", VersionPolicy(specific=(4,))),
    ],
)
def test_versions(tmp_path: Path, text: str, policy: VersionPolicy) -> None:
    assert read(tmp_path, text).version_policy == policy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            "[batching]\n\nwindow_m = 2",
            ', line 3: [batching] window_m: unknown key; did you mean "window_ms"?',
            id="unknown key",
        ),
        pytest.param(
            "[batchin]\nwindow_ms = 2",
            ', line 1: batchin: unknown key; did you mean "batching"?',
            id="unknown table",
        ),
        pytest.param(
            "zzz = 2",
            ", line 1: zzz: unknown key; valid keys: batching, execution, optimization, data,",
            id="unknown key, none near",
        ),
        pytest.param(
            '[batching]\nwindow_ms = "2 ms"',
            ', line 2: [batching] window_ms: expected "auto" or a number of milliseconds >= 0,'
            ' got "2 ms"',
            id="text for a number",
        ),
        pytest.param(
            "[batching]\nmax_batch = 0",
            'max_batch: expected "auto" or a whole number >= 1, got 0',
            id="out of range",
        ),
        pytest.param(
            "[batching]\nmax_batch = true",
            'max_batch: expected "auto" or a whole number >= 1, got true',
            id="a boolean is no number",
        ),
        pytest.param(
            "[batching]\nslo_p99_ms = nan",
            "slo_p99_ms: expected a number of milliseconds > 0, got nan",
            id="not finite",
        ),
        pytest.param(
            "[batching]\npriority_levels = 2\ndefault_priority = 3",
            "default_priority: expected a whole number 1 to 2, got 3",
            id="beyond the levels",
        ),
        pytest.param(
            '[batching]\npad = "left"', 'expected one of "none", "right", got "left"', id="choice"
        ),
        pytest.param(
            '[execution]\nproviders = "cpu"',
            'providers: expected "auto" or a list of texts of cpu, cuda, tensorrt, openvino,'
            ' got "cpu"',
            id="no list",
        ),
        pytest.param(
            "[execution]\nwarm_up = 1", "warm_up: expected true or false, got 1", id="no boolean"
        ),
        pytest.param(
            "[optimization]\naccuracy_threshold = 99",
            "accuracy_threshold: expected a ratio above 0 and up to 1, got 99",
            id="percent for a ratio",
        ),
        pytest.param(
            '[optimization]\ntechniques = ["graph", "int8_dynamc"]',
            ", line 2: [optimization] techniques: unknown technique 'int8_dynamc', the nearest is"
            " 'int8_dynamic'",
            id="unknown technique",
        ),
        pytest.param(
            '[optimization]\ntechniques = ["pruning"]',
            "technique 'pruning' is not available in this version",
            id="technique that is not there yet",
        ),
        pytest.param(
            '[data]\nsource = "file"', 'source: "file" needs the key path', id="file, no path"
        ),
        pytest.param(
            '[data]\nsource = "sql"', 'source: "sql" needs the key query', id="sql, no query"
        ),
        pytest.param("batching = 3", "batching: expected a table [batching], got 3", id="no table"),
        pytest.param("versions = 0", 'versions: expected "all", a whole number', id="versions"),
        pytest.param("[batching\n", "not valid TOML", id="no TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(str(tmp_path / "model.toml"))
    assert problem in str(error.value)
    assert error.value.code is Code.INVALID_ARGUMENT


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"model\.toml: cannot be read"):
        read_toml(tmp_path / "model.toml", "digits")
