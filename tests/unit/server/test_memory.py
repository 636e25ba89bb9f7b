"""What is available, on machines and in containers made of small files; and what is refused."""

from pathlib import Path

import pytest

from server.errors import LoadFailed
from server.memory import FACTOR, MemoryGate, available_bytes

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def machine(mib: int) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable:  {mib * 1024} kB\n"}


V2 = {
    "proc/self/cgroup": "0::/pod/container\n",
    "sys/fs/cgroup/pod/memory.max": f"{300 * MIB}\n",
    "sys/fs/cgroup/pod/memory.current": f"{100 * MIB}\n",
    "sys/fs/cgroup/pod/container/memory.max": "max\n",
    "sys/fs/cgroup/pod/container/memory.current": f"{50 * MIB}\n",
}
NAMESPACED = {
    "proc/self/cgroup": "0::/../host/path\n",
    "sys/fs/cgroup/memory.max": f"{200 * MIB}\n",
    "sys/fs/cgroup/memory.current": f"{150 * MIB}\n",
    "sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {20 * MIB}\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{400 * MIB}\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{350 * MIB}\n",
    "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {10 * MIB}\n",
}
CASES = {
    "machine alone": (machine(500), 500),
    "a cgroup above this one limits": ({**machine(500), **V2}, 200),
    "the machine has less than the cgroup allows": ({**machine(120), **V2}, 120),
    "page cache of a container counts": ({**machine(500), **NAMESPACED}, 70),
    "cgroup v1": ({**machine(500), **V1}, 60),
}


@pytest.mark.parametrize(("files", "mib"), CASES.values(), ids=CASES)
def test_available_is_what_the_tightest_limit_leaves(
    tmp_path: Path, files: dict[str, str], mib: int
) -> None:
    assert available_bytes(write(tmp_path, files)) == mib * MIB


def test_without_any_sign_everything_is_admitted(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    with MemoryGate(tmp_path).admit("model 'm'", 10**15):
        pass


def test_this_machine_has_memory() -> None:
    available = available_bytes()
    assert available is None or available > 0


def test_refusal_has_the_numbers(tmp_path: Path) -> None:
    gate = MemoryGate(write(tmp_path, machine(100)))
    with pytest.raises(LoadFailed) as caught, gate.admit("model 'big' version 2", 80 * MIB):
        pass
    assert str(caught.value) == (
        "model 'big' version 2 needs about 200 MiB of memory (2.5 times its 80.0 MiB), 100 MiB are"
        " available: unload a model, or raise the memory limit of this machine or container"
    )


def test_loads_under_way_are_counted(tmp_path: Path) -> None:
    gate = MemoryGate(write(tmp_path, machine(100)))
    size = int(60 * MIB / FACTOR)
    with (
        gate.admit("first", size),
        pytest.raises(LoadFailed, match="40 MiB are available"),
        gate.admit("second", size),
    ):
        pass
    with gate.admit("second", size):
        pass
