"""What a checkpoint or an export says of its model. Imports no jax."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError, shown
from durian_jax.families import UnknownFamily
from durian_jax.fields import (
    FieldError,
    UnknownField,
    check_complete,
    check_names,
    check_object,
    check_present,
    inside,
    read_fields,
)
from durian_jax.models.family import ModelConfig, model_config
from durian_jax.versions import __version__, is_newer

# Of config.json and durian.json. A file of another format is not read.
FORMAT = 1


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

    def to_file(self) -> dict:
        """Plain values for a file: also its format, and the version of this package."""
        return {"format": FORMAT, "version": __version__, **self.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Description":
        """The inverse of `to_dict`. All fields must be there, but for those that version 0.1 did not write.

        Raises:
            FieldError: names a field that is unknown, missing, of another type, out of its range, or in contradiction
                to another one.
            UnknownFamily: a model of a family that this installation does not have.
        """
        check_names(values, _SECTIONS)
        check_present(values, ("model", "objective"))
        with inside("model"):
            check_object(values["model"])
        if "family" in values["model"]:  # version 0.1 wrote neither
            check_present(values, ("sampling",))
        made: dict[str, Any] = {}
        for name, read in _SECTIONS.items():
            if name in values:
                with inside(name):
                    made[name] = read(values[name])
                    check_complete(made[name], values[name])
        return cls(made.pop("model"), **made)

    @classmethod
    def from_file(cls, path: Path, values: Mapping[str, Any], others: Collection[str] = ()) -> "Description":
        """Read what a checkpoint's config.json or an export's durian.json says of the model.

        Args:
            path: of the file, for errors.
            values: its content; version 0.1 wrote neither format nor version into config.json.
            others: further fields that the file must have.

        Raises:
            InputError: the file is newer than this program, or damaged; names the field.
        """
        found, version = values.get("format", FORMAT), values.get("version", __version__)
        newer = f"the file was written by durian-jax {shown(version, 20)}, this is {__version__}; update durian-jax"
        if isinstance(found, int) and found > FORMAT:
            raise InputError(f"{path}: format: expected {FORMAT}, found {shown(found)}; {newer}")
        described = {name: value for name, value in values.items() if name not in ("format", "version", *others)}
        try:
            check_present(values, others)
            if type(found) is not int or found != FORMAT:
                raise FieldError("format", f"expected {FORMAT}, found {shown(found)}")
            if not isinstance(version, str):
                raise FieldError("version", f"expected a text, found {shown(version)}")
            return cls.from_dict(described)
        except UnknownFamily as error:
            raise InputError(f"{path}: model.family: {error}") from error
        except FieldError as error:
            if is_newer(version):
                advice = newer
            elif isinstance(error, UnknownField):
                advice = f"the file is newer than durian-jax {__version__}, or was edited; update durian-jax"
            else:
                advice = "copy or export the checkpoint again"
            raise InputError(f"{path}: {error}; {advice}") from error


_SECTIONS: dict[str, Callable[[Any], Any]] = {
    "model": model_config, "objective": partial(read_fields, Objective), "sampling": partial(read_fields, Sampling)}
