"""Every command and every script that the docs show is run as it stands there, but on digits instead of
MNIST, for two epochs, with few trials."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from helpers import forked
from helpers.clone import REPOSITORY, Clone
from helpers.configs import STREAM

from lockstep.config.errors import Refused
from lockstep.data.datasets import load
from lockstep.training.networks import MultilayerPerceptron

PAGES = sorted(
    [*REPOSITORY.glob("docs/*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"],
    key=lambda page: page.name != "sweeps.md",
)
"""The first one's sweeps leave what others speak of."""

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`((?:python (?:run\.py|-m lockstep)|make) [^`…]+)`")

SMALL = {
    "data": "digits",
    "data.val_size": 200,
    "trainer.epochs": 2,
    "tracking.pictures": "none",
    "hydra.launcher.n_jobs": 1,
}


def shown():
    """What the docs show, each once: a line or a script, and what is said to come of it."""
    found = {}
    for page in PAGES:
        text = page.read_text()
        for language, block in BLOCK.findall(text):
            block = block.replace("\\\n", "")
            if language == "python":
                found.setdefault(block, None)
            elif language == "sh":
                for line in block.splitlines():
                    found.setdefault(line.partition(" #")[0].strip(), None)
            elif block.startswith("$ "):
                for entry in re.split(r"^\$ ", block, flags=re.M)[1:]:
                    line, _, output = entry.partition("\n")
                    found.setdefault(line, output)
        for line in INLINE.findall(BLOCK.sub("", text)):
            found.setdefault(" ".join(line.split()), None)
    del found["python -m lockstep doctor"]  # takes long; test_doctor.py runs it
    return list(found.items())


def name(what):
    return "script" if "\n" in what else what


@pytest.fixture(scope="module")
def clone(tmp_path_factory, empty_store):
    """A clone in which they are run, with the files that a reader has by then."""
    clone = Clone(tmp_path_factory.mktemp("docs"), empty_store)
    for file in ("Makefile", "pyproject.toml"):
        (clone.root / file).symlink_to(REPOSITORY / file)
    (clone.root / "rows.json").write_text(json.dumps({"inputs": [[0.5] * 64]}))
    torch.save(MultilayerPerceptron(784, 10).state_dict(), clone.root / "state_dict.pt")
    return clone


def filled_in(text, clone):
    """With the clone's own for what stands in <…>."""
    if "<" not in text:
        return text
    client = mlflow.MlflowClient(clone.store)
    [run, *_] = client.search_runs(["1"], "tags.`lockstep.kind` = 'run' and attributes.status = 'FINISHED'")
    [model, *_] = client.search_logged_models(["1"])
    report = next((clone.root / "outputs" / "sweeps").rglob("report.html"))
    for what, value in (
        ("<day>/<time>", "/".join(report.parts[-3:-1])),
        ("<run id>", run.info.run_id),
        ("<model id>", model.model_id),
    ):
        text = text.replace(what, value)
    assert "<" not in text
    return text


def small(words):
    """A command's words, for digits, and quick."""
    added = dict(SMALL)
    if any("explore" in word or "sweeper=search" in word for word in words):
        added["hydra.sweeper.n_trials"] = 4
    if "dry_run=true" in words:
        del added["hydra.launcher.n_jobs"]  # its output tells of two workers
    kept = [word for word in words if word.partition("=")[0] not in added]
    return kept + [f"{key}={value}" for key, value in added.items()]


def alike(text):
    """Its lines, with `#` for each number: times, and the last digits of a loss, are each machine's own."""
    lines = [re.sub(r"\d+(\.\d+)?", "#", " ".join(line.split())) for line in text.splitlines()]
    return {line for line in lines if line not in ("", "...")}


@pytest.mark.parametrize(("what", "output"), shown(), ids=[name(what) for what, _ in shown()])
def test_what_the_docs_show_does_what_they_say(what, output, clone):
    setting, refused = {}, output is not None and "must be" in output
    text = filled_in(what, clone)
    if "\n" in text:
        if "mnist" in text:
            try:
                load(STREAM)
            except Refused as problem:
                pytest.skip(f"MNIST can't be had here: {problem}")
        words = ["python", "-c", text]
    else:
        words = shlex.split(text)
        while "=" in words[0]:
            key, _, setting[key] = words.pop(0).partition("=")
        if words[0] == "make":
            words.insert(1, "--dry-run")
        elif "run.py" in words and not refused and not {"data=digits", "data=arrays", "--help"} & {*words}:
            words = small(words)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {**setting, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if words[0] == "python":
        done = forked.run(words[1:], clone.root, environment)
    else:
        done = subprocess.run(words, cwd=clone.root, env=environment, capture_output=True, text=True)
    if refused:
        assert (done.returncode, done.stdout, done.stderr) == (2, "", output)
        return
    assert done.returncode == 0, done.stderr
    if output is not None:
        assert alike(output) <= alike(done.stdout)
