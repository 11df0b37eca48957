"""Hashes of what strategies learn, compared with those of before; `exml` itself is replaced."""

import hashlib
import json
from pathlib import Path

import pytest

from benchmarks import weights


def test_what_has_changed_is_noticed(tmp_path, monkeypatch, capsys):
    ran, content = [], b"weights"

    def run(words):
        ran.append(words)
        if words[0] == "fit":
            folder = Path(words[words.index("--trainer.default_root_dir") + 1])
            (folder / "ex_model").mkdir(parents=True)
            (folder / "ex_model" / "expert_0.safetensors").write_bytes(content)
            summary = {"stream_accuracy": 0.5, "forgetting": [0.1], "seed": 1234, "seconds_generating": len(ran) / 7}
            (folder / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(weights, "run", run)
    kept = tmp_path / "before.json"
    command = ["weights", "--strategies", "noise", "precomputed"]
    monkeypatch.setattr("sys.argv", [*command, "--output", str(kept)])
    weights.main()
    assert [words[0] for words in ran] == ["fit", "generate", "fit"]
    digest = hashlib.sha256(content).hexdigest()
    assert json.loads(kept.read_text())["noise"] == {"sha256": digest, "stream_accuracy": 0.5, "forgetting": [0.1]}
    assert capsys.readouterr().out.splitlines() == [f"{name:<18}{digest}" for name in command[2:]]
    monkeypatch.setattr("sys.argv", [*command, "--compare", str(kept)])
    weights.main()
    assert capsys.readouterr().out.splitlines() == [f"{name:<18}{digest}  same" for name in command[2:]]
    content = b"other weights"
    with pytest.raises(SystemExit, match="have changed"):
        weights.main()
    assert "  DIFFERENT" in capsys.readouterr().out
