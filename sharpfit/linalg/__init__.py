"""Linear algebra of symmetric operators: eigenpairs, traces, densities. Knows no network."""
