"""A run on the user's own data: what the store says of it, and where the data may be later."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch
import yaml
from helpers.clone import Clone
from helpers.configs import run_config
from helpers.data_files import good_source, save, tiny
from mlflow.artifacts import download_artifacts

from lockstep.cli import reproduce as reproducing
from lockstep.config.data_config import ArraysConfig, DownloadedConfig
from lockstep.config.errors import Refused
from lockstep.config.schema import RunConfig
from lockstep.data import datasets, downloads, sources
from lockstep.tracking import recorded_data
from lockstep.tracking.store import Store

STREAM = dict(batch_size=2, drop_last=True, val_size=0, shuffle_seed=0)
ANIMALS = np.array(["dog", "cat", "emu"])
X = np.random.default_rng(0).normal(3000, 500, (12, 4))
OWN = dict(x_train=X, y_train=ANIMALS[np.arange(12) % 3], x_test=X[:3], y_test=ANIMALS)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, empty_store):
    """A clone, its run on the user's own data, which is given by a relative path, and what was printed."""
    clone = Clone(tmp_path_factory.mktemp("clone"), empty_store)
    save(clone.root / "own.npz", **OWN)
    data = ("data=arrays", "data.path=own.npz", "data.scale=standardize", "data.batch_size=2")
    settings = ("model=logreg", "trainer.epochs=1", "tracking.pictures=none", "hydra.launcher.n_jobs=1")
    code, out, err = clone.quick("-m", *data, *settings)
    assert (code, err) == (0, "")
    mlflow.set_tracking_uri(clone.store)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("arrays").experiment_id
    [run] = client.search_runs([experiment], "tags.`lockstep.kind` = 'run'")
    return clone, run, out


@pytest.fixture
def own(swept):
    """The file of the run's data, which a test may change."""
    path = swept[0].root / "own.npz"
    yield path
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    save(path, **OWN)


def config_of(clone, run):
    path = download_artifacts(run_id=run.info.run_id, artifact_path="config.yaml")
    return RunConfig.from_yaml(path, clone.store)


def test_the_scale_the_classes_and_the_whole_path_are_recorded(swept):
    clone, run, out = swept
    path = clone.root / "own.npz"
    said = f"{path}: features are standardized (data.scale=standardize); classes: cat, dog, emu"
    assert out.splitlines().count(said) == 1
    assert run.data.tags["lockstep.data_scale"] == "standardize"
    assert (run.data.params["data.scale"], run.data.params["data.path"]) == ("standardize", str(path))
    assert '"class_names": ["cat", "dog", "emu"]' in run.inputs.dataset_inputs[0].dataset.profile
    [uri] = [line.split(": ")[1] for line in out.splitlines() if line.startswith("The best run's model")]
    described = mlflow.models.get_model_info(uri)
    assert described.metadata == {"class_names": ["cat", "dog", "emu"]}
    [output] = described.signature.outputs.inputs
    assert (output.name, output.shape) == ("logits of cat, dog, emu", (-1, 3))
    example = torch.from_numpy(mlflow.pyfunc.load_model(uri).input_example)
    assert torch.equal(example, datasets.load(config_of(clone, run).data).x_test)


def test_reproduce_finds_the_data_from_any_folder(swept, monkeypatch, tmp_path):
    clone, run, _ = swept
    monkeypatch.chdir(tmp_path)
    dataset = recorded_data.load(run, config_of(clone, run))
    assert dataset.description.digest == run.inputs.dataset_inputs[0].dataset.digest


def other_content(path):
    save(path, **OWN | {"x_train": X + 1})


def other_labels(path):
    save(path, **OWN | {"y_train": OWN["y_train"][::-1]})


@pytest.mark.parametrize(
    ("put", "problem"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "is a folder"),
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (other_content, "not the data that run "),
        (other_labels, "not the data that run "),
    ],
)
def test_a_stored_path_is_used_only_for_the_same_data(swept, own, tmp_path, put, problem):
    clone, run, _ = swept
    config = config_of(clone, run)
    own.rename(tmp_path / "moved.npz")
    put(own)
    with pytest.raises(Refused, match=f"{own}: {problem}"):
        recorded_data.load(run, config)
    dataset = recorded_data.load(run, config, str(tmp_path / "moved.npz"))
    assert dataset.description.class_names == ("cat", "dog", "emu")
    put(tmp_path / "other.npz")
    with pytest.raises(Refused, match=f"{tmp_path}/other.npz: {problem}"):
        recorded_data.load(run, config, str(tmp_path / "other.npz"))


def test_reproduce_asks_for_data_that_was_moved(swept, own):
    clone, run, _ = swept
    own.rename(clone.root / "moved.npz")
    code, out, err = clone.verb("reproduce", run.info.run_id)
    assert (code, out) == (2, "")
    assert f" -m lockstep reproduce {run.info.run_id} --data PATH" in err
    code, out, _ = clone.verb("reproduce", run.info.run_id, "--data", "moved.npz")
    assert code == 0
    # 12 training instances: 6 batches of 2; a loss and an accuracy each, and one evaluation.
    compared = "16 losses and accuracies, 9 metric points, the weights"
    name = "arrays own.npz standardize batch_size=2 logreg epochs=1"
    assert out.splitlines()[-1] == f"{name}: identical, all {compared}"


MLP = {"name": "mlp", "dropout": 0.0, "activation": "relu"}

HOSTILE = [
    (("data", {"path": "${oc.env:HOME}"}), "${oc.env:HOME}: there is no such file"),
    (("data", {"batch_size": 10**9}), "data.batch_size=1000000000: larger than the 12 training instances"),
    (
        ("model", MLP | {"hidden_dims": [10**9, 10**9]}),
        "model.hidden_dims=(1000000000, 1000000000): weights, gr",
    ),
    (
        ("model", MLP | {"hidden_dims": [8]}),
        "model/state_dict.pt: not the weights of the network in config.yaml",
    ),
    (("config.yaml", b"a: &a [x]\nb: [*a, *a]"), "config.yaml: can't be read as YAML: it has aliases"),
    (("model/state_dict.pt", b"PK"), "model/state_dict.pt: can't be read (BadZipFile)"),
    (("history.parquet", b"PAR1"), "history.parquet: can't be read (ArrowInvalid)"),
    (("lockstep.pruned_at", "2"), "lockstep.pruned_at=2: not within the run's 1 epochs"),
    (("lockstep.pruned_at", "0"), "lockstep.pruned_at=0: not within the run's 1 epochs"),
    (("lockstep.pruned_at", "x"), "lockstep.pruned_at=x: not within the run's 1 epochs"),
    (("lockstep.pruned_at", "0.0001"), "lockstep.pruned_at=0.0001: not within the run's 1 epochs"),
    (("lockstep.pruned_at", "nan"), "lockstep.pruned_at=nan: not within the run's 1 epochs"),
]


@pytest.mark.parametrize(("change", "said"), HOSTILE, ids=[said.partition(":")[0] for _, said in HOSTILE])
def test_what_others_may_have_written_to_a_shared_store_is_refused(
    swept, tmp_path, monkeypatch, change, said
):
    clone, run, _ = swept
    store, (what, value) = Store(clone.store), change
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    shutil.copytree(folder, tmp_path / "good")
    monkeypatch.setattr(reproducing, "train", lambda *_, **__: pytest.fail("it was trained"))
    try:
        if what.startswith("lockstep."):
            store.client.set_tag(run.info.run_id, what, value)
        elif isinstance(value, bytes):
            (folder / what).write_bytes(value)
        else:
            tree = yaml.safe_load((folder / "config.yaml").read_text())
            tree[what] |= value
            (folder / "config.yaml").write_text(yaml.safe_dump(tree))
        with pytest.raises(Refused) as caught:
            reproducing.reproduce(store, run.info.run_id)
        assert said in caught.value.problems[0]
    finally:
        shutil.copytree(tmp_path / "good", folder, dirs_exist_ok=True)
        if what.startswith("lockstep."):
            store.client.delete_tag(run.info.run_id, what)


def test_a_refused_run_is_one_line(swept):
    clone, run, _ = swept
    weights = Path(run.info.artifact_uri.removeprefix("file://")) / "model" / "state_dict.pt"
    content = weights.read_bytes()
    weights.write_bytes(b"")
    done = clone.verb("reproduce", run.info.run_id)
    weights.write_bytes(content)
    assert done == (2, "", "model/state_dict.pt: can't be read (BadZipFile)\n")


def recorded(digest, **params):
    dataset = SimpleNamespace(dataset=SimpleNamespace(digest=digest))
    return SimpleNamespace(
        info=SimpleNamespace(run_id="0" * 32),
        data=SimpleNamespace(params=params),
        inputs=SimpleNamespace(dataset_inputs=[dataset]),
    )


def test_data_that_an_earlier_version_divided_by_255_is_divided_again(tmp_path):
    few_levels = np.arange(24).reshape(4, 6).astype(np.uint8)
    path = str(save(tmp_path / "own.npz", x_train=few_levels, x_test=few_levels[:2]))
    data = ArraysConfig(name="arrays", path=path, **STREAM)
    config = run_config().model_copy(update={"data": data})
    earlier = datasets.load(data.model_copy(update={"scale": "255"})).description.digest
    assert recorded_data.load(recorded(earlier), config).description.scale == "255"
    with pytest.raises(Refused, match="not the data"):
        recorded_data.load(recorded(earlier, **{"data.scale": "auto"}), config)


def test_data_for_a_run_that_needs_none_is_refused():
    config = run_config()
    digest = datasets.load(config.data).description.digest
    with pytest.raises(Refused, match="--data x: data=digits is part of scikit-learn; leave --data out"):
        recorded_data.load(recorded(digest), config, "x")


def test_mnist_is_found_where_it_is_now(tmp_path, monkeypatch):
    monkeypatch.setitem(downloads.DOWNLOADED, "mnist", tiny(("a friend", good_source)))
    monkeypatch.setattr(sources, "user_cache_path", lambda name: tmp_path / "cache")
    gone = tmp_path / "gone"
    config = run_config().model_copy(
        update={"data": DownloadedConfig(name="mnist", root=str(gone), **STREAM)}
    )
    digest = datasets.load(config.data.model_copy(update={"root": None})).description.digest
    assert recorded_data.load(recorded(digest), config).description.name == "mnist"
    assert (
        recorded_data.load(recorded(digest), config, str(tmp_path / "cache" / "MNIST")).description.n_train
        == 4
    )
    assert not gone.exists()
    for put in (lambda path: path.mkdir(), os.mkfifo):  # nothing is downloaded there, no pipe is waited for
        gone.mkdir(parents=True)
        put(gone / "train-images-idx3-ubyte")
        assert recorded_data.load(recorded(digest), config).description.digest == digest
        assert [path.name for path in gone.iterdir()] == ["train-images-idx3-ubyte"]
        shutil.rmtree(gone)
