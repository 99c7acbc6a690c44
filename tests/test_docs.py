"""The commands and scripts that the docs show are run, and what the docs say of them is compared.

A command whose output is shown is run as it stands. The others are composed, checked and planned
(`dry_run=true`, on digits in place of MNIST): what training does, other tests ask.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from helpers import forked
from helpers.clone import REPOSITORY, Clone
from helpers.configs import STREAM
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sklearn.datasets import load_wine

from lockstep.config.errors import Refused
from lockstep.data.datasets import load
from lockstep.training.networks import MultilayerPerceptron

README, SWEEPS = REPOSITORY / "README.md", REPOSITORY / "docs" / "sweeps.md"
MODELS, DATA = REPOSITORY / "docs" / "models.md", REPOSITORY / "docs" / "data.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES.remove(REPOSITORY / "docs" / "cluster.md")  # execution/test_cluster_docs.py
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`((?:python (?:run\.py|-m lockstep)|make) [^`…]+)`")
RUN_ELSEWHERE = {
    "python -m lockstep doctor": "cli/test_doctor.py",
    "mlflow": "tracking/test_logged_model.py",
    "--code my_nets.py": "sweep/test_own_networks.py",
}

SECONDS = re.compile(r"\b\d+(\.\d+)? s\b|\b[0-9a-f]{8}$")
NUMBER = re.compile(r"(\d+(?:\.\d+)?)")
TOLERANCE = 0.003
"""Of numbers with four decimals, which are accuracies and losses: the last bits of float32 differ between
processors, and one of digits' 360 test instances is 0.0028. Others are exact; seconds and ids don't count."""


def shown():
    """What the docs show, each once: commands that follow each other, and what is said to come of each."""
    found = {}
    for page in PAGES:
        text = page.read_text()
        for language, block in BLOCK.findall(text):
            block = block.replace("\\\n", "")
            if language == "python":
                found.setdefault(block, [(block, None)])
            elif language == "sh":
                for line in block.splitlines():
                    line = line.partition(" #")[0].strip()
                    found.setdefault(line, [(line, None)])
            elif block.startswith("$ "):
                parts = [entry.partition("\n") for entry in re.split(r"^\$ ", block, flags=re.M)[1:]]
                found[parts[0][0]] = [(line, output) for line, _, output in parts]
        for line in INLINE.findall(BLOCK.sub("", text)):
            line = " ".join(line.split())
            found.setdefault(line, [(line, None)])
    return [what for line, what in found.items() if not any(run in line for run in RUN_ELSEWHERE)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory, empty_store):
    """A clone with a sweep, and with the files that a reader has by then."""
    clone = Clone(tmp_path_factory.mktemp("docs"), empty_store)
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        (clone.root / file).symlink_to(REPOSITORY / file)
    torch.save(MultilayerPerceptron(784, 10).state_dict(), clone.root / "state_dict.pt")
    x, y = np.random.default_rng(0).random((40, 13)), np.arange(40) % 3
    [network] = re.findall(r"^```python\n(# my_nets\.py\n.*?)^```$", MODELS.read_text(), re.M | re.S)
    (clone.root / "my_nets.py").write_text(network)
    np.savez(clone.root / "wine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    wine = load_wine(as_frame=True)
    wine.frame.assign(target=wine.target_names[wine.target]).to_csv(clone.root / "wine.csv", index=False)
    sweep = ("-m", "data=digits", "model=logreg", "trainer.epochs=1", "seed=0,1", "hydra.launcher.n_jobs=1")
    code, _, err = clone.quick(*sweep)
    assert (code, err) == (0, "")
    return clone


def filled_in(text, clone):
    """With the clone's own for what stands in <…>."""
    if "<" not in text:
        return text
    client = mlflow.MlflowClient(clone.store)
    experiments = [client.get_experiment_by_name("digits").experiment_id]
    [run, *_] = client.search_runs(experiments, "tags.`lockstep.kind` = 'run'")
    [model, *_] = client.search_logged_models(experiments)
    report = next((clone.root / "outputs" / "sweeps").rglob("report.html"))
    for what, value in (
        ("<day>/<time>", "/".join(report.parts[-3:-1])),
        ("<run id>", run.info.run_id),
        ("<sweep>", json.loads((report.parent / "sweep.json").read_text())["run_id"]),
        ("<other sweep>", json.loads((report.parent / "sweep.json").read_text())["run_id"]),
        ("<model id>", model.model_id),
    ):
        text = text.replace(what, value)
    assert "<" not in text
    return text


def has_mnist():
    try:
        return bool(load(STREAM))
    except Refused:
        return False


def carried_out(line, is_shown, clone):
    """Run a line or a script in the clone."""
    text, setting = filled_in(line, clone), {}
    words = ["python", "-c", text] if "\n" in text else shlex.split(text)
    while "=" in words[0]:
        key, _, setting[key] = words.pop(0).partition("=")
    if words[0] == "make":
        words.insert(1, "--dry-run")
    elif "run.py" in words and "--help" not in words:
        if is_shown:  # a dry run's output tells of two workers
            words += ["tracking.pictures=none", f"hydra.launcher.n_jobs={1 + ('dry_run=true' in words)}"]
        else:
            words = [word for word in words if not word.startswith("data.val_size")] + ["dry_run=true"]
            has_data = {"data=arrays", "data=table"} & {*words}
            words += [] if has_data else ["data=digits", "data.val_size=200"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {**setting, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if words[0] == "python":
        return forked.run(words[1:], clone.root, environment)
    return subprocess.run(words, cwd=clone.root, env=environment, capture_output=True, text=True)


def is_alike(said, printed):
    """Whether a printed line is what is said, up to seconds, spaces, and TOLERANCE."""
    said, printed = (SECONDS.sub("# s", " ".join(line.split())) for line in (said, printed))
    said, printed = NUMBER.split(said), NUMBER.split(printed)
    return len(said) == len(printed) and all(
        a == b
        or (re.fullmatch(r"\d\.\d{4}", a) and NUMBER.fullmatch(b) and abs(float(a) - float(b)) <= TOLERANCE)
        for a, b in zip(said, printed, strict=True)
    )


@pytest.mark.parametrize("what", shown(), ids=lambda what: what[0][0].splitlines()[0])
def test_what_the_docs_show_does_what_they_say(what, clone):
    needs_mnist = [line for line, _ in what if "mnist" in line or ("dry_run" in line and "data=" not in line)]
    if needs_mnist and not has_mnist():
        pytest.skip("MNIST can't be had here")
    for line, output in what:
        done = carried_out(line, output is not None, clone)
        if output is not None and "must be" in output:
            assert (done.returncode, done.stdout, done.stderr) == (2, "", output)
            continue
        assert done.returncode == 0, done.stderr
        printed = done.stdout.splitlines()
        said = [line for line in (output or "").splitlines() if line not in ("", "...")]
        assert [line for line in said if not any(is_alike(line, other) for other in printed)] == [], printed


def test_lines_are_compared_to_the_digits_that_count():
    row = "lr=0.1  5  0.9611 ± 0.0056  1.8 MiB  0.1 s"
    assert is_alike(row, "lr=0.1 5   0.9600 ± 0.0060  1.8 MiB 23 s")
    for other in ("lr=0.1  5  0.9651", "lr=0.2  5  0.9611", "lr=0.1  4  0.9611", "lr=0.1  5  none"):
        assert not is_alike("lr=0.1  5  0.9611", other)
    assert not is_alike(row, row.replace("1.8", "1.9"))


def settings():
    """Rows of the docs' tables of settings: keys, and the defaults as they are written."""
    for page, prefix in ((README, ""), (SWEEPS, "hydra.sweeper."), (DATA, "")):
        [table] = re.findall(
            r"^\| key \| default \| meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", page.read_text(), re.M
        )
        for row in table.splitlines():
            _, keys, default, *_ = row.split("|")
            yield [prefix + key for key in re.findall(r"`([^`]+)`", keys)], default.replace("`", "").strip()


IN_WORDS = {
    *(
        "model.hidden_dims",
        "data.root",
        "data.path",
        "data.target",
        "tracking.experiment",
        "tracking.name",
        "tracking.uri",
    ),
    *("hydra.sweeper.direction", "hydra.sweeper.min_epochs"),
}
"""Keys whose defaults are no plain values."""


def test_defaults_are_those_that_the_docs_say(monkeypatch):
    monkeypatch.setenv("LOCKSTEP_ROOT", "/")
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        composed = {
            optim: compose(
                "config", ["hydra/sweeper=search", "data=table", f"optim={optim}"], return_hydra_config=True
            )
            for optim in ("sgd", "adam", "adamw")
        }
    wrong, n_compared = {}, 0
    for keys, default in settings():
        first, *others = default.split("; ")
        by_optim = [("adam" if keys[0] in ("optim.betas", "optim.eps") else "sgd", first)]
        for other in others:  # such as "0.001 for Adam and AdamW"
            value, _, optims = other.partition(" for ")
            by_optim += [(optim, value) for optim in optims.lower().split(" and ") if optim in composed]
        for optim, written in by_optim:
            for key, value in zip(keys, OmegaConf.create(f"[{written}]"), strict=False):
                n_compared += key not in IN_WORDS
                value = None if value == "none" else value
                had = OmegaConf.select(composed[optim], key, default="no such key")
                if key not in IN_WORDS and had != value:
                    wrong[optim, key] = value, had
    assert wrong == {}
    assert n_compared > 35


def test_groups_have_the_options_that_the_docs_say():
    rows = re.findall(
        r"^\| (`(?:model|optim|data|experiment|trainer)`[^|]*) \| ([^|]*) \|$", README.read_text(), re.M
    )
    assert len(rows) == 5
    for groups, options in rows:
        files = {
            path.stem
            for group in re.findall(r"`(\w+)`", groups)
            for path in (REPOSITORY / "conf" / group).glob("*.yaml")
        }
        files |= (
            {"module"} if "`model`" in groups else set()
        )  # which has no file: its settings are its arguments
        assert set(re.findall(r"`(\w+)`", options)) == files


def test_what_a_search_finds_is_what_the_benchmarks_found():
    results = (REPOSITORY / "benchmarks" / "RESULTS.md").read_text()
    [figures] = re.findall(r"^\| mean \|(.*)\|$", results, re.M)
    loop, search, test, of_random = map(float, re.findall(r"[\d.]+", figures))
    for page in (README, SWEEPS):
        text = " ".join(page.read_text().split())
        for figure in (
            f"{search:.0f} s against {loop:.0f}",
            f"{100 * test:.2f} %",
            f"{100 * of_random:.2f} %",
        ):
            assert figure in text
