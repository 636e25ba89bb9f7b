"""8-bit weights in OpenVINO's form; arithmetic stays in float32 or bfloat16."""

from pathlib import Path

from optimizer.errors import PassError
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.openvino_files import (
    broken,
    constants,
    nncf,
    quantization_refusal,
    read,
    write,
)
from optimizer.passes.promises import first_line
from optimizer.passes.quiet import quietly

_MODES = {"sym": "INT8_SYM", "asym": "INT8_ASYM"}


class OpenvinoWeightsInt8:
    """Settings: `mode` "asym" (default) or "sym".

    Compresses embeddings as well as products. A graph with nothing to compress is refused.
    """

    name = "openvino_weights_int8"
    is_lossless = False
    needs_data = False
    makes = ".xml"

    def requires(self, model: Path) -> str:
        return quantization_refusal(model)

    def apply(self, given: PassInput) -> PassResult:
        mode = given.settings.get("mode", "asym")
        if mode not in _MODES:
            raise PassError(f"openvino_weights_int8: mode is '{mode}', expected sym or asym")
        with quietly():
            library = nncf()
            model = read(given.model)
            try:
                small = library.compress_weights(
                    model, mode=library.CompressWeightsMode[_MODES[mode]]
                )
            except Exception as error:  # whatever the library meets in a graph
                raise PassError(f"NNCF cannot compress it: {first_line(error)}") from error
            file = write(small, given.folder, compress=True)
        return PassResult(file, modified=True)

    def ensures(self, given: PassInput, result: PassResult) -> str:
        found = constants(result.file)
        if not found.get("i8", 0) + found.get("u8", 0):
            return "the result has no 8-bit weights"
        return broken(given.model, result.file)
