import io
import logging
import subprocess
import sys
import warnings

import pytest

from lockstep.terminal import console as terminal
from lockstep.terminal.console import PlainConsole, printable


def test_log_messages_are_printed_once_however_often_asked(monkeypatch):
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
    PlainConsole(file=out, width=80).print("[red]:smile: [/nope] [1, 2]")
    assert out.getvalue() == "[red]:smile: [/nope] [1, 2]\n"


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
