"""The project's own files agree with one another: packages, commands, licence, and nothing private in them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "miniserve"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pyproject() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def committed_files() -> list[Path]:
    """Files that git knows; in an unpacked archive, where there is no git, everything outside hidden folders."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not any(p.startswith(".") for p in path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def distribution(requirement: str) -> str:
    """Return the normalised name that a requirement line starts with: `Ray[serve]==2` is `ray`."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found.group()).lower()


# ---- packages: one list, in pyproject.toml ----


def conda_dependencies() -> tuple[list[str], list[str]]:
    """Return environment.yml's conda lines and its pip lines."""
    lines = yaml.safe_load(read("environment.yml"))["dependencies"]
    pip = [entry for line in lines if isinstance(line, dict) for entry in line["pip"]]
    return [line for line in lines if isinstance(line, str)], pip


def test_conda_installs_this_project_and_lists_no_package_again() -> None:
    conda, pip = conda_dependencies()

    assert [distribution(line) for line in conda] == ["python", "pip"]
    assert pip == ["-e .[test,notebooks]"]


def test_the_extras_that_are_named_exist() -> None:
    known = set(pyproject()["project"]["optional-dependencies"])
    named = set()
    for name in ("environment.yml", "README.md", "CONTRIBUTING.md"):
        for group in re.findall(r"-e \"?\.\[([a-z,-]+)\]", read(name)):
            named |= set(group.split(","))

    assert {"test", "notebooks"} <= named
    assert named <= known


def test_every_file_speaks_of_the_same_oldest_python() -> None:
    conda, _ = conda_dependencies()
    settings = pyproject()
    oldest = settings["project"]["requires-python"].removeprefix(">=")

    assert f"python={oldest}" in conda
    assert settings["tool"]["mypy"]["python_version"] == oldest
    assert settings["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert f"Python {oldest} or newer" in read("README.md")
    assert f"sys.version_info < ({oldest.replace('.', ', ')})" in read("Makefile")


def test_no_package_is_listed_twice() -> None:
    project = pyproject()["project"]
    default = [distribution(line) for line in project["dependencies"]]
    for extra, lines in {"the project itself": [], **project["optional-dependencies"]}.items():
        names = default + [distribution(line) for line in lines]
        assert len(names) == len(set(names)), f"{extra}: {sorted(names)}"


def test_conda_users_are_told_how_to_get_the_cpu_build_while_the_environment_is_made() -> None:
    text = read("environment.yml")

    assert len([line for line in pyproject()["project"]["dependencies"] if line.startswith("torch==")]) == 1
    assert "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu conda env create -f environment.yml" in text


def test_the_opt_in_extras_are_named_with_their_sizes() -> None:
    comments = {
        match[1]: match[2] for match in re.finditer(r'^#.*\[([a-z-]+)\]"\s+(.*)$', read("environment.yml"), re.M)
    }

    assert {"ray", "vllm", "vllm-cpu"} <= comments.keys()
    assert all("GB" in comments[extra] for extra in ("ray", "vllm", "vllm-cpu"))


# ---- commands: the README, the Makefile and CI name the same ones ----


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), flags=re.MULTILINE))


def test_readme_and_makefile_name_the_same_targets() -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", read("README.md"), flags=re.MULTILINE))

    assert named == make_targets()


def test_every_target_is_phony_and_described() -> None:
    text = read("Makefile")
    described = set(re.findall(r"^([a-z][a-z-]*):[^#\n]*## \S", text, flags=re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)

    assert phony
    assert set(phony.group(1).split()) == make_targets() == described


def test_ci_runs_the_command_that_the_readme_gives() -> None:
    lines = [line.strip() for line in read(".ci/run").splitlines()]
    commands = [line for line in lines if line and not line.startswith("#")]

    assert "| `make test` |" in read("README.md")
    assert commands[-1] == "make test", "the tests come last, and their exit code is the run's"
    assert commands[0] == "set -euo pipefail"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_links_and_pictures_in_the_documents_lead_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"):
        text = read(name)
        headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in headings, f"{name}: {target}"
            elif "://" not in target:
                assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


# ---- nothing private ----

# Written in pieces, so that this file does not contain what it looks for.
PRIVATE = [
    ("a home folder", r"(?<!\w)/(home|Users)/[A-Za-z]"),
    ("a home folder", "/ro" + "ot/"),
    ("a folder of one machine", r"(?<![\w.~-])/wo" + "rk/"),
    ("a package registry", r"py" + r"pi\.org"),
    ("a package registry", "python" + "hosted"),
    ("a package registry", r"registry\." + "npmjs"),
    ("a package registry", r"deb\." + r"debian\.org"),
    ("a package registry", r"conda\." + r"anaconda\.org"),
]


def private_lines(text: str) -> list[str]:
    return [
        f"line {number}: {what}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in PRIVATE
        if re.search(pattern, line)
    ]


def test_no_committed_file_names_a_home_folder_or_a_registry() -> None:
    found = {}
    for path in committed_files():
        content = path.read_bytes()
        if b"\0" not in content and (lines := private_lines(content.decode(errors="replace"))):
            found[str(path.relative_to(ROOT))] = lines

    assert found == {}


@pytest.mark.parametrize(
    "line",
    ["cd /ro" + "ot/x", "open('/ho" + "me/ann/x')", "at /wo" + "rk/main", "see https://py" + "pi.org/project/x"],
)
def test_the_search_for_private_things_finds_them(line: str) -> None:
    assert private_lines(line)


@pytest.mark.parametrize("line", ["data/network/rules", "GET /workers/1", "~/work/notes", "the root/leaf pair"])
def test_the_search_for_private_things_leaves_ordinary_text_alone(line: str) -> None:
    assert not private_lines(line)


# ---- licence, docstrings ----


def test_the_licence_is_the_whole_apache_2_text() -> None:
    text = read("LICENSE")

    assert "Apache License\n                           Version 2.0, January 2004" in text
    for section in range(1, 10):
        assert re.search(rf"^   {section}\. ", text, flags=re.MULTILINE), f"section {section}"
    assert "END OF TERMS AND CONDITIONS" in text
    assert pyproject()["project"]["license"] == "Apache-2.0"


def test_every_module_begins_with_what_it_is() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in sorted(PACKAGE.rglob("*.py"))
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert missing == []
