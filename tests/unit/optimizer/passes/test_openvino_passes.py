from pathlib import Path

from optimizer.passes.openvino_files import constants, count_operators
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def size(file: Path) -> int:
    return file.with_suffix(".bin").stat().st_size


def test_compression_halves_the_weights(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.encoder())
    whole = place.apply_in("whole", "openvino_ir").file
    half = place.apply_in("half", "openvino_ir", settings={"compress": "fp16"}).file
    assert constants(half)["f16"] > 0.9 * constants(whole)["f32"]
    assert size(half) < 0.55 * size(whole)


def test_weights_in_eight_bits_are_a_quarter(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.encoder(width=128))
    whole = place.apply_in("whole", "openvino_ir").file
    small = place.apply_in("small", "openvino_weights_int8").file
    assert constants(small)["u8"] >= 5 * 128 * 128
    assert size(small) < 0.3 * size(whole)


def test_activations_are_quantized_and_transformers_smoothed(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.encoder())
    made = place.apply("int8_smoothquant", {"rows": 8}, graphs.texts()).file
    assert count_operators(made, "FakeQuantize") >= 5
    assert constants(made)["i8"] >= 5 * 32 * 32
