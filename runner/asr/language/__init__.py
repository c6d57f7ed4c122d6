"""What is likely to be said: language models, hotwords, and the beam search that weighs them."""
