"""The manifest, the cache, and downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import zoo
from zoo import weights
from zoo.config import compose
from zoo.download import cache_dir, fetch, sha256
from zoo.engine.run import train
from zoo.errors import ConfigError, UnknownNameError, WeightsError
from zoo.pretrained import get_entry, load_module, network_weights, resolve_file, weights_file
from zoo.publish import publish

CONTENT = bytes(range(256)) * 4096  # 1 MiB
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT with ranges; ``/cut`` breaks off half-way the first time, ``/changed`` is another file."""

    requests: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.seen.append((self.path, wanted))  # type: ignore[attr-defined]
        if self.path.startswith("/missing"):
            self.send_error(404, "Not Found")
            return
        content = CONTENT[::-1] if self.path.startswith("/changed") else CONTENT
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and "norange" not in self.path else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.path.startswith("/cut") and not wanted:
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def url(server: ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{path}"


def test_download_is_checked_and_kept(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    target = tmp_path / "a" / "file.bin"
    for _ in range(2):
        assert fetch(url(server, "file"), target, CHECKSUM, len(CONTENT)).read_bytes() == CONTENT
    assert len(server.seen) == 1  # type: ignore[attr-defined]
    assert sorted(p.name for p in target.parent.iterdir()) in (["file.bin"], ["file.bin", "file.bin.lock"])


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_truncated_download_goes_on_from_there(server: ThreadingHTTPServer, tmp_path: Path, size: int | None) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(WeightsError, match=r"broke off after 524288 of 1048576 bytes. Try again"):
        fetch(url(server, "cut"), target, CHECKSUM, size)
    assert not target.exists()
    assert fetch(url(server, "cut"), target, CHECKSUM, size).read_bytes() == CONTENT
    assert server.seen == [("/cut", None), ("/cut", "bytes=524288-")]  # type: ignore[attr-defined]


def test_server_without_ranges_starts_again(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(url(server, "norange"), target, CHECKSUM, len(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_partial_file_longer_than_the_whole_is_dropped(
    server: ThreadingHTTPServer, tmp_path: Path, size: int | None
) -> None:
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(url(server, "file"), target, CHECKSUM, size).read_bytes() == CONTENT


def test_wrong_checksum_is_not_kept(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(WeightsError, match=r"has the checksum .* not .* as the manifest says"):
        fetch(url(server, "changed"), target, CHECKSUM, len(CONTENT))
    assert not target.exists()
    assert not target.with_name("file.bin.part").exists()


def test_absent_file_and_dead_server(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"/missing answers 404 Not Found"):
        fetch(url(server, "missing"), tmp_path / "x", CHECKSUM)
    with pytest.raises(WeightsError, match=r"can't be reached.*Check the network"):
        fetch("http://127.0.0.1:9/x", tmp_path / "y", CHECKSUM)


def test_offline(server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"not in the cache .* network is switched off"):
        fetch(url(server, "file"), tmp_path / "x", CHECKSUM)
    assert server.seen == []  # type: ignore[attr-defined]


def _fetch(address: str, target: str) -> None:
    fetch(address, Path(target), CHECKSUM, len(CONTENT))


def test_two_processes_download_once(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    target = tmp_path / "file.bin"
    processes = [context.Process(target=_fetch, args=(url(server, "file"), str(target))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    assert target.read_bytes() == CONTENT
    assert len(server.seen) == 1  # type: ignore[attr-defined]


@pytest.fixture
def finished_run(in_tmp: Path) -> Path:
    quiet = ["callbacks.progress_bar=null", "callbacks.rich_model_summary=null", "logger={csv: {}}", "rival=null"]
    small = ["data.steps_per_epoch=2", "trainer.max_epochs=1", "model.features=[2,8,1]", "run_dir=run"]
    train(compose("kat/function-fit", [*quiet, *small]))
    return in_tmp / "run"


def test_published_run_is_loaded_by_name(finished_run: Path) -> None:
    files = publish(finished_run, "kat/mine", "CC0-1.0", "A small fit.", cache_dir() / "published")
    assert [file.suffix for file in files] == [".safetensors", ".yaml", ".md"]
    assert "kat/mine" in zoo.list_weights()
    entry = get_entry("kat/mine")
    summary = json.loads((finished_run / "summary.json").read_text())
    assert entry.metrics == summary["metrics"]
    assert entry.size == files[0].stat().st_size
    assert entry.sha256 == sha256(files[0])
    assert "CC0-1.0" in files[2].read_text()

    module = zoo.load_pretrained("kat/mine")
    assert not module.training
    same = load_module(finished_run)
    for one, other in zip(module.network.parameters(), same.network.parameters(), strict=True):
        assert torch.equal(one, other)
    fresh = zoo.create_model("kat/gr-kan", features=(2, 8, 1))
    fresh.network.load_state_dict(network_weights("kat/mine"))
    x = torch.rand(5, 2)
    assert torch.equal(fresh.network(x), module.network(x))


def test_half_as_large(finished_run: Path) -> None:
    whole = load_module(finished_run)
    file, *_ = publish(finished_run, "kat/small", "CC0-1.0", "A fit.", cache_dir() / "published", half=True)
    stored, _ = weights.read(file)
    assert all(tensor.dtype == torch.float16 for tensor in stored.values() if tensor.is_floating_point())
    module = zoo.load_pretrained("kat/small")
    for one, other in zip(module.network.parameters(), whole.network.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)
    tensors, metadata = weights.read(finished_run / "model.safetensors")
    next(iter(tensors.values())).fill_(1e6)
    save_file(tensors, finished_run / "model.safetensors", metadata=metadata)
    with pytest.raises(WeightsError, match="beyond 16 bits"):
        publish(finished_run, "kat/small", "CC0-1.0", "A fit.", cache_dir() / "published", half=True)


def test_changed_weights_are_refused(finished_run: Path) -> None:
    file, *_ = publish(finished_run, "kat/mine", "CC0-1.0", "A small fit.", cache_dir() / "published")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="has the checksum"):
        zoo.load_pretrained("kat/mine")


def test_weights_by_url(finished_run: Path, server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest may point to a server; the second load needs no network."""
    file, manifest, _ = publish(finished_run, "kat/mine", "CC0-1.0", "A small fit.", cache_dir() / "published")
    monkeypatch.setattr(f"{__name__}.CONTENT", file.read_bytes())
    file.unlink()
    entry = yaml.safe_load(manifest.read_text())
    del entry["file"]
    manifest.write_text(yaml.safe_dump({**entry, "url": url(server, "mine.safetensors")}))
    zoo.load_pretrained("kat/mine")
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert weights_file(get_entry("kat/mine")).is_relative_to(cache_dir())
    zoo.load_pretrained("kat/mine")
    assert len(server.seen) == 1  # type: ignore[attr-defined]


def test_weights_on_the_hub_need_the_network(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, manifest, _ = publish(finished_run, "kat/mine", "CC0-1.0", "A small fit.", cache_dir() / "published")
    entry = yaml.safe_load(manifest.read_text())
    del entry["file"]
    hub = {"repo_id": "someone/something", "filename": "model.safetensors"}
    manifest.write_text(yaml.safe_dump({**entry, "hub": hub}))
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    with pytest.raises(WeightsError, match="can't be had from the hub's someone/something"):
        zoo.load_pretrained("kat/mine")


def test_official_checkpoints_are_converted(in_tmp: Path) -> None:
    arguments = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 1, "num_classes": 3}
    module = zoo.create_model("kat/kat", **arguments)
    folder = cache_dir() / "published" / "kat"
    folder.mkdir(parents=True)
    file = folder / "theirs.pth"
    torch.save({"model": {f"module.{k}": v for k, v in module.network.state_dict().items()}}, file)
    entry = {
        "name": "kat/theirs",
        "model": "kat/kat",
        "arguments": arguments,
        "file": file.name,
        "sha256": sha256(file),
        "size": file.stat().st_size,
        "licence": "MIT",
        "description": "Theirs.",
        "official": True,
    }
    (folder / "theirs.yaml").write_text(yaml.safe_dump(entry))
    loaded = zoo.load_pretrained("kat/theirs")
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded.network(image), module.eval().network(image))


def test_damaged_manifest_entry_names_itself() -> None:
    folder = cache_dir() / "published"
    folder.mkdir(parents=True)
    for text, problem in (("[1, 2]", "no mapping"), ("name: [", "unusable"), ("nmae: a/b", "unknown keys: nmae")):
        (folder / "bad.yaml").write_text(text)
        with pytest.raises(WeightsError, match=rf"bad\.yaml is unusable(.|\n)*{problem}|{problem}"):
            zoo.list_weights()


def test_unknown_weights_name_near_matches() -> None:
    with pytest.raises(UnknownNameError, match="no pretrained weights 'kat/nothing'"):
        zoo.load_pretrained("kat/nothing")


def test_what_weights_may_be(finished_run: Path) -> None:
    assert resolve_file(finished_run) == finished_run / "model.safetensors"
    assert resolve_file(str(finished_run / "model.safetensors")) == finished_run / "model.safetensors"
    with pytest.raises(WeightsError, match=r"no weights file nowhere\.safetensors"):
        resolve_file("nowhere.safetensors")
    (finished_run / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"the run was not finished. Go on with resume="):
        resolve_file(finished_run)


def test_unfinished_run_is_not_published(finished_run: Path) -> None:
    (finished_run / "summary.json").unlink()
    with pytest.raises(ConfigError, match="the run was not finished"):
        publish(finished_run, "kat/mine", "CC0-1.0", "A small fit.", cache_dir())
    with pytest.raises(ConfigError, match="no registry name"):
        publish(finished_run, "Mine", "CC0-1.0", "A small fit.", cache_dir())


def test_nan_weights_are_not_published(finished_run: Path) -> None:
    tensors, metadata = weights.read(finished_run / "model.safetensors")
    next(iter(tensors.values())).fill_(torch.nan)
    save_file(tensors, finished_run / "model.safetensors", metadata=metadata)
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        publish(finished_run, "kat/mine", "CC0-1.0", "A small fit.", cache_dir())


def test_misfits_are_named(tmp_path: Path) -> None:
    module = zoo.create_model("kat/gr-kan", features=(2, 8, 1))
    tensors = module.network.state_dict()
    first, *rest = tensors
    with pytest.raises(WeightsError, match=rf"missing: {first}"):
        weights.load_into(module.network, {k: tensors[k] for k in rest}, "x")
    with pytest.raises(WeightsError, match="not in the model: other"):
        weights.load_into(module.network, {**tensors, "other": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match=rf"wrong shape: {first} is \(3,\) but the model has \(8, 2\)"):
        weights.load_into(module.network, {**tensors, first: torch.zeros(3)}, "x")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights_file_names_itself(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.safetensors"
    weights.save(zoo.create_model("kat/gr-kan"), file)
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "garbage": b"\xff" * 100, "empty": b""}[damage])
    with pytest.raises(WeightsError, match=r"model\.safetensors is damaged"):
        weights.build(file)


def test_foreign_safetensors_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not say which model it holds"):
        weights.build(tmp_path / "other.safetensors")
