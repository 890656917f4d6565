"""A small but real CLIP tokenizer: merges learned from a few sentences, CLIP's alphabet and special tokens.

The format is the one of CLIP's release (Radford et al. 2021, after Sennrich et al. 2016): 256 bytes as printable
characters, the same 256 ending a word, one token a merge, then the two special tokens with the highest numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
VOCABULARY_SIZE = 832

TEXT = """
a photo of an astronaut riding a horse on mars, highly detailed digital painting of a fox in the forest at sunset
a watercolor painting of a small house by the lake with mountains in the background, soft morning light, sharp focus
portrait of a young woman with red hair wearing a green dress, studio lighting, photograph, high quality, masterpiece
a cat sitting on a wooden table next to a bowl of fruit, oil painting in the style of the old masters
a futuristic city at night with neon lights and flying cars, cinematic, concept art, trending, wide angle
a beautiful landscape with a river, trees, snow and clouds, realistic, dramatic lighting, black and white
low quality, blurry, bad anatomy, worst quality, extra fingers, text, watermark, ugly, deformed
a dog playing in the water on the beach, a bird in the sky, an old man reading a book under the moon
steam train crossing a stone bridge, autumn leaves, golden hour, robot walking through the market street
the inside of a cathedral, stained glass, a bottle of wine, a teapot, a bicycle leaning against a blue wall
"""


def alphabet() -> list[str]:
    """The 256 bytes as printable characters, in the order of CLIP's vocabulary: ``!`` is the first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def learn(words: Mapping[str, int], most: int) -> list[tuple[str, str]]:
    """Learn up to `most` merges from words with their frequencies.

    The most frequent pair comes first, of equals the first by its characters.
    """
    pieces = Counter({(*word[:-1], word[-1] + WORD_END): frequency for word, frequency in words.items()})
    learned: list[tuple[str, str]] = []
    while len(learned) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, frequency in pieces.items():
            for pair in pairwise(word):
                pairs[pair] += frequency
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learned.append(best)
        pieces = Counter({_merge(word, best): frequency for word, frequency in pieces.items()})
    return learned


def files() -> tuple[dict[str, int], str]:
    """The contents of ``vocab.json`` (token → id) and ``merges.txt``."""
    letters = alphabet()
    tokens = letters + [letter + WORD_END for letter in letters]
    pairs = learn(Counter(TEXT.replace(",", " ,").split()), VOCABULARY_SIZE - len(tokens) - 2)
    # Two different merges can spell one token (CLIP's own learner never meets this in its release): one id serves both.
    tokens += dict.fromkeys(first + second for first, second in pairs)
    tokens += [START, END]
    text = "".join(f"{line}\n" for line in ["#version: 0.2", *(" ".join(pair) for pair in pairs)])
    return {token: index for index, token in enumerate(tokens)}, text
