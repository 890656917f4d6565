"""Tokenizers' files: what of them reaches a bundle, and which words would be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdbuild.checkpoints.account.entry import Entry, Kind, Use
from sdbuild.checkpoints.account.settings import ANY, BOOLEAN, INTEGER, TEXT, Class, Form, Setting, judge
from sdbuild.documents import LONGEST_JSON, DocumentError, read_bytes, read_json

_CONFIG, _MAP = "tokenizer_config.json", "special_tokens_map.json"
_CLIENT = "the clients' tokenizer does so, or does without, whatever is said"
_MODEL_LENGTH = "the recipe says the text's length"


def _is_token(value: Any) -> bool:
    return TEXT.fits(value.get("content") if isinstance(value, Mapping) else value)


TOKEN = Form("a token, or an object with its `content`", _is_token)
TOKENS = Form("a list of tokens", lambda value: isinstance(value, list) and all(map(_is_token, value)))
OBJECT = Form("an object", lambda value: isinstance(value, Mapping))
_SPECIAL = Setting(TOKEN)
_SPECIALS = dict.fromkeys(("pad_token", "bos_token", "eos_token", "unk_token"), _SPECIAL)

_CLIP = Class(
    "CLIPTokenizer",
    {
        **_SPECIALS,
        "added_tokens_decoder": Setting(OBJECT),
        "additional_special_tokens": Setting(TOKENS),
        "do_lower_case": Setting(BOOLEAN, True, (True,), unsupported="capitals kept, which no client does"),
        "tokenizer_class": Setting(TEXT, None, ("CLIPTokenizer", "CLIPTokenizerFast")),
        "add_prefix_space": Setting(BOOLEAN, False, (False,)),
        "model_max_length": Setting(ANY, None, harmless=_MODEL_LENGTH),
        **{
            name: Setting(ANY, None, harmless=_CLIENT)
            for name in (
                *("add_bos_token", "backend", "clean_up_tokenization_spaces", "errors", "extra_special_tokens"),
                *("fix_text", "is_local", "local_files_only", "name_or_path", "processor_class"),
                *("special_tokens_map_file", "split_special_tokens", "tokenizer_file", "use_fast"),
                *("max_length", "pad_to_multiple_of", "padding_side", "truncation_side", "pad_token_type_id"),
                *("stride", "truncation_strategy", "model_specific_special_tokens"),
            )
        },
    },
)
SPECIAL_TOKENS = Class(
    _MAP,
    {
        **_SPECIALS,
        "additional_special_tokens": Setting(TOKENS),
        **{
            name: Setting(TOKEN, harmless="no text encoder here was trained with it")
            for name in ("sep_token", "cls_token", "mask_token")
        },
    },
)
T5_TOKENIZER = Class(
    "T5Tokenizer",
    {
        **_SPECIALS,
        "additional_special_tokens": Setting(TOKENS),
        "added_tokens_decoder": Setting(OBJECT),
        "extra_ids": Setting(INTEGER),
        "tokenizer_class": Setting(TEXT),
        "add_prefix_space": Setting(BOOLEAN),
        "legacy": Setting(BOOLEAN),
        "sp_model_kwargs": Setting(OBJECT),
        "model_max_length": Setting(ANY, None, harmless=_MODEL_LENGTH),
        **{
            name: Setting(ANY, None, harmless=_CLIENT)
            for name in (
                *("backend", "clean_up_tokenization_spaces", "extra_special_tokens", "is_local", "local_files_only"),
                *("name_or_path", "processor_class", "special_tokens_map_file", "split_special_tokens"),
                *("tokenizer_file", "use_fast", "max_length", "pad_to_multiple_of", "padding_side"),
                *("truncation_side", "pad_token_type_id", "stride", "truncation_strategy", "return_token_type_ids"),
                *("model_specific_special_tokens", "add_eos_token", "add_bos_token", "vocab_file"),
            )
        },
    },
)


def judge_tokenizer(component: str, files: Mapping[str, Path]) -> Iterator[Entry]:
    """What becomes of a tokenizer's files."""
    contents: dict[str, Any] = {}
    for name, path in files.items():
        if name.endswith(".json"):
            try:
                contents[name] = read_json(path, unique=name == "vocab.json")
            except (OSError, DocumentError) as error:
                yield Entry(name, Kind.FILE, name, Use.REFUSED, f"is no JSON ({error}); download it again")
                return
            if not isinstance(contents[name], dict):
                yield Entry(name, Kind.FILE, name, Use.REFUSED, "is no JSON object; download it again")
                return
    if component == "tokenizer_3":
        # The client's own library reads both files whole.
        yield from (Entry(name, Kind.FILE, name, Use.USED) for name in files)
        yield from _strange(_CONFIG, contents, T5_TOKENIZER)
        return
    split = "vocab.json" in files and "merges.txt" in files
    if split and (reason := _unreadable(contents["vocab.json"], files["merges.txt"])):
        yield Entry("merges.txt", Kind.FILE, "merges.txt", Use.REFUSED, f"{reason}; download the tokenizer again")
        return
    for name in files:
        if name == "tokenizer.json" and split:
            yield Entry(
                name, Kind.FILE, name, Use.HARMLESS, "the same tokenizer again; vocab.json and merges.txt are read"
            )
        else:
            yield Entry(name, Kind.FILE, name, Use.USED)
    yield from judge(_CONFIG, contents.get(_CONFIG, {}), _CLIP)
    yield from _strange(_MAP, contents, SPECIAL_TOKENS)
    yield from _judge_added(contents)


def _strange(name: str, contents: Mapping[str, Any], known: Class) -> Iterator[Entry]:
    """What is not known of a file that is used as a whole."""
    entries = judge(name, contents.get(name, {}), known)
    return (entry for entry in entries if entry.use in (Use.WARNED, Use.REFUSED))


def _unreadable(vocabulary: Mapping[str, Any], merges: Path) -> str | None:
    """Why the tokenizers library would not take a vocabulary and its merges; None where it does."""
    ids = vocabulary.values()
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in ids):
        return "its vocab.json has an id that is no number from 0"
    try:
        lines = read_bytes(merges, LONGEST_JSON).decode("utf-8").split("\n")
    except (OSError, DocumentError) as error:
        return f"cannot be read ({error})"
    except UnicodeDecodeError:
        return "is not UTF-8"
    for number, line in enumerate(lines, start=1):
        pair = line.removesuffix("\r").split(" ")
        if line.startswith("#") or not line.strip():
            continue
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            return f"line {number} is no two tokens of vocab.json that make a third: {line[:40]!r}"
    return None


def _judge_added(contents: Mapping[str, Any]) -> Iterator[Entry]:
    """Words that stand beside the vocabulary: clients read the vocabulary alone."""
    vocabulary = contents.get("vocab.json")
    if vocabulary is None:
        return  # from tokenizer.json the added words are taken too
    added = dict.fromkeys(contents.get("added_tokens.json", {}), "added_tokens.json")
    decoder = contents.get("tokenizer_config.json", {}).get("added_tokens_decoder") or {}
    for entry in decoder.values() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict) and "content" in entry:
            added.setdefault(str(entry["content"]), "tokenizer_config.json")
    for word, place in added.items():
        if word not in vocabulary:
            reason = (
                "is a word beside the vocabulary, which clients do not read; give its vectors as a textual inversion"
            )
            yield Entry(place, Kind.SETTING, word, Use.WARNED, reason)
