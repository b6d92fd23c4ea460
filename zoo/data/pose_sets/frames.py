"""Pictures from the videos that some pose data sets come as."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from zoo.errors import ConfigError
from zoo.files import atomic_path, parsing


def extract_frames(video: Path, pattern: str, every: int) -> int:
    """Writes every so many-th frame of a video as a picture, those that are there already left out.

    Args:
        video: the file.
        pattern: of the pictures' paths, ``"images/h36m/S1_Directions_1.54138969_{:06d}.jpg"``; frames count from 1.
        every: 5 for Human3.6M, 10 for MPI-INF-3DHP.

    Returns:
        The number of pictures.

    Raises:
        DataError: the video is absent or damaged.
        ConfigError: imageio or its ffmpeg, which read it, are not installed.
    """
    try:
        import imageio.v3 as iio
        import imageio_ffmpeg  # noqa: F401 (what imageio reads videos with)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} reads videos: pip install 'zoo[splatting]'.") from None
    count = 0
    with parsing(video, "a video"):
        if not video.is_file():
            raise FileNotFoundError(video)
        for frame, picture in enumerate(iio.imiter(video, plugin="FFMPEG")):
            if frame % every:
                continue
            target = Path(pattern.format(frame + 1))
            if not target.is_file():
                with atomic_path(target) as temporary:
                    Image.fromarray(picture).save(temporary, quality=95)
            count += 1
    return count
