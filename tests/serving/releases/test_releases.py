from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.core.errors import ConfigError, DataError
from stages.core.git import uncommitted
from stages.core.workspace import Workspace
from stages.serving.release_changes import flat, param_changes
from stages.serving.releases import find, is_release, releases, resolve
from stages.serving.releasing import next_version, register

EXPORT = "models/export/world/rag"
Rebuild = Callable[..., None]


def sh(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def rank_in(folder: Path) -> str:
    return (folder / "adapter" / "adapter_model.safetensors").read_text()


def test_the_first_version_is_an_annotated_tag_with_the_figures(repository: Workspace) -> None:
    release = register("rag", repository, "world", message="First one")
    assert (release.name, release.version, release.summary) == ("world-rag", "v1.0.0", "First one")
    assert sh(repository.inputs, "git", "cat-file", "-t", "world-rag@v1.0.0").strip() == "tag"
    md5 = release.exported[1].md5
    assert sh(repository.inputs, "git", "tag", "-l", "--format=%(contents)").strip() == (
        "world-rag v1.0.0: First one\n\n"
        "Metrics, with 95 % intervals:\n  tuned, exact_match: 0.580 [0.250, 1.000]\n\n"
        f"{EXPORT} {md5}"
    )
    assert release.revision == sh(repository.inputs, "git", "rev-parse", "HEAD").strip()


def test_the_next_version_says_what_changed(repository: Workspace, rebuild: Rebuild) -> None:
    register("rag", repository, "world")
    rebuild(rank=16)
    release = register(EXPORT + "/", repository, "other", "minor", "Rank 16\nIt was too low.")
    assert release.version == "v1.1.0"
    assert release.message.splitlines()[:-1] == [
        "world-rag v1.1.0: Rank 16",
        "",
        "It was too low.",
        "",
        "Parameters, against v1.0.0:",
        "  train_rag_lora.lora.r: 8 -> 16",
        "",
        "Metrics, against v1.0.0, with 95 % intervals:",
        "  tuned, exact_match: 0.580 [0.250, 1.000] -> 0.660 [0.250, 1.000]",
        "",
    ]
    assert [one.version for one in releases(repository.inputs)] == ["v1.1.0", "v1.0.0"]


@pytest.mark.parametrize(
    ("earlier", "bump", "version"),
    [
        ([], "major", "v1.0.0"),
        (["v1.0.0"], "minor", "v1.1.0"),
        (["v1.9.0", "v1.10.2"], "minor", "v1.11.0"),
        (["v1.2.3"], "patch", "v1.2.4"),
        (["v1.2.3"], "major", "v2.0.0"),
    ],
)
def test_version_numbers(earlier: list[str], bump: str, version: str) -> None:
    assert next_version(earlier, bump) == version


def test_settings_that_sections_share_are_one_line() -> None:
    old = flat({"train": {"model": {"name": "tiny"}, "r": 8}, "merge": {"model": {"name": "tiny"}}, "gone": {"x": []}})
    new = flat({"train": {"model": {"name": "qwen"}, "r": 8}, "merge": {"model": {"name": "qwen"}}, "new": {"y": {}}})
    assert param_changes(old, new) == ["gone.x: [] -> none", "model.name (2 stages): tiny -> qwen", "new.y: none -> {}"]


def test_what_is_not_committed_is_refused(repository: Workspace) -> None:
    (repository.inputs / "make.py").write_text("")
    (repository.inputs / "params.yaml").write_text("")
    with pytest.raises(DataError, match=r"not committed: make.py, params.yaml; .*commit"):
        register("rag", repository, "world")


def test_a_lock_that_is_not_committed_is_refused(repository: Workspace) -> None:
    sh(repository.inputs, "git", "rm", "-q", "--cached", "dvc.lock")
    sh(repository.inputs, "git", "commit", "-qm", "without a lock")
    with pytest.raises(DataError, match=r"dvc.lock is not committed .*dvc repro"):
        register("rag", repository, "world")


def test_an_export_that_is_missing_broken_or_unknown_is_refused(repository: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"nope: no such export in the committed dvc.lock; there is world-rag"):
        register("nope", repository, "world")
    with pytest.raises(ConfigError, match=r"--bump: 'huge' is not one of major, minor, patch"):
        register("rag", repository, "world", "huge")
    weights = repository.inputs / EXPORT / "model.safetensors"
    weights.unlink()
    with pytest.raises(DataError, match=r"model.safetensors is missing"):
        register("rag", repository, "world")
    weights.write_text("others")
    with pytest.raises(DataError, match=r"model.safetensors was changed"):
        register("rag", repository, "world")
    shutil.rmtree(repository.inputs / EXPORT)
    with pytest.raises(DataError, match=r"no export here"):
        register("rag", repository, "world")
    assert releases(repository.inputs) == []


def test_an_export_of_other_parameters_than_those_of_now_is_refused(repository: Workspace) -> None:
    text = (repository.inputs / "params.yaml").read_text()
    (repository.inputs / "params.yaml").write_text(text.replace("r: 8", "r: 9"))
    sh(repository.inputs, "git", "commit", "-qam", "Rank 9, not built")
    with pytest.raises(
        DataError, match=r"not what the pipeline of now makes: train_rag_lora .*dvc repro export_model@rag"
    ):
        register("rag", repository, "world")


def test_inputs_that_are_not_here_are_no_reason_to_refuse(repository: Workspace) -> None:
    shutil.rmtree(repository.inputs / "models/world/rag_lora")  # a host with room for the export only
    assert register("rag", repository, "world").version == "v1.0.0"


def test_the_same_bytes_are_no_new_version(repository: Workspace) -> None:
    register("rag", repository, "world")
    (repository.inputs / "notes.txt").write_text("nothing to do with it")
    sh(repository.inputs, "git", "add", "notes.txt")
    sh(repository.inputs, "git", "commit", "-qm", "Notes")
    with pytest.raises(DataError, match=r"is world-rag@v1.0.0 already, byte for byte"):
        register("rag", repository, "world", "major")


def test_a_tag_of_that_name_is_refused(repository: Workspace) -> None:
    sh(repository.inputs, "git", "tag", "world-rag@v1.0.0")  # not annotated: no registration for GTO
    with pytest.raises(DataError, match=r"world-rag v1.0.0: .*already exists"):
        register("rag", repository, "world")


def test_an_export_that_the_cache_has_not_got_is_refused(repository: Workspace) -> None:
    shutil.rmtree(repository.inputs / ".dvc/cache")
    with pytest.raises(DataError, match=r"not in DVC's cache"):
        register("rag", repository, "world")


def test_an_older_version_stays_loadable_and_the_workspace_as_it_is(repository: Workspace, rebuild: Rebuild) -> None:
    register("rag", repository, "world")
    rebuild(rank=16)
    register("rag", repository, "world")
    folder = resolve("world-rag@v1.0.0", repository)
    assert rank_in(folder) == "rank 8"
    assert rank_in(repository.inputs / EXPORT) == "rank 16"
    assert uncommitted(repository.inputs) == []
    weights = folder / "model.safetensors"
    assert weights.stat().st_mode & 0o777 == 0o444
    assert weights.stat().st_nlink > 1  # shared with the cache, not copied
    for spec in ("rag@v1.0.0", "tuned@v1.0.0"):
        assert resolve(spec, repository, "world") == folder
    assert rank_in(resolve("tuned@latest", repository, "world")) == "rank 16"


def test_a_version_that_is_not_there_names_those_that_are(repository: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"no version is registered yet"):
        resolve("tuned@v1.0.0", repository, "world")
    register("rag", repository, "world")
    with pytest.raises(ConfigError, match=r"tuned@v1.2.0: no such version; there is world-rag@v1.0.0"):
        resolve("tuned@v1.2.0", repository, "world")
    with pytest.raises(ConfigError, match=r"socratic@v1.0.0: no such version"):
        resolve("socratic@v1.0.0", repository, "world")
    with pytest.raises(ConfigError, match=r"../../etc@v1.0.0: no such version"):
        resolve("../../etc@v1.0.0", repository, "world")
    assert is_release("tuned@v1.0.0") and not is_release("tuned")


def test_an_adapter_that_was_exported_twice_has_to_be_named(repository: Workspace, rebuild: Rebuild) -> None:
    rebuild(rank=16, variants=("rag", "small"))
    register("rag", repository, "world")
    register("small", repository, "world")
    with pytest.raises(ConfigError, match=r"tuned was exported as world-rag and world-small; name one of them"):
        find("tuned@v1.0.0", repository, "world")
    assert find("small@v1.0.0", repository, "world").name == "world-small"


def test_files_that_only_a_remote_has_come_by_the_command_that_is_named(
    repository: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.repo import Repo

    register("rag", repository, "world")
    with Repo(str(repository.inputs)) as repo:
        with repo.config.edit() as config:
            config["remote"] = {"store": {"url": str(tmp_path / "store")}}
            config["core"]["remote"] = "store"
        repo.push()
    shutil.rmtree(repository.inputs / ".dvc/cache")
    with pytest.raises(DataError, match=rf"not in DVC's cache; `dvc fetch --all-tags {EXPORT}`"):
        resolve("rag@v1.0.0", repository, "world")
    monkeypatch.chdir(repository.inputs)
    with Repo() as repo:
        repo.fetch(targets=[EXPORT], all_tags=True)
    assert rank_in(resolve("rag@v1.0.0", repository, "world")) == "rank 8"


def test_a_version_whose_files_were_changed_is_refused_until_it_is_made_again(repository: Workspace) -> None:
    register("rag", repository, "world")
    folder = resolve("rag@v1.0.0", repository, "world")
    config = folder / "config.json"
    config.unlink()
    config.write_text("other")
    with pytest.raises(DataError, match=r"config.json was changed.*\n.*delete .*world-rag/v1.0.0"):
        resolve("rag@v1.0.0", repository, "world")
    shutil.rmtree(folder)
    assert (resolve("rag@v1.0.0", repository, "world") / "config.json").read_text() == "{}"


def test_outside_git_there_are_no_versions(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        resolve("rag@v1.0.0", Workspace(tmp_path, tmp_path), "world")
