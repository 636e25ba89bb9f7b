"""OpenVINO's own form of a model: for float32 and bfloat16 arithmetic in its runtime."""

from pathlib import Path

from optimizer.errors import PassError
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.openvino_files import broken, constants, read, refusal, write
from optimizer.passes.quiet import quietly

_FORMS = ("none", "fp16")


class OpenvinoIr:
    """Settings: `compress` "none" (default) or "fp16", weights in half precision and half the file.

    Arithmetic is the runtime's option, not the file's. With "fp16" weights are rounded, which
    bfloat16 arithmetic does more coarsely anyway; `is_lossless` holds for "none".
    """

    name = "openvino_ir"
    is_lossless = True
    needs_data = False
    makes = ".xml"

    def requires(self, model: Path) -> str:
        return refusal(model)

    def apply(self, given: PassInput) -> PassResult:
        compress = given.settings.get("compress", "none")
        if compress not in _FORMS:
            raise PassError(f"openvino_ir: compress is '{compress}', expected one of {_FORMS}")
        with quietly():
            file = write(read(given.model), given.folder, compress=compress == "fp16")
        return PassResult(file, modified=True)

    def ensures(self, given: PassInput, result: PassResult) -> str:
        is_half = given.settings.get("compress", "none") == "fp16"
        found = constants(result.file)
        if is_half and found.get("f32", 0) > found.get("f16", 0):
            return f"weights are not in half precision: {found}"
        return broken(given.model, result.file)
