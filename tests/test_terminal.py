import io
import logging

from rich.console import Console

from lockstep import terminal


def test_log_messages_are_printed_once_however_often_asked(monkeypatch):
    log = logging.getLogger("lockstep")
    before, level = list(log.handlers), log.level
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
        log.handlers[:] = before
        log.setLevel(level)
