"""Speech: audio in, windows and batches, acoustic models, decoding, scores, subtitles. Plain arguments, no specs."""
