"""`new-plugin` writes a whole distribution, or says why not and writes nothing."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from svcreg.cli.new_plugin import NAME_LIMIT
from tests.support.plugins import Distributions
from tests.unit.cli.support import Svcreg

MODULES = ("__init__", "backend", "client", "options", "records", "server", "watcher")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with nothing in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_plugin_has_the_files_that_every_plugin_has(svcreg: Svcreg, folder: Path) -> None:
    svcreg("new-plugin", "acme")
    package = {f"src/svcreg_acme/{module}.py" for module in MODULES}
    assert files_of(folder / "svcreg-acme") == {
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        ".gitignore",
        ".github/workflows/ci.yml",
        "src/svcreg_acme/py.typed",
        *package,
        "tests/test_conformance.py",
        "tests/test_options.py",
        "tests/test_records.py",
    }


def test_every_name_is_made_from_the_one_given(svcreg: Svcreg, folder: Path) -> None:
    svcreg("new-plugin", "my-acme_store2")
    root = folder / "svcreg-my-acme_store2"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["name"] == "svcreg-my-acme_store2"
    assert project["entry-points"]["svcreg.backends"] == {
        "my-acme_store2": "svcreg_my_acme_store2:MyAcmeStore2Backend"
    }
    written = [root / path for path in files_of(root)]
    text = "\n".join(path.read_text() for path in written)
    assert re.findall(r"\bacme\b|\bAcme|ACME_NAMESPACE|svcreg_acme", text) == []
    assert "class MyAcmeStore2Backend:" in text
    assert "MY_ACME_STORE2_NAMESPACE" in text
    for path in written:
        if path.suffix == ".py":
            compile(path.read_text(), path, "exec")


def test_next_steps_are_printed(svcreg: Svcreg) -> None:
    assert svcreg("new-plugin", "acme").stdout.splitlines() == [
        "wrote svcreg-acme: 16 files. Now:",
        "  pip install -e ./svcreg-acme",
        "  MICRO_REGISTRY=acme svcreg list",
        "  cd svcreg-acme && pytest",
    ]


def test_next_steps_begin_with_pytest_where_it_is_missing(
    svcreg: Svcreg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines = svcreg("new-plugin", "acme").stdout.splitlines()
    assert lines[1] == "  pip install 'svcreg[testing]'"
    assert len(lines) == 5


def test_directory_is_where_the_plugin_goes(svcreg: Svcreg, folder: Path) -> None:
    (folder / "my plugins").mkdir()
    lines = svcreg("new-plugin", "acme", "--directory", "my plugins").stdout.splitlines()
    assert (folder / "my plugins" / "svcreg-acme" / "pyproject.toml").is_file()
    assert lines[1] == "  pip install -e './my plugins/svcreg-acme'"
    assert lines[3] == "  cd 'my plugins/svcreg-acme' && pytest"
    lines = svcreg("new-plugin", "other", "--directory", str(folder)).stdout.splitlines()
    assert lines[1] == f"  pip install -e {folder}/svcreg-other"


def test_directory_must_be_there(svcreg: Svcreg, folder: Path) -> None:
    assert "nosuch" in svcreg("new-plugin", "acme", "--directory", "nosuch", code=2).stderr
    assert files_of(folder) == set()


def test_json_is_the_files_written(svcreg: Svcreg, folder: Path) -> None:
    written = svcreg.json("new-plugin", "acme")
    assert set(written) == files_of(folder)
    assert "svcreg-acme/pyproject.toml" in written


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "folder with a file"])
def test_what_is_there_is_left_alone(svcreg: Svcreg, folder: Path, is_file: bool) -> None:
    target = folder / "svcreg-acme"
    kept = target if is_file else target / "kept"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    result = svcreg("new-plugin", "acme", code=1)
    assert "svcreg-acme is there already; nothing was written" in result.stderr
    assert (result.stdout, kept.read_text()) == ("", "mine")
    assert files_of(folder) == {str(kept.relative_to(folder))}


def test_empty_folder_is_filled(svcreg: Svcreg, folder: Path) -> None:
    (folder / "svcreg-acme").mkdir()
    svcreg("new-plugin", "acme")
    assert "svcreg-acme/pyproject.toml" in files_of(folder)


@pytest.mark.parametrize(
    "name",
    ["", "Acme", "acme!", "a/b", "..", "2acme", "-acme", "acme-", "acme_", "x" * (NAME_LIMIT + 1)],
)
def test_name_that_no_plugin_can_have_is_refused(svcreg: Svcreg, folder: Path, name: str) -> None:
    assert "cannot name a plugin" in svcreg("new-plugin", "--", name, code=2).stderr
    assert files_of(folder) == set()


@pytest.mark.parametrize("name", ["svcreg-acme", "svcreg_acme"])
def test_name_of_the_distribution_is_not_that_of_the_backend(svcreg: Svcreg, name: str) -> None:
    assert "try: svcreg new-plugin acme" in svcreg("new-plugin", name, code=2).stderr


@pytest.mark.parametrize("name", ["memory", "taken"])
def test_name_of_a_backend_that_is_installed_is_refused(
    svcreg: Svcreg, folder: Path, distributions: Distributions, name: str
) -> None:
    distributions.install("theirs", {}, {"taken": "theirs:Backend"})
    assert (
        f"the backend {name!r} is there already, in " in svcreg("new-plugin", name, code=2).stderr
    )
    assert files_of(folder) == set()


def test_plugin_that_is_installed_may_be_written_again(
    svcreg: Svcreg, distributions: Distributions
) -> None:
    distributions.install("svcreg-acme", {}, {"acme": "svcreg_acme:AcmeBackend"})
    svcreg("new-plugin", "acme")
