import shutil

import pytest

from server.errors import InvalidRequest
from server.overrides import Overrides


def test_files_are_written_below_a_folder_of_the_models_name() -> None:
    folder = Overrides("{}", {"1/model.onnx": b"a", "2/sub/data.bin": b"b"}).write("digits")
    try:
        assert folder.name == "digits"
        assert (folder / "1" / "model.onnx").read_bytes() == b"a"
        assert (folder / "2" / "sub" / "data.bin").read_bytes() == b"b"
    finally:
        shutil.rmtree(folder.parent)


def test_files_need_a_configuration() -> None:
    with pytest.raises(InvalidRequest, match="need a 'config' override"):
        Overrides(None, {"1/model.onnx": b""}).check()


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "0/model.onnx", "01/m", "x/m", "1/", "1/../../m", "/1/m", "1//m", "1/a\\b", ""],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="expected file:<version>/<file name>"):
        Overrides("{}", {name: b""}).check()


def test_good_names_pass() -> None:
    Overrides("{}", {"1/model.onnx": b"", "10/a/b.data": b""}).check()
    Overrides("{}").check()
