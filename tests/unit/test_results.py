import pytest

from imcsim.errors import DataError, OutputError
from imcsim.results import COLUMNS, Identity, area_of, energy_of, from_csv, latency_of, to_csv, write_whole
from imcsim.version import __version__

RUN = Identity(chip="tiny", workload="net", engine="simulate", seed=3)
ROWS = [
    RUN.row(phase="inference", layer="conv", component="tile.pcu", action="tile.convert", count=12, energy_pJ=0.1,
            basis="recalled", source='a "table", page 7'),
    RUN.row(phase="inference", layer="conv", component="tile.array", action="time", count=1, latency_ns=1 / 3),
    RUN.row(phase="setup", layer="conv", component="network", action="time", count=1, latency_ns=70.0, energy_pJ=5.0),
    RUN.row(phase="inference", layer="", component="network", action="area", count=1, area_um2=1e4),
]  # fmt: skip


def test_every_row_says_which_run_it_is_from():
    assert {(row.chip, row.workload, row.engine, row.seed, row.version) for row in ROWS} == {
        ("tiny", "net", "simulate", 3, __version__)
    }


def test_totals_are_sums_of_rows_of_one_phase():
    assert energy_of(ROWS) == 0.1
    assert energy_of(ROWS, phase="setup") == 5.0
    assert latency_of(ROWS) == 1 / 3
    assert latency_of(ROWS, phase="setup") == 70.0
    assert area_of(ROWS) == 1e4


def test_a_table_of_no_rows_is_a_header_and_reads_back_as_no_rows():
    assert to_csv([]) == ",".join(COLUMNS) + "\n"
    assert from_csv(to_csv([]), "rows.csv") == []


def test_rows_written_and_read_are_equal_bit_for_bit():
    assert from_csv(to_csv(ROWS), "rows.csv") == ROWS


def test_column_names_carry_their_units():
    assert {"energy_pJ", "latency_ns", "busy_ns", "area_um2"} <= set(COLUMNS)


def test_a_table_with_other_columns_is_refused():
    with pytest.raises(DataError, match=r"out/rows\.csv: must begin with the columns chip,.*, got a,b"):
        from_csv("a,b\n1,2\n", "out/rows.csv")
    with pytest.raises(DataError, match=r"rows\.csv: must begin with the columns chip"):
        from_csv("", "rows.csv")


def test_a_table_that_is_cut_off_is_refused_with_its_line():
    lines = to_csv(ROWS).splitlines()
    text = "\n".join([*lines[:2], "tiny,net,simulate"])
    with pytest.raises(DataError, match=r"rows\.csv: line 3 must have 16 columns, got 3; is it cut off\?"):
        from_csv(text, "rows.csv")


def test_text_where_a_number_belongs_is_refused_with_its_line():
    text = to_csv(ROWS).replace(",12,", ",twelve,")
    with pytest.raises(DataError, match=r"rows\.csv: line 2 must hold numbers where the column says so, got .*twelve"):
        from_csv(text, "rows.csv")


def test_a_file_that_is_no_table_at_all_is_refused():
    with pytest.raises(DataError, match=r"rows\.csv: must be a table that imcsim wrote, got .*"):
        from_csv("a\rb", "rows.csv")


def test_a_file_appears_whole_and_its_folder_with_it(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    write_whole(path, "a µ")
    assert path.read_text(encoding="utf-8") == "a µ"
    write_whole(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert [p.name for p in path.parent.iterdir()] == ["rows.csv"]


def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/rows\.csv: must be possible to write, got .*"):
        write_whole(tmp_path / "file" / "rows.csv", "text")
    (tmp_path / "rows.csv").mkdir()
    with pytest.raises(OutputError, match=r"rows\.csv: must be possible to write, got Is a directory"):
        write_whole(tmp_path / "rows.csv", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "rows.csv"]


def test_what_is_interrupted_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(self, text, encoding):
        self.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "rows.csv", "text")
    assert list(tmp_path.iterdir()) == []
