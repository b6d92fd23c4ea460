"""Solvers, random fields, symmetries, transforms and metrics against closed forms and reference numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import zoo
from tests import goldens
from tests.goldens import relative_error, section
from zoo.errors import ZooError
from zoo.operators import burgers, darcy, navier_stokes, random_fields
from zoo.operators.metrics import PDEBenchErrors, energy_spectrum, normalised_mse, relative_l2, spectral_distance
from zoo.operators.modes import smallest_block, truncation_floors
from zoo.operators.symmetry import FlowSymmetries
from zoo.operators.transforms import (
    Basis,
    analyse,
    basis_matrix,
    dct,
    dct2,
    idct,
    idct2,
    resample,
    synthesise,
)

SYSTEM = "operators-t1"


def l2(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


class TestTransforms:
    @pytest.mark.parametrize("size", [5, 8, 16, 27])
    @pytest.mark.parametrize(("norm", "tolerance"), [("ortho", 5e-6), ("none", 5e-5)])
    def test_dct_is_scipys(self, size: int, norm: str, tolerance: float) -> None:
        golden = section(goldens.load(SYSTEM, "dct1d"), f"n{size}/")
        for name, function in (("dct", dct), ("idct", idct)):
            x = golden["x"].clone().requires_grad_()
            y = function(x, norm)
            assert torch.allclose(y, golden[f"{name}_{norm}"], atol=tolerance)
            if norm == "ortho":
                (golden["R"] * y).sum().backward()
                assert torch.allclose(x.grad, golden[f"grad_{name}_ortho"], atol=tolerance)

    def test_half_precision_and_integers_become_single(self) -> None:
        x = torch.arange(12).reshape(2, 6)
        for numbers in (x, x.bfloat16()):
            assert torch.equal(dct(numbers), dct(x.float()))
            assert torch.equal(idct(numbers), idct(x.float()))
        with pytest.raises(ValueError, match="there is no norm 'forward'"):
            dct(x, "forward")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="real fields"):
            idct(torch.zeros(4, dtype=torch.complex64))

    @pytest.mark.parametrize(("size", "kept"), [("8x8", 4), ("6x9", 3), ("16x12", 6)])
    def test_two_axes_and_low_pass(self, size: str, kept: int) -> None:
        golden = section(goldens.load(SYSTEM, "dct2d"), f"{size}/")
        x = golden["x"]
        assert torch.allclose(dct2(x), golden["dct2_ortho"], atol=5e-6)
        assert torch.allclose(idct2(x), golden["idct2_ortho"], atol=5e-6)
        low = synthesise(analyse(x, (kept, kept), "dct"), x.shape[2:], "dct")
        assert torch.allclose(low, golden[f"lowpass_m{kept}"], atol=5e-6)

    @given(st.sampled_from(["dct", "fourier"]), st.integers(1, 40), st.data())
    def test_rows_are_orthonormal(self, basis: Basis, points: int, data: st.DataObject) -> None:
        modes = data.draw(st.integers(1, points))
        matrix = basis_matrix(basis, modes, points)
        assert torch.allclose(matrix @ matrix.T, torch.eye(modes, dtype=torch.float64), atol=1e-10)

    def test_the_block_is_a_corner_of_the_whole(self) -> None:
        x = torch.randn(2, 14, 9, dtype=torch.float64)
        assert torch.allclose(analyse(x, (5, 4), "dct"), dct2(x)[:, :5, :4], atol=1e-12)

    @given(st.integers(4, 20), st.integers(4, 20))
    def test_resampling_keeps_what_both_grids_hold(self, old: int, new: int) -> None:
        held = min(old, new) - 1 + min(old, new) % 2
        block = torch.randn(2, held, dtype=torch.float64)
        x = synthesise(block, (old,), "fourier")
        y = resample(x, (new,))
        assert torch.allclose(resample(y, (old,)), x, atol=1e-10)
        assert torch.allclose(y, math.sqrt(new / old) * synthesise(block, (new,), "fourier"), atol=1e-10)

    def test_bad_modes_are_named(self) -> None:
        with pytest.raises(ValueError, match="can't be told apart"):
            basis_matrix("dct", 9, 8)
        with pytest.raises(ValueError, match="there is no basis"):
            basis_matrix("wavelet", 4, 8)  # type: ignore[arg-type]

    @pytest.mark.parametrize("dims", [1, 2])
    def test_the_smallest_block_is_the_one_that_was_filled(self, dims: int) -> None:
        block = torch.ones(2, *[7] * dims, dtype=torch.float64)
        fields = synthesise(block, [16] * dims, "fourier")
        floors = truncation_floors(fields, "fourier", dims)
        assert smallest_block(fields, "fourier", 1e-6, dims) == 7
        assert floors[4].item() == pytest.approx(math.sqrt(1 - (5 / 7) ** dims))
        kept = synthesise(analyse(fields, [5] * dims, "fourier"), [16] * dims, "fourier")
        assert relative_l2(kept, fields).mean().item() == pytest.approx(floors[4].item(), rel=1e-6)
        with pytest.raises(ValueError, match="should be positive"):
            smallest_block(fields, "fourier", 0.0, dims)

    def test_gradients(self) -> None:
        x = torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: synthesise(analyse(x, (3, 4), "fourier"), (6, 7), "fourier"), x)
        assert torch.autograd.gradcheck(dct2, x)


class TestNavierStokes:
    @pytest.mark.parametrize(("run", "viscosity"), [(0, 1e-3), (1, 1e-4)])
    @pytest.mark.parametrize(("dtype", "step", "tolerance"), [(torch.float32, 0.05, 1e-4), (torch.float64, 0.02, 1e-6)])
    def test_is_the_independent_solver(
        self, run: int, viscosity: float, dtype: torch.dtype, step: float, tolerance: float
    ) -> None:
        golden = section(goldens.load(SYSTEM, "navier_stokes"), f"run{run}/")
        w = navier_stokes.solve(golden["w0"].to(dtype), [1.0, 5.0, 10.0], viscosity, max_step=step)
        assert w.shape == golden["w"].shape
        assert w.dtype == dtype
        assert l2(w, golden["w"]) < tolerance
        for index in range(3):
            found = navier_stokes.budget(w[..., index].double())
            quantities = (
                found.energy,
                found.enstrophy,
                found.palinstrophy,
                found.energy_input,
                found.enstrophy_input,
            )
            assert torch.allclose(torch.stack(quantities, -1), golden["diag"][:, index].double(), rtol=2e-4, atol=1e-7)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
    def test_closed_forms(self, dtype: torch.dtype, tolerance: float) -> None:
        golden = goldens.load(SYSTEM, "ns_closed_form")
        x, y = navier_stokes.grid(32, dtype)
        vortices = 1.3 * torch.cos(4 * math.pi * x) * torch.cos(4 * math.pi * y)
        decay = navier_stokes.solve(vortices, [0.5, 2.0], 0.01, "none")
        expected = golden["taylor_green/w__f64"][..., 1:].to(dtype)
        assert torch.allclose(decay, expected, atol=tolerance)
        laminar = navier_stokes.solve(torch.zeros(32, 32, dtype=dtype), [0.5, 2.0], 0.01, "fno")
        assert torch.allclose(laminar, golden["laminar_forced/w__f64"][..., 1:].to(dtype), atol=tolerance)

    def test_inviscid_flow_conserves_energy_and_enstrophy(self) -> None:
        golden = goldens.load(SYSTEM, "ns_closed_form")
        w0 = golden["inviscid/w0"].double()
        w = navier_stokes.solve(w0, [2.0, 4.0], 0.0, "none", max_step=0.01)
        assert l2(w, golden["inviscid/w"]) < 1e-5
        carried = navier_stokes.solve(w0, [0.0, 2.0, 4.0], 0.0, "none", max_step=0.01).movedim(-1, 0)
        found = navier_stokes.budget(carried, "none")
        energies = torch.stack((found.energy, found.enstrophy), -1)
        assert torch.allclose(energies, energies[:1].expand(3, 2), rtol=1e-6)
        assert torch.allclose(energies, golden["inviscid/E_Z__f64"], rtol=1e-6)

    def test_the_budgets_close(self) -> None:
        """dE/dt = -2 nu Z + <f psi> and dZ/dt = -2 nu P + <f w>, by central differences."""
        w0 = random_fields.periodic_field(2, 32, generator=torch.Generator().manual_seed(1)).double()
        h, viscosity = 0.02, 2e-3
        before, now, after = navier_stokes.solve(w0, [1.0 - h, 1.0, 1.0 + h], viscosity, max_step=h / 4).unbind(-1)
        first, here, last = (navier_stokes.budget(w) for w in (before, now, after))
        energy_rate = (last.energy - first.energy) / (2 * h)
        enstrophy_rate = (last.enstrophy - first.enstrophy) / (2 * h)
        assert torch.allclose(energy_rate, -2 * viscosity * here.enstrophy + here.energy_input, rtol=2e-3)
        assert torch.allclose(enstrophy_rate, -2 * viscosity * here.palinstrophy + here.enstrophy_input, rtol=2e-3)

    def test_fourth_order_in_time(self) -> None:
        w0 = random_fields.periodic_field(1, 32, generator=torch.Generator().manual_seed(2)).double()
        w0 = 4 * w0

        def at(step: float) -> Tensor:
            return navier_stokes.solve(w0, [1.0], 1e-3, max_step=step)

        best = at(0.0025)
        coarse, fine = l2(at(0.04), best), l2(at(0.02), best)
        assert math.log2(coarse / fine) == pytest.approx(4.0, abs=0.3)

    def test_the_public_datas_own_scheme(self) -> None:
        golden = goldens.load(SYSTEM, "navier_stokes_fno_scheme")
        times = [0.25, 0.5, 0.75, 1.0]
        for dtype in (torch.float32, torch.float64):
            w = navier_stokes.solve(golden["w0"].to(dtype), times, 1e-3, max_step=0.002, scheme="fno")
            # The reference rounds its viscous factors to single precision: 500 steps of that are 1.2e-5.
            assert l2(w, golden["sol"].to(dtype)) < 1e-4
        better = navier_stokes.solve(golden["w0"].double(), times, 1e-3)
        assert 1e-6 < l2(better, golden["sol"]) < 1e-2

    def test_flows_of_a_batch_do_not_mix(self) -> None:
        """Two flows share a complex field, and an odd one travels alone."""
        w0 = random_fields.periodic_field(3, 32, generator=torch.Generator().manual_seed(3)).double()
        together = navier_stokes.solve(w0, [1.0], max_step=0.05)
        alone = torch.stack([navier_stokes.solve(w, [1.0], max_step=0.05) for w in w0])
        assert torch.allclose(together, alone, atol=1e-12)

    @pytest.mark.parametrize(("forcing", "count"), [("fno", 128), ("kolmogorov", 32 * 4 * 4), ("none", 8 * 32 * 32)])
    def test_symmetries_commute_with_the_flow(self, forcing: navier_stokes.Forcing, count: int) -> None:
        source = navier_stokes.forcing_field(forcing, 32, torch.float64).numpy()
        group = FlowSymmetries.of_forcing(source)
        assert len(group) == count
        w0 = random_fields.periodic_field(1, 32, generator=torch.Generator().manual_seed(4)).double()
        after = navier_stokes.solve(w0, [0.5], forcing=forcing, max_step=0.05)[..., 0].numpy()
        generator = np.random.default_rng(0)
        images = [group.draw(generator) for _ in range(12)]
        turned = torch.from_numpy(np.concatenate([group.apply(w0.numpy(), k) for k in images]))
        solved = navier_stokes.solve(turned, [0.5], forcing=forcing, max_step=0.05)[..., 0].numpy()
        expected = np.concatenate([group.apply(after, k) for k in images])
        assert np.abs(solved - expected).max() < 1e-11 * max(1.0, np.abs(expected).max())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"w0": torch.zeros(4, 8, 6), "times": [1.0]}, "should be real fields"),
            ({"w0": torch.zeros(8, 8), "times": [1.0, 0.5]}, "should increase"),
            ({"w0": torch.zeros(8, 8), "times": [1.0], "viscosity": -1.0}, "not be negative"),
            ({"w0": torch.zeros(8, 8), "times": [1.0], "forcing": torch.zeros(4, 4)}, "should be a field"),
            ({"w0": torch.zeros(8, 8), "times": [1.0], "forcing": "wind"}, "no forcing 'wind': use fno"),
            ({"w0": torch.zeros(8, 8), "times": [1.0], "scheme": "euler"}, "no scheme 'euler': use ifrk4 or fno"),
            ({"w0": torch.zeros(8, 8), "times": [1.0], "max_step": 0.0}, "max_step should be positive"),
            ({"w0": torch.full((8, 8), math.nan), "times": [1.0]}, "NaN"),
            ({"w0": torch.zeros(8, 8), "times": [math.nan]}, "should increase, be finite"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            navier_stokes.solve(**arguments)  # type: ignore[arg-type]

    def test_a_blow_up_is_an_error(self) -> None:
        w0 = 1e3 * random_fields.periodic_field(1, 32, generator=torch.Generator().manual_seed(5))
        with pytest.raises(ZooError, match="blew up"):
            navier_stokes.solve(w0, [5.0], 1e-5, scheme="fno", max_step=0.1)


class TestRandomFields:
    def test_variance_of_initial_vorticity(self) -> None:
        for row in goldens.load_json(SYSTEM, "grf")["stats"]:
            alpha, tau, size = row["alpha"], row["tau"], row["N"]
            closed = random_fields.pointwise_variance(size, alpha, tau)
            assert closed == pytest.approx(row["pointwise_variance_closed_form"], rel=1e-6)
            generator = torch.Generator().manual_seed(0)
            fields = random_fields.periodic_field(500, size, alpha, tau, generator=generator)
            assert fields.var().item() == pytest.approx(closed, rel=0.1)
            assert fields.mean((-2, -1)).abs().max().item() < 1e-6
            mode = (torch.fft.fft2(fields)[:, 1, 0].abs() / size**2).square().mean().item()
            assert mode == pytest.approx(row["mode_1_0_closed_form"], rel=0.15)

    def test_neumann_fields_have_their_spectrum(self) -> None:
        fields = random_fields.neumann_field(600, 24, generator=torch.Generator().manual_seed(0))
        found = dct2(fields.double()).square().mean(0) / 24**2
        for k, j in ((1, 0), (0, 2), (2, 1)):
            expected = 9 * (math.pi**2 * (k * k + j * j) + 9) ** -2.0
            assert found[k, j].item() == pytest.approx(expected, rel=0.25)


class TestBurgers:
    def test_cole_hopf(self) -> None:
        golden = goldens.load(SYSTEM, "burgers1d")
        u0, expected = golden["u0__f64"], golden["u__f64"]
        for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
            u = burgers.solve(u0.to(dtype), [0.5, 1.0])
            assert u.shape == (128, 2)
            assert torch.allclose(u[:, 1], expected.to(dtype), atol=tolerance)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"times": [1.0, 1.0]}, "increase"),
            ({"times": [math.inf]}, "finite"),
            ({"u0": torch.ones(8, dtype=torch.int64)}, "should be real, finite"),
            ({"u0": torch.full((8,), math.nan)}, "should be real, finite"),
            ({"viscosity": -0.1}, "viscosity should be"),
            ({"max_step": -1.0}, "max_step should be positive"),
        ],
    )
    def test_bad_arguments_are_named(self, arguments: dict[str, object], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            burgers.solve(**{"u0": torch.zeros(8), "times": [1.0], **arguments})  # type: ignore[arg-type]

    def test_a_blow_up_is_an_error(self) -> None:
        with pytest.raises(ZooError, match="blew up"):
            burgers.solve(torch.randn(256, generator=torch.Generator().manual_seed(0)), [5.0], 1e-5, max_step=0.5)

    def test_the_mean_is_conserved(self) -> None:
        u0 = torch.randn(3, 64, dtype=torch.float64).cumsum(-1) / 8
        u = burgers.solve(u0, [0.3], 0.05)
        assert torch.allclose(u[..., 0].mean(-1), u0.mean(-1), atol=1e-12)


class TestDarcy:
    def test_five_point_scheme(self) -> None:
        golden = goldens.load(SYSTEM, "darcy2d")
        for case in ("case0", "case1", "const"):
            assert relative_error(darcy.solve(golden[f"{case}/coeff"]), golden[f"{case}/sol"]) < 1e-5
        assert 1e-6 < relative_error(darcy.solve(golden["const/coeff"]), golden["const/series"]) < 1e-2

    def test_converges_to_a_manufactured_solution(self) -> None:
        """-div(a grad u) = 1 for a = 1: second order against the sine series."""

        def centre(size: int) -> float:
            return darcy.solve(torch.ones(size, size, dtype=torch.float64))[size // 2, size // 2].item()

        exact = sum(
            16 / math.pi**4 * (-1) ** ((p - 1) // 2 + (q - 1) // 2) / (p * q * (p * p + q * q))
            for p in range(1, 400, 2)
            for q in range(1, 400, 2)
        )
        errors = [abs(centre(size) - exact) for size in (17, 33)]
        assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)

    def test_bad_coefficients_are_named(self) -> None:
        for shape in ((3, 3), (5, 6), (5,)):
            with pytest.raises(ValueError, match="s >= 4"):
                darcy.solve(torch.ones(shape))
        with pytest.raises(ValueError, match="positive"):
            darcy.solve(torch.zeros(5, 5))
        with pytest.raises(ValueError, match="finite"):
            darcy.solve(torch.full((5, 5), math.inf))
        with pytest.raises(ValueError, match="should be real"):
            darcy.solve(torch.full((5, 5), 3))


class TestMetrics:
    def test_relative_errors(self) -> None:
        golden = section(goldens.load(SYSTEM, "metrics"), "fields/")
        errors = relative_l2(golden["pred"], golden["target"])
        assert torch.allclose(errors, golden["relative_l2_per_sample"], rtol=1e-4)
        assert torch.allclose(errors.mean(), golden["relative_l2"], rtol=1e-4)
        spectral = relative_l2(dct2(golden["pred"]), dct2(golden["target"])).mean()
        assert torch.allclose(spectral, golden["relative_l2_dct"], rtol=1e-4)
        assert torch.allclose(
            normalised_mse(golden["pred"], golden["target"]).mean(), golden["nmse_energy_ratio"], rtol=1e-4
        )

    def test_pointwise_errors_are_published_ones(self) -> None:
        golden = section(goldens.load(SYSTEM, "metrics"), "fields/")
        module = zoo.create_model("operators/fno", n_modes=(8, 8), hidden_channels=4, n_layers=1)
        for part in range(2):
            module.test_pointwise.update(golden["pred"][part : part + 1], golden["target"][part : part + 1])
        for name, value in module.test_pointwise.compute().items():
            assert value.item() == pytest.approx(golden[name.removeprefix("test/")].item(), rel=1e-4), name

    def test_pdebench(self) -> None:
        """Their layout is (batch, x, y, t, channel) and the first time is left out."""
        golden = section(goldens.load(SYSTEM, "metrics"), "pdebench/")
        metric = PDEBenchErrors()
        prediction, target = (golden[k][..., 1:, :].permute(0, 3, 4, 1, 2) for k in ("pred", "target"))
        for part in range(2):
            metric.update(prediction[part : part + 1], target[part : part + 1])
        found = metric.compute()
        names = {"rmse": "RMSE", "nrmse": "nRMSE", "crmse": "CSV", "max_error": "Max", "brmse": "BD"}
        for ours, theirs in names.items():
            assert found[ours].item() == pytest.approx(golden[f"mean/{theirs}"].item(), rel=1e-4), ours
        each = metric.by_time_and_channel()
        for ours, theirs in names.items():
            assert relative_error(each[ours].T, golden[f"full/{theirs}"]) < 1e-4, ours
        parts = torch.stack([each[f"frmse_{band}"].T for band in ("low", "mid", "high")], 1)
        assert relative_error(parts, golden["full/F_low_mid_high"]) < 1e-4
        bands = torch.stack([found[f"frmse_{band}"] for band in ("low", "mid", "high")])
        assert torch.allclose(bands.float(), golden["mean/F_low_mid_high"].float(), rtol=1e-4)

    @settings(deadline=None, max_examples=20)
    @given(st.integers(1, 2), st.integers(6, 20))
    def test_the_spectrum_holds_the_energy(self, dims: int, size: int) -> None:
        held = size // 2 if dims == 1 else int(size / 2 / math.sqrt(2))
        modes = max(1, 2 * held - 1)
        x = synthesise(torch.randn(3, *[modes] * dims, dtype=torch.float64), [size] * dims, "fourier")
        total = energy_spectrum(x, dims).sum(-1)
        assert torch.allclose(total, x.square().flatten(1).mean(1), rtol=1e-9)

    def test_spectral_distance_of_a_scaled_field(self) -> None:
        x = torch.randn(2, 1, 32, 32)
        assert torch.allclose(spectral_distance(x, x, 2), torch.zeros(2), atol=1e-6)
        assert torch.allclose(spectral_distance(10 * x, x, 2), torch.full((2,), 2.0), atol=1e-4)
