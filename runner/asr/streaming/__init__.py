"""Live speech: sound in pieces of any size in, words that never change again out.

    new sound ->  buffer  ->  window: [left context | chunk | look-ahead]  ->  model  ->  frames of the chunk: settled
                                                                                          frames behind it: a guess
    settled frames  ->  words that have ended are committed; the word still open and the guess are the tail
    a pause, or the longest utterance  ->  the utterance is read once more with all of its context: the surer of the two
                                           readings is its final text

Windows lie on the stream's own clock, so what comes out does not depend on how the sound was cut into pieces. Memory
holds one window and the utterance at hand, its samples only where there is a final reading: it never grows with the
stream.

`Session` is one stream, `Batcher` computes windows of several together, `Simulation` streams recordings for a job.
"""
