"""`generate`: draw with a bundle."""

import sys
from collections.abc import Mapping
from pathlib import Path

from sdbuild.console import built
from sdbuild.console.command import VariableCommand
from sdbuild.console.draw_options import DrawOptions, conditioned, parse_draw_options
from sdbuild.console.draw_variables import DRAW_VARIABLES
from sdbuild.console.quiet_libraries import hush


class Command(VariableCommand):
    """Draw pictures with a bundle."""

    name = "generate"
    doc_purpose = "draw pictures with a recipe's bundle, on any machine; the bundle is built first if need be"
    doc_usage = 'recipe=NAME prompt="…" [target=NAME] [negative_prompt="…"] [seed=N] [steps=N] [scheduler=NAME] …'
    guide = "generate"
    variables = DRAW_VARIABLES

    def act(self, variables: Mapping[str, str]) -> int:
        """Draw, and write each picture's path to standard output."""
        hush()
        options = parse_draw_options(variables, self.name)
        place = built.bundle(built.BuildRequest.from_variables(variables, self.name, self.known()))
        return draw(place, options)


def draw(place: Path, options: DrawOptions) -> int:
    """Draw with the bundle at `place`."""
    from sdbuild.pipeline import Pipeline, pictures
    from sdbuild.pipeline.progress import Bar

    pipeline = Pipeline.from_bundle(place, **options.running)
    request = conditioned(options, pipeline.bundle.controlnets, pipeline.bundle.t2i_adapters)
    options.pictures.mkdir(parents=True, exist_ok=True)
    taken: set[Path] = set()
    with Bar(sys.stderr) as bar:
        finished = pipeline.draw(options.prompts, request, on_step=bar.step, on_warning=bar.say)
        for number, picture in enumerate(finished):
            index = number % request.image_count if request.image_count > 1 else None
            path = options.pictures / pictures.file_name(picture.info["prompt"], request.seed, index=index)
            # Prompts that begin alike must not overwrite each other.
            if path in taken:
                path = options.pictures / pictures.file_name(picture.info["prompt"], request.seed, index=number)
            taken.add(path)
            story = {key: value for key, value in picture.info.items() if isinstance(key, str)}
            pictures.save(picture, path, story)
            if picture.info["flagged"] == "true":
                bar.say(
                    f"{path}: the safety checker flagged this picture, it is black; safety=off draws it all the same"
                )
            print(path, flush=True)
    return 0
