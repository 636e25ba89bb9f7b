"""Folds constants, removes what has no effect and merges what is the same, with onnxslim."""

from pathlib import Path

import onnxslim

from optimizer.errors import PassError
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import all_nodes, copy, load, load_graph, save
from optimizer.passes.promises import broken, first_line
from optimizer.passes.quiet import quietly

_MOST_GROWTH = 1.5  # of the numbers in constants; folding can blow a file up a thousandfold
_SLACK = 1_000_000  # numbers; growth that does not matter


class Cleanup:
    """The same arithmetic in fewer nodes. ONNX Runtime's own optimizer does most of it too."""

    name = "cleanup"
    is_lossless = True
    needs_data = False
    makes = ".onnx"

    def requires(self, model: Path) -> str:
        return "its functions are not understood by onnxslim" if load_graph(model).functions else ""

    def apply(self, given: PassInput) -> PassResult:
        target = given.folder / "model.onnx"
        before = sum(1 for _ in all_nodes(load_graph(given.model)))
        model = load(given.model)
        try:
            with quietly():
                slim = onnxslim.slim(model)
        except Exception as error:  # whatever the library meets in a graph
            raise PassError(f"onnxslim failed: {first_line(error)}") from error
        after = sum(1 for _ in all_nodes(slim))
        if after >= before:
            copy(given.model, target)
            return PassResult(target, modified=False)
        save(slim, target)
        return PassResult(target, modified=True, notes=(f"{before} nodes became {after}",))

    def ensures(self, given: PassInput, result: PassResult) -> str:
        before, after = facts(given.model).parameters, facts(result.file).parameters
        if after > _MOST_GROWTH * before + _SLACK:
            return f"folding constants made {after:,} numbers of {before:,}"
        return broken(given.model, result.file)
