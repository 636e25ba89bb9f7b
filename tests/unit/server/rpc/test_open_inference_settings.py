"""Log settings act on logging; trace settings do not exist."""

import logging
from collections.abc import Mapping

import pytest

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest, ServeError, Unimplemented
from server.rpc.open_inference_settings import LogSettings, SettingsCalls
from tests.unit.server.rpc.fakes import FakeCall, unary

PATH = "/inference.GRPCInferenceService/"
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class Records(logging.Handler):
    """Notes the levels of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.append(record.levelno)


class Bench:
    """Settings over loggers of the test's own."""

    def __init__(self, level: int = logging.INFO) -> None:
        self.root, self.records = logging.Logger("root", level), Records()
        self.root.addHandler(self.records)
        self.logger = logging.Logger("server")
        self.logger.parent = self.root
        self.calls = SettingsCalls(LogSettings(self.logger, self.root))

    async def write(self, settings: Mapping[str, bool | int | str]) -> pb.LogSettingsResponse:
        request = pb.LogSettingsRequest()
        for key, value in settings.items():
            setting = request.settings[key]
            if isinstance(value, bool):
                setting.bool_param = value
            elif isinstance(value, int):
                setting.uint32_param = value
            else:
                setting.string_param = value
        handler = unary(self.calls.methods(), PATH + "LogSettings")
        return pb.LogSettingsResponse.FromString(
            await handler(FakeCall(), request.SerializeToString())
        )

    def shown(self) -> list[int]:
        self.records.levels.clear()
        for level in LEVELS:
            self.logger.log(level, "x")
        return self.records.levels


async def test_reading_changes_nothing() -> None:
    bench = Bench(logging.WARNING)
    settings = (await bench.write({})).settings
    assert not settings["log_info"].bool_param
    assert settings["log_warning"].bool_param
    assert settings["log_error"].bool_param
    assert settings["log_verbose_level"].uint32_param == 0
    assert settings["log_format"].string_param == "default"
    assert settings["log_file"].string_param == ""
    assert bench.shown() == [logging.WARNING, logging.ERROR, logging.CRITICAL]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"log_verbose_level": 2}, list(LEVELS)),
        ({"log_info": False}, [logging.WARNING, logging.ERROR, logging.CRITICAL]),
        ({"log_warning": False}, [logging.INFO, logging.ERROR, logging.CRITICAL]),
        (
            {"log_info": False, "log_warning": False, "log_error": False},
            [logging.CRITICAL],
        ),
        ({"log_format": "default", "log_file": ""}, list(LEVELS[1:])),
    ],
)
async def test_writing_takes_effect_and_is_read_back(
    settings: Mapping[str, bool | int | str], shown: list[int]
) -> None:
    bench = Bench()
    written = await bench.write(settings)
    assert bench.shown() == shown
    assert await bench.write({}) == written


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        ({"log_info": 1}, InvalidRequest, "expect bool_param for log setting 'log_info'"),
        ({"log_verbose_level": True}, InvalidRequest, "expect uint32_param"),
        ({"log_format": "XML"}, InvalidRequest, "expected 'default', got 'XML'"),
        ({"log_file": "/tmp/x"}, Unimplemented, "log file location can not be updated"),
        ({"log_colour": True}, InvalidRequest, "unknown log setting 'log_colour'"),
    ],
)
async def test_a_refused_setting_changes_nothing(
    settings: Mapping[str, bool | int | str], kind: type[ServeError], text: str
) -> None:
    bench = Bench()
    before = await bench.write({})
    with pytest.raises(kind, match=text):
        await bench.write({"log_warning": False, **settings})
    assert await bench.write({}) == before
    assert bench.shown() == list(LEVELS[1:])


async def test_there_are_no_trace_settings() -> None:
    handler = unary(Bench().calls.methods(), PATH + "TraceSetting")
    with pytest.raises(Unimplemented, match="no trace settings"):
        await handler(FakeCall(), b"")
