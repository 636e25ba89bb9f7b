"""One model in several forms, each for batches of some sizes: small ones here, large ones there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protos.signature import Signature
from protos.tensors import Array
from server.backends.base import Backend
from server.errors import LoadFailed


@dataclass(frozen=True, slots=True)
class Regime:
    """The form that runs batches of up to so many rows."""

    max_rows: int | None  # None: any number
    backend: Backend


class ByBatchBackend:
    """Dispatches by the number of rows. `run` may be called from several threads at once."""

    fallback = ""

    def __init__(self, regimes: Sequence[Regime], artifact_id: str) -> None:
        """`regimes`: ascending by rows, the last one without a limit.

        Raises:
            LoadFailed: they are in another order, or their tensors differ.
        """
        self._check(regimes)
        self.regimes = tuple(regimes)
        forms = [regime.backend for regime in regimes]
        self.signature = signature = forms[0].signature
        self.platform = "+".join(dict.fromkeys(form.platform for form in forms))
        self.artifact_id = artifact_id
        self.devices = tuple(dict.fromkeys(device for form in forms for device in form.devices))
        self.threads = max(form.threads for form in forms)
        self.is_in_process = all(form.is_in_process for form in forms)
        limits = [form.instances for form in forms]
        # Where some forms take any number of runs, those of the others wait for each other.
        self.instances = None if None in limits else max(limit or 1 for limit in limits)
        self._input = next(s.name for s in signature.inputs if not s.optional)

    @property
    def memory_bytes(self) -> int:
        return sum(regime.backend.memory_bytes for regime in self.regimes)

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """As the backend's that runs batches of this size."""
        return self.form_of(len(inputs[self._input])).run(inputs, output_names)

    def form_of(self, rows: int) -> Backend:
        for regime in self.regimes:
            if regime.max_rows is None or rows <= regime.max_rows:
                return regime.backend
        raise AssertionError("the last regime has no limit")

    def interrupt(self, thread: int) -> None:
        for regime in self.regimes:
            regime.backend.interrupt(thread)

    def close(self) -> None:
        for regime in self.regimes:
            regime.backend.close()

    @staticmethod
    def _check(regimes: Sequence[Regime]) -> None:
        limits = [regime.max_rows for regime in regimes]
        numbers = [limit for limit in limits if limit is not None]
        if limits != [*sorted(set(numbers)), None]:
            raise LoadFailed(
                f"regimes: expected max_rows ascending with null at the end, got {limits}"
            )
        first = _tensors(regimes[0].backend.signature)
        for regime in regimes[1:]:
            if (other := _tensors(regime.backend.signature)) != first:
                raise LoadFailed(f"regimes: one form has tensors {first}, another {other}")


def _tensors(signature: Signature) -> dict[str, str]:
    return {spec.name: spec.datatype for spec in (*signature.inputs, *signature.outputs)}
