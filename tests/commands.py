"""The command line as tests call it: within this process, which has its libraries loaded, or in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from imcsim.cli import main

IMCSIM = [sys.executable, "-m", "imcsim"]


def imcsim(folder, *args, **environment):
    """Run a command in *folder*; what is not caught by the command line fails the test with its traceback."""
    out, err, words = io.StringIO(), io.StringIO(), ["imcsim", *map(str, args)]
    with contextlib.chdir(folder), mock.patch.dict(os.environ), mock.patch.object(sys, "argv", words):
        os.environ.pop("IMCSIM_DATA", None)
        os.environ.update(environment)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main()
            except SystemExit as leave:
                status = leave.code
    return subprocess.CompletedProcess(words, status or 0, out.getvalue(), err.getvalue())


def imcsim_alone(folder, *args, **environment):
    """Run a command in a process of its own, as a shell does."""
    env = {name: value for name, value in os.environ.items() if name != "IMCSIM_DATA"} | environment
    return subprocess.run(
        [*IMCSIM, *map(str, args)], cwd=folder, capture_output=True, text=True, env=env, timeout=300, check=False
    )
