from dataclasses import replace

import pytest

from optimizer.candidate import Candidate, State, Step
from optimizer.device import Device, Gpu
from optimizer.goal import Goal
from optimizer.plan import (
    Graph,
    ModelFacts,
    baseline,
    candidates,
    precision_of,
    retry,
    with_threads,
)

LIBRARIES = {"onnxruntime": "1.31.1", "openvino": "2026.4.1", "nncf": "3.4.0"}
CPU = Device("EPYC", 2, 24_000, ("avx512_vnni", "avx512_bf16"), versions=LIBRARIES)
GPU = replace(
    CPU, gpus=(Gpu("H200", 140_000, "9.0", "580.1"),), versions={"onnxruntime-gpu": "1.31.1"}
)


SMALL = Graph(
    opset=17,
    parameters=500,
    quantizable=500,
    convolution_share=0.0,
    product_share=1.0,
    has_attention=False,
    is_quantized=False,
    is_classical=False,
)
MLP_GRAPH = replace(SMALL, quantizable=300_000)
MLP = ModelFacts("onnx", MLP_GRAPH)
CNN_GRAPH = replace(SMALL, quantizable=800_000, convolution_share=0.97, product_share=0.03)
CNN = ModelFacts("onnx", CNN_GRAPH)
ENCODER = ModelFacts("onnx", replace(SMALL, quantizable=20_000_000, has_attention=True))
TREES_GRAPH = replace(SMALL, product_share=0.0, is_classical=True)
TREES = ModelFacts("sklearn", TREES_GRAPH, levels=("disable", "all"))


def names(facts: ModelFacts, goal: Goal, device: Device = CPU, has_data: bool = True) -> list[str]:
    found = candidates(facts, device, goal, has_data)
    return [outcome.candidate.name for outcome in found if outcome.state is State.WAITING]


def steps(facts: ModelFacts, goal: Goal) -> set[str]:
    found = candidates(facts, CPU, goal, True)
    return {step.name for outcome in found for step in outcome.candidate.steps}


def test_convolutions_are_quantized_statically_and_never_dynamically() -> None:
    assert "int8_static" in steps(CNN, Goal())
    assert "int8_dynamic" not in steps(CNN, Goal())
    assert "int8_dynamic" not in steps(CNN, Goal(techniques=("int8_dynamic",)))


def test_transformers_are_quantized_dynamically_and_not_statically() -> None:
    found = steps(ENCODER, Goal())
    assert {"int8_dynamic", "int8_smoothquant", "openvino_weights_int8", "weight_only"} <= found
    assert "int8_static" not in found


def test_static_quantization_of_a_transformer_can_be_asked_for() -> None:
    assert "int8_static" in steps(ENCODER, Goal(techniques=("int8_static",)))


def test_small_networks_without_attention_are_tried_both_ways() -> None:
    assert {"int8_static", "int8_dynamic"} <= steps(MLP, Goal())


def test_a_model_too_small_for_it_is_not_quantized() -> None:
    assert not steps(ModelFacts("onnx", SMALL), Goal()) & {
        "int8_static",
        "int8_dynamic",
    }


def test_a_quantized_model_is_not_quantized_again() -> None:
    assert not steps(ModelFacts("onnx", replace(MLP_GRAPH, is_quantized=True)), Goal()) & {
        "int8_static",
        "openvino_ir",
    }


def test_four_bits_are_tried_only_where_they_are_asked_for() -> None:
    assert not any("4-bit" in name for name in names(ENCODER, Goal()))
    assert any("4-bit" in name for name in names(ENCODER, Goal(precision="int4")))


def test_half_precision_on_a_cpu_is_tried_only_where_it_is_asked_for() -> None:
    assert "fp16, ONNX Runtime" not in names(CNN, Goal())
    assert names(CNN, Goal(precision="fp16")) == ["bf16, OpenVINO", "fp16, ONNX Runtime"]


def test_trees_run_on_the_runtime_that_has_them() -> None:
    found = candidates(TREES, CPU, Goal(), has_data=True)
    assert [outcome.candidate.name for outcome in found] == [
        "converted, ONNX Runtime",
        "graph level disable, ONNX Runtime",
    ]


def test_a_model_without_an_onnx_form_has_its_framework_alone() -> None:
    facts = replace(TREES, graph=None)
    assert candidates(facts, CPU, Goal(), has_data=True) == []
    assert baseline(facts).runtime == "native"


def test_the_baseline_of_an_onnx_model_is_the_runtime_at_its_defaults() -> None:
    assert baseline(CNN).options == {"graph_level": "all"}
    assert baseline(CNN).steps == ()


def test_only_levels_that_differ_are_tried() -> None:
    facts = replace(CNN, levels=("basic", "all"))
    assert [name for name in names(facts, Goal()) if name.startswith("graph")] == [
        "graph level basic, ONNX Runtime"
    ]


def test_cheap_ones_come_first() -> None:
    ranks = [o.candidate.rank for o in candidates(ENCODER, CPU, Goal(), True)]
    assert ranks == sorted(ranks)


def test_quick_leaves_out_what_takes_long() -> None:
    quick, full = names(ENCODER, Goal(is_quick=True)), names(ENCODER, Goal())
    assert set(quick) < set(full)
    assert "int8 with SmoothQuant, OpenVINO" not in quick
    assert "int8 dynamic, ONNX Runtime" in quick


def test_quick_tries_what_gains_most() -> None:
    assert names(ENCODER, Goal(is_quick=True)) == ["bf16, OpenVINO", "int8 dynamic, ONNX Runtime"]
    assert names(CNN, Goal(is_quick=True), has_data=False) == [
        "graph level disable, ONNX Runtime",
        "OpenVINO",
    ]
    assert names(TREES, Goal(is_quick=True))[0] == "converted, ONNX Runtime"


def test_without_data_what_changes_answers_is_skipped_and_says_what_would_help() -> None:
    found = candidates(CNN, CPU, Goal(), has_data=False)
    skipped = [outcome for outcome in found if not outcome.candidate.is_lossless]
    assert skipped
    assert all(outcome.state is State.SKIPPED for outcome in skipped)
    bf16 = next(o for o in found if o.candidate.name == "bf16, OpenVINO")
    assert "real rows" in bf16.reason


def test_lossless_only_lists_nothing_else() -> None:
    found = candidates(CNN, CPU, Goal(lossless_only=True), has_data=True)
    assert found
    assert all(outcome.candidate.is_lossless for outcome in found)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        pytest.param(replace(CPU, versions={}), "OpenVINO is not installed", id="no openvino"),
        pytest.param(replace(CPU, features=()), "no bf16 arithmetic", id="no bf16"),
    ],
)
def test_what_the_machine_lacks_is_skipped_with_its_reason(device: Device, reason: str) -> None:
    found = {o.candidate.name: o for o in candidates(CNN, device, Goal(), True)}
    outcome = found["bf16, OpenVINO"]
    assert outcome.state is State.SKIPPED
    assert reason in outcome.reason


def test_openvino_without_nncf_keeps_its_float_candidates() -> None:
    device = replace(CPU, versions={"openvino": "2026.4.1"})
    found = {o.candidate.name: o for o in candidates(CNN, device, Goal(), True)}
    assert "NNCF" in found["int8 with SmoothQuant, OpenVINO"].reason
    assert found["bf16, OpenVINO"].state is State.WAITING


def test_gpu_candidates_are_skipped_where_there_is_none() -> None:
    found = {o.candidate.name: o for o in candidates(CNN, CPU, Goal(), True)}
    assert found["TensorRT"].reason == "there is no NVIDIA GPU on this machine"


def test_gpu_candidates_are_tried_where_there_is_one() -> None:
    found = names(CNN, Goal(backend="cuda"), GPU)
    assert found == ["CUDA, ONNX Runtime", "fp16, CUDA, ONNX Runtime"]
    assert names(CNN, Goal(backend="tensorrt"), GPU) == ["TensorRT", "fp16, TensorRT"]


def test_tensorrt_needs_the_provider_or_its_own_package() -> None:
    for versions, is_there in (({"tensorrt-cu13": "11.4"}, True), ({"onnxruntime": "1.31"}, False)):
        device = replace(GPU, versions=versions)
        outcomes = candidates(CNN, device, Goal(backend="tensorrt"), True)
        states = {outcome.state for outcome in outcomes}
        assert states == {State.WAITING if is_there else State.SKIPPED}


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_a_backend_excludes_the_others_without_a_word(backend: str) -> None:
    found = candidates(CNN, CPU, Goal(backend=backend), True)  # type: ignore[arg-type]
    assert found
    assert all(outcome.candidate.runtime != "tensorrt" for outcome in found)


def test_a_precision_lists_that_one_only() -> None:
    for precision in ("fp32", "fp16", "int8"):
        found = candidates(ENCODER, CPU, Goal(precision=precision), True)
        assert {precision_of(outcome.candidate) for outcome in found} == {precision}


def test_techniques_and_method_narrow_the_list() -> None:
    goal = Goal(techniques=("quantization",), method="dynamic")
    assert steps(ENCODER, goal) == {"int8_dynamic", "weight_only", "openvino_weights_int8"}


def test_names_are_unique() -> None:
    for facts in (CNN, ENCODER, MLP, TREES):
        found = [o.candidate.name for o in candidates(facts, CPU, Goal(), True)]
        assert len(found) == len(set(found))


def test_a_refused_int8_model_is_tried_again_without_what_breaks_it() -> None:
    refused = next(
        o.candidate
        for o in candidates(CNN, CPU, Goal(), True)
        if o.candidate.techniques == ("int8_static",)
    )
    again = retry(refused, Goal(accuracy_threshold=0.98))
    assert again is not None
    assert again.steps[-1] == Step(
        "mixed_precision", {"method": "minmax", "base": "int8_static", "threshold": 0.98}
    )
    assert again.techniques == ("mixed_precision",)
    assert again.needs_data


def test_mixed_precision_can_be_asked_for_alone() -> None:
    goal = Goal(techniques=("mixed_precision",))
    assert names(CNN, goal) == ["mixed precision from int8 static, ONNX Runtime"]
    assert names(ENCODER, goal) == ["mixed precision from int8 dynamic, ONNX Runtime"]


@pytest.mark.parametrize(
    ("candidate", "goal"),
    [
        pytest.param(
            Candidate("x", (Step("int8_smoothquant"),), "openvino"), Goal(), id="another runtime"
        ),
        pytest.param(Candidate("x", (Step("fp16"),), "onnxruntime"), Goal(), id="not int8"),
        pytest.param(
            Candidate("x", (Step("int8_static"),), "onnxruntime"), Goal(is_quick=True), id="quick"
        ),
        pytest.param(
            Candidate("x", (Step("int8_static"),), "onnxruntime"),
            Goal(techniques=("int8_static",)),
            id="not asked for",
        ),
    ],
)
def test_other_refusals_are_final(candidate: Candidate, goal: Goal) -> None:
    assert retry(candidate, goal) is None


def test_a_thread_layout_is_part_of_the_candidate() -> None:
    narrow = with_threads(baseline(CNN), 1)
    assert narrow.options == {"graph_level": "all", "threads": 1}
    assert narrow.name == "original, ONNX Runtime, 1 thread a run"
