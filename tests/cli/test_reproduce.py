"""Runs trained again from real stores: python -m lockstep reproduce."""

import mlflow
import numpy as np
import pyarrow as pa
from pyarrow import parquet


def test_a_run_is_reproduced_to_the_last_bit_or_it_is_said_where_it_is_not(clone):
    swept = ("-m", "data=digits", "data.batch_size=128", "trainer.epochs=2", "optim.lr=0.1,0.01")
    assert clone.quick(*swept, "tracking.pictures=none", "hydra.launcher.n_jobs=1")[0] == 0
    client = mlflow.MlflowClient(clone.store)
    experiment = client.get_experiment_by_name("digits").experiment_id
    run, *_ = client.search_runs([experiment], "tags.`lockstep.kind` = 'run'")
    run_id, name = run.info.run_id, run.info.run_name
    code, out, err = clone.verb("reproduce", run_id)
    assert (code, err) == (0, "")
    # 1,437 training instances: 11 batches of 128 an epoch; a loss and an accuracy each, and 2 evaluations.
    assert out == f"{name}: identical, all 48 losses and accuracies, and the weights\n"
    [path] = (clone.root / "outputs" / "artifacts" / run_id).rglob("history.parquet")
    table = parquet.read_table(path)
    loss = table["loss"].to_numpy().copy()
    loss[4] = np.nextafter(loss[4], 0)
    parquet.write_table(table.set_column(table.schema.get_field_index("loss"), "loss", pa.array(loss)), path)
    code, out, _ = clone.verb("reproduce", run_id)
    assert (code, out) == (1, f"{name}: not the same: train loss, from iteration 5 on\n")
    [parent] = client.search_runs([experiment], "tags.`lockstep.kind` = 'sweep'")
    for wrong, said in ((parent.info.run_id, "not a training run"), ("0" * 32, "not found")):
        code, out, err = clone.verb("reproduce", wrong)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        assert wrong in err
        assert said in err
