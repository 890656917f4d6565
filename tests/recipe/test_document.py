"""YAML as a tree with positions."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sdbuild.recipe.diagnostics import Diagnostic, Span, in_order
from sdbuild.recipe.document import MAXIMUM_BYTES, parse, read_document
from sdbuild.recipe.scalars import AmbiguousScalar, read_plain
from sdbuild.recipe.tree import Mapping, Scalar, plain

HERE = Path("test.yaml")
SURPRISES = """
on Off YES n True NULL 6_4 010 08 0x1F 0b1 0o7 1:30 190:20:30 2024-01-01 2001-12-14t21:59:43.10-05:00
.5 1. 1e3 .inf .NaN = << 1_000.5 +.5 12345678901234567890
"""


def read(text: str) -> object:
    root, mistakes = parse(text, HERE)
    assert root is not None
    assert not mistakes
    return plain(root)


def codes(text: str) -> list[str]:
    return [mistake.code for mistake in parse(text, HERE)[1]]


def test_every_node_knows_its_place() -> None:
    root, _ = parse("name: a\nlatent: {height: 64,\n  width: [1, 'two']}\n", HERE)
    assert isinstance(root, Mapping)
    latent = root.entries["latent"].value
    assert isinstance(latent, Mapping)
    assert (latent.span.line, latent.span.column) == (2, 9)
    width = latent.entries["width"]
    assert (width.key.line, width.key.column, width.key.length) == (3, 3, 5)
    assert width.key.text == "  width: [1, 'two']}"


def test_columns_count_characters_not_bytes() -> None:
    root, _ = parse('a: {"é文": 1, b: x}\n', HERE)
    assert isinstance(root, Mapping)
    inner = root.entries["a"].value
    assert isinstance(inner, Mapping)
    assert inner.entries["b"].key.column == 14


def test_scalars_of_yaml_1_2() -> None:
    text = "[1, -1, 0, 1.5, 1.0e+3, true, false, null, ~, '1', \"on\", 1.0.0, v1, 2-1, a_b, 77a, nullable, =x]"
    assert read(f"a: {text}") == {
        "a": [
            *(1, -1, 0, 1.5, 1000.0, True, False, None, None),
            *("1", "on", "1.0.0", "v1", "2-1", "a_b", "77a", "nullable", "=x"),
        ]
    }


@pytest.mark.parametrize(
    "word",
    SURPRISES.split(),
)
def test_surprising_words_are_refused_plain_and_taken_in_quotes(word: str) -> None:
    assert codes(f"a: {word}") == ["ambiguous-scalar"]
    assert read(f'a: "{word}"') == {"a": word}


@given(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12))
def test_a_plain_scalar_means_the_same_to_pyyaml_or_is_refused(text: str) -> None:
    value = read_plain(text)
    if not isinstance(value, AmbiguousScalar) and text == text.strip():
        try:
            theirs = yaml.safe_load(f"[{text}]")
        except yaml.YAMLError:
            return
        if theirs == [text]:
            assert value == text
        elif isinstance(theirs, list) and len(theirs) == 1 and not isinstance(theirs[0], dict | list | str):
            assert value == theirs[0]
            assert type(value) is type(theirs[0])


words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=10)
values = st.recursive(
    words | st.integers(-9999, 9999) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(words, values, min_size=1, max_size=4), st.booleans())
def test_what_yaml_writes_in_quotes_is_read_back(data: dict[str, object], flow: bool) -> None:
    text = yaml.safe_dump(data, allow_unicode=True, default_flow_style=flow, default_style=None, width=1000)
    root, mistakes = parse(text, HERE)
    if not any(mistake.code in ("ambiguous-scalar", "control-character", "key") for mistake in mistakes):
        assert not mistakes
        assert root is not None
        assert plain(root) == data


@given(st.text(max_size=60))
def test_any_text_gives_a_tree_or_mistakes_and_every_mistake_can_be_shown(text: str) -> None:
    root, mistakes = parse(text, HERE)
    assert root is not None or mistakes
    for mistake in mistakes:
        assert mistake.render().startswith("test.yaml:")


def test_aliases_are_allowed_in_reason() -> None:
    assert read("a: &size {height: 64, width: 64}\nb: *size\n") == {
        "a": {"height": 64, "width": 64},
        "b": {"height": 64, "width": 64},
    }


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    assert codes("\n".join(lines)) == ["too-many-values"]


def test_deep_nesting_is_refused_without_recursion_errors() -> None:
    assert codes("a: " + "[" * 5000 + "]" * 5000) == ["too-deep"]


def test_aliases_in_a_row_are_not_deeper_than_written_out() -> None:
    lines = [f"a0: &a0 {'[' * 20}x{']' * 20}"]
    lines += [f"a{n}: &a{n} {'[' * 20}*a{n - 1}{']' * 20}" for n in range(1, 400)]
    assert codes("\n".join(lines)) == ["too-deep"]


def test_nothing_in_a_file_steers_the_terminal() -> None:
    mistake = Diagnostic("x", "unknown key `\x1b[2J\u202e`", Span(HERE, 1, 1, 3, "\u202eabc"), "a\nb" * 2000)
    assert all(character.isprintable() for character in mistake.render().replace("\n", ""))
    assert max(map(len, mistake.render().splitlines())) <= 1000


def test_windows_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(codecs.BOM_UTF8 + b"name: a\r\nsize: 1\r\nsize: 2\r\n")
    root, mistakes = read_document(path)
    assert root is not None
    assert plain(root) == {"name": "a", "size": 1}
    assert [(m.span.line, m.span.text) for m in mistakes if m.span] == [(3, "size: 2")]


def test_an_oversized_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * (MAXIMUM_BYTES + 1))
    root, mistakes = read_document(path)
    assert root is None
    assert [mistake.code for mistake in mistakes] == ["too-large"]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    root, mistakes = read_document(tmp_path)
    assert root is None
    assert [mistake.code for mistake in mistakes] == ["unreadable"]


def test_diagnostics_are_in_the_order_of_lines_and_told_once() -> None:
    def at(line: int, column: int) -> Diagnostic:
        return Diagnostic("x", "message", Span(HERE, line, column, 1, "text"))

    assert in_order([at(10, 1), at(2, 5), at(2, 1), at(2, 5)]) == (at(2, 1), at(2, 5), at(10, 1))


def test_empty_values_are_null() -> None:
    root, _ = parse("a:\nb: ~\n", HERE)
    assert root is not None
    assert isinstance(root.entries["a"].value, Scalar)
    assert plain(root) == {"a": None, "b": None}
