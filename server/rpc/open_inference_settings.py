"""The log-settings and trace-setting calls of the Open Inference service.

Log settings act on Python's logging: each severity can be switched off and on by itself, and
`log_verbose_level` above 0 shows DEBUG. Tracing settings are not offered.
"""

import logging
from collections.abc import Sequence

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest, Unimplemented
from server.rpc.call import Method
from server.rpc.open_inference_method import method

_SEVERITIES = {
    "log_info": logging.INFO,
    "log_warning": logging.WARNING,
    "log_error": logging.ERROR,
}
_FORMAT = "default"
_NO_FILE = ""  # logs go to standard error


class LogSettings(logging.Filter):
    """What the server logs, changeable while it runs. Event loop only.

    Starts with what is shown already. The first change makes it a filter of the root's handlers;
    libraries keep their own levels, so verbose logs are this server's and not grpc's.
    """

    def __init__(
        self, logger: logging.Logger | None = None, root: logging.Logger | None = None
    ) -> None:
        super().__init__()
        self._logger = logger or logging.getLogger("server")
        self._root = root or logging.getLogger()
        level = self._logger.getEffectiveLevel()
        self.verbose_level = 1 if level <= logging.DEBUG else 0
        self.shown = {name: level <= severity for name, severity in _SEVERITIES.items()}

    def apply(self, verbose_level: int, shown: dict[str, bool]) -> None:
        """Puts new settings into force."""
        self.verbose_level, self.shown = verbose_level, shown
        for handler in self._root.handlers:
            handler.addFilter(self)  # once, however often it is added
        self._logger.setLevel(logging.DEBUG if verbose_level else logging.INFO)

    def filter(self, record: logging.LogRecord) -> bool:
        """Severities between two named ones count as the lower; CRITICAL is always shown."""
        if record.levelno < logging.INFO:
            return self.verbose_level > 0
        if record.levelno < logging.WARNING:
            return self.shown["log_info"]
        if record.levelno < logging.ERROR:
            return self.shown["log_warning"]
        return record.levelno >= logging.CRITICAL or self.shown["log_error"]


class SettingsCalls:
    """Reads and writes the log settings. Event loop only."""

    def __init__(self, logs: LogSettings) -> None:
        self._logs = logs

    def methods(self) -> Sequence[Method]:
        return (
            method("TraceSetting", pb.TraceSettingRequest, _trace_setting),
            method("LogSettings", pb.LogSettingsRequest, self._log_settings),
        )

    async def _log_settings(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Changes what is given, all or nothing, and answers what is in force."""
        logs, settings = self._logs, request.settings
        if settings:
            shown, verbose_level = dict(logs.shown), logs.verbose_level
            for key, value in settings.items():
                if key in _SEVERITIES:
                    _expect(key, value, "bool_param")
                    shown[key] = value.bool_param
                elif key == "log_verbose_level":
                    _expect(key, value, "uint32_param")
                    verbose_level = value.uint32_param
                else:
                    _check_fixed(key, value)
            logs.apply(verbose_level, shown)
        return _log_response(logs)


async def _trace_setting(_: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
    raise Unimplemented("this server has no trace settings")


def _check_fixed(key: str, value: pb.LogSettingsRequest.SettingValue) -> None:
    """Settings that exist in the protocol and cannot be changed here."""
    if key == "log_file":
        _expect(key, value, "string_param")
        if value.string_param != _NO_FILE:
            raise Unimplemented("log file location can not be updated through network protocol")
    elif key == "log_format":
        _expect(key, value, "string_param")
        if value.string_param != _FORMAT:
            raise InvalidRequest(
                f"invalid argument for 'log_format': expected '{_FORMAT}',"
                f" got '{value.string_param}'"
            )
    else:
        raise InvalidRequest(
            f"unknown log setting '{key}', expected one of {', '.join(_SEVERITIES)},"
            " log_verbose_level, log_file, log_format"
        )


def _expect(key: str, value: pb.LogSettingsRequest.SettingValue, expected: str) -> None:
    if value.WhichOneof("parameter_choice") != expected:
        raise InvalidRequest(f"expect {expected} for log setting '{key}'")


def _log_response(logs: LogSettings) -> pb.LogSettingsResponse:
    response = pb.LogSettingsResponse()
    settings = response.settings
    settings["log_file"].string_param = _NO_FILE
    settings["log_format"].string_param = _FORMAT
    settings["log_verbose_level"].uint32_param = logs.verbose_level
    for key, is_shown in logs.shown.items():
        settings[key].bool_param = is_shown
    return response
