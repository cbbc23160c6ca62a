import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import imcsim, imcsim_alone

from imcsim.sweep.spec import load_sweep

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.startswith("imcsim ")]
SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]


def test_the_commands_of_the_readme_work_as_printed(tmp_path):
    assert len(COMMANDS) > 5
    (module,) = [text for kind, text in BLOCKS if kind == "py" and "def build" in text]
    (tmp_path / "my-net").mkdir()
    (tmp_path / "my-net" / "workload.py").write_text(module)
    for number, line in enumerate(COMMANDS):
        words = shlex.split(line)
        if "FOLDER" in words:
            continue  # it stands for the reader's own folder of data sets; the next test has one
        done = (imcsim if number else imcsim_alone)(tmp_path, *words[1:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.skipif("IMCSIM_DATA" not in os.environ, reason="IMCSIM_DATA is not set: no folder of larger data sets")
def test_the_command_on_a_folder_of_data_sets_works_as_printed(tmp_path):
    (line,) = [line for line in COMMANDS if "FOLDER" in line]
    words = [os.environ["IMCSIM_DATA"] if word == "FOLDER" else word for word in shlex.split(line)]
    done = imcsim(tmp_path, *words[1:])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[-1][:40])
def test_the_python_of_the_readme_runs_as_printed(tmp_path, monkeypatch, snippet):
    monkeypatch.chdir(tmp_path)
    if snippet is SNIPPETS[0]:  # as a reader runs it; the others in this process, which has its libraries loaded
        subprocess.run([sys.executable, "-c", snippet], timeout=300, check=True)
    else:
        exec(snippet, {"__name__": "__main__"})


def test_the_chip_file_of_the_readme_is_well_formed(tmp_path):
    (text,) = [text for kind, text in BLOCKS if kind == "yaml" and "parameters:" not in text]
    (tmp_path / "my-chip.yaml").write_text(text)
    done = imcsim(tmp_path, "chip", "check", "my-chip.yaml")
    assert done.returncode == 0, done.stderr


def test_the_sweep_file_of_the_readme_says_what_it_should(tmp_path):
    (text,) = [text for kind, text in BLOCKS if kind == "yaml" and "parameters:" in text]
    (tmp_path / "mine.yaml").write_text(text)
    sweep = load_sweep(tmp_path / "mine.yaml")
    assert len(sweep.space.points()) == 6 * (3 * 2 + 1)
