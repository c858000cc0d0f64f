"""Which pool keeps a conversation that several have."""

import pytest

from tagsieve.engines.pools import first_pools


@pytest.mark.parametrize(
    ("named", "owner"), [(["c"], "c"), ([], "a"), (["b", "d"], "b"), (["d"], "a")]
)
def test_first_pools_not_named_follow_by_name(spark, named, owner):
    places = [(pool, "s1") for pool in "cba"] + [("d", "s2")]
    samples = spark.createDataFrame(places, "pool string, sample_id string")
    found = {row["sample_id"]: row["pool"] for row in first_pools(samples, named).collect()}
    assert found == {"s1": owner, "s2": "d"}
