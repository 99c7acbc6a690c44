"""Claims among real processes."""

from helpers.holders import end, holder

from lockstep.recovery.claims import Claims


def test_a_claim_is_one_processs_until_it_lets_go(tmp_path):
    path = tmp_path / "folder" / "claims"
    claims = Claims(path)
    assert claims.take("a")
    assert claims.take("a")
    process, taken = holder(path, "a", "b")
    assert taken == ["False", "True"]
    assert [claims.holder(name) for name in "abc"] == [None, process.pid, None]
    assert not claims.take("b")
    assert claims.take("c")
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "released\n"
    assert claims.take("b")
    end(process)


def test_the_claims_of_a_killed_process_are_free(tmp_path):
    claims = Claims(tmp_path / "claims")
    process, taken = holder(tmp_path / "claims", *(f"run {k}" for k in range(2000)))
    assert set(taken) == {"True"}
    assert not any(claims.take(f"run {k}") for k in range(2000))
    process.kill()
    claims.wait_for("run 0")
    assert all(claims.take(f"run {k}") for k in range(2000))
    end(process)
