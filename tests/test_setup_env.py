"""Making the environment: done once, resumable, one at a time, and plain about what is wrong. Nothing is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from miniserve import setup_env
from miniserve.errors import SetupError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder whose name has a space in it."""
    folder = tmp_path / "my project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["numpy", "torch==9.8.7"]\n')
    return folder


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Take the place of pip and of venv: what would have been installed, in order."""
    done: list[Path] = []

    def make_venv(venv: Path) -> Path:
        python = setup_env.venv_python(venv)
        if not python.exists():
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        return python

    def install(python: Path, root: Path, extras: list[str], torch_index: str | None) -> None:
        done.append(root)

    monkeypatch.setattr(setup_env, "make_venv", make_venv)
    monkeypatch.setattr(setup_env, "install", install)
    return done


def test_a_second_setup_installs_nothing(root: Path, installs: list[Path]) -> None:
    setup_env.setup(root, root / ".venv")
    setup_env.setup(root, root / ".venv")

    assert installs == [root]


def test_a_changed_pyproject_is_installed_again(root: Path, installs: list[Path]) -> None:
    setup_env.setup(root, root / ".venv")
    (root / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    setup_env.setup(root, root / ".venv")

    assert installs == [root, root]


def test_a_moved_folder_is_installed_again_because_the_editable_install_points_at_it(
    root: Path, installs: list[Path]
) -> None:
    setup_env.setup(root, root / ".venv")
    moved = root.rename(root.with_name("elsewhere"))
    setup_env.setup(moved, moved / ".venv")

    assert installs == [root, moved]


def test_an_interrupted_setup_is_not_taken_for_a_finished_one(
    root: Path, installs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    setup_env.setup(root, root / ".venv")
    (root / "pyproject.toml").write_text("[project]\nname = 'y'\n")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup_env, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup_env.setup(root, root / ".venv")
    setup_env.setup(root, root / ".venv")

    assert installs == [root, root]


def test_two_setups_at_once_take_turns_and_the_second_finds_the_work_done(
    root: Path, installs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, second_waits = threading.Event(), threading.Event()
    install, say = setup_env.install, setup_env.say

    def slow_install(*arguments: object) -> None:
        inside.set()
        assert second_waits.wait(30)
        install(*arguments)  # type: ignore[arg-type]

    def listen(text: str) -> None:
        say(text)
        if "waiting" in text:
            second_waits.set()

    monkeypatch.setattr(setup_env, "install", slow_install)
    monkeypatch.setattr(setup_env, "say", listen)
    first = threading.Thread(target=setup_env.setup, args=(root, root / ".venv"))
    first.start()
    assert inside.wait(30)
    setup_env.setup(root, root / ".venv")
    first.join(30)

    assert installs == [root]
    assert "another setup of this folder is running" in capsys.readouterr().out


def test_a_venv_whose_python_is_gone_is_made_anew(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = setup_env.venv_python(root / ".venv")
    python.parent.mkdir(parents=True)
    python.symlink_to(root / "no such python")

    made = setup_env.make_venv(root / ".venv")

    assert setup_env.probe(made)
    assert "recreating it" in capsys.readouterr().out


def test_a_working_venv_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "probe", lambda python: "3.11.0")
    mark = root / ".venv" / "mark"
    mark.parent.mkdir()
    mark.touch()

    setup_env.make_venv(root / ".venv")

    assert mark.exists()


def test_a_python_without_the_venv_module_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ensurepip" else object())

    with pytest.raises(
        SetupError, match=rf"Python {sys.version.split()[0]}.*no ensurepip.*apt install python3\.\d+-venv"
    ):
        setup_env.refuse_unfit_python()


def test_a_program_that_fails_shows_its_last_lines_and_one_that_works_shows_nothing(
    root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = root / "log"
    setup_env.run_logged([sys.executable, "-c", "print('WARNING: noise')"], log, root)
    assert capfd.readouterr() == ("", "")

    script = "import sys; [print('line', i) for i in range(90)]; sys.exit('no space left')"
    with pytest.raises(SetupError) as failure:
        setup_env.run_logged([sys.executable, "-c", script], log, root)

    message = str(failure.value)
    assert "exit code 1" in message
    assert "no space left" in message
    assert "line 89" in message
    assert "line 3\n" not in message
    assert str(log) in message


def test_a_long_program_says_how_far_it_is_without_its_warnings(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = "import sys; print('Collecting numpy'); print('WARNING: noise', flush=True); sys.stdin.read()"
    gate = root / "gate"
    # The program ends when the test has seen its progress line: it polls for a file that `say` makes, for 30 s at most.
    script += "; import os, time; end = time.monotonic() + 30"
    script += f"\nwhile not os.path.exists({str(gate)!r}) and time.monotonic() < end: time.sleep(0.01)"
    seen: list[str] = []

    def listen(text: str) -> None:
        seen.append(text)
        if "Collecting numpy" in text:
            gate.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup_env, "say", listen)
        setup_env.run_logged([sys.executable, "-u", "-c", script], root / "log", root, heartbeat_s=0.05)

    assert any("Collecting numpy" in text for text in seen)
    assert not any("noise" in text for text in seen)


@pytest.mark.parametrize(
    ("system", "machine", "with_triton"),
    [("Linux", "x86_64", True), ("Linux", "aarch64", False), ("Darwin", "arm64", False), ("Windows", "AMD64", False)],
)
def test_triton_is_installed_where_it_is_tested(system: str, machine: str, with_triton: bool) -> None:
    assert ("gpu" in setup_env.default_extras(system, machine)) == with_triton


@pytest.fixture
def pip_commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been run, without the Python before it."""
    commands: list[list[str]] = []

    def note(command: list[str | Path], log: Path, cwd: Path) -> None:
        commands.append([str(part) for part in command[1:]])

    monkeypatch.setattr(setup_env, "run_logged", note)
    return commands


def test_the_named_index_is_used_for_torch_alone(
    root: Path, pip_commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup_env, "has_torch", lambda python: False)

    setup_env.install(root / ".venv/bin/python", root, ["test"], "https://index.example/cpu")

    for_torch, for_the_rest = pip_commands
    assert for_torch[-3:] == ["--extra-index-url", "https://index.example/cpu", "torch==9.8.7"]
    assert for_the_rest[-2:] == ["--editable", ".[test]"]
    assert "--extra-index-url" not in for_the_rest


@pytest.mark.parametrize(
    ("gpu", "installed", "told"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_a_linux_user_without_a_gpu_is_told_of_the_cpu_build(
    root: Path,
    pip_commands: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpu: bool,
    installed: bool,
    told: bool,
) -> None:
    monkeypatch.setattr(setup_env, "has_torch", lambda python: installed)
    monkeypatch.setattr(setup_env, "sees_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(sys, "platform", "linux")

    setup_env.install(root / ".venv/bin/python", root, ["test"], None)

    assert ("TORCH_INDEX=" in capsys.readouterr().out) == told
    assert len(pip_commands) == 1


# ---- the Makefile around it ----


@pytest.fixture
def make(root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run make in a folder of its own, with nothing on the PATH but the Pythons that the test puts there."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not installed")
    shutil.copy(ROOT / "Makefile", root)

    def run(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": path}
        return subprocess.run(
            [program, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
        )

    return run


def fake_python(folder: Path, name: str, version: tuple[int, int, int]) -> None:
    """A Python of any version: it runs `-c` code with that version in sys, and says so when a module is started."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then echo "{name} starts $*"; exit 0; fi\n'
        f'exec "{sys.executable}" -c "import sys; sys.version_info = {version}; exec(sys.argv[1])" "$2"\n'
    )
    program.chmod(0o755)


def test_make_takes_the_first_python_that_is_new_enough(
    make: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    fake_python(tmp_path / "bin", "python3", (3, 9, 2))
    fake_python(tmp_path / "bin", "python3.12", (3, 12, 1))

    done = make("setup", "TORCH_INDEX=https://index.example/cpu", path=str(tmp_path / "bin"))

    assert done.returncode == 0, done.stderr
    assert done.stdout == "python3.12 starts -m miniserve.setup_env --torch-index https://index.example/cpu\n"


def test_make_names_the_pythons_that_are_too_old(
    make: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    fake_python(tmp_path / "bin", "python3", (3, 9, 2))

    done = make("setup", path=str(tmp_path / "bin"))

    assert done.returncode == 2
    assert "needs Python 3.11 or newer; found: python3 (3.9.2)." in done.stderr
    assert "PYTHON=" in done.stderr


def test_make_takes_the_python_it_is_given(
    make: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    fake_python(tmp_path / "bin", "python3", (3, 12, 1))
    fake_python(tmp_path / "bin", "mine", (3, 13, 0))

    done = make("setup", "PYTHON=mine", path=str(tmp_path / "bin"))

    assert done.stdout.startswith("mine starts")


def test_make_alone_lists_the_targets(make: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = make(path="/usr/bin:/bin")

    assert done.returncode == 0
    for target in ("setup", "demo", "test", "test-all", "check", "lab", "notebooks", "bench", "clean"):
        assert any(line.split()[:1] == [target] for line in done.stdout.splitlines()), target
