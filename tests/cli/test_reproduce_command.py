from commands import imcsim

from imcsim.reproduce import fit


def test_a_paper_that_cannot_be_reproduced_is_one_line(tmp_path):
    done = imcsim(tmp_path, "reproduce", "isaac", "--out", "out")
    assert done.returncode == 1
    assert done.stderr == "imcsim: isaac: must be a paper that can be reproduced (tim-dnn)\n"


def test_the_fit_says_in_one_line_what_is_wrong_with_its_targets(tmp_path, capsys):
    path = tmp_path / "targets.yaml"
    path.write_text("rate.lstm: {printed: 2}\n")
    assert fit.main(["--calibration", str(path)]) == 1
    assert capsys.readouterr().err == "fit: targets.yaml: rate.lstm.basis: field required, got {'printed': 2}\n"
