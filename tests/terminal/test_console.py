import io
import logging
import subprocess
import sys

from rich.console import Console

from lockstep.terminal import console as terminal


def test_log_messages_are_printed_once_however_often_asked(monkeypatch):
    log = logging.getLogger("lockstep")
    before, level, of_root = list(log.handlers), log.level, list(logging.getLogger().handlers)
    try:

        def use():
            terminal.show_log()
            terminal.show_log()
            log.info("MNIST: fetching from [somewhere]")

        out = io.StringIO()
        monkeypatch.setattr(terminal, "console", Console(file=out, width=80, highlight=False))
        use()
        assert out.getvalue() == "MNIST: fetching from [somewhere]\n"
    finally:
        log.handlers[:], logging.getLogger().handlers[:] = before, of_root
        log.setLevel(level)


def test_nor_again_by_what_mlflow_does_to_the_root_logger():
    script = """
import logging
from lockstep.terminal.console import show_log
show_log()
import lockstep.tracking.logged_model
logging.getLogger("lockstep").info("once")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")
