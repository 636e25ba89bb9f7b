from pathlib import Path

import numpy as np

from optimizer.passes.graph_facts import facts
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def test_removes_what_has_no_effect(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.doubled_identities())
    before = place.fingerprint()
    result = place.apply("cleanup")
    assert result.modified
    assert facts(result.file).ops == {"Add": 1, "Mul": 1}
    assert result.notes == ("5 nodes became 2",)
    assert place.error(result.file, graphs.table(4)) <= 1e-6
    assert place.fingerprint() == before


def test_a_clean_graph_is_copied_as_it_is(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.cnn())
    result = place.apply("cleanup")
    assert not result.modified
    assert result.file.read_bytes() == place.model.read_bytes()
    assert place.error(result.file, graphs.images()) == np.float32(0)
