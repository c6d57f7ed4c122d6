from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.report import machine, packages
from runner.schema import discover

ROOT = Path(__file__).parents[2]


def look(store: str = ".") -> dict[str, Any]:
    return machine.look(store=store, cpus=2, memory_gb=8.0, kinds=["asr-transcribe"])


def fixes(facts: dict[str, Any]) -> str:
    return "\n".join(f"{problem['what']} -> {problem['fix']}" for problem in facts["problems"])


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of installed packages, to be changed by the test; what is not in it is as it is."""
    changed: dict[str, str] = {}

    def version(name: str, *, true: Any = metadata.version) -> str:
        found: str = changed[name] if name in changed else true(name)
        if not found:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return changed


def test_it_says_what_there_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["doctor", "-o", "json", "--store", str(tmp_path / "store")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cpu"]["count"] >= 1
    assert facts["memory_gb"] > 0
    assert {entry["name"] for entry in facts["packages"]} >= {"pydantic", "torch", "ray", "jiwer"}
    assert facts["store"]["writable"] is True
    assert facts["store"]["free_bytes"] > 0
    assert [entry["kind"] for entry in facts["kinds"]] == discover.names("runner.schema.jobs")
    assert not (tmp_path / "store").exists()


def test_the_text_has_a_fix_for_every_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]
) -> None:
    versions["jiwer"] = ""
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "asr-transcribe: lacks jiwer>=4; pip install 'jiwer>=4'" in out
    assert out.count("problem  ") == out.count("         fix: ") >= 2
    assert "no ffmpeg" in out


def test_what_is_missing_comes_with_a_command_that_needs_no_index_of_ours(versions: dict[str, str]) -> None:
    versions |= {"ray": "", "soxr": "", "jiwer": ""}
    text = fixes(look())
    assert re.search(r"^not installed: ray \(extra ray\) -> pip install 'ray\[default\S*\]>=2.54'$", text, re.MULTILINE)
    (asr,) = re.findall(r"^not installed: .* \(extra asr\) -> pip install (.*)$", text, re.MULTILINE)
    assert sorted(asr.split()) == ["'jiwer>=4'", "'soxr>=1.0'"]
    assert packages.DISTRIBUTION not in text


def test_versions_outside_the_range_are_named(versions: Mapping[str, str]) -> None:
    assert isinstance(versions, dict)
    versions |= {"torch": "2.5.1", "pydantic": "1.10.2"}
    text = fixes(look())
    assert "torch 2.5.1 is outside the range that was tried, " in text
    assert "-> pip install 'pydantic>=2.12'" in text
    assert look()["kinds"][0]["ready"] is False


def test_versions_with_a_build_tag_are_of_the_range(versions: dict[str, str]) -> None:
    versions["torch"] = "2.13.0+cpu"
    assert "torch 2.13.0+cpu" not in fixes(look())


def fake_distribution(monkeypatch: pytest.MonkeyPatch, folder: Path, version_py: str) -> None:
    (folder / "torch").mkdir()
    (folder / "torch" / "version.py").write_text(version_py)
    (folder / "torch-2.13.0.dist-info").mkdir()
    (folder / "torch-2.13.0.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.13.0\n")
    found = metadata.PathDistribution(folder / "torch-2.13.0.dist-info")
    monkeypatch.setattr(metadata, "distribution", lambda name: found)


@pytest.mark.parametrize(
    "case",
    [
        ("2.11.0", "cuda: Optional[str] = None", True),
        ("2.11.0", "cuda: Optional[str] = '12.8'", False),
        ("2.11.0+cpu", "cuda: Optional[str] = None", False),
        ("", "cuda: Optional[str] = None", False),
        ("2.11.0", "nothing of the kind", False),
    ],
)
def test_torchaudio_for_cuda_beside_a_torch_for_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, versions: dict[str, str], case: tuple[str, str, bool]
) -> None:
    torchaudio, built, breaks = case
    versions["torchaudio"] = torchaudio
    fake_distribution(monkeypatch, tmp_path, f"__version__ = '2.13.0'\n{built}\nhip = None\n")
    assert packages.torchaudio_breaks_torch() is breaks
    assert ("-> pip uninstall torchaudio" in fixes(look())) is breaks


def test_gpus_as_the_driver_lists_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 570.86.15, 9.0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert look()["gpus"] == [
        {"name": "NVIDIA H200", "memory_mib": "143771", "driver": "570.86.15", "compute_capability": "9.0"}
    ]
    program.write_text("#!/bin/sh\necho 'no devices were found'\nexit 9\n")
    assert look()["gpus"] == []


def test_stores_that_take_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    facts = look("/proc/runner-store")
    assert facts["store"]["writable"] is False
    assert "the store '/proc/runner-store' cannot be written -> choose another place" in fixes(facts)
    assert look("s3://bucket/store")["store"]["writable"] is None
    monkeypatch.setattr(machine, "LOW_SPACE", 10**18)
    assert "free where the store is -> runner artifacts gc" in fixes(look(str(tmp_path)))


def test_tokens_are_not_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a_secret_of_mine")
    assert main(["doctor", "-o", "json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["hub"]["token"] is True
    assert "hf_a_secret_of_mine" not in out


def test_nothing_is_imported_to_look_at_it() -> None:
    code = (
        "import sys; from runner.cli.main import main; main(['doctor']); "
        "print({'torch', 'transformers', 'ray', 'numpy', 'huggingface_hub'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
