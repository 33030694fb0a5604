"""`bertjax.tasks.terms`: which terms a config asks for."""

import pytest

from bertjax.config.schema import ObjectiveConfig
from bertjax.tasks.terms import TERMS, held_out_terms, terms


def test_a_term_of_coefficient_0_is_none():
    assert {name: weight for name, (weight, _) in terms(ObjectiveConfig(mlm=2.0, pair=0.0)).items()} == {"mlm": 2.0}
    assert set(terms(ObjectiveConfig(soft=1.0))) == {"mlm", "pair"} == set(TERMS) - {"z"}
    assert terms(ObjectiveConfig(z=1e-4))["z"] == (1e-4, TERMS["z"])


@pytest.mark.parametrize("pair", [0.0, 1.0])
def test_masked_words_are_always_measured(pair):
    assert set(held_out_terms(ObjectiveConfig(mlm=0.0, pair=pair, soft=1.0, z=1.0))) == {"mlm"} | (
        {"pair"} if pair else set()
    )
