"""Language models: from corpora to tokens, rows, weights that learn, and what is kept of them."""
