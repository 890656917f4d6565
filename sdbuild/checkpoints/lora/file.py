"""One LoRA: what its files hold, module by module, and which weights of a component that changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdbuild.checkpoints.checkpoint import StoredTensor, read_metadata, read_pickle, read_safetensors
from sdbuild.checkpoints.files import ADAPTER_SETTINGS as CONFIG_FILE
from sdbuild.checkpoints.files import is_card
from sdbuild.checkpoints.lora.changes import Change, Shape, shapes_of
from sdbuild.checkpoints.lora.files import SUFFIXES, LoraFilesError
from sdbuild.checkpoints.lora.kinds import AdapterError, Module, module_changes
from sdbuild.checkpoints.lora.names import BUNDLED, split_name, unsupported_kind
from sdbuild.checkpoints.lora.owners import find_owner, other_family
from sdbuild.checkpoints.lora.places import Place, Places, Shaped, shape_of
from sdbuild.checkpoints.lora.settings import Settings, read_settings, settings_by_component
from sdbuild.models.errors import ModelError

_KNOWN_LAYOUTS = (
    "kohya's (lora_unet_…, lora_te1_…), peft's and diffusers' (unet.…lora_A.weight), ComfyUI's (diffusion_model.…, "
    "text_encoders.clip_l.…), OneTrainer's (lora_transformer_…, clip_l.…) and LyCORIS's (lycoris_…)"
)


@dataclass(frozen=True)
class PlacedChange:
    """A change and the rows that it is of."""

    module: str
    place: Place
    change: Change


class Lora:
    """One LoRA.

    Attributes:
        label: what messages call it.
        modules: what it changes, in the file's order.
        bundled: tensors that are not its own, but vectors of words that travel with it: file and name.

    Args:
        files: path in the LoRA's folder → file: weights, `.safetensors` or a pickle, of which tensors alone are read;
            beside them peft's settings; one set of both, or one in each component's folder.
        weight: what the recipe multiplies it with.
        label: what messages call it.

    Raises:
        ModelError: a file is damaged, or holds what cannot be fused, each by its name.
    """

    def __init__(self, files: Mapping[str, Path], weight: float, label: str) -> None:
        self.label = label
        self.weight = weight
        self.bundled: list[tuple[str, str]] = []
        self.modules = tuple(self._read(files))
        if not self.modules:
            raise ModelError(f"{label}: holds no pair of low-rank tensors and no other change of a weight.")

    @property
    def embeddings(self) -> frozenset[str]:
        """Words whose vectors travel with it."""
        found = (BUNDLED.fullmatch(name) for _, name in self.bundled)
        return frozenset(match["token"] for match in found if match is not None)

    @property
    def components(self) -> frozenset[str]:
        """What it has changes for."""
        return frozenset(module.component for module in self.modules)

    def changes(self, component: str, tensors: Mapping[str, Shaped]) -> list[PlacedChange]:
        """What it makes of the component's weights.

        Args:
            component: `unet`, `transformer` or a text encoder.
            tensors: the component's tensors by their names in diffusers' layout.

        Raises:
            ModelError: a module is none of the component's or has another shape, or two modules are the same weight.
        """
        places = Places(component, tensors)
        found: list[PlacedChange] = []
        owners: dict[str, str] = {}
        strange: list[str] = []
        for module in self.modules:
            if module.component != component:
                continue
            shapes = {
                kind: shape_of(place, tensors)
                for kind in ("weight", "bias")
                if (place := places.find(module.inner, kind))
            }
            try:
                changes = module_changes(module, shapes, self.weight)
            except AdapterError as error:
                raise ModelError(f"{self.label}: {error}") from error
            for kind, change in changes.items():
                place = places.find(module.inner, kind)
                if place is None:
                    strange.append(f"{module.name}{'' if kind == 'weight' else ' (bias)'}")
                    continue
                self._check(module, component, change, place, shapes[kind])
                for rows in place:
                    key = f"{rows.name}[{rows.start}:{rows.stop}]"
                    if key in owners:
                        raise ModelError(
                            f"{self.label}: {owners[key]} and {module.name} are both {component}'s {rows.name}. "
                            "Which of them counts is not said; give a file that has each module once."
                        )
                    owners[key] = module.name
                found.append(PlacedChange(module.name, place, change))
        if strange:
            self._refuse_strange(component, strange)
        return found

    def _read(self, files: Mapping[str, Path]) -> Iterator[Module]:
        weights = {name: path for name, path in files.items() if not name.endswith(".json")}
        for name, path in weights.items():
            folder, _, _ = name.rpartition("/")
            safe = name.endswith(".safetensors")
            tensors = read_safetensors(path) if safe else read_pickle(path)
            beside = files.get(f"{folder}/{CONFIG_FILE}" if folder else CONFIG_FILE)
            stated = settings_by_component(read_metadata(path) if safe else {}, self.label)
            if beside is not None:
                where = f"{self.label}: {folder + '/' if folder else ''}{CONFIG_FILE}"
                stated = {"": read_settings(beside.read_bytes(), where)}
            yield from self._modules_of(name, tensors, stated, folder or None)

    def _modules_of(
        self, place: str, tensors: Mapping[str, StoredTensor], stated: Mapping[str, Settings], hint: str | None
    ) -> Iterator[Module]:
        grouped: dict[str, dict[str, StoredTensor]] = {}
        names: dict[tuple[str, str], str] = {}
        for name, tensor in tensors.items():
            if BUNDLED.fullmatch(name):
                self.bundled.append((place, name))
                continue
            split = split_name(name)
            if kind := unsupported_kind(name):
                raise ModelError(f"{self.label}: {kind} ({name}) cannot be fused. Give another kind of LoRA.")
            if split is None:
                raise ModelError(
                    f"{self.label}: {name} is nothing that a LoRA holds, in any layout that is known here: "
                    f"{_KNOWN_LAYOUTS}."
                )
            if split in names:
                raise ModelError(f"{self.label}: {names[split]} and {name} are the same part of one module.")
            names[split] = name
            grouped.setdefault(split[0], {})[split[1]] = tensor
        for module, parts in grouped.items():
            owner = find_owner(module, hint)
            if owner is None:
                raise ModelError(
                    f"{self.label}: {module} has a layout of names that is not known here. Known are {_KNOWN_LAYOUTS}."
                )
            settings = stated.get(owner.component, stated.get("", Settings({}, self.label)))
            yield Module(module, owner.component, owner.module, parts, settings, place)

    def _check(self, module: Module, component: str, change: Change, place: Place, shape: Shape | None) -> None:
        """Refuse a change that does not fit the weight that a place is."""
        try:
            fits = shape is not None and change.fits(shape)
        except (IndexError, ValueError):
            fits = False
        if not fits:
            raise ModelError(
                f"{self.label}: {module.name} has {shapes_of(module.parts)}, and {component}'s {place[0].name} is "
                f"{shape}. The LoRA was trained for another family."
            )

    def _refuse_strange(self, component: str, strange: list[str]) -> None:
        listed = f"{', '.join(sorted(strange)[:4])}{f' and {len(strange) - 4} more' if len(strange) > 4 else ''}"
        inner = [module.inner for module in self.modules if module.component == component]
        families = {family for name in inner if (family := other_family(name))}
        if families:
            why = f"These are modules of {' and '.join(sorted(families))}: the LoRA was trained for another family."
        elif len(strange) == len(inner):
            why = (
                "None of its modules is there: the LoRA was trained for another family or size, or its layout of names "
                f"is not known here. Known are {_KNOWN_LAYOUTS}."
            )
        else:
            why = "Others of its modules are: the LoRA was trained for another size of this family."
        raise ModelError(f"{self.label}: {component} has no {listed}. {why}")


def open_lora(folder: Path, weight: float, role: str) -> Lora:
    """The LoRA that an artifact is.

    Raises:
        ModelError: a file is damaged, or holds what cannot be fused.
        LoraFilesError: the artifact holds no weights.
    """
    files: Mapping[str, Path] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_card(path.name)
    }
    weights = [name for name in files if name.endswith(SUFFIXES)]
    if not weights:
        raise LoraFilesError(f"{role}: its artifact holds no weights")
    return Lora(files, weight, weights[0] if len(weights) == 1 else role)
