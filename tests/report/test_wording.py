"""Values for readers."""

from lockstep.report import wording


def test_values_are_in_order_and_short():
    assert wording.ordered(["10", "9", "1e-3", "10"]) == ["1e-3", "9", "10"]
    assert wording.ordered(["relu", "gelu", ""]) == ["", "gelu", "relu"]
    assert wording.shown("0.2849610891322093") == "0.285"
    assert wording.shown("[256, 100]") == "[256, 100]"
    assert wording.shown("nan") == "nan"
