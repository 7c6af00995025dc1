"""The same experiment on a cluster: a real one of Dask, on this machine."""

from __future__ import annotations

import pytest

from microgpt.data import Corpus, load
from microgpt.lab.experiment import compare

FEW = Corpus("few", "a few names", load("names").docs[:300])


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_same_numbers() -> None:
    distributed = pytest.importorskip("distributed")
    from joblib import parallel_config

    asked = {"asked": ["gelu", "lr=0.02"], "baseline": "steps=30", "tasks": [FEW], "seeds": 3}
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        workers = client.scheduler_info()["workers"]
        with parallel_config(backend="dask"):
            there = compare(**asked)
    here = compare(**asked)
    assert len(workers) == 2
    assert (
        there.plain()["comparisons"][0]["differences"]
        == (here.plain()["comparisons"][0]["differences"])
    )
    assert {r["id"]: r["losses"] for r in there.records} == {
        r["id"]: r["losses"] for r in here.records
    }
