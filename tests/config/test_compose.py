"""What a command may say and what it is told when it says something else."""

import shlex
from functools import partial

import pytest
from helpers.composing import CONF, configs_of, refusal
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lockstep.config._hydra_compat import VERSION_BASE, set_override_dirname
from lockstep.config.compose import compose
from lockstep.config.composer import Composer
from lockstep.config.errors import Refused
from lockstep.config.parsing import for_shell
from lockstep.config.schema import RunConfig
from lockstep.search.space import corners


def test_defaults_are_the_workshops(root):
    [config] = configs_of([], multirun=False)
    assert config.params() == {
        "data": "mnist",
        "data.batch_size": 64,
        "data.drop_last": True,
        "data.fold": None,
        "data.folds": None,
        "data.scale": "auto",
        "data.root": None,
        "data.augment.flip": False,
        "data.augment.shift": 0,
        "data.shuffle_seed": 0,
        "data.val_size": 0,
        "model": "mlp",
        "model.activation": "relu",
        "model.dropout": 0.25,
        "model.hidden_dim1": 256,
        "model.hidden_dim2": 100,
        "model.hidden_dims": [256, 100],
        "model.input_dropout": 0.0,
        "model.max_norm": None,
        "optim": "sgd",
        "optim.clip_norm": None,
        "optim.lr": 0.01,
        "optim.momentum": 0.9,
        "optim.nesterov": False,
        "optim.schedule": "constant",
        "optim.warmup_epochs": None,
        "optim.weight_decay": 0.0,
        "seed": 0,
        "tracking.experiment": "mnist",
        "tracking.pictures": "all",
        "trainer.device": "cpu",
        "trainer.epochs": 10,
        "trainer.checkpoint_seconds": 10.0,
        "trainer.class_weights": None,
        "trainer.label_smoothing": 0.0,
        "trainer.log_every": 50,
        "trainer.monitor": "val/loss",
        "trainer.patience": None,
        "trainer.threads": 1,
        "trainer.precision": "float32",
    }
    assert config.tracking.uri == f"sqlite:///{root}/outputs/mlflow.db"


def test_tracking_uri_of_the_environment_is_honoured_and_the_command_line_beats_it(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5555")
    [config] = configs_of([], multirun=False)
    assert config.tracking.uri == "http://127.0.0.1:5555"
    [config] = configs_of(["tracking.uri=sqlite:///mine.db"], multirun=False)
    assert config.tracking.uri == "sqlite:///mine.db"


def test_a_sweep_is_the_product_of_its_values_in_hydras_order():
    arguments = ["model.hidden_dim1=128,256", "optim.lr=1e-2,1e-3"]
    configs = configs_of(arguments, multirun=True)
    assert [(c.model.hidden_dim1, c.optim.lr) for c in configs] == [
        (128, 0.01),
        (128, 0.001),
        (256, 0.01),
        (256, 0.001),
    ]
    assert [c.model.hidden_dims for c in configs] == [(128, 100)] * 2 + [(256, 100)] * 2


def test_hydra_mode_multirun_is_a_sweep_too():
    assert len(configs_of(["hydra.mode=MULTIRUN", "seed=range(0,3)"], multirun=False)) == 3


def test_hidden_dims_can_be_given_outright_at_any_depth():
    [config] = configs_of(["model.hidden_dims=[512,256,128]"], multirun=False)
    assert (config.model.hidden_dims, config.model.hidden_dim1, config.model.hidden_dim2) == (
        (512, 256, 128),
        512,
        256,
    )
    [config] = configs_of(["model.hidden_dims=[512]"], multirun=False)
    assert (config.model.hidden_dim1, config.model.hidden_dim2) == (512, None)


@pytest.mark.parametrize(("preset", "model"), [("workshop_logreg", "logreg"), ("workshop_mlp", "mlp")])
def test_presets(preset, model):
    [config] = configs_of([f"experiment={preset}"], multirun=False)
    assert (config.model.name, config.optim.name, config.data.name) == (model, "sgd", "mnist")


@pytest.mark.parametrize("option", ["mnist", "fashion_mnist", "digits", "arrays", "table"])
@pytest.mark.parametrize("optim", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("model", ["logreg", "mlp"])
def test_every_option_composes_and_each_of_its_keys_is_read(option, optim, model):
    path = {"arrays": ["data.path=my.npz"], "table": ["data.path=my.csv", "data.target=y"]}.get(option, [])
    [config] = configs_of([f"data={option}", f"optim={optim}", f"model={model}", *path])
    assert (config.data.name, config.optim.name, config.model.name) == (option, optim, model)


def test_names_of_columns_are_quoted():
    names = ['data.target="price, in €"', 'data.features=[a.b,"a=b","c d","é",7,"x,y"]']
    [config] = configs_of(["data=table", "data.path=my.csv", *names])
    assert config.data.target == "price, in €"
    assert config.data.features == ("a.b", "a=b", "c d", "é", "7", "x,y")
    [config] = configs_of(["data=table", "data.path=my.csv", "data.target=7", 'data.drop=["",id]'])
    assert (config.data.target, config.data.drop) == ("7", ("", "id"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("optim.lr=-1", "optim.lr=-1: must be greater than 0"),
        ("optim.lr=nan", "optim.lr=nan: must be a finite number"),
        ("optim.lr=inf", "optim.lr=inf: must be a finite number"),
        ("optim.lr=fast", "optim.lr=fast: must be a valid number"),
        ("optim.lr=", "optim.lr=: must be a valid number"),
        ("optim.momentum=1", "optim.momentum=1: must be less than 1"),
        ("optim.momentum=-0.1", "optim.momentum=-0.1: must be greater than or equal to 0"),
        ("optim.weight_decay=-1", "optim.weight_decay=-1: must be greater than or equal to 0"),
        ("optim.nesterov=maybe", "optim.nesterov=maybe: must be a valid boolean"),
        ("model.dropout=1", "model.dropout=1: must be less than 1"),
        ("model.dropout=-0.5", "model.dropout=-0.5: must be greater than or equal to 0"),
        ("model.hidden_dim1=0", "model.hidden_dim1=0: must be greater than or equal to 1"),
        ("model.hidden_dim1=-5", "model.hidden_dim1=-5: must be greater than or equal to 1"),
        ("model.hidden_dim2=12.5", "model.hidden_dim2=12.5: must be a valid integer"),
        ("model.hidden_dims=[12.5]", "model.hidden_dims[0]=12.5: must be a valid integer"),
        (
            "model.hidden_dims=[]",
            "model.hidden_dims=[]: needs at least one width; model=logreg has no hidden layer",
        ),
        ("data.batch_size=0", "data.batch_size=0: must be greater than or equal to 1"),
        ("data.val_size=-1", "data.val_size=-1: must be greater than or equal to 0"),
        ("trainer.epochs=0", "trainer.epochs=0: must be greater than or equal to 1"),
        ("trainer.label_smoothing=1", "trainer.label_smoothing=1: must be less than 1"),
        ("trainer.label_smoothing=-0.1", "trainer.label_smoothing=-0.1: must be greater than or equal to 0"),
        ("optim.clip_norm=0", "optim.clip_norm=0: must be greater than 0"),
        ("optim.clip_norm=x", "optim.clip_norm=x: must be a valid number"),
        ("trainer.epochs=true", "trainer.epochs=true: must be a valid integer"),
        (
            "trainer.precision=float16",
            "trainer.precision=float16: must be 'float32', 'bfloat16' or 'float64'; did you mean bfloat16?",
        ),
        (
            "trainer.device=cupu",
            "trainer.device=cupu: must be 'auto', 'cpu', 'cuda' or 'mps'; did you mean cpu?",
        ),
        (
            "model.activation=rleu",
            "model.activation=rleu: must be 'relu', 'gelu', 'tanh' or 'sigmoid'; did you mean relu?",
        ),
        ("seed=-1", "seed=-1: must be greater than or equal to 0"),
        ("model=mpl", "model=mpl: not one of cnn, logreg, mlp, module; did you mean mlp?"),
        (
            "data=minst",
            "data=minst: not one of arrays, digits, fashion_mnist, mnist, table; did you mean mnist?",
        ),
        ("model=null", "model=null: not one of cnn, logreg, mlp, module"),
        ("experiment=[bonus,nope]", "experiment=[bonus,nope]: not one of bonus, explore, workshop_cnn"),
        ("model.hidden_dim2=null", "model.hidden_dim2=null: must be a valid integer"),
        (
            "tracking.uri='http://me:s3c/r@et@127.0.0.1:5000'",
            "tracking.uri=http://me:s3c/r@et@127.0.0.1:5000: holds a password",
        ),
        ("tracking.uri='http://me:s3 c@h'", "tracking.uri=http://me:s3 c@h: holds a password"),
        (
            'tracking.uri="postgresql://h/d?password=x"',
            "tracking.uri=postgresql://h/d?password=x: holds a passw",
        ),
        ("@x=1", "@x=1: @x is no key; write key=value"),
        ("trainer.epochs=1000000001", "trainer.epochs=1000000001: must be less than or equal to 1000000000"),
        (
            "model.hidden_dims=[8,4611686018427387904]",
            "model.hidden_dims[1]=4611686018427387904: must be less",
        ),
        ("hydra.overrides.task=[a]", "hydra.overrides.task=['a']: Hydra itself sets it; leave it out"),
        ("optimm=sgd", "optimm=sgd: no such key or group; did you mean optim?"),
        ("lr=1", "lr=1: no such key or group; did you mean optim.lr?"),
        ("trainer.epoch=3", "trainer.epoch=3: not a setting of trainer; it has epochs, device, precision,"),
        (
            "optim.momentun=0.9",
            "optim.momentun=0.9: not a setting of optim=sgd;"
            " it has lr, schedule, warmup_epochs, clip_norm, momentum, nesterov, weight_decay;"
            " did you mean momentum?",
        ),
        ("+model.width=3", "model.width=3: not a setting of model=mlp"),
        ("+width=3", "width=3: not a setting"),
        ("~model.dropout", "model.dropout is missing"),
        ("data=arrays", "data.path: required; give it as data.path=<value>"),
        ("optim.lr=1,2", "optim.lr=1,2: several values make a sweep; add -m (--multirun)"),
        ("tracking.uri=", "tracking.uri=: String should have at least 1 character"),
        ("tracking.uri=${oc.env:NO_SUCH_VARIABLE}", "tracking.uri: "),
        ("optim.lr=interval(0,1)", "optim.lr=interval(0,1): an interval is searched; add -m hydra/sweeper=s"),
        (
            "tracking.experiment=a,b",
            "tracking.experiment=a,b: several values make a sweep; add -m (--multirun)"
            """; one text with a comma: 'tracking.experiment="a,b"'""",
        ),
        ("optim.lr", "optim.lr: no value; write optim.lr=<value>"),
        ("data.path=~/wine.npz", "data.path=~/wine.npz: Hydra can't read this text without quotes"),
        (
            "hydra.launcher.n_jobs=1,2",
            "hydra.launcher.n_jobs=1,2: a sweep has one value of each setting of Hy",
        ),
        ("hydra.job.env_copy=[NO_SUCH_VARIABLE]", "KeyError: 'NO_SUCH_VARIABLE'"),
        ("hydra.launcher.nobs=2", "Could not override 'hydra.launcher.nobs'."),
        ("hydra/launcher=lockstpe", "In 'hydra/config': Could not find 'hydra/launcher/lockstpe'"),
    ],
)
def test_bad_input_is_answered_in_one_message(argument, message):
    [problem] = refusal(argument)
    assert problem.startswith(message)


def test_settings_of_another_option_are_refused():
    [problem] = refusal("model=logreg", "model.hidden_dim1=128")
    assert problem == "model.hidden_dim1=128: not a setting of model=logreg; it has no settings"
    [problem] = refusal("optim=adam", "optim.momentum=0.9")
    assert problem.startswith("optim.momentum=0.9: not a setting of optim=adam; it has ")


def test_nesterov_needs_momentum():
    [problem] = refusal("optim.nesterov=true", "optim.momentum=0")
    assert problem == "optim.nesterov=true: needs optim.momentum > 0"


def test_widths_given_twice_are_refused():
    [problem] = refusal("model.hidden_dims=[512]", "model.hidden_dim1=128")
    assert problem.startswith("model.hidden_dim1=128: no effect beside model.hidden_dims=[512]")


def test_all_errors_of_a_command_are_listed_together():
    problems = refusal("optim.lr=-1", "model=mpl", "optim.momentun=0", "model.dropout=2", "trainer.epochs=0")
    assert [problem.partition(":")[0] for problem in problems] == [
        "model=mpl",
        "optim.momentun=0",
        "model.dropout=2",
        "optim.lr=-1",
        "trainer.epochs=0",
    ]


def test_all_bad_jobs_of_a_sweep_are_listed_together_each_error_once():
    problems = refusal("optim.lr=0.1,-1,nan", "model=mlp,logreg,mpl", "data.batch_size=64,0", multirun=True)
    assert [problem.partition(":")[0] for problem in problems] == [
        "model=mpl",
        "data.batch_size=0",
        "optim.lr=-1",
        "optim.lr=nan",
    ]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seed=range(3,3)", "seed=range(3,3): no value at all, so there is nothing to run"),
        ("model=glob(x*)", "model=glob(x*): no value at all, so there is nothing to run"),
        ("seed=range(0,3,0)", "seed=range(0,3,0): "),
        ("seed=range(0,nan)", "seed=range(0,nan): nan combinations; allowed: up to 100,000"),
        ("seed=range(0,inf)", "seed=range(0,inf): inf combinations; allowed: up to 100,000"),
        ("seed=range(inf,0,-1)", "seed=range(inf,0,-1): inf combinations; allowed: up to 100,000"),
        ("seed=shuffle(range(-inf,0))", "seed=shuffle(range(-inf,0)): inf combinations"),
        ("seed=sort(range(0,1e30))", "seed=sort(range(0,1e30)): 1,000,000,000,000,000,019,884,624,838,656 c"),
        ("seed=range(0,5,1e-320)", "seed=range(0,5,1e-320): inf combinations"),
        ("seed=range(0,100001)", "seed=range(0,100001): 100,001 combinations; allowed: up to 100,000"),
        ("optim=range(0,inf)", "optim=range(0,inf): not one of adam, adamw, sgd"),
        ("optim.lr=interval(0,1)", "optim.lr=interval(0,1): a grid has no intervals; hydra/sweeper=search"),
    ],
)
def test_bad_sweeps_are_answered_in_one_message(argument, message):
    [problem] = refusal(argument, multirun=True)
    assert problem.startswith(message)


def test_a_configs_own_sweep_is_seen(tmp_path):
    (tmp_path / "hydra" / "sweeper").mkdir(parents=True)
    own = "defaults: [basic]\nparams: {seed: 'range(0,3)', optim.momentum: 2}\n"
    (tmp_path / "hydra" / "sweeper" / "mine.yaml").write_text(own)
    arguments = ["hydra/sweeper=mine", "optim.lr=0.1,0.2", "optim.momentum=0.5"]
    jobs = compose(CONF, arguments, multirun=True, config_dir=tmp_path).requests
    configs = [job.config for job in jobs]
    assert [(c.seed, c.optim.lr) for c in configs] == [(s, lr) for s in range(3) for lr in (0.1, 0.2)]
    with pytest.raises(Refused, match=r"optim.momentum=2: must be less than 1"):
        compose(CONF, arguments[:-1], multirun=True, config_dir=tmp_path)


def test_composed_alike_by_hydra_itself():
    from hydra import compose as composed_by_hydra

    arguments = ["optim=adamw", "data=digits", "optim.lr=0.003", "model.hidden_dim2=50", "seed=4"]
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        expected = RunConfig.of(composed_by_hydra("config", arguments))
    assert configs_of(arguments) == [expected]


def test_overrides_of_each_job_and_the_number_of_workers_are_kept():
    asked = compose(CONF, ["seed=0,1", "optim.lr=1e-2", "hydra.launcher.n_jobs=3"], multirun=True)
    assert [job.overrides for job in asked.requests] == [
        ("seed=0", "optim.lr=0.01"),
        ("seed=1", "optim.lr=0.01"),
    ]
    assert asked.launcher.n_jobs == 3
    assert compose(CONF, ["seed=0,1"], multirun=True).launcher.n_jobs == -1
    assert compose(CONF, ["seed=0,1", "hydra/launcher=basic"], multirun=True).launcher.n_jobs == 1


def with_hydra_node(composer, overrides):
    """As the launcher completes a run's config."""
    composed = composer.compose(overrides)
    parsed = OverridesParser.create().parse_overrides(overrides)
    composed.hydra.overrides.task = [o.input_line for o in parsed if not o.is_hydra_override()]
    set_override_dirname(composed, [o for o in parsed if not o.is_hydra_override()])
    return composed


def by_hydra(loader, arguments, multirun):
    """What a sweep's runs share, and each run's overrides and config; None if Hydra refuses the command."""
    mode, master = RunMode.RUN, None
    try:
        if not multirun:
            return None, [(arguments, loader.load_configuration("config", list(arguments), mode))]
        master = loader.load_configuration("config", list(arguments), RunMode.MULTIRUN)
        str(master.hydra.sweep.dir)  # the sweeper resolves ${now:} first
        typed = OverridesParser.create(loader).parse_overrides(list(master.hydra.overrides.task))
        [runs] = BasicSweeper.split_arguments(typed, None)
        return master, [(run, loader.load_sweep_config(master, run)) for run in runs]
    except (HydraException, ValueError):
        return master, None


OVERRIDES = st.one_of(
    st.sampled_from(
        [
            *(
                "model=logreg",
                "model=mlp",
                "optim=adam",
                "data=digits",
                "experiment=workshop_mlp",
                "~experiment",
            ),
            *("optim.momentum=0.5", "optim.betas=[0.8,0.9]", "model.hidden_dims=[3,4]", "model.dropout=0"),
            *("+note=x", "++seed=3", "~trainer.log_every", "+model.extra=1", "optim@second=adam", "nope=1"),
            *(
                "tracking.experiment=${data.name}-${seed}",
                "data.shuffle_seed=${seed}",
                "trainer.device='cpu'",
            ),
            *(
                "model.hidden_dim1=null",
                "data.drop_last=false",
                "optim={lr:0.5}",
                "tracking.experiment='a b'",
            ),
            *(
                "hydra.job.name=other",
                "trainer={epochs:2}",
                "seed=1e3",
                "model.activation=tanh",
                "model=null",
            ),
            *("experiment=[workshop_mlp]", "model=mlp.yaml", "model.hidden_dims.0=8", "optim={nope:1}"),
            *("model=nope", "~model", "~model=mlp", "~optim=adam", "+optim=sgd", "++optim=sgd", "data=3"),
            *(
                "trainer.epochs=int(2.5)",
                "seed=str(1)",
                "seed.x=1",
                "model=[mlp]",
                "hydra.nope=1",
                "optim.lr=",
            ),
        ]
    ),
    st.builds("optim.lr={}".format, st.floats(1e-9, 1e9)),
    st.builds("seed={}".format, st.integers(0, 10**20)),
)
SWEPT = st.sampled_from(
    [
        *("optim=sgd,adam", "model=logreg,mlp", "model=glob(m*)", "seed=range(0,2)", "optim.lr=1e-1,2"),
        *(
            "optim={lr:0.1,momentum:0.5},{lr:0.05}",
            "optim.betas=[0.8,0.99],[0.9,0.9]",
            "++seed=1,2",
            "+x=1,2",
        ),
        *("experiment=workshop_mlp,workshop_logreg", "data.drop_last=choice(true,false)", "optim=adam,nope"),
        *("optim.momentum=sort(0.5,0.1)", "trainer.epochs=interval(1,2)", "hydra.job.name=a,b", "nope=1,2"),
    ]
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OVERRIDES, max_size=3), st.lists(SWEPT, max_size=2), st.booleans())
@example(["optim.lr=1.0", "optim={lr:0.5}"], [], False)
@example(["optim.lr=0.2", "optim=sgd"], ["optim={lr:0.1,momentum:0.5},{lr:0.05}"], True)
@example(["optim.betas=[0.8,0.99]"], ["optim=adam,adamw"], True)
@example(["++optim.betas=[0.8,0.99]"], ["optim=adam,adamw"], True)
@example(["~experiment"], [], False)
def test_lockstep_takes_the_commands_that_hydra_takes_and_composes_the_same(typed, swept, multirun):
    arguments = (*typed, *swept)
    setup_globals()
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master, runs = by_hydra(loader, arguments, multirun)
        if master is not None and runs is not None:  # as the launcher composes them
            composer = Composer(partial(loader.load_sweep_config, master), loader.list_groups(""))
            for overrides, composed in runs:
                assert OmegaConf.to_yaml(with_hydra_node(composer, overrides)) == OmegaConf.to_yaml(composed)
                assert composed.hydra.sweep.dir == master.hydra.sweep.dir  # the same ${now:}
        try:
            expected = None if runs is None else [RunConfig.of(composed) for _, composed in runs]
        except Refused:
            expected = None
    try:
        got = configs_of(arguments, multirun)
    except Refused as refused:
        assert expected is None or "no effect beside" in str(refused)
    else:
        assert got == expected


def test_paired_values_are_swept_together():
    pairs = "optim={lr:0.1,momentum:0.5},{lr:0.05,momentum:0.9}"
    configs = configs_of([pairs, "seed=0,1"], multirun=True)
    assert [(c.optim.lr, c.optim.momentum, c.seed) for c in configs] == [
        *((0.1, 0.5, 0), (0.1, 0.5, 1), (0.05, 0.9, 0), (0.05, 0.9, 1))
    ]
    [problem] = refusal("optim={lr:0.1},{lrr:0.2}", multirun=True)
    assert problem.startswith("optim.lrr=0.2: not a setting of optim=sgd; it has lr, ")


def test_a_grid_of_too_many_runs_is_refused_before_it_is_listed():
    both = ("seed=range(0,1000000)", "data.shuffle_seed=range(0,1000000)")
    [problem] = refusal(*both, multirun=True)
    assert problem == f"{' '.join(both)}: 1,000,000,000,000 combinations; allowed: up to 100,000"


def test_a_presets_store_has_no_password(tmp_path):
    (tmp_path / "experiment").mkdir()
    preset = tmp_path / "experiment" / "mine.yaml"
    preset.write_text("# @package _global_\ntracking: {uri: 'http://me:s3c@h'}\n")
    with pytest.raises(Refused, match=r"tracking.uri=http://me:s3c@h: holds a password"):
        compose(CONF, ["experiment=mine"], config_dir=tmp_path)
    preset.write_text("# @package _global_\ntracking: {uri: 'http://me:${oc.env:HOME}@h'}\n")
    assert compose(CONF, ["experiment=mine"], config_dir=tmp_path).requests


@pytest.mark.parametrize("typed", ["experiment=null", "~experiment"])
def test_no_preset_may_be_typed(typed):
    asked = compose(CONF, [typed, "data=digits"])
    assert asked.requests[0].config == configs_of(["data=digits"])[0]
    assert asked.for_hydra[typed] == "~experiment"
    values = configs_of(["experiment=null,workshop_logreg", "data=digits"], multirun=True)
    assert [config.model.name for config in values] == ["mlp", "logreg"]


def test_no_preset_is_one_of_those_that_are_searched():
    typed = ("hydra/sweeper=search", "experiment=null,workshop_logreg", "data=digits", "data.val_size=300")
    search = compose(CONF, typed, multirun=True).search
    assert [request.config.model.name for request in corners(search)] == ["mlp", "logreg"]


def test_a_value_for_some_options_only_is_refused_as_hydra_does_with_a_way_out():
    [problem] = refusal("optim=adam,adamw", "optim.betas=[0.8,0.99]", multirun=True)
    assert problem == (
        "optim.betas=[0.8,0.99]: no such key where Hydra has not yet swept optim=adam,adamw;"
        " write '++optim.betas=[0.8,0.99]'"
    )
    configs = configs_of(["optim=adam,adamw", "++optim.betas=[0.8,0.99]"], multirun=True)
    assert [(c.optim.name, c.optim.betas) for c in configs] == [(n, (0.8, 0.99)) for n in ("adam", "adamw")]


@pytest.mark.parametrize(
    ("variable", "override", "value"),
    [
        ("2", "trainer.epochs", 2),
        ("1e-3", "optim.lr", 0.001),
        (".5", "model.dropout", 0.5),
        ("true", "optim.nesterov", True),
        ("[8,4]", "model.hidden_dims", (8, 4)),
        ("null", "model.max_norm", None),
        ("2", "tracking.experiment", "2"),
        ("/12", "data.root", "/12"),
    ],
)
def test_text_of_the_environment_counts_as_what_is_typed(monkeypatch, variable, override, value):
    monkeypatch.setenv("X", variable)
    [config] = configs_of([f"{override}=${{oc.env:X}}"])
    group, key = override.split(".")
    assert getattr(getattr(config, group), key) == value


@pytest.mark.parametrize(("variable", "shown"), [("two", "two"), ("2.5", "2.5"), ("1,2", "1,2"), ("", "")])
def test_text_of_the_environment_that_is_no_number_is_refused(monkeypatch, variable, shown):
    monkeypatch.setenv("X", variable)
    assert refusal("trainer.epochs=${oc.env:X}") == [f"trainer.epochs={shown}: must be a valid integer"]


def test_each_choice_of_groups_is_composed_once_and_each_run_validated_once(monkeypatch):
    loaded, validated = [], []
    load, of_tree = ConfigLoaderImpl.load_configuration, RunConfig.of_tree.__func__
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_configuration", lambda *a, **k: loaded.append(a) or load(*a, **k)
    )
    monkeypatch.setattr(RunConfig, "of_tree", classmethod(lambda *a: validated.append(a) or of_tree(*a)))
    requests = compose(CONF, ["optim=sgd,adam", "seed=range(0,10)", "data=digits"], multirun=True).requests
    assert [(r.config.optim.name, r.config.seed) for r in requests] == [
        (name, seed) for name in ("sgd", "adam") for seed in range(10)
    ]
    assert len(loaded) == 3  # the launcher's and sweeper's settings, and two choices
    assert len(validated) == 20


def test_what_hydras_grammar_leaves_to_hydra_is_composed_by_hydra_and_still_checked():
    [config] = configs_of(["++data.val_size=100", "++seed=3", "data=digits", "trainer.epochs=2"])
    assert (config.data.val_size, config.seed, config.trainer.epochs) == (100, 3, 2)
    [problem] = refusal("++seed=3", "optim.momentun=1")
    assert problem.startswith("optim.momentun=1: not a setting of optim=sgd; it has lr,")


def test_options_in_hydras_search_path_are_known(tmp_path):
    for folder in ("mine", "typed"):
        (tmp_path / folder / "model").mkdir(parents=True)
        text = "defaults: [mlp]\ndropout: 0.125\n"
        (tmp_path / folder / "model" / f"{folder}.yaml").write_text(text)
    arguments = ["model=mine,typed", f"hydra.searchpath=[file://{tmp_path}/typed]"]
    requests = compose(CONF, arguments, multirun=True, config_dir=tmp_path / "mine").requests
    assert [request.config.model.dropout for request in requests] == [0.125, 0.125]


PATHS = (
    *("a:b/c.npz", "my data.npz", "'a, b=c.npz'", r"it\,s.npz", '"it\'s (1).npz"', '"[x]{y}.npz"'),
    *("$HOME/*.npz", "${oc.env:PATH}", r"a\ \ b", r"a\(1\)\=b.npz", r"a\\b", '"a\\"b\\""', '"Größe 2.npz"'),
)


def test_a_run_of_a_sweep_is_printed_so_that_a_shell_and_hydra_read_the_same_config():
    sweep = (f"data.path={','.join(PATHS)}", "optim={lr:0.1,momentum:0.5},{lr:0.2}", "model=logreg,mlp")
    command = compose(CONF, ["data=arrays", *sweep, "experiment=null"], multirun=True)
    assert len(command.requests) == 4 * len(PATHS)
    for request in command.requests:
        printed = for_shell(request.overrides)
        assert command.composer.request(shlex.split(printed)).config == request.config
        assert printed.count("\\") <= max(path.count("\\") for path in PATHS)


def test_runs_share_the_settings_that_are_equal():
    """A thousand configs are five times as small, and as many times quicker made."""
    first, second, third = configs_of(["seed=0,1,2", "optim.lr=0.1"], multirun=True)
    assert first.data is second.data is third.data
    assert first.optim == second.optim  # its value is typed, and might be another in each run
    assert [config.seed for config in (first, second, third)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("swept", "typed", "key", "values"),
    [
        ("seed=1,2", "data.shuffle_seed=${seed}", "data.shuffle_seed", [1, 2]),
        ("data=mnist,digits", "", "tracking.experiment", ["mnist", "digits"]),
        ("data.name=mnist,fashion_mnist", "", "tracking.experiment", ["mnist", "fashion_mnist"]),
        (
            "seed=1,2",
            "tracking.experiment='${data.name}-${seed}'",
            "tracking.experiment",
            ["mnist-1", "mnist-2"],
        ),
    ],
)
def test_what_refers_to_a_swept_value_follows_it(swept, typed, key, values):
    configs = configs_of([swept, *filter(None, [typed])], multirun=True)
    group, _, name = key.partition(".")
    assert [getattr(getattr(config, group), name) for config in configs] == values
