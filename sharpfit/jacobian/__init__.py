"""Input-output Jacobians: per-sample norms, slopes, Lipschitz certificates."""
