"""What every symmetric operator must do; import `check_symmetric_operator` and call it."""

import numpy as np
import torch

from sharpfit.linalg import SymmetricOperator


def check_symmetric_operator(
    operator: SymmetricOperator, *, dense: torch.Tensor | None = None, rtol: float | None = None
) -> None:
    """Run the conformance suite of `SymmetricOperator` on a small operator.

    `dense` is the matrix from an independent source. `rtol` is relative to the largest entry; by
    default it follows from the operator's dtype.
    """
    size, dtype, device = operator.size, operator.dtype, operator.device
    assert size <= 2000, "the suite forms the dense matrix: give it a small operator"
    assert operator.shape == (size, size)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(size, 3, generator=generator, dtype=torch.float64)
    vectors = draws.to(dtype=dtype, device=device)
    before = vectors.clone()

    matrix = operator.to_dense()
    assert matrix.shape == (size, size)
    assert matrix.dtype == dtype
    assert matrix.device == torch.device(device)
    assert not matrix.requires_grad
    exact = matrix.to(torch.float64)
    scale = float(exact.abs().max()) if size else 0.0
    relative = rtol if rtol is not None else 200 * torch.finfo(dtype).eps
    entry, product_error = relative * scale, relative * scale * max(size, 1) ** 0.5 * 3

    def close(actual: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
        torch.testing.assert_close(
            actual.to(torch.float64).cpu(), expected.to(torch.float64).cpu(), rtol=0, atol=atol
        )

    close(matrix, matrix.T, entry)
    if dense is not None:
        close(matrix, dense, entry)

    product = operator.matvec(vectors[:, 0])
    assert product.shape == (size,)
    assert product.dtype == dtype
    assert product.device == torch.device(device)
    assert not product.requires_grad
    close(product, exact @ vectors[:, 0].to(torch.float64), product_error)
    close(operator.matvec(vectors[:, 0]), product, product_error)

    several = operator.matmat(vectors)
    assert several.shape == (size, 3)
    assert several.dtype == dtype
    columns = [operator.matvec(column) for column in vectors.unbind(1)]
    close(several, torch.stack(columns, dim=1), product_error)
    close(operator.matmat(vectors[:, :1]), several[:, :1], product_error)
    assert operator.matmat(vectors[:, :0]).shape == (size, 0)
    close(operator @ vectors[:, 1], several[:, 1], product_error)
    close(operator @ vectors, several, product_error)

    first, second = vectors[:, 0], vectors[:, 1]
    combined = operator.matvec(2 * first - 3 * second)
    close(combined, 2 * several[:, 0] - 3 * several[:, 1], 6 * product_error)
    close(operator.matvec(torch.zeros_like(first)), torch.zeros_like(first), 0.0)
    assert torch.equal(vectors, before), "a product changed its argument"

    linear = operator.to_scipy()
    array = vectors.cpu().to(torch.promote_types(dtype, torch.float32)).numpy()
    assert linear.shape == (size, size)
    assert linear.dtype == array.dtype
    expected = several.cpu().to(torch.float64).numpy()
    np.testing.assert_allclose(linear @ array[:, 0], expected[:, 0], rtol=0, atol=product_error)
    np.testing.assert_allclose(linear @ array, expected, rtol=0, atol=product_error)
    np.testing.assert_allclose(
        linear.rmatvec(array[:, 0]), expected[:, 0], rtol=0, atol=product_error
    )
