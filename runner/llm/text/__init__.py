"""From samples to tokens: chat templates, what of them is learned, vocabularies."""
