"""Text that UTF-8 can carry: no lone surrogates.

A surrogate is half of a UTF-16 pair. JSON can encode a lone one (`"\\ud83d"`) and a Python `str` can hold it, but no
file, hash or tokenizer accepts it. Text is made well formed on input (environments, responses) and on output (store,
state keys, prompts, reports).
"""

from __future__ import annotations


def well_formed(text: str) -> str:
    """`text` with surrogate pairs joined and each lone surrogate replaced by U+FFFD; other text is returned as it is.

    >>> well_formed("a mug"), well_formed("\\ud83d\\ude00"), well_formed("a \\ud83d mug")
    ('a mug', '😀', 'a � mug')
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
