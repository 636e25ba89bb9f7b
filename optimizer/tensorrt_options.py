"""What ONNX Runtime's TensorRT provider is told.

Source: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

from collections.abc import Mapping

from optimizer.artifact import Artifact
from optimizer.errors import Unavailable
from optimizer.shape_profile import ShapeProfile, ShapeRange

_PRECISIONS = ("fp16", "bf16", "int8")
ENGINES = "engines"  # folder in the artifact's, for the provider's own files


def provider_options(artifact: Artifact, gpu: int = 0) -> dict[str, str]:
    """The provider's options for an artifact of runtime "tensorrt".

    Its `options`: `precision` ("fp32", "fp16", "bf16", "int8": of a model with quantization nodes),
    `profile` (as `ShapeProfile.to_json`), `workspace_bytes`, `level` (the builder's, 0 to 5),
    `timing` (folder, while it is built), `built_for` (as `EngineKey.parts`), `baseline` (the ONNX
    file in its folder that runs what is out of the profile). Its engines are in a folder of its
    own, for the provider takes models whose graphs have the same name and nodes for the same.
    Source: https://github.com/microsoft/onnxruntime/issues/32254

    Raises:
        Unavailable: the provider cannot be told the profile of this model.
    """
    said = artifact.options
    options = {"device_id": str(gpu)}
    if said.get("precision") in _PRECISIONS:
        options[f"trt_{said['precision']}_enable"] = "1"
    if said.get("workspace_bytes"):
        options["trt_max_workspace_size"] = str(said["workspace_bytes"])
    if said.get("level") is not None:
        options["trt_builder_optimization_level"] = str(said["level"])
    if "timing" in said:
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(said["timing"])}
    if "profile" in said:
        options |= _shapes(ShapeProfile.from_json(said["profile"]).dynamic)
    engines = artifact.folder / ENGINES
    if engines.is_dir():
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
    return options


def _shapes(ranges: Mapping[str, ShapeRange]) -> dict[str, str]:
    """The provider cuts "a:1x2,b:1" at every comma and colon, and reads nonsense from the rest."""
    for name in ranges:
        if ":" in name or "," in name:
            raise Unavailable(f"ONNX Runtime's TensorRT provider cannot be told of '{name}'")
    if not ranges:
        return {}
    return {
        f"trt_profile_{end}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, getattr(one, end)))}" for name, one in ranges.items()
        )
        for end in ("min", "opt", "max")
    }
