from concurrent.futures import ThreadPoolExecutor

from lockstep.recovery.outputs_id import _id_in, outputs_id


def test_each_outputs_folder_has_an_id_that_stays(tmp_path, monkeypatch):
    ids = []
    for root in ("here", "there", "here"):
        monkeypatch.setenv("LOCKSTEP_ROOT", str(tmp_path / root))
        _id_in.cache_clear()  # as in another process
        ids.append(outputs_id())
    assert ids[0] == ids[2] != ids[1]
    assert [len(bytes.fromhex(each)) for each in ids] == [16, 16, 16]


def test_processes_that_make_it_at_the_same_time_agree(tmp_path):
    with ThreadPoolExecutor(8) as processes:
        for folder in range(20):
            paths = [tmp_path / str(folder) / "id"] * 8
            assert len(set(processes.map(_id_in.__wrapped__, paths))) == 1
