"""What the figure of the first acknowledged message is taken from."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest  # noqa: E402
from suite_agent import until_acknowledged  # noqa: E402


def test_what_a_program_logs_is_kept_for_its_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nprint('vedette info: connected', file=sys.stderr)\nprint(sys.argv[1])"
    )
    assert until_acknowledged([sys.executable, str(script), "acknowledged"], tmp_path) > 0
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError, match="vedette info: connected"):
        until_acknowledged([sys.executable, str(script), "refused"], tmp_path)
