"""``python -m tools.annotate``: SPIN's annotation files from the raw downloads of pose data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from zoo import cli
from zoo.data.human_images import SETS
from zoo.data.pose_sets import human36m
from zoo.data.pose_sets.annotations import PersonRow, write_annotations
from zoo.data.pose_sets.coco import read_coco
from zoo.data.pose_sets.frames import extract_frames
from zoo.data.pose_sets.human36m import read_h36m
from zoo.data.pose_sets.lsp import read_lsp, read_lsp_test, read_lspet
from zoo.data.pose_sets.mpi_inf_3dhp import CAMERAS, read_3dhp, read_3dhp_test
from zoo.data.pose_sets.mpi_inf_3dhp import EVERY as EVERY_3DHP
from zoo.data.pose_sets.three_dpw import read_3dpw_pictures
from zoo.errors import ConfigError, UnknownNameError, did_you_mean

READERS: dict[str, Callable[[Path], Iterator[PersonRow]]] = {
    "lsp": read_lsp,
    "lsp-test": read_lsp_test,
    "lspet": read_lspet,
    "h36m": read_h36m,
    "h36m-p1": partial(read_h36m, subjects=human36m.TEST),
    "h36m-p2": partial(read_h36m, subjects=human36m.TEST, camera=human36m.FRONTAL),
    "mpi-inf-3dhp": read_3dhp,
    "mpi-inf-3dhp-test": read_3dhp_test,
    "3dpw": read_3dpw_pictures,
    "coco": read_coco,
}
USAGE = f"""\
usage: python -m tools.annotate set=NAME input=FOLDER [output=FOLDER] [frames=FOLDER]

  set=lsp          one of {", ".join(READERS)}
  input=/raw/lsp   the unpacked download
  output=/data     data.root of humans/images: the file goes to its dataset_extras/
  frames=FOLDER    writes the pictures of the set's videos there first (h36m, mpi-inf-3dhp)
"""


def main(argv: list[str]) -> None:
    """Annotates what the command line names."""
    arguments, rest = cli.split_arguments(argv, ("set", "input", "output", "frames"))
    if rest:
        raise ConfigError(f"'{rest[0]}' is no argument of annotate.\n{USAGE}")
    name = cli.require(arguments, "set", "lsp")
    if name not in READERS:
        raise UnknownNameError(f"There is no reader of '{name}'. {did_you_mean(name, READERS)}")
    source = Path(cli.require(arguments, "input", "/raw/lsp"))
    target = Path(arguments.get("output", ".")) / "dataset_extras" / f"{SETS[name][0]}.npz"
    if "frames" in arguments:
        cli.console().print(f"{_extract(name, source, Path(arguments['frames']))} pictures in {arguments['frames']}")
    count = write_annotations(READERS[name](source), target)
    cli.console().print(f"written: {target} ({count} people)")


def _extract(name: str, source: Path, folder: Path) -> int:
    count = 0
    if name.startswith("h36m"):
        subjects = human36m.TRAINING if name == "h36m" else human36m.TEST
        for subject in subjects:
            for video in sorted((source / f"S{subject}" / "Videos").glob("[!_]*.mp4")):
                stem = video.stem.replace(" ", "_")
                count += extract_frames(video, f"{folder}/S{subject}_{stem}_{{:06d}}.jpg", human36m.EVERY)
    elif name == "mpi-inf-3dhp":
        for sequence in sorted(source.glob("S[1-8]/Seq[12]")):
            place = folder / sequence.relative_to(source) / "imageFrames"
            for camera in CAMERAS:
                video = sequence / "imageSequence" / f"video_{camera}.avi"
                count += extract_frames(video, f"{place}/video_{camera}/frame_{{:06d}}.jpg", EVERY_3DHP)
    else:
        raise ConfigError(f"{name} comes as pictures: leave frames out.")
    return count


if __name__ == "__main__":
    cli.run(main, USAGE)
