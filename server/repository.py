"""What is on disk: model repositories read into values. Nothing here loads or serves a model.

An argument of `serve` is one of three, decided once, when the server starts:

* a file: one model, named after the file without its suffix, version 1;
* a folder with a model.toml, a config.pbtxt, a model file or a version folder directly in it, an
  artifact of the optimizer or a TensorFlow SavedModel: one model, named after the folder;
* any other folder: a repository, every folder in it (but hidden ones) being one model.

So a repository whose model is called "1" is taken for a model with a version 1.

In a model's folder, folders named by a positive integer without leading zeros are versions;
other folders belong to the model and are not looked at. Without version folders, a model file
directly in the model's folder is version 1; with them, such a file is not a model.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.config_pbtxt import read_json, read_pbtxt
from server.config_toml import read_toml
from server.fingerprint import (
    FilePrint,
    Fingerprint,
    fingerprint_of,
    fingerprint_of_file,
    is_unchanged,
)
from server.formats import (
    FORMATS,
    Unservable,
    check_sent,
    check_servable,
    find_model,
    is_model_file,
    is_model_folder,
)
from server.model_config import ConfigError, ModelConfig


class RepositoryError(Exception):
    """A path given to the server cannot be used at all. One line for the operator."""


@dataclass(frozen=True, slots=True)
class VersionFile:
    """One version on disk."""

    path: Path
    fingerprint: Fingerprint  # of its files and of everything the model's versions share
    error: str = ""  # why it cannot be loaded; empty: nothing speaks against it


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One model on disk."""

    name: str
    folder: Path
    config: ModelConfig
    versions: Mapping[int, VersionFile]
    fingerprint: Fingerprint  # of everything in its folder
    error: str = ""  # why no version can be loaded

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong with the model or any version of it."""
        return not self.error and not any(file.error for file in self.versions.values())

    def wanted(self) -> dict[int, VersionFile]:
        """The versions its policy serves, ascending."""
        selected = self.config.version_policy.select(self.versions)
        return {number: self.versions[number] for number in selected}


class Repository:
    """All paths given to the server, together. Its methods block: they read folders and files."""

    def __init__(self, arguments: Sequence[Path], allow_pickle: bool = False) -> None:
        """Decides what each path is.

        Raises:
            RepositoryError: a path does not exist, cannot be read, or is no model.
        """
        self._allow_pickle = allow_pickle
        self._models: list[Path] = []  # files and folders that are one model each
        self._repositories: list[Path] = []
        self._known: dict[Path, ModelSource] = {}  # by path, as the last scan found it
        for path in dict.fromkeys(_resolved(argument) for argument in arguments):
            (self._models if _is_model(path) else self._repositories).append(path)

    def scan(self) -> dict[str, ModelSource]:
        """Everything there is, by name. A model in two places is one source with an error.

        Raises:
            RepositoryError: a repository cannot be read (any more).
        """
        places: dict[str, list[Path]] = {}
        for path in self._paths():
            places.setdefault(_name(path), []).append(path)
        return {name: self._source(name, paths) for name, paths in sorted(places.items())}

    def names(self) -> set[str]:
        """The names of all models; much cheaper than `scan`.

        Raises:
            RepositoryError: a repository cannot be read (any more).
        """
        return {_name(path) for path in self._paths()}

    def find(self, name: str, config_json: str | None = None) -> ModelSource | None:
        """One model by name, read afresh; None where there is none.

        `config_json` is Triton's configuration in JSON and stands for the file in the folder.

        Raises:
            ConfigError: `config_json` is wrong.
        """
        if not is_model_name(name):
            return None
        paths = [path for path in self._models if _name(path) == name and path.exists()]
        paths += [folder / name for folder in self._repositories if (folder / name).is_dir()]
        if len(paths) > 1:
            return _ambiguous(name, paths)
        return self.read(paths[0], config_json) if paths else None

    def read(self, path: Path, config_json: str | None = None) -> ModelSource:
        """The model in a folder or file, wherever it is; as `find`."""
        return read_model(path, self._allow_pickle, config_json)

    def check_sent(self, names: Iterable[str]) -> None:
        """Raises Unservable where files that a client sent are not to be opened."""
        check_sent(names, self._allow_pickle)

    def folder_of(self, name: str) -> Path | None:
        """A model's folder; None where it is a bare file or not there (any more)."""
        found = [path for path in self._models if _name(path) == name and path.is_dir()]
        found += [folder / name for folder in self._repositories if (folder / name).is_dir()]
        return found[0] if is_model_name(name) and len(found) == 1 else None

    def folders(self) -> list[Path]:
        """The repositories, and the folders that were given as one model each."""
        return [*self._repositories, *(path for path in self._models if path.is_dir())]

    def describe(self) -> str:
        """The paths looked in, for messages."""
        return ", ".join(map(str, (*self._repositories, *self._models))) or "no repository"

    def _paths(self) -> Iterator[Path]:
        yield from (path for path in self._models if path.exists())
        for folder in self._repositories:
            try:
                with os.scandir(folder) as entries:
                    names = [entry.name for entry in entries if _is_folder(entry)]
            except OSError as error:
                raise RepositoryError(f"{folder}: cannot be read: {error.strerror}") from None
            yield from (folder / name for name in names if is_model_name(name))

    def _source(self, name: str, paths: Sequence[Path]) -> ModelSource:
        if len(paths) > 1:
            return _ambiguous(name, paths)
        source = read_model(paths[0], self._allow_pickle, known=self._known.get(paths[0]))
        self._known[paths[0]] = source
        return source


def is_as_it_was(file: VersionFile) -> bool:
    """Whether the files a version was read from are still the same ones; blocks."""
    return all(is_unchanged(each) for each in file.fingerprint)


def is_model_name(name: str) -> bool:
    """Whether a name can be that of a model's folder: never a way out of the repository.

    Nor is one that is no UTF-8 on the disk: no message can hold it.
    """
    is_text = not any("\ud800" <= character <= "\udfff" for character in name)
    return is_text and name[:1] not in ("", ".") and not set(name) & {"/", "\\", "\0"}


def read_model(
    path: Path,
    allow_pickle: bool = False,
    config_json: str | None = None,
    known: ModelSource | None = None,
) -> ModelSource:
    """One model, from its folder or its file. What is wrong with its files is in the result.

    `known` is what was read before: it is returned as it is where no file changed since.

    Raises:
        ConfigError: `config_json` is wrong, which is the caller's fault and not the files'.
    """
    name, is_file = _name(path), path.is_file()
    folder = path.parent if is_file else path
    said = None if config_json is None else read_json(config_json, name, folder)
    # Before the files are read: what changes in between shows at the next look.
    seen: Fingerprint = ()
    try:
        seen = fingerprint_of_file(path) if is_file else fingerprint_of(path)
        if known is not None and known.is_sound and known.fingerprint == seen:
            return known
        config = said or _config(path, name)
        return ModelSource(name, folder, config, _versions(path, config, allow_pickle, seen), seen)
    except (ConfigError, Unservable) as error:
        return ModelSource(name, folder, ModelConfig(name), {}, seen, str(error))
    except OSError as error:
        reason = f"{error.filename or path}: cannot be read: {error.strerror}"
        return ModelSource(name, folder, ModelConfig(name), {}, seen, reason)


def _ambiguous(name: str, paths: Sequence[Path]) -> ModelSource:
    both = " and ".join(map(str, paths))
    error = f"two models have this name: {both}; rename one"
    return ModelSource(name, paths[0], ModelConfig(name), {}, (), error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: like a link to nothing, no model
        return False


def _resolved(argument: Path) -> Path:
    try:
        path = argument.expanduser().resolve()
    except RuntimeError as error:  # a link to itself (until Python 3.13), a user without a home
        raise RepositoryError(f"{argument}: cannot be read: {error}") from None
    if not path.exists():
        raise RepositoryError(f"{argument}: no such file or folder")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise RepositoryError(f"{argument}: permission denied")
    return path


def _is_model(path: Path) -> bool:
    if path.is_file():
        if path.suffix not in FORMATS:
            known = ", ".join(FORMATS)
            raise RepositoryError(f"{path}: no model file, expected one of {known}")
        return True
    return is_model_folder(path) or any(_belongs_to_model(entry) for entry in path.iterdir())


def _belongs_to_model(entry: Path) -> bool:
    if entry.is_dir():
        return _version_number(entry.name) is not None
    is_config = entry.name in ("model.toml", "config.pbtxt")
    return is_config or (not entry.name.startswith(".") and is_model_file(entry))


def _name(path: Path) -> str:
    return path.stem if path.is_file() else path.name


def _version_number(name: str) -> int | None:
    """The version a folder's name stands for; None where it is not one ("0", "01", "latest")."""
    is_number = name.isascii() and name.isdigit() and not name.startswith("0")
    return int(name) if is_number else None


def _config(path: Path, name: str) -> ModelConfig:
    toml, pbtxt = path / "model.toml", path / "config.pbtxt"
    if path.is_file():
        return ModelConfig(name)
    if toml.exists() and pbtxt.exists():
        raise ConfigError(f"{path}: has a model.toml and a config.pbtxt; keep one of them")
    if toml.exists():
        return read_toml(toml, name)
    return read_pbtxt(pbtxt, name) if pbtxt.exists() else ModelConfig(name)


def _versions(
    path: Path, config: ModelConfig, allow_pickle: bool, seen: Fingerprint
) -> dict[int, VersionFile]:
    if path.is_file():
        check_servable(path, allow_pickle)
        return {1: VersionFile(path, seen)}
    folders = {} if is_model_folder(path) else _version_folders(path)
    if not folders:
        return {1: VersionFile(find_model(path, config.default_model_filename, allow_pickle), seen)}
    parts = _by_version(seen, path, folders)
    versions = {
        number: _version(folder, config, parts[None] + parts[number], allow_pickle)
        for number, folder in folders.items()
    }
    for number in config.version_policy.specific:
        missing = path / str(number)
        error = f"{missing}: no such folder, and the version policy asks for it"
        versions.setdefault(number, VersionFile(missing, parts[None], error))
    return versions


def _version_folders(path: Path) -> dict[int, Path]:
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    numbers = {_version_number(name): path / name for name in names}
    return {number: folder for number, folder in numbers.items() if number is not None}


def _by_version(
    seen: Fingerprint, path: Path, folders: Mapping[int, Path]
) -> dict[int | None, Fingerprint]:
    """A model's fingerprint, divided among its versions; under None what they share."""
    parts: dict[int | None, list[FilePrint]] = {number: [] for number in (None, *folders)}
    start = len(str(path)) + 1
    for file in seen:
        number = _version_number(file[0][start:].partition("/")[0])
        parts[number if number in folders else None].append(file)
    return {number: tuple(files) for number, files in parts.items()}


def _version(
    folder: Path, config: ModelConfig, fingerprint: Fingerprint, allow_pickle: bool
) -> VersionFile:
    try:
        path = find_model(folder, config.default_model_filename, allow_pickle)
        return VersionFile(path, fingerprint)
    except Unservable as error:
        return VersionFile(folder, fingerprint, str(error))
