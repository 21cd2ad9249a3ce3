import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpfit.linalg import (
    CongruentOperator,
    DenseOperator,
    DiagonalOperator,
    LinearCombination,
    RestrictedOperator,
    SymmetricOperator,
)
from tests.linalg.conformance import check_symmetric_operator
from tests.linalg.spectra import matrix_with_spectrum


class Vectorwise(SymmetricOperator):
    """Implements `matvec` alone, as a subclass may."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.size, self.dtype, self.device = matrix.shape[0], matrix.dtype, matrix.device

    def matvec(self, vector):
        return self.matrix @ vector


@settings(max_examples=40, deadline=None)
@given(
    spectrum=st.lists(st.integers(-1000, 1000).map(lambda k: k / 8), min_size=0, max_size=12),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 100),
)
def test_conformance(spectrum, dtype, seed):
    matrix = matrix_with_spectrum(spectrum, seed).to(dtype)
    size = len(spectrum)
    generator = torch.Generator().manual_seed(seed)
    scaling = torch.rand(size, generator=generator, dtype=torch.float64).to(dtype)
    indices = torch.randperm(size, generator=generator)[: size // 2]
    dense, exact, factor = DenseOperator(matrix), matrix.double(), scaling.double()
    check_symmetric_operator(dense, dense=exact)
    check_symmetric_operator(Vectorwise(matrix), dense=exact)
    check_symmetric_operator(
        CongruentOperator(dense, scaling), dense=factor[:, None] * exact * factor
    )
    check_symmetric_operator(RestrictedOperator(dense, indices), dense=exact[indices][:, indices])
    check_symmetric_operator(
        LinearCombination([dense, Vectorwise(matrix)], [2.0, 0.5], shift=3.0),
        dense=2.5 * exact + 3 * torch.eye(size, dtype=torch.float64),
    )


def test_conformance_suite_finds_defects():
    class Asymmetric(Vectorwise):
        def matvec(self, vector):
            return vector.cumsum(0)

    class Affine(Vectorwise):
        def matvec(self, vector):
            return vector + 1

    class WrongColumns(Vectorwise):
        def matmat(self, vectors):
            return self.matrix @ vectors.flip(1)

        def to_dense(self):
            return self.matrix

    class Overwriting(Vectorwise):
        def matvec(self, vector):
            return vector.mul_(2)

    class WithGraph(Vectorwise):
        def matvec(self, vector):
            return (self.matrix @ vector).requires_grad_()

    matrix = matrix_with_spectrum([1.0, 2.0, 3.0])
    for defect in (Asymmetric, Affine, WrongColumns, Overwriting, WithGraph):
        with pytest.raises((AssertionError, RuntimeError)):
            check_symmetric_operator(defect(matrix))
    with pytest.raises(AssertionError):
        check_symmetric_operator(DenseOperator(matrix), dense=matrix + 1e-6)


def test_preconditioned_spectrum():
    matrix, diagonal = matrix_with_spectrum([1.0, 2.0, 5.0]), torch.tensor([1.0, 4.0, 9.0]).double()
    congruent = CongruentOperator(DenseOperator(matrix), diagonal.rsqrt())
    expected = torch.linalg.eigvals(matrix / diagonal[:, None]).real.sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(congruent.to_dense()), expected)


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (torch.ones(2, 3), ValueError, "must be square"),
        (torch.ones(2, 2).long(), TypeError, "floating-point"),
        (torch.full((2, 2), float("nan")), ValueError, "not finite"),
        (torch.tensor([[0.0, 1.0], [0.0, 0.0]]), ValueError, "differ from their transpose by 1"),
    ],
)
def test_bad_matrices_are_refused(matrix, error, message):
    with pytest.raises(error, match=message):
        DenseOperator(matrix)


def test_bad_combinations_are_refused():
    two, three = DenseOperator(torch.eye(2)), DenseOperator(torch.eye(3))
    with pytest.raises(ValueError, match="operators is empty"):
        LinearCombination([])
    with pytest.raises(ValueError, match="1 coefficients for 2 operators"):
        LinearCombination([two, two], [1.0])
    with pytest.raises(ValueError, match="agree in size"):
        LinearCombination([two, three])
    with pytest.raises(ValueError, match="agree in size"):
        LinearCombination([two, DenseOperator(torch.eye(2).double())])
    with pytest.raises(ValueError, match=r"scaling has shape \(3,\)"):
        CongruentOperator(two, torch.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        CongruentOperator(two, torch.full((2,), float("inf")))
    with pytest.raises(ValueError, match="between 0 and 1"):
        RestrictedOperator(two, torch.tensor([2]))
    with pytest.raises(ValueError, match="must not repeat"):
        RestrictedOperator(two, torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="finite vector"):
        DiagonalOperator(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match="one-dimensional"):
        RestrictedOperator(two, torch.tensor([True, False]))


def test_dense_matrix_is_returned_as_a_copy():
    operator = DenseOperator(torch.eye(2))
    operator.to_dense().zero_()
    assert torch.equal(operator.to_dense(), torch.eye(2))
