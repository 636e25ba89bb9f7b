import os
from pathlib import Path

import pytest

from optimizer.artifact import Artifact
from server.model_config import ConfigError
from server.repository import ModelSource, Repository, RepositoryError, read_model


def put(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def files(source: ModelSource) -> dict[int, Path]:
    return {number: version.path for number, version in source.versions.items()}


def only(*arguments: Path) -> ModelSource:
    (source,) = Repository(arguments).scan().values()
    return source


def test_a_repository_has_a_model_per_folder(tmp_path: Path) -> None:
    a = put(tmp_path / "a" / "1" / "model.onnx")
    b = put(tmp_path / "b" / "model.onnx")
    put(tmp_path / "README.md")
    put(tmp_path / ".git" / "config")
    sources = Repository([tmp_path]).scan()
    assert {name: files(source) for name, source in sources.items()} == {"a": {1: a}, "b": {1: b}}


def test_only_positive_integers_without_leading_zero_are_versions(tmp_path: Path) -> None:
    for name in ("0", "01", "-1", "1.5", "latest", "3", "12", "²"):
        put(tmp_path / "m" / name / "model.onnx")
    put(tmp_path / "m" / "7", "a file, no folder")
    assert sorted(only(tmp_path).versions) == [3, 12]


def test_beside_version_folders_a_file_is_no_model(tmp_path: Path) -> None:
    put(tmp_path / "m" / "model.onnx")
    put(tmp_path / "m" / "2" / "model.onnx")
    assert sorted(only(tmp_path).versions) == [2]


def test_a_bare_file_is_a_model_named_after_its_stem(tmp_path: Path) -> None:
    path = put(tmp_path / "resnet.onnx")
    source = only(path)
    assert (source.name, files(source)) == ("resnet", {1: path})


@pytest.mark.parametrize(
    "inside",
    [
        "model.toml",
        "config.pbtxt",
        "net.onnx",
        "1/model.onnx",
        "saved_model.pb",
        "model.txt",
        "artifact.json",
    ],
)
def test_a_folder_with_a_models_files_is_one_model(tmp_path: Path, inside: str) -> None:
    put(tmp_path / "digits" / inside)
    assert list(Repository([tmp_path / "digits"]).scan()) == ["digits"]


def test_an_artifacts_own_folders_are_no_versions_and_its_changes_show(tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    put(folder / "1" / "model.onnx")
    regimes = [{"max_rows": None, "folder": "1"}]
    Artifact(folder / "1", "model.onnx", "onnxruntime", "a-1").write()
    Artifact(folder, "1", "by_batch", "both-1", options={"regimes": regimes}).write()
    source = read_model(folder)
    assert files(source) == {1: folder}
    assert read_model(folder, known=source) is source
    Artifact(folder / "1", "model.onnx", "openvino", "a-2").write()
    assert read_model(folder, known=source).fingerprint != source.fingerprint


@pytest.mark.parametrize("inside", ["a/model.onnx", "a/1/model.onnx", "requirements.txt"])
def test_any_other_folder_is_a_repository(tmp_path: Path, inside: str) -> None:
    put(tmp_path / "digits" / inside)
    assert "digits" not in Repository([tmp_path / "digits"]).scan()


def test_what_an_argument_is_does_not_change_while_the_server_runs(tmp_path: Path) -> None:
    put(tmp_path / "a" / "model.onnx")
    repository = Repository([tmp_path])
    put(tmp_path / "stray.onnx")
    assert list(repository.scan()) == ["a"]


def test_several_arguments_are_one_repository(tmp_path: Path) -> None:
    put(tmp_path / "one" / "a" / "model.onnx")
    put(tmp_path / "two" / "b" / "model.onnx")
    c = put(tmp_path / "c.onnx")
    arguments = [tmp_path / "one", tmp_path / "two", c, tmp_path / "one"]
    assert list(Repository(arguments).scan()) == ["a", "b", "c"]


def test_two_models_of_one_name_are_an_error_of_that_model_only(tmp_path: Path) -> None:
    one = put(tmp_path / "one" / "a" / "model.onnx").parent
    two = put(tmp_path / "two" / "a" / "model.onnx").parent
    put(tmp_path / "two" / "b" / "model.onnx")
    repository = Repository([tmp_path / "one", tmp_path / "two"])
    sources = repository.scan()
    assert sources["a"].error == f"two models have this name: {one} and {two}; rename one"
    assert not sources["b"].error
    found = repository.find("a")
    assert found is not None
    assert found.error == sources["a"].error


@pytest.mark.parametrize("name", ["missing", "file.bin"])
def test_a_path_that_is_no_model_ends_the_start(tmp_path: Path, name: str) -> None:
    put(tmp_path / "file.bin")
    with pytest.raises(RepositoryError, match=name):
        Repository([tmp_path / name])


def test_a_link_to_itself_ends_the_start(tmp_path: Path) -> None:
    link = tmp_path / "loop"
    link.symlink_to(link)
    with pytest.raises(RepositoryError, match=r"loop: (cannot be read|no such file)"):
        Repository([link])


def test_a_link_to_itself_beside_models_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "m" / "1" / "model.onnx")
    link = tmp_path / "loop"
    link.symlink_to(link)
    assert list(Repository([tmp_path]).scan()) == ["m"]


def test_a_repository_that_went_away_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    repository = Repository([folder])
    assert repository.scan() == {}
    folder.rmdir()
    with pytest.raises(RepositoryError, match="No such file or directory"):
        repository.scan()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_path_that_may_not_be_read_ends_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    folder.mkdir(mode=0)
    with pytest.raises(RepositoryError, match="permission denied"):
        Repository([folder])


def test_each_configuration_file_is_read(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "a" / "model.toml", "[batching]\nmax_batch = 3")
    put(tmp_path / "b" / "1" / "model.onnx")
    put(tmp_path / "b" / "config.pbtxt", "max_batch_size: 4")
    sources = Repository([tmp_path]).scan()
    assert sources["a"].config.batching.max_batch == 3
    assert sources["b"].config.max_batch_size == 4


def test_a_mistake_in_a_configuration_fails_that_model_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put(tmp_path / name / "1" / "model.onnx")
    put(tmp_path / "a" / "config.pbtxt", "max_batchsize: 4")
    sources = Repository([tmp_path]).scan()
    assert "a/config.pbtxt, line 1, column 1" in sources["a"].error
    assert sources["a"].fingerprint
    assert not sources["b"].error


def test_two_configuration_files_are_an_error(tmp_path: Path) -> None:
    put(tmp_path / "a" / "model.onnx")
    put(tmp_path / "a" / "config.pbtxt")
    put(tmp_path / "a" / "model.toml")
    assert "has a model.toml and a config.pbtxt; keep one of them" in only(tmp_path).error


def test_the_version_policy_selects(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        put(tmp_path / "a" / str(version) / "model.onnx")
    assert list(only(tmp_path).wanted()) == [10]
    put(tmp_path / "a" / "model.toml", 'versions = "all"')
    assert list(only(tmp_path).wanted()) == [1, 2, 10]
    put(tmp_path / "a" / "model.toml", "versions = 2")
    assert list(only(tmp_path).wanted()) == [2, 10]


def test_a_specific_version_that_is_missing_is_an_error_of_that_version(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "a" / "model.toml", "versions = [1, 5]")
    wanted = only(tmp_path).wanted()
    assert wanted[1].error == ""
    assert wanted[5].error == f"{tmp_path}/a/5: no such folder, and the version policy asks for it"


def test_an_unservable_version_leaves_the_others(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "a" / "2" / "model.pkl")
    versions = only(tmp_path).versions
    assert versions[1].error == ""
    assert "--allow-pickle" in versions[2].error


def test_a_change_of_one_version_leaves_the_others_fingerprints(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    two = put(tmp_path / "a" / "2" / "model.onnx")
    before = only(tmp_path)
    two.write_text("changed")
    after = only(tmp_path)
    assert after.versions[1] == before.versions[1]
    assert after.versions[2] != before.versions[2]
    assert after.fingerprint != before.fingerprint


def test_a_shared_file_belongs_to_every_version(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    before = only(tmp_path)
    put(tmp_path / "a" / "labels.txt", "zero")
    assert only(tmp_path).versions[1] != before.versions[1]


def test_what_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "b" / "1" / "model.onnx")
    put(tmp_path / "b" / "2" / "model.pkl")
    repository = Repository([tmp_path])
    before = repository.scan()
    assert repository.scan()["a"] is before["a"]
    (tmp_path / "b" / "2" / "model.pkl").unlink()
    (tmp_path / "b" / "2").rmdir()
    put(tmp_path / "a" / "model.toml", "versions = 2")
    after = repository.scan()
    assert after["a"].config.version_policy.latest == 2
    assert list(after["b"].versions) == [1]


def test_a_folder_whose_name_is_no_utf8_is_no_model(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode(b"caf\xe9") / "1/model.onnx")
    put(tmp_path / "café/1/model.onnx")
    assert [*Repository([tmp_path]).scan()] == ["café"]


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/1", "/etc", ".hidden", "a\\b", "a\0"])
def test_a_name_never_leads_out_of_the_repository(tmp_path: Path, name: str) -> None:
    put(tmp_path / "repository" / "a" / "1" / "model.onnx")
    put(tmp_path / "a" / "model.onnx")
    put(tmp_path / "repository" / ".hidden" / "model.onnx")
    assert Repository([tmp_path / "repository"]).find(name) is None


def test_a_configuration_in_a_call_stands_for_the_file(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1" / "model.onnx")
    put(tmp_path / "a" / "config.pbtxt", "no such field")
    repository = Repository([tmp_path])
    found = repository.find("a", '{"max_batch_size": 2}')
    assert found is not None
    assert (found.error, found.config.max_batch_size) == ("", 2)
    with pytest.raises(ConfigError):
        repository.find("a", "{")


def test_a_repository_of_many_models_is_read_in_one_pass(tmp_path: Path) -> None:
    for number in range(300):
        put(tmp_path / f"m{number:03}" / "1" / "model.onnx")
    sources = Repository([tmp_path]).scan()
    assert len(sources) == 300
    assert not any(source.error for source in sources.values())
