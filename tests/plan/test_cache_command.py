"""`cache`: what people see and what is left, on a cache that a build has filled."""

import os
import time
from typing import Any

import pytest

from sdbuild.store import Store


def _age(store: Store, days: float, *tasks: str) -> None:
    moment = time.time() - days * 24 * 3600
    for task, key in store.slots().items():
        if not tasks or task in tasks:
            os.utime(store.layout.result(key), (moment, moment))


def _results(out: str) -> list[str]:
    return [line.split()[0] for line in out.partition("\n\n")[0].splitlines()]


def test_sizes_are_told_by_recipe_and_by_kind(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(quantization="{unet: 4}")
    workspace("recipe=phone")
    ran = workspace("cache", "sizes")
    assert ran.status == 0, ran.err
    tables = [line.split() for line in ran.out.splitlines()]
    recipe = next(words for words in tables if words[:1] == ["phone"])
    assert int(recipe[1]) == len(workspace.store().slots()) > 4
    assert any(line.startswith("(no task)") for line in ran.out.splitlines()), "what the 6 bits were is kept for now"
    assert ["all", *tables[-3][1:]] == tables[-3]
    assert str(workspace.cache) in ran.out


def test_a_collection_leaves_what_todays_tasks_stand_on(workspace: Any) -> None:
    workspace("recipe=phone")
    workspace.recipe(quantization="{unet: 4}")
    workspace("recipe=phone")
    before = workspace.files()
    shown = workspace("cache", "gc", "--dry-run")
    assert workspace.files() == before, "nothing is written"
    assert "quantize:unet" in shown.out
    assert "would go" in shown.out
    ran = workspace("cache", "gc")
    assert ran.status == 0, ran.err
    assert _results(ran.out) == _results(shown.out)
    assert workspace("recipe=phone").actions == []
    workspace.recipe(quantization="{unet: 6}")
    assert "quantize:unet" in workspace("recipe=phone").actions


def test_bounds_of_age_and_size(workspace: Any) -> None:
    workspace("recipe=phone")
    _age(workspace.store(), 40, "phone/convert:vae_decoder")
    assert "convert:vae_decoder" not in workspace("cache", "gc", "--older-than", "6w").out
    assert "phone/convert:vae_decoder  40 days ago" in workspace("cache", "gc", "--older-than=30d").out
    plan = workspace("plan", "recipe=phone").out
    row = next(line for line in plan.splitlines() if line.startswith("convert:vae_decoder"))
    assert "its result is no longer in the cache" in row
    assert workspace("cache", "gc", "--max-size", "1GB").status == 0
    ran = workspace("cache", "gc", "--max-size", "0")
    assert ran.status == 1, "records and logs stay, and it says so"
    assert "more than --max-size" in ran.err
    assert workspace.store().sizes().blobs == 0


def test_a_build_that_finds_everything_uses_it(workspace: Any) -> None:
    workspace("recipe=phone")
    _age(workspace.store(), 40)
    assert workspace("recipe=phone").actions == []
    assert "would go" in workspace("cache", "gc", "--older-than", "30d", "--dry-run").out
    workspace("cache", "gc", "--older-than", "30d")
    assert workspace("recipe=phone").actions == []


def test_damage_is_found_named_and_made_again(workspace: Any) -> None:
    workspace("recipe=phone")
    assert workspace("cache", "verify").status == 0
    store = workspace.store()
    result = store.recorded(store.slots()["phone/convert:unet"])
    blob = store.locate(result.tree)["unet.mlpackage/weights"]
    status = blob.stat()
    blob.chmod(0o644)
    blob.write_bytes(b"?" * status.st_size)
    store._stats.remember(blob.stat(), blob.name)  # as a failing disk does: nothing shows it but reading
    assert workspace("recipe=phone").actions == []
    ran = workspace("cache", "verify")
    assert ran.status == 1
    assert "1 were not" in ran.out
    assert "phone/convert:unet" in ran.err
    assert workspace("recipe=phone").actions == ["convert:unet"]
    assert workspace("cache", "verify").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "usage: cache sizes"),
        (("size",), "did you mean 'sizes'"),
        (("gc", "--max-size", "much"), "'much' is no size; write 500MB"),
        (("gc", "--max-size"), "expected one argument"),
        (("gc", "--older-than", "30"), "'30' is no age; write 90m, 12h, 30d or 2w"),
        (("gc", "--dry"), "unrecognized arguments: --dry"),
        (("sizes", "more"), "unrecognized arguments: more"),
        (("gc", "recipe=phone"), "unknown variable 'recipe='"),
    ],
)
def test_mistakes_on_the_command_line(workspace: Any, words: tuple[str, ...], message: str) -> None:
    ran = workspace("cache", *words)
    assert ran.status == 2
    assert message in ran.err
    assert not workspace.cache.exists()


@pytest.mark.parametrize("words", [("sizes",), ("verify",), ("gc",), ("gc", "--dry-run")])
def test_a_cache_that_is_not_there_is_not_made(workspace: Any, words: tuple[str, ...]) -> None:
    assert workspace("cache", *words).status == 0
    assert not workspace.cache.exists()
