from pathlib import Path

import pytest

from optimizer.errors import CalibrationError
from optimizer.passes.graph_facts import facts
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def test_gemm_is_quantized_as_a_product(tmp_path: Path) -> None:
    found = facts(bench(tmp_path, graphs.dense()).apply("weight_only").file)
    assert found.ops["MatMulNBits"] == 2
    assert "Gemm" not in found.ops
    assert found.dtypes["FLOAT"] < 64 * 64


def test_tables_get_eight_bits_too_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    small = bench(tmp_path / "a", graphs.encoder()).apply("weight_only").file
    large = bench(tmp_path / "b", graphs.encoder()).apply("weight_only", {"gather": False}).file
    assert facts(large).dtypes["FLOAT"] - facts(small).dtypes["FLOAT"] >= 100 * 32 - 1


def test_four_bit_tables_need_a_later_opset(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.encoder())
    found = facts(place.apply("weight_only", {"bits": 4, "gather": True}).file)
    assert found.opset == 21
    assert found.ops["GatherBlockQuantized"] == 1


def test_gptq_needs_rows(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="a calibration set is needed"):
        bench(tmp_path, graphs.dense()).apply("weight_only", {"bits": 4, "method": "gptq"})


@pytest.mark.slow
def test_hqq_is_closer_than_rounding(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    errors = {}
    for method in ("rtn", "hqq"):
        (tmp_path / method).mkdir()
        place = bench(tmp_path / method, graphs.dense())
        made = place.apply("weight_only", {"bits": 4, "method": method}).file
        errors[method] = place.error(made, graphs.table())
    assert errors["hqq"] < 1.1 * errors["rtn"]
