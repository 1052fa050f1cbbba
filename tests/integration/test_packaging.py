"""Each distribution builds a wheel and an sdist, and installs alone into a fresh environment."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {"svcreg": ROOT / "core"} | {
    f"svcreg-{path.parent.name}": path.parent
    for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))
}

# One worker builds them all: the fixture is dear and its result is shared.
pytestmark = [pytest.mark.xdist_group("packaging"), pytest.mark.timeout(180)]


def run(*command: str | Path) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """The wheel and the sdist of each distribution, by its name."""
    found = {}
    for name, project in PROJECTS.items():
        target = tmp_path_factory.mktemp(name)
        # The wheel is built from the sdist, which shows that the sdist is complete.
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", target, project)
        (wheel,) = target.glob("*.whl")
        (sdist,) = target.glob("*.tar.gz")
        found[name] = wheel, sdist
    return found


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_holds_one_typed_package_and_its_license(
    built: dict[str, tuple[Path, Path]], name: str
) -> None:
    wheel, _ = built[name]
    package = name.replace("-", "_")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    assert f"{package}/py.typed" in files
    assert any(file.endswith("licenses/LICENSE") for file in files)
    tops = {file.split("/")[0] for file in files}
    expected = {package} | ({"_svcreg_pytest.py"} if name == "svcreg" else set())
    assert {top for top in tops if not top.endswith(".dist-info")} == expected
    assert not [file for file in files if file.endswith((".pyc", ".db"))]


@pytest.mark.parametrize("name", PROJECTS)
def test_sdist_holds_no_more_than_the_project(
    built: dict[str, tuple[Path, Path]], name: str
) -> None:
    _, sdist = built[name]
    with tarfile.open(sdist) as archive:
        tops = {Path(member).parts[1] for member in archive.getnames() if "/" in member}
    allowed = {"src", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO"}
    assert {"src", "README.md", "LICENSE", "pyproject.toml", "PKG-INFO"} <= tops
    assert tops <= allowed | {".gitignore"}


@pytest.mark.parametrize("name", PROJECTS)
def test_metadata_is_complete(built: dict[str, tuple[Path, Path]], name: str) -> None:
    metadata = metadata_of(built[name][0])
    assert metadata["Name"] == name
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    classifiers = metadata.get_all("Classifier") or []
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Typing :: Typed" in classifiers


def test_core_needs_five_libraries_and_nothing_else(built: dict[str, tuple[Path, Path]]) -> None:
    metadata = metadata_of(built["svcreg"][0])
    needed = [r for r in metadata.get_all("Requires-Dist") or [] if "extra ==" not in r]
    names = {requirement.split(">=")[0] for requirement in needed}
    assert names == {"pluggy", "importlib-metadata", "msgspec", "click", "rich"}
    assert set(metadata.get_all("Provides-Extra") or []) == {
        "mdns",
        "consul",
        "etcd",
        "testing",
        "all",
    }


@pytest.mark.parametrize("name", PROJECTS)
def test_installs_alone_into_a_fresh_environment(
    built: dict[str, tuple[Path, Path]], name: str, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    wheels = [built[name][0]] if name == "svcreg" else [built["svcreg"][0], built[name][0]]
    # pip of this environment installs into the other, which needs none of its own then.
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python")
    run(*pip, python, "install", "--quiet", *wheels)
    package = name.replace("-", "_")
    where = run(python, "-I", "-c", f"import {package}; print({package}.__file__)")
    assert str(tmp_path) in where
    listed = run(python, "-I", "-c", "import svcreg; print(*sorted(svcreg.backends()))").split()
    expected = {"memory", "sqlite"} | ({name.removeprefix("svcreg-")} - {"svcreg"})
    assert set(listed) == expected
    assert "svcreg" in run(python.with_name("svcreg"), "--help")
