"""What a checkpoint or an export says of its model. Imports no jax."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.models.family import ModelConfig, from_fields, model_config


@dataclass(frozen=True)
class Description:
    """What a checkpoint's config.json says.

    Attributes:
        config: sizes of the model.
        objective: noise schedule and prediction type.
        sampling: how to sample from the model unless the user says otherwise.
    """

    config: ModelConfig
    objective: Objective
    sampling: Sampling = Sampling()

    def sampling_for(self, given: Sampling | Mapping[str, Any] | None) -> Sampling:
        """The default sampling with what the user gave (`Sampling.changed`), checked to fit the model.

        Args:
            given: may also have "scales", name of a branch (`ModelConfig.guidance`) -> its scale; the other branches
                keep theirs.

        Raises:
            InputError: values out of range, another number of guidance scales than the model has branches, or an
                unknown branch.
        """
        named: Mapping[str, float] = {}
        if isinstance(given, Mapping):
            given = dict(given)
            named = given.pop("scales", {})
        sampling, names = self.sampling.changed(given), self.config.guidance
        scales = sampling.scales(names)
        unknown = sorted(set(named) - set(names))
        if unknown:
            raise InputError(f"guidance: this model has no branch {', '.join(unknown)}; expected some of "
                             f"{', '.join(names) or 'none'}")
        if not named:
            return sampling
        return replace(sampling, guidance_scale=tuple(
            named.get(name, scale) for name, scale in zip(names, scales, strict=True)))

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {"model": self.config.to_dict(), "objective": vars(self.objective),
                "sampling": self.sampling.defaults()}

    @classmethod
    def from_dict(cls, values: dict) -> "Description":
        """The inverse of `to_dict`.

        Raises:
            InputError, ValueError, KeyError, TypeError, AttributeError: damaged values.
        """
        return cls(model_config(values["model"]), from_fields(Objective, values["objective"]),
                   from_fields(Sampling, values.get("sampling", {})))
