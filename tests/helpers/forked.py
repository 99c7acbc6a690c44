"""Python commands as processes of their own, forked from one that has imported torch and MLflow already: two
seconds instead of six. For tests of what a command does; those of how it starts and ends start real ones."""

import atexit
import logging
import multiprocessing
import os
import runpy
import subprocess
import sys

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.export",
        "mlflow.pytorch",
        "mlflow.store.tracking.sqlalchemy_store",
        "sklearn.datasets",
        "hydra.main",
        "optuna",
        "plotly.graph_objects",
        "lockstep.sweep.session",
        "lockstep.search.session",
    ]
)


def run(words, folder, environment, timeout=240):
    """`python <words>` in a folder; as subprocess.run has it."""
    process = _server.Process(target=_main, args=(words, folder, environment))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise subprocess.TimeoutExpired(words, timeout)
    out, err = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _main(words, folder, environment):
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    logging.getLogger().handlers.clear()  # mlflow.pytorch's; a command loads it later, and adds none by then
    sys.path.insert(0, str(folder))
    try:
        if words[0] == "-c":
            exec(compile(words[1], "<script>", "exec"), {"__name__": "__main__"})
        elif words[0] == "-m":
            sys.argv = list(words[1:])
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing's processes leave them out
