"""Packed products: close to the exact one, and a row's answer is its own affair."""

from __future__ import annotations

import pytest
import torch

from miniserve.engine.linear import QUANTS, make_linear, weight_dtype
from miniserve.errors import SetupError


def weight(rows: int = 96, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)) * 0.05


def inputs(rows: int = 9, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("quant", "error"), [("fp64", 1e-6), ("fp32", 1e-6), ("fp16", 1e-3), ("int8", 0.01)])
def test_products_are_close_to_the_exact_one(quant: str, error: float) -> None:
    x, w = inputs().to(weight_dtype(quant)), weight().to(weight_dtype(quant))
    exact = x.double() @ w.double().T
    got = make_linear(w, quant)(x)
    assert (got - exact).norm() / exact.norm() < error


def test_two_grids_survive_outliers_that_ruin_one() -> None:
    x, w = inputs(), weight()
    x[:, 5] *= 100.0
    w[:, 5] = 0.0  # so the answer comes from the other columns, and what is lost there shows
    exact = x.double() @ w.double().T

    def error(quant: str) -> float:
        return float((make_linear(w, quant)(x) - exact).norm() / exact.norm())

    assert error("int8") < 0.02
    assert error("int8-row") > 0.2


@pytest.mark.parametrize("quant", ["int8", "int8-row"])
@pytest.mark.parametrize("outlier", [1.0, 1e4])
def test_int8_rows_get_the_same_bits_in_any_batch(quant: str, outlier: float) -> None:
    x = inputs(17)
    x[3, 7] *= outlier
    multiply = make_linear(weight(), quant)
    together = multiply(x)
    for rows in ([0], [3], [16], [5, 2], [3, 4, 5, 6, 7]):
        assert torch.equal(multiply(x[rows]), together[rows])


def test_the_naive_way_makes_a_row_pay_for_its_neighbour() -> None:
    x = inputs(4)
    multiply = make_linear(weight(), "int8-naive")
    quiet = multiply(x)[0]
    x[1, 7] = 400.0
    disturbed = multiply(x)[0]
    assert (disturbed - quiet).norm() / quiet.norm() > 0.2


def test_zero_rows_stay_zero() -> None:
    x = inputs(3)
    x[1] = 0.0
    out = make_linear(weight(), "int8")(x)
    assert torch.isfinite(out).all()
    assert (out[1] == 0).all()


def test_an_unknown_precision_names_those_there_are() -> None:
    with pytest.raises(SetupError, match="fp16, fp32, int8"):
        weight_dtype("int4")
    assert QUANTS == ("fp16", "fp32", "int8")


def test_a_machine_without_fbgemm_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miniserve.engine.linear._has_fbgemm", lambda: False)
    with pytest.raises(SetupError, match="use fp16 or fp32"):
        make_linear(weight(), "int8")
    exact = inputs() @ weight().T
    assert torch.allclose(make_linear(weight(), "fp16")(inputs()), exact, atol=1e-5)  # falls back to exact weights
