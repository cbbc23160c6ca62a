from commands import imcsim
from test_cli import assert_one_line


def test_a_broken_file_of_arrivals_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("0\n10\n9\n")
    done = imcsim(tmp_path, "run", "digits-ternary-cnn", "--arrivals", "a.csv", "--out", "out")
    assert_one_line(done, "a.csv: line 3: must not be before the arrival on the line before (10 ns), got 9")
