"""The command lines as a user starts them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.conftest import ROOT, RunCommand

SMALL = ["data.steps_per_epoch=2", "trainer.max_epochs=2", "model.features=[2,8,1]", "data.test_points=100"]


def test_train_evaluate_predict_show(zoo_command: RunCommand, tmp_path: Path) -> None:
    done = zoo_command("zoo.train", "config=kat/function-fit", *SMALL, "run_dir=runs/a", "seed=3")
    assert done.returncode == 0, done.stderr
    for text in ("test/rmse", "kat/gr-kan activation=gelu", "ratio", "figures/fit.png", "run folder: runs/a"):
        assert text in done.stdout
    run = tmp_path / "runs/a"
    for file in ("config.yaml", "metrics.csv", "model.safetensors", "summary.json", "rival/summary.json"):
        assert (run / file).is_file()
    assert list((run / "tensorboard").glob("events*"))
    assert (run / "figures/training.png").read_bytes()[:4] == b"\x89PNG"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["seed"] == 3
    assert set(summary) >= {"metrics", "wall_time_s", "environment", "git_revision", "rival"}

    evaluated = zoo_command("zoo.evaluate", "run=runs/a")
    assert evaluated.returncode == 0, evaluated.stderr
    folder = tmp_path / evaluated.stdout.split("run folder: ")[1].strip()
    metrics = json.loads((folder / "summary.json").read_text())["metrics"]
    assert metrics == pytest.approx(summary["metrics"], rel=1e-6)

    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    predicted = zoo_command("zoo.predict", "weights=runs/a", "input=x.npy", "output=out/y.npy")
    assert predicted.returncode == 0, predicted.stderr
    assert np.load(tmp_path / "out/y.npy").shape == (4, 1)


def test_sweep(zoo_command: RunCommand, tmp_path: Path) -> None:
    done = zoo_command("zoo.train", "config=kat/function-fit", *SMALL, "rival=null", "--multirun", "seed=1,2")
    assert done.returncode == 0, done.stderr
    summaries = sorted(tmp_path.glob("runs/kat/function-fit/*_multirun/*/summary.json"))
    assert [json.loads(s.read_text())["seed"] for s in summaries] == [1, 2]
    assert "all runs" in done.stdout
    assert not (tmp_path / "multirun").exists()


def test_resolved_config_is_printed_without_running(zoo_command: RunCommand, tmp_path: Path) -> None:
    done = zoo_command("zoo.train", "config=kat/digits", "model.qk_norm=true", "--cfg", "job", "--resolve")
    assert done.returncode == 0, done.stderr
    assert "qk_norm: true" in done.stdout
    assert "config: kat/digits" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("zoo.train", [], "Which config?"),
        ("zoo.train", ["config=kat/digit"], "Did you mean 'kat/digits'"),
        ("zoo.train", ["config=kat/digits", "model.embed_dimm=1"], "Did you mean 'embed_dim'"),
        ("zoo.train", ["config=kat/digits", "trainer=7"], "Config group override must be a string"),
        ("zoo.train", ["config=kat/digits", "max_epochs=1"], "no key 'max_epochs'"),
        ("zoo.train", ["config=kat/digits", "trainer.accelerator=gpu", "trainer.devices=9"], "Trainer refuses"),
        ("zoo.train", ["config=kat/digits,kat/function-fit", "--multirun"], "one command per config"),
        ("zoo.train", ["--config=kat/digits"], "Write config=VALUE"),
        ("zoo.train", ["resume=nowhere"], "nowhere is no run folder"),
        ("zoo.train", ["config=kat/digits", "weights=kat/nothing"], "no pretrained weights 'kat/nothing'"),
        ("zoo.evaluate", [], "weights= is missing"),
        ("zoo.evaluate", ["weights=kat/nothing"], "no pretrained weights"),
        ("zoo.predict", ["weights=kat/nothing", "input=a", "output=b"], "no pretrained weights"),
        ("zoo.predict", ["input=a"], "weights= is missing"),
        ("zoo.models", ["show", "kat/kta"], "Did you mean 'kat/kat'"),
        ("zoo.models", ["list", "nothing/*"], "Nothing matches"),
        ("zoo.models", [], "list or show"),
        ("zoo.publish", ["run=nowhere", "name=a/b", "licence=x", "description=y"], "no summary.json"),
    ],
)
def test_user_errors_are_one_message_and_exit_code_2(
    zoo_command: RunCommand, tmp_path: Path, module: str, arguments: list[str], message: str
) -> None:
    done = zoo_command(module, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not (tmp_path / "runs").exists()


def test_debug_shows_the_traceback(zoo_command: RunCommand) -> None:
    done = zoo_command("zoo.train", "config=kat/digit", ZOO_DEBUG="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_overview_and_help(zoo_command: RunCommand) -> None:
    overview = zoo_command("zoo")
    for text in ("zoo.train", "kat/kat", "kat/digits", "kat/function-fit"):
        assert text in overview.stdout
    shown = zoo_command("zoo.models", "show", "kat/kat")
    for text in ("embed_dim", "'tiny' | 'small' | 'base'", "kat/digits", "Kolmogorov"):
        assert text in shown.stdout
    data = zoo_command("zoo.models", "show", "kat/digits")
    assert "1,797" in data.stdout
    for module in ("zoo.train", "zoo.evaluate", "zoo.predict", "zoo.models", "zoo.publish"):
        assert "usage: python -m" in zoo_command(module, "--help").stdout


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A training in the background that writes last.ckpt after every step."""
    quiet = ["callbacks.resume_point.every_n_seconds=0", "callbacks.progress_bar=null", "rival=null"]
    return subprocess.Popen(
        [sys.executable, "-m", "zoo.train", "config=kat/function-fit", "run_dir=run", *quiet, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    process = start(tmp_path, "trainer.max_epochs=100000")
    wait_for(tmp_path / "run/checkpoints/last.ckpt", process)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, out + err
    assert "resume=run" in out
    assert f"stopped by {signum.name}" in err
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_weights(zoo_command: RunCommand, tmp_path: Path) -> None:
    """kill -9 at a random moment: nothing but the steps since the last checkpoint has to be done again."""
    options = ["trainer.max_epochs=8", "data.steps_per_epoch=20", "data.train_points=100", "data.test_points=100"]
    process = start(tmp_path, *options)
    wait_for(tmp_path / "run/checkpoints/last.ckpt", process)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    resumed = zoo_command("zoo.train", "resume=run")
    assert resumed.returncode == 0, resumed.stderr
    whole = zoo_command("zoo.train", "config=kat/function-fit", "run_dir=whole", "rival=null", *options)
    assert whole.returncode == 0, whole.stderr
    one, other = load_file(tmp_path / "run/model.safetensors"), load_file(tmp_path / "whole/model.safetensors")
    assert all(one[name].equal(other[name]) for name in other)


# A file system of two megabytes, of which the last checkpoint's successor does not fit.
FULL_DISK = """
mount -t tmpfs -o size=2m none disk || exit 77
train="{python} -m zoo.train"
$train config=kat/function-fit rival=null {options} run_dir=disk/run || exit 1
sum() {{ sha256sum disk/run/checkpoints/last.ckpt disk/run/model.safetensors; }}
before=$(sum)
head -c $(( ($(df --output=avail disk | tail -1) - 24) * 1024 )) /dev/zero > disk/ballast
$train resume=disk/run trainer.max_epochs=3 && exit 2
[ "$before" = "$(sum)" ] || exit 3
rm disk/ballast
$train resume=disk/run trainer.max_epochs=3 || exit 4
cp disk/run/summary.json .
"""


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_nothing(tmp_path: Path) -> None:
    """No checkpoint is lost, the message says what to do, and with space the run goes on."""
    (tmp_path / "disk").mkdir()
    options = "data.steps_per_epoch=4 data.train_points=50 data.test_points=50 trainer.max_epochs=1"
    script = FULL_DISK.format(python=sys.executable, options=f"{options} logger.tensorboard=null")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no file system can be made here: {done.stderr}")
    assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert re.search(r"No space left on the disk while writing \S*/disk/run/checkpoints/", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["epochs"] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_message(zoo_command: RunCommand, tmp_path: Path) -> None:
    """The log can't be written: its place is a device that is always full."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").symlink_to("/dev/full")
    done = zoo_command("zoo.train", "config=kat/function-fit", *SMALL, "rival=null", "run_dir=run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "No space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
