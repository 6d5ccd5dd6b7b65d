"""`durian synthesize`."""

from tests.commands.runner import durian


def test_records_are_not_replaced_by_accident(tmp_path):
    def draw(*more):
        return durian("synthesize", "--out", tmp_path, "--clips", 1, "--frames", 2, "--size", 32, "--workers", 0, *more)
    assert draw().exit_code == 0
    for result in (draw(), durian("prepare", __file__, "--out", tmp_path)):
        assert result.exit_code == 2 and "--overwrite" in result.stderr
    (tmp_path / "report.json").write_text("of the records before")
    assert draw("--overwrite").exit_code == 0 and not (tmp_path / "report.json").exists()
