"""Run keys: of numerics version 2 as commit b581169 computed them, and of version 3. A store finds a run by
its key, so no later Lockstep may change one.

A setting that is added later has a default with which runs train as they did before. RunConfig.run_key leaves
the setting out where it has that default. Then these tables stay as they are; add a line for another value.
"""

import hashlib

import pytest
from helpers.clone import REPOSITORY

from lockstep.config.compose import compose

DIGEST = "0123456789abcdef" * 2  # instead of the data set's

# The overrides of a sweep: the keys of its runs, in order. The first line is the workshop's perceptron.
KEYS = {
    "": """
        26272fc5b8e035c8b5a0b22ba176cc90""",
    "model=logreg,mlp optim=sgd,adam,adamw": """
        14481c394b540c80b3335bbb24aca3c0 43fb17e2bf4fa4a6346350372fde075c cd08c6338aa22c0001d6706430811431
        26272fc5b8e035c8b5a0b22ba176cc90 e2edecaf2bca51774847690f5d0b73f5 a70d946bd305e906e7ac78cd8481b247""",
    "model.hidden_dim1=128,256 optim.lr=1e-2,1e-3": """
        3aa35da32a8ef27c82b8a816bfae3a81 02f8085c1c123172149fdffe77d967ec 26272fc5b8e035c8b5a0b22ba176cc90
        69d67dd408b6bc54719d7fbc96f2f618""",
    "model.hidden_dims=[512,256,128],[64] model.dropout=0,0.5": """
        eacd1a66a82c1db8d9d4141969054652 af03e4f46c35d61964e7c3a40a427c91 633f46faaaafdde543db454991f2cc10
        dd3f694eba553d131448120c629653a9""",
    "model.activation=relu,gelu,tanh,sigmoid": """
        26272fc5b8e035c8b5a0b22ba176cc90 cf9e65f090a88f839dd5749074b33ee7 bf78a3795c34f031747d28f864c52d06
        16e6eeead36e8123d4ddae11fcd23d8d""",
    "model.input_dropout=0.2 model.max_norm=3": """
        8e3fba709064e4893d4aaadd01d5cce3""",
    "optim.schedule=constant,cosine,onecycle optim.warmup_epochs=null,2": """
        26272fc5b8e035c8b5a0b22ba176cc90 ec2b64cb6eedf0c090daa6edc38f9d3e 8dddfb4a2632a4018218a2cc8d5e3d93
        e69ba0d2842ae79f68062b8e2330e665 fe457d61d0f51db314a0d46a9fe86ff7 8302e7e0d1bb85251b22ceed548f7010""",
    "optim.momentum=0.5 optim.nesterov=true,false optim.weight_decay=1e-4": """
        9e90bedcaaaebbb6cb89003d9f7fa5eb 2355c24edca9e17c3d8a132254480ec8""",
    "optim=adamw optim.betas=[0.8,0.99] optim.eps=1e-7 optim.weight_decay=0": """
        29a9db1c7f3c0102d547a62dc6782dfd""",
    "data=mnist,fashion_mnist,digits": """
        26272fc5b8e035c8b5a0b22ba176cc90 04b0590eedb896114f6bdf15b24c4908 6801a16b7be3a641315449469be1a5d5""",
    "data=arrays data.path=mine.npz": """
        98b9de47240887f891564844c7604a1d""",
    "data.batch_size=32,256 data.drop_last=true,false data.shuffle_seed=0,3": """
        6d17f33b407f037d73dd30a9229a319b 384f74aa75f1c7b09310d8ed512e63d9 e4c3b8648e92dcf40fcf2815d74ae190
        32f6a91c93957635bdc834a109d1f91a 9b7bb6e2ae2f1b7410ec96349d8565ef bd87e501746ca1a140b87ef5ba23f215
        af3543cf29af616238ede5887435db87 ccb211142a705d39ce99740f7b7048a1""",
    "trainer.epochs=1,3 trainer.device=auto,cpu trainer.log_every=1": """
        167e6ac34c7e3d5cd130322af1c5bbe5 a2fe36b525f6ef0732ba2a39f1d3f29f f93f835c3df00137cf9f2bc1ed412b82
        f5d46ceef4948299d8b9e9b8f451187d""",
    "trainer.precision=float32,bfloat16,float64": """
        26272fc5b8e035c8b5a0b22ba176cc90 7966dd2a085069993749983d3152275c 76777de2285214f402412b4b4fb0ad9b""",
    "seed=0,1,9223372036854775807": """
        26272fc5b8e035c8b5a0b22ba176cc90 2321de4b0f3c0746c526f8ecbf3b1def 1feb161c50f1d9c3975b595b6037ec98""",
    "experiment=workshop_logreg,workshop_mlp,bonus": """
        14481c394b540c80b3335bbb24aca3c0 26272fc5b8e035c8b5a0b22ba176cc90 6958957fccb196420c186877aea273e2""",
    "data.val_size=10000 optim.weight_decay=0.0003 optim.schedule=onecycle optim.warmup_epochs=1": """
        19775ee9910a8443e2086af7be9ddde5""",
    "optim.clip_norm=null,1 trainer.label_smoothing=0,0.1": """
        26272fc5b8e035c8b5a0b22ba176cc90 41206ef897389cbc77a84a2e1313a449 ea1b6bcc0f988adb28f1ccc66e31b17d
        496eb0611f452b70718218e476afce2a""",
    "data.augment.shift=0,2 data.augment.flip=false,true": """
        26272fc5b8e035c8b5a0b22ba176cc90 dff539ed6c85725f81ea9f06b2e4c36f 714b3f6189f45889243e2f19aed0e61d
        95f9d1e251d3bac269c83889bdeb53c2""",
    "data.scale=auto,none,255,standardize": """
        26272fc5b8e035c8b5a0b22ba176cc90 26272fc5b8e035c8b5a0b22ba176cc90 26272fc5b8e035c8b5a0b22ba176cc90
        26272fc5b8e035c8b5a0b22ba176cc90""",
    "data.folds=5 data.fold=0,1": """
        02318ca1ebbbe527aaf298f2f187f85b 3e29ec555d7e44eb691e99e68343e057""",
    "tracking.pictures=none tracking.experiment=x trainer.checkpoint_seconds=1 data.root=/x rerun=true": """
        26272fc5b8e035c8b5a0b22ba176cc90""",
}


# For each line, the start of the SHA-256 of its keys of version 3, joined by spaces.
OF_VERSION_3 = """
    188878a4062e52da b1909da7223b5faa 977c8fdb3902bdf7 c4efcff531cc7516 f3f55f87c52e8ba1 61e82467826cb9d2
    add1d9d3907545c1 4c5a9656ad3b0aa6 36bd25e95b596580 73627ca4d8958eb0 59d9eeb6c63953ff 3f5726072df57f2e
    1ea49f4995723f50 9d98c3e9e048759a fd6a45d1253e24cb 221b67228bd120f5 f1c3417647ca3dba 7c21d54189cc7644
    d156b44ce643bd79 62be958a90fbf688 6d69de365a506868 188878a4062e52da
"""


@pytest.mark.parametrize(("overrides", "of_3"), [*zip(KEYS, OF_VERSION_3.split(), strict=True)])
def test_a_run_has_the_keys_that_it_always_had(overrides, of_3, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path))
    requests = compose(REPOSITORY / "conf", overrides.split(), multirun=True).requests
    keys = [request.config.run_keys(DIGEST) for request in requests]
    assert [of[2] for of in keys] == KEYS[overrides].split()
    assert hashlib.sha256(" ".join(of[3] for of in keys).encode()).hexdigest()[:16] == of_3
    assert all([*of] == [3, 2] for of in keys)  # in this order they are looked for
