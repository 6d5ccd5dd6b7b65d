"""What a checkpoint or an export says of its model. Imports no jax."""

from dataclasses import dataclass

from durian_jax.diffusion import Objective, Sampling
from durian_jax.models.family import ModelConfig, model_config


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
        return cls(model_config(values["model"]), Objective(**values["objective"]),
                   Sampling(**values.get("sampling", {})))
