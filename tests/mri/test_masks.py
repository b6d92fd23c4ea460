"""Sampling masks: bit for bit where the official draw can be repeated, by their properties elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mri.diffusion.golden import load as load_diffusion
from tests.mri.golden import load, meta
from zoo.errors import DataError
from zoo.mri.masks import FAMILIES, MaskFiles, MaskFunction, draw, find_acs, low_frequencies, seed_of
from zoo.mri.masks_2d import center_distance, disc_of_area

MASKS = meta("masks")["masks"]
FRACTIONS = {4: 0.08, 8: 0.04}
ROW = re.compile(r"(fastmri|cartesian)_(random|equispaced|magic)_W(\d+)_(R(\d+)|multi)(_acs(\d+))?_s\d")
PATTERN = re.compile(r"(radial|spiral)_(\d+)x(\d+)_R(\d+)_(cf|nocf)_s\d+")


def function_of(name: str) -> MaskFunction:
    if match := ROW.fullmatch(name):
        family, rate, lines = match[2], match[5], match[7]
        if rate is None:
            return MaskFunction(family, (4, 8), (0.08, 0.04))  # type: ignore[arg-type]
        fraction = float(lines) if lines else FRACTIONS[int(rate)]
        return MaskFunction(family, (int(rate),), (fraction,))  # type: ignore[arg-type]
    match = PATTERN.fullmatch(name)
    assert match is not None
    return MaskFunction(match[1], (int(match[4]),), None if match[5] == "nocf" else (0.02,))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name, entry in MASKS.items() if entry["exact"]])
def test_official_masks(name: str) -> None:
    golden, entry = load("masks"), MASKS[name]
    expected, expected_acs = (golden[key].numpy().astype(bool) for key in (name, f"{name}/acs"))
    drawn = function_of(name)(expected.shape, entry["seed"])
    assert (drawn.mask == expected).all()
    assert (drawn.acs == expected_acs).all()
    assert drawn.acceleration == pytest.approx(entry["acceleration"], rel=1e-5)


LINES = re.compile(r"mask\.(\w+)\.W(\d+)\.R(\d+)\.f(0\.\d+)\.offset(\w+)")
OTHER_NAMES = {"equispaced_fraction": "equispaced", "equispaced": "equispaced-plain", "magic": "magic-plain"}


class FixedOffset:
    """The reference masks were made at given offsets."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def randint(self, low: int, high: int) -> int:
        assert low <= self.offset < high
        return self.offset


@pytest.mark.parametrize("key", [key for key in load_diffusion("ssim_masks") if LINES.fullmatch(key)])
def test_masks_of_no_varnet(key: str) -> None:
    golden = load_diffusion("ssim_masks")
    name, width, rate, fraction, offset = LINES.fullmatch(key).groups()  # type: ignore[union-attr]
    if name == "random":
        drawn = MaskFunction("random", (float(rate),), (float(fraction),))((2, int(width)), 17)
    else:
        rng: Any = FixedOffset(int(offset))
        drawn = draw(OTHER_NAMES[name], (2, int(width)), float(rate), float(fraction), rng)  # type: ignore[arg-type]
    assert (drawn.mask == golden[key].numpy().astype(bool)).all()
    assert drawn.acs[0].sum() == int(golden[f"{key}.numlow"])


def test_every_slice_of_a_volume_shares_a_seed_that_folders_do_not_change() -> None:
    assert seed_of("/data/a/file.h5") == seed_of("file.h5") == tuple(map(ord, "file.h5"))


SHAPES = st.tuples(st.integers(32, 72), st.integers(40, 80))
GENERATED = ("random", "equispaced", "magic", "gaussian-1d", "gaussian-2d", "radial", "spiral", "poisson")


@settings(max_examples=60, deadline=None)
@given(family=st.sampled_from(GENERATED), shape=SHAPES, rate=st.sampled_from([4.0, 5.0, 6.5]), seed=st.integers(0, 99))
def test_properties_of_every_family(family: str, shape: tuple[int, int], rate: float, seed: int) -> None:
    """The rate is about right, the centre is sampled, equal seeds give equal masks."""
    function = MaskFunction(family, (rate,), (0.06,))  # type: ignore[arg-type]
    drawn, again = function(shape, seed), function(shape, seed)
    assert (drawn.mask == again.mask).all()
    assert drawn.mask.shape == drawn.acs.shape == shape
    assert drawn.mask[drawn.acs].all()
    assert drawn.acs[shape[0] // 2, shape[1] // 2]
    # Strides are rounded to whole lines by the magic masks; the random ones have their rate on average only; equispaced
    # lines start anywhere, so that the last may or may not fit.
    if family == "equispaced":
        assert abs(drawn.mask[0].sum() - shape[1] / rate) <= 2
    else:
        spread = {"random": np.inf, "magic": 0.5, "radial": 0.35, "spiral": 0.35}.get(family, 0.15)
        assert abs(drawn.acceleration / rate - 1) < spread
    if family in ("random", "equispaced", "magic", "gaussian-1d"):
        assert (drawn.mask == drawn.mask[:1]).all()


def test_random_lines_have_the_rate_on_average() -> None:
    function = MaskFunction("random", (4.0,), (0.08,))
    sampled = [function((1, 320), seed).mask.mean() for seed in range(400)]
    assert np.mean(sampled) == pytest.approx(0.25, abs=0.005)
    assert np.std(sampled) > 0.01


@pytest.mark.parametrize("rate", [5.0, 10.0])
def test_poisson_disc(rate: float) -> None:
    """The rate within 0.2, as officially; a full disc; samples apart from each other; denser near the centre."""
    shape = (64, 60)
    golden = load("masks")[f"poisson_64x60_R{rate:g}"].numpy().astype(bool)
    masks = [MaskFunction("poisson", (rate,), (0.02,))(shape, seed) for seed in range(5)]
    distance, disc = center_distance(shape), disc_of_area(shape, 0.02)
    for drawn in masks:
        assert abs(drawn.acceleration - rate) < 0.2
        assert drawn.mask[disc].all()
        outside = drawn.mask & ~disc
        near, far = (outside[(distance >= a) & (distance < b)].mean() for a, b in ((5, 14), (22, 30)))
        assert near > 1.5 * far
        if rate == 10:  # where the ellipses are wide, no two samples touch
            lonely = outside & (distance > 26)
            assert not (lonely[:, 1:] & lonely[:, :-1]).any()
            assert not (lonely[1:] & lonely[:-1]).any()
    assert any((masks[0].mask != other.mask).any() for other in masks[1:])
    bands = [(distance >= r) & (distance < r + 8) for r in (8, 16, 24)]
    profile, official = ([mask[band].mean() for band in bands] for mask in (masks[0].mask, golden))
    assert np.allclose(profile, official, atol=0.08)


@pytest.mark.parametrize("rate", [5.0, 10.0])
def test_gaussian_counts_are_exact(rate: float) -> None:
    golden = load("masks")[f"gaussian2d_64x60_R{rate:g}"].numpy()
    drawn = MaskFunction("gaussian-2d", (rate,), (0.02,))((64, 60), 42)
    assert abs(int(drawn.mask.sum()) - int(golden.sum())) <= 1


def test_plain_equispaced_takes_every_rth_line() -> None:
    drawn = draw("equispaced-plain", (4, 100), 5, 10, np.random.RandomState(0))
    columns = np.flatnonzero(drawn.mask[0] & ~drawn.acs[0])
    assert set(np.diff(columns)) <= {5, 10, 15}
    assert drawn.acs[0].sum() == 10


def test_low_frequencies_are_a_fraction_or_a_count() -> None:
    assert low_frequencies(320, 0.08) == 26
    assert low_frequencies(320, 24) == 24
    magic = draw("magic", (2, 40), 8, 0.5, np.random.RandomState(0))  # more centre than the rate allows
    assert magic.mask[0].sum() == 5


def test_impossible_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing to choose at 8x"):
        draw("equispaced", (4, 64), 8, 0.2, np.random.RandomState(0))
    with pytest.raises(ValueError, match="needs a centre fraction"):
        draw("poisson", (32, 32), 4, None, np.random.RandomState(0))
    with pytest.raises(ValueError, match="as many centre fractions"):
        MaskFunction("random", (4, 8), (0.1,))
    with pytest.raises(ValueError, match="at least one acceleration"):
        MaskFunction("random", ())
    with pytest.raises(ValueError, match="no family of masks 'poison', only random"):
        draw("poison", (32, 32), 4, 0.1, np.random.RandomState(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="centre of 40 lines does not fit in the 32"):
        draw("random", (16, 32), 4, 40, np.random.RandomState(0))
    with pytest.raises(ValueError, match="at most 1, not 12"):
        draw("radial", (16, 32), 4, 12, np.random.RandomState(0))
    with pytest.raises(ValueError, match=r"no Poisson disc on 16 x 32 samples is 4x with a centre of 0\.9"):
        draw("poisson", (16, 32), 4, 0.9, np.random.RandomState(0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("rate", "fraction"), [(0.0, 0.1), (0.5, 0.1), (np.nan, 0.1), (4.0, -0.1), (4.0, np.nan)])
def test_impossible_rates_are_refused(family: str, rate: float, fraction: float) -> None:
    for ask in (
        lambda: MaskFunction(family, (rate,), (fraction,)),  # type: ignore[arg-type]
        lambda: draw(family, (16, 32), rate, fraction, np.random.RandomState(0)),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match=r"should be [01] or more, not"):
            ask()


def test_seeds_may_be_numbers_of_numpy() -> None:
    function = MaskFunction("random", (4.0,), (0.1,))
    assert (function((4, 64), np.int64(7)).mask == function((4, 64), 7).mask).all()
    assert (function((4, 64), np.array([7, 8])).mask == function((4, 64), (7, 8)).mask).all()  # type: ignore[arg-type]


def test_official_discs() -> None:
    """The centre of the Calgary-Campinas masks has radius 18, border included; other discs exclude theirs."""
    golden = load("masks")
    calgary = golden["calgary_acs_disc_218x170_r18"].numpy().astype(bool)
    assert (calgary == (center_distance((218, 170)) <= MaskFiles.acs_radius)).all()
    assert (golden["centered_disk_64x60_0.05"].numpy().astype(bool) == disc_of_area((64, 60), 0.05)).all()


class TestMaskFiles:
    """The layout of the Calgary-Campinas challenge's masks."""

    def test_reads_one_of_many(self, tmp_path: Path) -> None:
        masks = np.random.default_rng(0).random((7, 50, 40)) < 0.2
        masks[:, 15:36, 10:31] = True
        np.save(tmp_path / "R5_50x40.npy", masks)
        source = MaskFiles(tmp_path, 5, acs_radius=8)
        drawn = [source((50, 40), seed) for seed in range(20)]
        assert all((masks == d.mask).all((1, 2)).any() for d in drawn)
        assert len({d.mask.tobytes() for d in drawn}) > 3
        assert (drawn[0].acs == (center_distance((50, 40)) <= 8)).all()

    def test_absent_and_misshapen_files_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"There is no file .*R10_50x40\.npy"):
            MaskFiles(tmp_path, 10)((50, 40), 0)
        np.save(tmp_path / "R10_50x40.npy", np.zeros((3, 40, 50), bool))
        with pytest.raises(DataError, match=r"should hold masks \(number, 50, 40\), not an array \(3, 40, 50\)"):
            MaskFiles(tmp_path, 10)((50, 40), 0)


@pytest.mark.parametrize("family", ["equispaced", "poisson", "gaussian-2d"])
def test_the_centre_of_a_foreign_mask_is_found(family: str) -> None:
    drawn = MaskFunction(family, (6.0,), (0.08,))((60, 50), 3)  # type: ignore[arg-type]
    found = find_acs(drawn.mask)
    assert drawn.mask[found].all()
    assert found.sum() >= 0.85 * drawn.acs.sum()
    assert (find_acs(drawn.mask.T).sum()) == pytest.approx(found.sum(), rel=0.2)


def test_a_mask_without_a_centre() -> None:
    mask = np.ones((8, 8), bool)
    assert find_acs(mask).all()
    mask[:, 4] = False
    assert not find_acs(mask).any()
