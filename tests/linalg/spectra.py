"""Symmetric matrices with a known spectrum."""

import numpy as np
import torch

from sharpfit.linalg import DenseOperator


def matrix_with_spectrum(eigenvalues, seed=0):
    """Return a float64 matrix with these eigenvalues and a random eigenbasis."""
    spectrum = torch.as_tensor(np.asarray(eigenvalues, dtype=np.float64))
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(len(spectrum), len(spectrum), dtype=torch.float64, generator=generator)
    basis, _ = torch.linalg.qr(gaussian)
    matrix = (basis * spectrum) @ basis.T
    return (matrix + matrix.T) / 2


def operator_with_spectrum(eigenvalues, seed=0, dtype=torch.float64):
    """Return a `DenseOperator` with these eigenvalues and a random eigenbasis."""
    return DenseOperator(matrix_with_spectrum(eigenvalues, seed).to(dtype))
