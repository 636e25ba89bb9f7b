from optimizer import device
from optimizer.device import Device, Gpu

CPUINFO = """processor\t: 0
model name\t: AMD EPYC 9654
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16
"""


def test_features_are_read_from_the_flags_of_the_cpu() -> None:
    assert device.features_of(CPUINFO) == ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")
    assert device.features_of("") == ()


def test_gpus_are_read_from_the_drivers_listing() -> None:
    listing = "NVIDIA H200, 143771, 9.0, 580.95.05\nunreadable\n"
    assert device.gpus_of(listing) == (Gpu("NVIDIA H200", 143771, "9.0", "580.95.05"),)


def test_this_machine_has_a_name_cores_memory_and_numpy() -> None:
    machine = device.read()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_mb > 0
    assert machine.has("numpy")
    assert machine.to_json()["versions"]["numpy"] == machine.versions["numpy"]


def test_bf16_needs_one_of_two_instruction_sets() -> None:
    assert Device("", 1, 1, ("amx_bf16",)).has_bf16
    assert not Device("", 1, 1, ("avx512_vnni",)).has_bf16


def test_available_memory_is_known_here() -> None:
    assert device.available_memory_mb() > 0
