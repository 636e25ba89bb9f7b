"""Models in the framework that trained them, each in a child process; none of it comes in here.

For what does not convert or is faster as it is. One child runs one batch at a time, so a version
has as many children as instances: one, unless its configuration says more. A child costs some
100 MB of memory and seconds to start. Where `loader.py` finds that a session of all threads pays,
that is a child more, and its memory counts too.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from optimizer.source import SourceModel, source_of
from protos.tensors import Array
from server.backends.model_file import ModelFile
from server.backends.native_process import LOADER, Launch, NativeProcess
from server.model_config import ExecutionConfig

_PLATFORMS = {
    ".skops": "sklearn_skops",
    ".pkl": "sklearn_pickle",
    ".joblib": "sklearn_joblib",
    ".ubj": "xgboost_ubj",
    ".json": "xgboost_json",
    ".txt": "lightgbm_text",
    ".pt2": "pytorch_pt2",
    ".keras": "keras_keras",
}
_SAVED_MODEL = "tensorflow_savedmodel"


class NativeBackend:
    """`run` may be called from several threads at once; they wait for a child each."""

    devices: tuple[str, ...] = ("cpu",)
    fallback = ""
    is_in_process = False

    def __init__(
        self, processes: Sequence[NativeProcess], file: ModelFile, source: SourceModel, threads: int
    ) -> None:
        self.signature = processes[0].signature
        self.platform = _PLATFORMS.get(source.path.suffix, _SAVED_MODEL)
        self.artifact_id = file.artifact_id
        self.threads = threads
        self.instances: int | None = len(processes)
        self.processes = tuple(processes)
        self._idle: SimpleQueue[NativeProcess] = SimpleQueue()
        for process in processes:
            self._idle.put(process)

    @property
    def memory_bytes(self) -> int:
        return sum(process.memory_bytes for process in self.processes)

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch in an idle child; gives up the GIL.

        Raises:
            BackendError: the framework failed; short text for the client, all of it is the cause.
            BackendLost: the child died meanwhile.
            ModelNotReady: it died again and again, and is to be started later.
        """
        process = self._idle.get()
        try:
            return process.run(inputs, output_names)
        finally:
            self._idle.put(process)

    def interrupt(self, thread: int) -> None:
        """Kills the child that this thread waits for; another takes its place."""
        for process in self.processes:
            if process.thread == thread:
                process.kill()

    def close(self) -> None:
        """Kills the children."""
        for process in self.processes:
            process.close()


def open_native(
    file: ModelFile,
    execution: ExecutionConfig,
    threads: int,
    *,
    spins: bool = False,
    source: SourceModel | None = None,
    samples: Path | None = None,
    loader: str = LOADER,
) -> NativeBackend:
    """Starts the children and has the model loaded in each; takes seconds.

    `source`: the file with its framework, where its name does not tell. `samples`: an .npz of
    `optimizer.samples`, which tells the framework's model its columns where it does not know them
    itself. `loader` ("module:function") loads the model.

    Raises:
        LoadFailed: with the framework's reason, or what to install.
    """
    source = source or source_of(file.path)
    launch = Launch(source, threads, spins, samples, loader)
    with ExitStack() as opened:
        processes = [NativeProcess(launch) for _ in range(execution.instances or 1)]
        for process in processes:
            process.open()
            opened.callback(process.close)
        opened.pop_all()
    return NativeBackend(processes, file, source, threads)
