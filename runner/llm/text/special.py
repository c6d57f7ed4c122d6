"""Special tokens in what people wrote: a tokenizer takes them for its own, so that a quoted end of turn ends a turn.

That may be meant, and no text could say it otherwise: it is told, not refused.
"""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizerBase

from runner.llm.data.sample import Chat


class Special:
    """Counts the conversations that hold any. Tags that are no special tokens, as those of reasoning, are text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content}
        alike: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda name: (-len(name), name)):  # the longest first: one may begin another
            alike.setdefault(name[:2], []).append(name)
        # one search for each beginning: 300 MB/s for 255 tokens of four beginnings; all in one search 8 MB/s
        self._searches = [re.compile("|".join(map(re.escape, group))) for group in alike.values()]
        self.count = 0
        self._first = ""

    def within(self, chat: Chat) -> list[str]:
        """The special tokens in all that its messages say, each once."""
        told = [str(value) for one in chat.messages for name, value in one.items() if name != "role"]
        return sorted({found for text in told for search in self._searches for found in search.findall(text)})

    def note(self, chat: Chat) -> None:
        """Count it, if it holds any."""
        if found := self.within(chat):
            self.count += 1
            self._first = self._first or f"{chat.place} ({', '.join(map(repr, found))})"

    @property
    def told(self) -> str:
        """For the log."""
        return (
            f"{self.count:,} conversations up to here hold special tokens of this tokenizer in what people wrote, the "
            f"first {self._first}: they count as real ones"
        )
