"""Where networks come from: names, architectures, weights and preprocessing."""
