"""What is measured: trees of named stages over real values."""
