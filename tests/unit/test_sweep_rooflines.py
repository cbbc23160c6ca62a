from imcsim.analytic.roofline import from_csv
from imcsim.errors import MappingError
from imcsim.sweep import rooflines
from imcsim.sweep.rooflines import write_rooflines
from imcsim.sweep.spec import sweep_from

TWO = {
    "name": "two",
    "workload": ["digits-ternary-cnn", "digits-cnn"],
    "chip": "tim-dnn",
    "engine": "estimate",
    "parameters": {"n_tiles": [8, 16]},
    "objectives": ["latency_ns"],
}


def test_the_layers_of_every_workload_are_written_on_the_base_chip(tmp_path):
    sweep = sweep_from(TWO, "two.yaml", tmp_path)
    written = write_rooflines(sweep, tmp_path, sweep.space.base)
    rows = from_csv(written.read_text(), "roofline.csv")
    assert {row.chip for row in rows} == {"tim-dnn"}
    assert list(dict.fromkeys(row.workload for row in rows)) == TWO["workload"]


def test_a_network_that_does_not_fit_the_base_chip_is_left_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise MappingError("conv1: must fit, got more")

    sweep = sweep_from(TWO, "two.yaml", tmp_path)
    (tmp_path / "roofline.csv").write_text("of an earlier sweep")
    monkeypatch.setattr(rooflines, "place", refuse)
    assert write_rooflines(sweep, tmp_path, sweep.space.base) is None
    assert not (tmp_path / "roofline.csv").exists()
