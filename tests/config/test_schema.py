import pytest
import yaml
from helpers.composing import configs_of
from omegaconf import OmegaConf
from pydantic import ValidationError

from lockstep.config.errors import Refused, holds_password, without_password
from lockstep.config.identity import ADDED
from lockstep.config.schema import RunConfig

TREE = {
    "model": {"name": "mlp", "hidden_dim1": 8, "hidden_dim2": 4, "hidden_dims": [8, 4], "dropout": 0.1}
    | {"activation": "relu"},
    "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0},
    "data": {
        "name": "mnist",
        "batch_size": 64,
        "drop_last": True,
        "val_size": 0,
        "shuffle_seed": 0,
        "root": None,
    },
    "trainer": {"epochs": 1, "device": "cpu", "precision": "float32", "log_every": 50},
    "tracking": {"uri": "postgresql://me:secret@host/db", "experiment": "mnist", "pictures": "all"},
    "seed": 0,
}


def config(**changes):
    composed = OmegaConf.create(TREE)
    for key, value in changes.items():
        OmegaConf.update(composed, key.replace("__", "."), value)
    return RunConfig.of(composed)


def test_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        config().seed = 3


def test_equal_configs_have_equal_run_keys():
    assert config().run_key("d") == config().run_key("d")
    assert len(config().run_key("d")) == 32


@pytest.mark.parametrize("change", [{"data__root": "/elsewhere"}, {"tracking__experiment": "other"}])
def test_run_key_does_not_see_where_things_lie(change):
    assert config(**change).run_key("d") == config().run_key("d")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"optim__lr": 0.2},
        {"model__hidden_dim1": 9, "model__hidden_dims": [9, 4]},
        {"data__shuffle_seed": 1},
        {"trainer__epochs": 2},
        {"trainer__precision": "float64"},
        {"optim__schedule": "cosine"},
        {"optim__clip_norm": 1.0},
        {"trainer__label_smoothing": 0.1},
    ],
)
def test_run_key_sees_all_that_is_trained(change):
    assert config(**change).run_key("d") != config().run_key("d")


def test_run_key_does_not_see_a_later_setting_with_which_runs_train_as_before():
    assert config(optim__clip_norm=None, trainer__label_smoothing=0).run_key("d") == config().run_key("d")


def test_every_later_setting_has_its_old_value_by_default():
    texts = config().param_texts()
    assert {key: texts[key] for key in ADDED} == ADDED


def test_run_key_sees_the_data_and_the_numerics(monkeypatch):
    key = config().run_key("d")
    assert config().run_key("e") != key
    monkeypatch.setattr("lockstep.config.schema.NUMERICS_VERSION", -1)
    assert config().run_key("d") != key


def test_run_key_does_not_depend_on_how_widths_were_typed():
    outright = config(model__hidden_dim1=256, model__hidden_dim2=100)  # hidden_dims still says [8, 4]
    assert outright == config()
    assert outright.run_key("d") == config().run_key("d")


def test_the_stores_address_is_in_neither_params_nor_yaml():
    assert "secret" not in str(config().params())
    assert "secret" not in config().to_yaml()


def test_yaml_describes_the_run_again():
    tree = OmegaConf.create(config().to_yaml())
    tree.tracking.uri = TREE["tracking"]["uri"]
    assert RunConfig.of(tree) == config()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:p4ss@host:5000/x", "http://***@host:5000/x"),
        ("see 'http://me:p@ss/w@host' and sqlite:///a@b.db", "see 'http://***@host' and sqlite:///a@b.db"),
        ("http://host:5000", "http://host:5000"),
        (
            "tracking.uir='http://me:pa ss'w\"rd@host': no such key",
            "tracking.uir='http://***@host': no such key",
        ),
        ("tracking={uri:postgresql://me:p4ss@host/db}", "tracking={uri:postgresql://***@host/db}"),
        ("uri=postgresql:///db?user=me&password=p4ss&x=1", "uri=postgresql:///db?user=me&password=***&x=1"),
        (
            "http://***@host: no %40 for @, see\nhttp://me:p@b",
            "http://***@host: no %40 for @, see\nhttp://***@b",
        ),
    ],
)
def test_without_password(text, shown):
    assert without_password(text) == without_password(shown) == shown


@pytest.mark.parametrize(
    ("uri", "holds"),
    [
        ("http://me:p4ss@host", True),
        ("postgresql://host/db?sslpassword=p4ss", True),
        ("${oc.env:X,'http://me:p4ss@host'}", True),
        ("http://me:p4${oc.env:X}@host", True),
        ("http://me:${oc.env:X}@host", False),
        ("postgresql://host/db?password=${oc.env:X}", False),
        ('${oc.env:MLFLOW_TRACKING_URI,"sqlite:///${oc.env:ROOT}/a@b.db"}', False),
    ],
)
def test_a_password_in_a_config_is_seen_one_in_the_environment_is_not_there(uri, holds):
    assert holds_password(uri) is holds


HOSTILE = {
    "tracking.experiment=${oc.env:X}": lambda tree: tree["tracking"].update(experiment="${oc.env:X}"),
    "trainer.epochs=${oc.env:X}: must be a valid integer": lambda tree: tree["trainer"].update(
        epochs="${oc.env:X}"
    ),
    "it has aliases": lambda tree: tree["model"].update(activation=tree["data"]),
    "allowed: up to 262,144": lambda tree: tree["tracking"].update(experiment="x" * 2**18),
    "not a run's config": lambda tree: tree.update(tracking=[1]),
    "data.augment=2: has settings of its own; give them as data.augment.<setting>=<value>": lambda tree: tree[
        "data"
    ].update(augment=2),
    "optim=[1]: must be a valid dictionary": lambda tree: tree.update(optim=[1]),
    "model.hidden_dims[0]=4611686018427387904": lambda tree: tree["model"].update(hidden_dims=[2**62]),
}


@pytest.mark.parametrize(("said", "change"), HOSTILE.items())
def test_a_stored_config_is_plain_data(tmp_path, monkeypatch, said, change):
    monkeypatch.setenv("X", "7")
    tree = yaml.safe_load(config().to_yaml())
    change(tree)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    try:
        read = f"tracking.experiment={RunConfig.from_yaml(path, 'sqlite:///x.db').tracking.experiment}"
    except Refused as refused:
        read = str(refused)
    assert said in read


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "a: !!python/object/apply:os.getcwd []", "\x00", "a: 'b", "- 1"]
)
def test_a_stored_config_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(Refused, match=r"^config.yaml: (can't be read as YAML: .|not a run's config)"):
        RunConfig.from_yaml(tmp_path / "config.yaml", "sqlite:///x.db")


@pytest.mark.parametrize(("warmup", "epochs", "refused"), [(1.5, 2, False), (2.0, 2, True), (5.0, 2, True)])
def test_a_warmup_ends_before_training_does(warmup, epochs, refused):
    changes = {"optim__warmup_epochs": warmup, "trainer__epochs": epochs, "optim__schedule": "cosine"}
    if not refused:
        assert config(**changes).optim.warmup_epochs == warmup
        return
    with pytest.raises(Refused) as caught:
        config(**changes)
    assert caught.value.problems == (
        f"optim.warmup_epochs={warmup:g}: must be less than trainer.epochs={epochs}",
    )


@pytest.mark.parametrize(
    ("fold", "folds", "said"),
    [
        (4, 5, None),
        (None, None, None),
        (5, 5, "data.fold=5: allowed: 0 to 4 (data.folds=5)"),
        (0, None, "data.fold=0: needs data.folds, how many there are, such as 5"),
        (
            *(None, 3),
            "data.folds=3: needs data.fold, the one that is the test set; for all of them in turn:"
            " -m 'data.fold=range(0,3)'",
        ),
    ],
)
def test_a_fold_is_one_of_so_many(fold, folds, said):
    if said is None:
        assert config(data__fold=fold, data__folds=folds).data.fold == fold
        return
    with pytest.raises(Refused) as caught:
        config(data__fold=fold, data__folds=folds)
    assert caught.value.problems == (said,)


@pytest.mark.parametrize("key", ["root", "path", "test_path"])
@pytest.mark.parametrize("typed", ["here/x", "./here/../here/x", "~/here/x", "{}/here/x"])
def test_paths_are_resolved_where_they_are_typed(monkeypatch, tmp_path, key, typed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tree = OmegaConf.create(TREE)
    if key != "root":
        del tree.data.root
        tree.data.update(
            {"name": "arrays"} if key == "path" else {"name": "table", "path": "x", "target": "y"}
        )
    tree.data[key] = typed.format(tmp_path)
    data = RunConfig.of(tree).data
    assert getattr(data, key) == str(tmp_path / "here" / "x")


def table(**changes):
    tree = OmegaConf.create(TREE)
    del tree.data.root
    tree.data.update({"name": "table", "path": "t.csv", "target": "y", **changes})
    return RunConfig.of(tree)


def test_names_of_columns_may_be_numbers():
    data = table(target=2020, features=[1, "a=b, c"]).data
    assert (data.target, data.features) == ("2020", ("1", "a=b, c"))


def test_a_table_s_data_is_identified_by_its_digest_and_its_split_by_its_settings():
    same = [
        table(features=["a"]),
        table(drop=["b"]),
        table(missing="impute"),
        table(target="z"),
        table(path="u"),
    ]
    same += [table(test_path="u", test_size=size) for size in (None, 0.2, 0.5)] + [table(test_path="v")]
    assert {config.run_key("d") for config in same[:5]} == {table().run_key("d")}
    assert len({config.run_key("d") for config in same[5:]}) == 1
    keys = {table(**change).run_key("d") for change in ({}, {"test_size": 0.3}, {"split_seed": 1})}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test_size": None}, "data.test_size=null: needs data.test_path; allowed: 0 < data.test_size < 1"),
        (
            {"test_path": "/u", "fold": 0, "folds": 2},
            "data.test_path=/u: data.fold is the test set; leave one out",
        ),
        ({"test_size": 1}, "data.test_size=1: must be less than 1"),
        ({"features": ["a"], "drop": ["b"]}, "data.drop=[b]: data.features names all columns to use"),
        (
            {"features": []},
            "data.features=[]: names no column; allowed: columns to predict from, or null for all",
        ),
        ({"drop": ["y"]}, "data.drop: names data.target=y, which is what networks predict"),
        ({"features": ["y"]}, "data.features: names data.target=y, which is what networks predict"),
        ({"features": [1.5]}, "data.features[0]=1.5: must be a valid string"),
        ({"scale": "255"}, "data.scale=255: data=table standardizes its numeric columns (auto)"),
        ({"missing": "inpute"}, "data.missing=inpute: must be 'refuse' or 'impute'; did you mean impute?"),
        ({"split_seed": 2**32}, "data.split_seed=4294967296: must be less than 4294967296"),
    ],
)
def test_tables_settings_that_are_refused(changes, said):
    with pytest.raises(Refused) as refused:
        table(**changes)
    assert refused.value.problems == (said,)


@pytest.mark.parametrize("scale", ["auto", "none", "255", 255, "standardize"])
def test_scales(scale):
    assert config(data__scale=scale).data.scale == str(scale)
    assert config(data__scale=scale).run_key("d") == config().run_key("d")  # the data's digest has it


@pytest.mark.parametrize("scale", ["minmax", 1, 255.0, True, None])
def test_other_scales_are_refused(scale):
    with pytest.raises(Refused, match=r"^data.scale=\w+.*: must be 'auto', 'none', '255' or 'standardize'"):
        config(data__scale=scale)


def test_a_patience_needs_a_validation_split():
    message = (
        "trainer.patience=3: needs a validation split for trainer.monitor=val/loss; give data.val_size,"
        " the number of instances in it"
    )
    with pytest.raises(Refused) as refused:
        config(trainer__patience=3)
    assert refused.value.problems == (message,)
    assert config(trainer__patience=3, data__val_size=10).trainer.patience == 3


def test_without_a_patience_nothing_is_monitored_and_the_run_key_is_the_same():
    changes = {"trainer__monitor": "val/accuracy", "data__val_size": 10}
    assert config(**changes) == config(data__val_size=10)
    keys = [config(data__val_size=10, trainer__patience=n).run_key("d") for n in (None, 2, 3)]
    assert len({*keys, config(**changes, trainer__patience=3).run_key("d")}) == 4


def test_a_config_s_yaml_is_that_of_omegaconf():
    own = ["tracking.tags={a: '1e3', b: x}", "tracking.note='2\n x: 1'"]
    for config in configs_of(["optim=sgd,adam", "model=mlp,logreg", *own], multirun=True):
        tree = config.model_dump(mode="json", exclude={"tracking": {"uri"}})
        assert config.to_yaml() == OmegaConf.to_yaml(OmegaConf.create(tree))
