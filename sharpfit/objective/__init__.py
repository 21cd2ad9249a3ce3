"""What is differentiated: per-sample losses on logits, and modules that return logits."""
