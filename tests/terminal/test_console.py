import io
import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest
from helpers import forked

from lockstep.terminal import console as terminal
from lockstep.terminal.console import PlainConsole, printable


def test_log_messages_are_printed_once_however_often_asked(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    log = logging.getLogger("lockstep")
    before, level, of_root = list(log.handlers), log.level, list(logging.getLogger().handlers)
    try:

        def use():
            terminal.show_log()
            terminal.show_log()
            log.info("MNIST: fetching from [somewhere]")

        out = io.StringIO()
        monkeypatch.setattr(terminal, "console", PlainConsole(file=out, width=80))
        use()
        assert out.getvalue() == "MNIST: fetching from [somewhere]\n"
    finally:
        log.handlers[:], logging.getLogger().handlers[:] = before, of_root
        log.setLevel(level)


def test_a_warning_of_a_library_is_logged_once(monkeypatch, caplog):
    terminal.warn_once.cache_clear()
    monkeypatch.setattr(warnings, "showwarning", terminal._log_warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", terminal._log_warning)
        for _ in range(2):
            warnings.warn("only one class", UserWarning, stacklevel=1)
    assert caplog.messages == ["UserWarning: only one class"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("lr=0.1", "lr=0.1"), ("\x1b[31mred\r\n", r"\x1b[31mred\r\n"), ("größer ± 1", "größer ± 1")],
)
def test_control_characters_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


def test_text_is_shown_as_it_is():
    out = io.StringIO()
    PlainConsole(file=out, width=80).print("[red]:smile: [/nope] [1, 2]\n\x1b[31m")
    assert out.getvalue() == "[red]:smile: [/nope] [1, 2]\n\\x1b[31m\n"


def test_nor_again_by_what_mlflow_does_to_the_root_logger():
    script = """
import logging
from lockstep.terminal.console import show_log
show_log()
import mlflow.pytorch
logging.getLogger("lockstep").info("once")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")


THREADS = {
    "uploader": """
from lockstep.tracking.uploader import Uploader
uploader = Uploader(None)
uploader._pending = None
uploader.__enter__()
""",
    "another": "threading.Thread(target=lambda: 1 / 0, name='another').start()",
}


@pytest.mark.parametrize(
    ("thread", "said"),
    [
        (
            "uploader",
            "Thread-1 (_work) ended with an error: AttributeError: 'NoneType' object has no attribute",
        ),
        ("another", "another ended with an error: ZeroDivisionError: division by zero\n"),
    ],
)
def test_no_thread_ends_unseen_or_prints_a_traceback(tmp_path, thread, said):
    start = "import threading\nfrom lockstep.terminal.console import show_log\nshow_log()\n"
    join = "\n[thread.join() for thread in threading.enumerate() if thread.name.startswith('Thread')]"
    done = forked.run(["-c", start + THREADS[thread] + join], tmp_path, dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
