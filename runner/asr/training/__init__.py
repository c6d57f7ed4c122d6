"""CTC training: from recordings with texts to a model, on transformers' Trainer."""
