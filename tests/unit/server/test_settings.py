import argparse
from pathlib import Path
from typing import Any

import pytest

from server.settings import (
    ServeSettings,
    SettingsError,
    add_serve_options,
    cores_of_quota,
    load_settings,
    read_settings,
)


def parse_flags(*argv: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    return vars(parser.parse_args(argv))


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings({}, {})
    assert (settings.host, settings.grpc_port, settings.http_port) == ("127.0.0.1", 8001, 8000)
    assert (settings.lame_duck_s, settings.drain_s, settings.max_message_mb) == (0.0, 30.0, 256)
    assert (settings.optimize, settings.load_control) == ("auto", "all")
    assert settings.max_message_bytes == 256 * 2**20
    assert settings.threads >= 1


def test_variables_of_the_original_specification_keep_their_names_and_defaults() -> None:
    settings = load_settings({}, {})
    assert settings.optimization_max_time_minutes == 30
    assert settings.optimization_accuracy_threshold == 0.99
    assert settings.tensorrt_workspace_size_gb == 4
    assert settings.onnx_opset_version == 17
    environ = {"OPTIMIZATION_MAX_TIME_MINUTES": "5", "ONNX_OPSET_VERSION": "20"}
    changed = load_settings({}, environ)
    assert (changed.optimization_max_time_minutes, changed.onnx_opset_version) == (5, 20)


def test_flag_wins_over_environment_over_file_over_default() -> None:
    flags = parse_flags("--drain-s", "1")
    environ = {"INFLIGHT_DRAIN_S": "2", "INFLIGHT_GRPC_PORT": "2"}
    text = "drain_s = 3\ngrpc_port = 3\nhttp_port = 3"
    settings = load_settings(flags, environ, text)
    assert settings.drain_s == 1
    assert settings.grpc_port == 2
    assert settings.http_port == 3
    assert settings.lame_duck_s == 0


def test_models_come_from_the_command_line_the_environment_or_the_file() -> None:
    environ = {"INFLIGHT_MODELS": "a:b"}
    assert load_settings(parse_flags("x.onnx", "y"), environ).models == (Path("x.onnx"), Path("y"))
    assert load_settings(parse_flags(), environ).models == (Path("a"), Path("b"))
    assert load_settings(parse_flags(), {}, 'models = ["m"]').models == (Path("m"),)


def test_switches_take_either_word_or_the_negated_flag() -> None:
    assert load_settings(parse_flags("--no-reflection", "--allow-pickle"), {}).allow_pickle
    assert not load_settings(parse_flags("--no-reflection"), {}).reflection
    assert load_settings({}, {"INFLIGHT_ALLOW_PICKLE": "Yes"}).allow_pickle
    assert not load_settings({}, {}, "reflection = false").reflection


@pytest.mark.parametrize(
    ("flags", "environ", "text", "message"),
    [
        pytest.param(
            {"grpc_port": "abc"},
            {},
            "",
            "--grpc-port: expected a port number from 0 to 65535, got 'abc'",
            id="flag",
        ),
        pytest.param(
            {},
            {"INFLIGHT_DRAIN_S": "-1"},
            "",
            "INFLIGHT_DRAIN_S (environment): expected a number of seconds, 0 or more, got '-1'",
            id="environment",
        ),
        pytest.param(
            {},
            {},
            "http_port = true",
            "http_port (in s.toml): expected a port number from 0 to 65535, got True",
            id="file",
        ),
        pytest.param(
            {},
            {},
            'load_control = "some"',
            "load_control (in s.toml): expected one of all, explicit, poll, got 'some'",
            id="choice",
        ),
        pytest.param(
            {},
            {"INFLIGHT_REFLECTION": "maybe"},
            "",
            "INFLIGHT_REFLECTION (environment): expected true or false, got 'maybe'",
            id="switch",
        ),
        pytest.param(
            {"hang_timeout_s": "0"},
            {},
            "",
            "--hang-timeout-s: expected a number of seconds above 0, got '0'",
            id="zero",
        ),
        pytest.param(
            {"drain_s": "nan"},
            {},
            "",
            "--drain-s: expected a number of seconds, 0 or more, got 'nan'",
            id="not-a-number",
        ),
        pytest.param(
            {"host": ""}, {}, "", "--host: expected a text that is not empty, got ''", id="empty"
        ),
        pytest.param(
            {}, {}, "models = 3", "models (in s.toml): expected a list of paths, got 3", id="list"
        ),
        pytest.param(
            {"state_dir": "~nobody-of-this-name"},
            {},
            "",
            "--state-dir: expected a path, got '~nobody-of-this-name'",
            id="home-of-nobody",
        ),
        pytest.param(
            {},
            {},
            "max_mesage_mb = 3",
            "s.toml: unknown key 'max_mesage_mb', the nearest is 'max_message_mb'",
            id="unknown-key",
        ),
        pytest.param(
            {"grpc_port": "7", "http_port": "7"},
            {},
            "",
            "grpc_port and http_port: expected two different ports, got 7 twice",
            id="same-port",
        ),
    ],
)
def test_errors_name_option_source_expectation_and_value(
    flags: dict[str, Any], environ: dict[str, str], text: str, message: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(flags, environ, text, "s.toml")
    assert str(raised.value) == message


def test_bad_toml_names_the_file_and_the_place() -> None:
    with pytest.raises(SettingsError, match=r"^s\.toml: not valid TOML: .*line 1"):
        load_settings({}, {}, "host = \n", "s.toml")


def test_values_are_checked_when_made_directly_too() -> None:
    with pytest.raises(SettingsError, match="threads: expected a number of threads"):
        ServeSettings(threads=0)


def test_free_ports_may_both_be_zero() -> None:
    assert load_settings({"grpc_port": "0", "http_port": "0"}, {}).grpc_port == 0


def test_config_file_is_read_from_the_flag(tmp_path: Path) -> None:
    file = tmp_path / "inflight.toml"
    file.write_text("grpc_port = 9\n")
    assert read_settings({"config": str(file)}).grpc_port == 9


def test_missing_config_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        read_settings({"config": str(tmp_path / "none.toml")})
    assert str(raised.value) == (
        f"--config: cannot read '{tmp_path / 'none.toml'}': No such file or directory"
    )


def test_a_config_file_of_an_unknown_user_is_one_clear_line() -> None:
    with pytest.raises(SettingsError, match=r"^--config: cannot read '~nobody-of-this-name/c': "):
        read_settings({"config": "~nobody-of-this-name/c"})


def test_help_shows_every_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    shown = " ".join(parser.format_help().split())
    assert (
        "port of gRPC; 0 picks a free one (default: 8001; environment: INFLIGHT_GRPC_PORT)" in shown
    )
    assert "environment: INFLIGHT_MODELS, separated by ':'" in shown


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [("max 100000\n", 2**31), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)],
)
def test_cpu_quota_of_a_container_counts_as_whole_cores(cpu_max: str, cores: int) -> None:
    assert cores_of_quota(cpu_max) == cores


def test_databases_are_named_in_the_file_or_the_environment_and_never_shown() -> None:
    text = '[databases]\ndefault = "postgresql://user:secret@host/db"'
    settings = load_settings({}, {}, text)
    assert settings.databases == {"default": "postgresql://user:secret@host/db"}
    assert "secret" not in repr(settings)
    environ = {"INFLIGHT_DATABASES": "default=sqlite:///a.db other=sqlite:///b.db?x=1"}
    assert load_settings({}, environ, text).databases == {
        "default": "sqlite:///a.db",
        "other": "sqlite:///b.db?x=1",
    }
    with pytest.raises(SettingsError, match="databases") as error:
        load_settings({}, {}, 'databases = ["postgresql://user:secret@host/db"]')
    assert "secret" not in str(error.value)


def test_folders_of_data_are_separated_as_in_path() -> None:
    flags = parse_flags("--data-folders", "/a:/b")
    assert load_settings(flags, {}).data_folders == (Path("/a"), Path("/b"))


def test_help_lists_the_options_without_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_flags("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "OPTIMIZATION_MAX_TIME_MINUTES: longest optimization job" in shown
    assert "(default: 30)" in shown
    assert "INFLIGHT_DATABASES: connections" in shown
