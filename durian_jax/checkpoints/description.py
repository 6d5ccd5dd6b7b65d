"""What a checkpoint or an export says of its model. Imports no jax."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durian_jax.diffusion import Objective, Sampling
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

        Raises:
            InputError: values out of range, or another number of guidance scales than the model has branches.
        """
        sampling = self.sampling.changed(given)
        sampling.scales(self.config.guidance)
        return sampling

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
