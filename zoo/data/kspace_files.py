"""k-space in files: fastMRI, Calgary-Campinas, and arrays of any layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from zoo.data.cards import require_files
from zoo.data.kspace import KSpaceData, OnCorrupt, scan
from zoo.errors import ConfigError, DataError
from zoo.mri.masks import Family, MaskFiles
from zoo.mri.pipeline import Preparation
from zoo.mri.volumes import CalgaryVolume, FastMRIVolume, FileVolume, Volume
from zoo.registry import register_data

Split = Literal["train", "val", "test"]


def find(root: Path, patterns: Sequence[str]) -> list[Path]:
    """The files below `root` that match glob patterns or stand in lists, sorted by path.

    Args:
        root: folder.
        patterns: globs; or paths of .txt files with one file per line.

    Raises:
        DataError: a list is absent or names a file that is not there.
    """
    found: set[Path] = set()
    for pattern in patterns:
        if not pattern.endswith(".txt"):
            found.update(root.glob(pattern))
            continue
        source = Path(pattern) if Path(pattern).is_file() else root / pattern
        if not source.is_file():
            raise DataError(f"There is no list {pattern}, neither here nor in {root}.")
        for line in filter(None, map(str.strip, source.read_text(encoding="utf-8").splitlines())):
            if not (root / line).is_file():
                raise DataError(f"{source} names {line}, which is not in {root}.")
            found.add(root / line)
    return sorted(found)


class FileKSpace(KSpaceData):
    """Volumes in files below a folder, one volume per file.

    Args:
        root: the folder.
        train, val, test: glob patterns below it, or paths of .txt files that list files. Without `test`,
            every second file of `val` is for the test.
        open_volume: makes a volume of a path.
        on_corrupt: leave damaged files out, naming them, or stop.
        limit: use the first so many volumes of each split; None for all.
        others: see `zoo.data.kspace.KSpaceData`.
    """

    def __init__(
        self,
        root: Path,
        train: tuple[str, ...],
        val: tuple[str, ...],
        test: tuple[str, ...] | None,
        open_volume: Callable[[Path], Volume],
        on_corrupt: OnCorrupt,
        limit: int | None,
        preparation: Preparation,
        masks: tuple[Family, ...],
        accelerations: tuple[float, ...],
        center_fractions: tuple[float, ...],
        eval_mask: Family | None,
        flip: bool,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(
            preparation,
            masks,
            accelerations,
            center_fractions,
            eval_mask,
            flip,
            batch_size,
            eval_batch_size,
            seed,
            num_workers,
        )
        self.root, self.patterns = root, {"train": train, "val": val, "test": test}
        self.open_volume, self.on_corrupt, self.limit = open_volume, on_corrupt, limit

    def split(self, name: Split) -> list[Volume]:
        """Opens the files of a split."""
        patterns = self.patterns[name]
        if self.patterns["test"] is None and name != "train":
            halves = find(self.root, self.patterns["val"] or ())
            paths = halves[::2] if name == "val" and len(halves) > 1 else halves[1::2] or halves
        else:
            paths = find(self.root, patterns or ())
        if not paths:
            raise DataError(f"No file in {self.root} matches data.{name}={list(patterns or ())}.")
        return scan(paths[: self.limit], self.open_volume, self.on_corrupt, f"{self.root} ({name})")


@register_data("mri/fastmri")
class FastMRI(FileKSpace):
    """fastMRI knees and brains, multi-coil or single-coil.

    Args:
        root: folder with ``<challenge>_train`` and ``<challenge>_val``.
        challenge: which of the two kinds.
        acquisitions: use only files whose name contains one of these, such as "AXT1"; None for all.
        image_crop: (height, width) to crop the images to before anything else, such as (320, 320), which
            takes away the readout oversampling; None keeps it.
        coils: compress to so many virtual coils; None keeps all.
        on_corrupt: leave damaged files out, naming them, or stop.
        limit: use the first so many volumes of each split; None for all.
        taper: see `zoo.mri.sensitivity.acs_maps`.
        masks, accelerations, center_fractions, eval_mask, flip, batch_size, eval_batch_size, seed,
            num_workers: see `zoo.data.kspace.KSpaceData`.

    Raises:
        DataError: the files are not there; says where to get them.
    """

    def __init__(
        self,
        root: str | None = None,
        challenge: Literal["multicoil", "singlecoil"] = "multicoil",
        acquisitions: tuple[str, ...] | None = None,
        image_crop: tuple[int, int] | None = None,
        coils: int | None = None,
        on_corrupt: OnCorrupt = "skip",
        limit: int | None = None,
        taper: float | None = None,
        masks: tuple[Family, ...] = ("equispaced",),
        accelerations: tuple[float, ...] = (4.0, 8.0),
        center_fractions: tuple[float, ...] = (0.08, 0.04),
        eval_mask: Family | None = None,
        flip: bool = False,
        batch_size: int = 1,
        eval_batch_size: int = 1,
        seed: int = 0,
        num_workers: int = 4,
    ) -> None:
        names = [f"*{acquisition}*.h5" for acquisition in acquisitions] if acquisitions else ["*.h5"]
        train, val = (tuple(f"{challenge}_{split}/{name}" for name in names) for split in ("train", "val"))
        super().__init__(
            require_files("fastmri", root, [f"{challenge}_train/*.h5", f"{challenge}_val/*.h5"]),
            train,
            val,
            None,
            _open_fastmri,
            on_corrupt,
            limit,
            Preparation(taper=taper, image_crop=image_crop, coils=coils),
            masks,
            accelerations,
            center_fractions,
            eval_mask,
            flip,
            batch_size,
            eval_batch_size,
            seed,
            num_workers,
        )
        self.save_hyperparameters()


def _checked(volume: FileVolume) -> Volume:
    volume.check()
    return volume


def _open_fastmri(path: Path) -> Volume:
    return _checked(FastMRIVolume(path))


@register_data("mri/calgary-campinas")
class CalgaryCampinas(FileKSpace):
    """Calgary-Campinas 12-channel brains, in the convention of the published configurations: not centred.

    Args:
        root: folder with ``Train`` and ``Val``.
        train, val, test: glob patterns below `root`, or .txt files that list files, such as those of the
            paper's split. Without `test`, every second file of `val` is for the test.
        mask_files: folder with the challenge's masks ``R5_218x170.npy`` and so on, which then replace
            `masks`; None to generate masks.
        on_corrupt: leave damaged files out, naming them, or stop.
        limit: use the first so many volumes of each split; None for all.
        taper: see `zoo.mri.sensitivity.acs_maps`.
        masks, accelerations, center_fractions, eval_mask, flip, batch_size, eval_batch_size, seed,
            num_workers: see `zoo.data.kspace.KSpaceData`.

    Raises:
        DataError: the files are not there; says where to get them.
    """

    def __init__(
        self,
        root: str | None = None,
        train: tuple[str, ...] = ("Train/*.h5",),
        val: tuple[str, ...] = ("Val/*.h5",),
        test: tuple[str, ...] | None = None,
        mask_files: str | None = None,
        on_corrupt: OnCorrupt = "skip",
        limit: int | None = None,
        taper: float | None = None,
        masks: tuple[Family, ...] = ("poisson",),
        accelerations: tuple[float, ...] = (5.0, 10.0),
        center_fractions: tuple[float, ...] = (0.031, 0.031),
        eval_mask: Family | None = None,
        flip: bool = False,
        batch_size: int = 4,
        eval_batch_size: int = 4,
        seed: int = 0,
        num_workers: int = 4,
    ) -> None:
        super().__init__(
            require_files("calgary-campinas", root, [*train, *val]),
            train,
            val,
            test,
            _open_calgary,
            on_corrupt,
            limit,
            Preparation(centered=False, taper=taper),
            masks,
            accelerations,
            center_fractions,
            eval_mask,
            flip,
            batch_size,
            eval_batch_size,
            seed,
            num_workers,
        )
        self.save_hyperparameters()
        if mask_files is not None:
            given = [MaskFiles(Path(mask_files), rate) for rate in accelerations]
            self.train_masks, self.eval_masks = given, given


def _open_calgary(path: Path) -> Volume:
    return _checked(CalgaryVolume(path))


@register_data("mri/kspace")
class KSpaceFiles(FileKSpace):
    """Fully sampled k-space in .npy or .h5 files of any layout.

    Args:
        root: folder.
        train, val, test: glob patterns below it, or .txt files that list files. Without `test`, every second
            file of `val` is for the test.
        layout: which axis is what, see `zoo.mri.volumes.Layout`; None for the usual one of the array's shape
            and dtype.
        key: name of the array in .h5 files.
        centered: the images have their origin at index n // 2.
        image_crop, coils: see `FastMRI`.
        on_corrupt: leave damaged files out, naming them, or stop.
        limit: use the first so many volumes of each split; None for all.
        taper: see `zoo.mri.sensitivity.acs_maps`.
        masks, accelerations, center_fractions, eval_mask, flip, batch_size, eval_batch_size, seed,
            num_workers: see `zoo.data.kspace.KSpaceData`.

    Raises:
        ConfigError: no folder is given.
        DataError: there is no such folder.
    """

    def __init__(
        self,
        root: str | None = None,
        train: tuple[str, ...] = ("train/*",),
        val: tuple[str, ...] = ("val/*",),
        test: tuple[str, ...] | None = None,
        layout: str | None = None,
        key: str = "kspace",
        centered: bool = True,
        image_crop: tuple[int, int] | None = None,
        coils: int | None = None,
        on_corrupt: OnCorrupt = "skip",
        limit: int | None = None,
        taper: float | None = None,
        masks: tuple[Family, ...] = ("equispaced",),
        accelerations: tuple[float, ...] = (4.0, 8.0),
        center_fractions: tuple[float, ...] = (0.08, 0.04),
        eval_mask: Family | None = None,
        flip: bool = False,
        batch_size: int = 1,
        eval_batch_size: int = 1,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        if root is None:
            raise ConfigError("data.root is not set: give the folder of your k-space files.")
        if not Path(root).expanduser().is_dir():
            raise DataError(f"There is no folder {root} (data.root).")

        def open_volume(path: Path) -> Volume:
            volume = FileVolume(path, layout, key)
            volume.centered = centered
            return _checked(volume)

        super().__init__(
            Path(root).expanduser(),
            train,
            val,
            test,
            open_volume,
            on_corrupt,
            limit,
            Preparation(centered=centered, taper=taper, image_crop=image_crop, coils=coils),
            masks,
            accelerations,
            center_fractions,
            eval_mask,
            flip,
            batch_size,
            eval_batch_size,
            seed,
            num_workers,
        )
        self.save_hyperparameters()
