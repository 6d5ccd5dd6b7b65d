"""The table of model families. Shared code finds a family's parts here and names no family itself."""

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from durian_jax.errors import InputError, shown


@dataclass(frozen=True)
class Family:
    """Where the parts of a family are: "module" or "module:name", imported on first use.

    A part that a family does not have is "".

    Attributes:
        config: class of the model's sizes, a `models.family.ModelConfig`.
        model: function that builds the model, see `ModelConfig.create`: (config, remat, attention) -> `Model`.
        samples: class of the sample settings, a `data.samples.config.SampleConfig`.
        recipe: module with `STAGES`, the training stages by name (`training.stage.Stage`).
        inference: module with what `inference.family.FamilyInference` lists.
        convert: module with what `convert.families.family.FamilyConversion` lists.
        pytorch: class of the PyTorch pipeline, a `pytorch.pipeline.Pipeline`.
        parity: module that compares the JAX and PyTorch models block by block (`evaluation.parity`).
    """

    config: str
    model: str
    samples: str
    recipe: str
    inference: str
    convert: str = ""
    pytorch: str = ""
    parity: str = ""

    def load(self, part: str) -> Any:
        """Import a part and return it.

        Args:
            part: name of an attribute.

        Raises:
            InputError: the family does not have this part.
        """
        module, _, name = getattr(self, part).partition(":")
        if not module:
            raise InputError(f"models of this family do not support this: the family ({self.config}) has no part "
                             f"{part!r}; name a checkpoint of another family")
        found = import_module(module)
        return getattr(found, name) if name else found


FAMILIES = {
    "durian": Family(
        config="durian_jax.models.durian.config:DurianConfig",
        model="durian_jax.models.durian.make:make_model",
        samples="durian_jax.data.samples.durian:DurianSamples",
        recipe="durian_jax.training.recipes.durian",
        inference="durian_jax.inference.durian",
        convert="durian_jax.convert.families.durian",
        pytorch="durian_jax.pytorch.durian.pipeline:DurianPipeline",
        parity="durian_jax.evaluation.parity.durian",
    ),
    "svdp": Family(
        config="durian_jax.models.svdp.config:SVDPConfig",
        model="durian_jax.models.svdp.model:make_model",
        samples="durian_jax.data.samples.svdp:SVDPSamples",
        recipe="durian_jax.training.recipes.svdp",
        inference="durian_jax.inference.svdp",
        convert="durian_jax.convert.families.svdp",
        pytorch="durian_jax.pytorch.svdp.pipeline:SVDPPipeline",
        parity="durian_jax.evaluation.parity.svdp",
    ),
}

# The family of checkpoints and runs that name none: those of version 0.1.
DEFAULT = "durian"


class UnknownFamily(InputError):
    """A model of a family that this installation does not have."""


def get_family(name: str) -> Family:
    """Return the family of this name.

    Raises:
        UnknownFamily: no such family; lists the known ones.
    """
    if not isinstance(name, str) or name not in FAMILIES:
        near = get_close_matches(str(name)[:80], FAMILIES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownFamily(f"unknown model family {shown(name)}; expected one of {', '.join(FAMILIES)}{hint}")
    return FAMILIES[name]


def register(name: str, family: Family) -> None:
    """Add a family of your own, before its configs or checkpoints are read.

    Raises:
        InputError: the name belongs to another family.
    """
    if FAMILIES.setdefault(name, family) != family:
        raise InputError(f"the model family {name!r} exists already; choose another name")
