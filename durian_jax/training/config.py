"""The frozen, typed config of a training run, built once from the ConfigDict that the user writes.

Its defaults are the defaults of every preset (`configs.base`).
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Self

from durian_jax.checkpoints.description import Description
from durian_jax.data.samples.config import SampleConfig
from durian_jax.diffusion import Objective, Sampling
from durian_jax.diffusion.sampling import LARGEST_SCALE, MOST_STEPS
from durian_jax.errors import InputError, cut, shown
from durian_jax.families import DEFAULT, Family, get_family
from durian_jax.fields import (
    Count,
    FieldError,
    Items,
    NotNegative,
    OneOf,
    Positive,
    Range,
    Share,
    check_fields,
    check_names,
    check_object,
    check_present,
    inside,
    read_fields,
)
from durian_jax.models.attention import IMPLEMENTATIONS
from durian_jax.models.batch import STORED_TYPES, Spec, training_fields
from durian_jax.models.family import DTYPES, ModelConfig
from durian_jax.models.layers import REMAT_POLICIES
from durian_jax.training.optimizer import OPTIMIZERS
from durian_jax.training.stage import Stage

_Steps = Annotated[int, Range(0, 10**9)]
_Devices = Annotated[int, Range(-1, 10**6)]


@dataclass(frozen=True)
class Source:
    """Where a run's samples come from."""

    samples: str = ""  # folder of encoded samples (`durian encode`), which replace clips; "": none
    clips: str = "synthetic"  # folders of records separated by commas, and "synthetic" for procedural clips
    weights: tuple[NotNegative, ...] = ()  # share of each source in the samples, on any scale; (): by number of clips
    synthetic_clips: Count = 20_000  # number of procedural people
    synthetic_frames: Annotated[int, Range(1, 4096)] = 12  # frames per procedural clip
    synthetic_fps: Annotated[float, Range(0, 1000, open=True)] = 6.0  # frames per second of procedural clips

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class HistoryDisturbance:
    """How training disturbs the frames that a segment continues, in stages that have such frames."""

    # Largest diffusion time of noise on them; the model is told the time.
    noise: Annotated[float, Range(0, 0.999)] = 0.2
    colour: NotNegative = 0.05  # largest relative change of brightness and of each colour
    own_share: Share = 0.3  # share of the clips whose history the model makes itself

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Distillation:
    """How a model learns from an earlier state of itself, in stages with a teacher."""

    # Guidance of the teacher, that the model learns to do without.
    scales: tuple[Annotated[float, Range(0, LARGEST_SCALE)], ...] = ()
    teacher_steps: Annotated[int, Range(1, MOST_STEPS)] = 40  # of the teacher's sampler
    student_steps: Annotated[int, Range(1, MOST_STEPS)] = 4  # of the model's; divides the teacher's

    def __post_init__(self):
        check_fields(self)
        if self.teacher_steps % self.student_steps:
            raise FieldError("teacher_steps", f"expected a multiple of student_steps={self.student_steps}, found "
                             f"{self.teacher_steps}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run."""

    family: str  # key of `families.FAMILIES`
    stage: str  # key of the family's STAGES
    model: ModelConfig
    data: SampleConfig
    objective: Objective
    sampling: Sampling  # of sample sheets, and the default of the exported checkpoint
    source: Source
    disturbance: HistoryDisturbance = HistoryDisturbance()
    distillation: Distillation = Distillation()

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    init_from: str = ""  # workdir of a run, or a checkpoint; "": fresh parameters
    init_only: str = ""  # pattern of the only parameters to take from init_from, also from another model; "": all
    init_fresh: str = ""  # pattern of parameters that init_from may lack and that start fresh
    # Length and logging, in steps.
    total_steps: Count = 60_000  # of each stage, as in arXiv 2509.04434, section 4.1
    log_every: Count = 50
    checkpoint_every: Count = 500
    keep_last: Count = 2  # number of newest checkpoints to keep
    keep_every: _Steps = 0  # also keep checkpoints of the multiples of this many steps; 0: none
    sample_every: _Steps = 500  # 0: no sample sheets
    # Optimiser.
    optimizer: Annotated[str, OneOf(tuple(OPTIMIZERS))] = "adamw"  # or "muon"
    learning_rate: Positive = 1e-5
    final_fraction: Share = 1.0  # of the learning rate, at the end of the decay
    warmup_steps: _Steps = 500
    decay_steps: _Steps = 0  # length of the cosine decay at the end of the run
    weight_decay: NotNegative = 0.01
    gradient_clip: Positive = 1.0
    average_decay: Share = 0.9999  # of the moving average of the weights
    # Number of devices along each axis of the mesh; -1: the remaining ones. Clips are sharded over data and fsdp,
    # parameters and optimiser state over fsdp, a clip's frames over frames, attention heads over tensor.
    mesh: Mapping[str, _Devices] = field(
        default_factory=lambda: {"data": -1, "fsdp": 1, "frames": 1, "tensor": 1})
    silence_seconds: Positive = 60.0  # a process that is silent for longer counts as lost, and the others stop
    # Batch.
    batch_size: Annotated[int, Range(1, 10**7)] = 32  # clips, on all devices together
    data_workers: Annotated[int, Range(0, 1024)] = 0  # processes that make batches; 0: threads
    # Step.
    # Of parameters that the stage does not train: "float32" or "bfloat16".
    frozen_dtype: Annotated[str, OneOf(DTYPES)] = "float32"
    frozen_whole: bool = False  # replicate these on every chip, also with fsdp: more memory, less traffic
    # What the backward pass recomputes to save memory: "none", "dots" or "full".
    remat: Annotated[str, OneOf(tuple(REMAT_POLICIES))] = "none"
    # Or "xla", "chunked" (bounded memory), "splash" (TPU), "cudnn" (GPU, 16 bits).
    attention: Annotated[str, OneOf(("auto", *IMPLEMENTATIONS))] = "auto"
    # Probability that a clip sees no conditions; or of each branch of guidance but the last (`ModelConfig.guidance`).
    guidance_dropout: Share | Annotated[tuple[Share, ...], Items(1, 16)] = 0.1
    codec_noise: NotNegative = 0.1  # stages of the codec: standard deviation of noise on the latents
    identity_model: str = ""  # ONNX file of an ArcFace network, if model.identity_dim is set to its width

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Build the config of a run.

        Args:
            values: a ConfigDict (`configs`), or the plain values of a run's config.json. Version 0.1 wrote no family,
                no sampling and fewer fields; the missing ones take their defaults.

        Raises:
            FieldError: a field that is unknown, missing, of another type, out of its range, or in contradiction to
                another one; an unknown family is another InputError.
        """
        values = values.to_dict() if hasattr(values, "to_dict") else values
        check_names(values, [f.name for f in fields(cls)])
        check_present(values, ("model", "stage"))
        values = {"family": DEFAULT, **values}
        family, parts = get_family(values["family"]), {}
        with inside("model"):
            check_object(values["model"])
            model = family.load("config").from_dict(values["model"])
        samples = family.load("samples")
        with inside("data"):
            data = values.pop("data", {})
            check_names(data, {f.name for f in fields(samples)} - set(samples.from_model))
            parts["data"] = samples.for_model(
                model, {name: tuple(x) if isinstance(x, list) else x for name, x in data.items()})
        for name, section in (("objective", Objective), ("sampling", Sampling), ("source", Source),
                              ("disturbance", HistoryDisturbance), ("distillation", Distillation)):
            with inside(name):
                parts[name] = read_fields(section, values.pop(name, {}))
        return read_fields(cls, {**values, "model": model, **parts})

    def __post_init__(self):
        check_fields(self)
        dropout = self.branch_shares[:-1]
        if len(dropout) != len(self.model.guidance) or sum(dropout) > 1:
            raise FieldError("guidance_dropout", "expected a probability in 0..1, or one for each of the "
                             f"{len(self.model.guidance)} branches before the last, found {self.guidance_dropout}")
        if self.stage not in self.stages:
            raise FieldError("stage", f"expected one of {', '.join(self.stages)}, found {shown(self.stage)}")
        for name in ("init_only", "init_fresh"):
            try:
                re.compile(getattr(self, name))
            except (re.error, RecursionError) as error:
                raise FieldError(name, f"expected a regular expression, found {shown(getattr(self, name))} "
                                 f"({cut(str(error))})") from error
        if self.identity_model and self.model.identity_dim is None:
            raise FieldError("identity_model", f"expected none, because this model attends to no identity embedding, "
                             f"found {cut(self.identity_model)}; set model.identity_dim to its width (ArcFace: 512), "
                             "or leave it out")
        self.sampling.scales(self.model.guidance)
        recipe = self.recipe
        for name, unused in (("disturbance", HistoryDisturbance()), ("distillation", Distillation())):
            if name not in recipe.uses and getattr(self, name) != unused:
                raise FieldError(name, f"stage {self.stage} of {self.family} does not use it; leave it out")
        if self.source.samples:
            self.check_encodable("leave source.samples out and name source.clips")
        if self.objective.change_weight and not recipe.temporal:
            raise FieldError("objective.change_weight", f"expected 0, because stage {self.stage} trains on frames that "
                             f"do not follow each other, found {self.objective.change_weight:g}; a stage of clips uses "
                             "it")
        if recipe.temporal and self.data.frames > self.model.max_frames:
            raise FieldError("data.frames", f"expected at most model.max_frames={self.model.max_frames}, found "
                             f"{self.data.frames}")
        recipe.check(self)

    def check_encodable(self, advice: str) -> None:
        """Refuse a run that needs the pixels of its samples.

        Args:
            advice: what to do instead, for the error.

        Raises:
            InputError: the stage, the objective or the model needs pixels.
        """
        if self.recipe.needs_pixels(self):
            raise InputError("encoded samples hold no pixels, which this stage, objective or model needs; "
                             f"{advice}, or take a stage and an objective without a loss on pixels "
                             "(objective.pixel_weight=0) and a model that reads none")

    @property
    def parts(self) -> Family:
        """The parts of the model's family."""
        return get_family(self.family)

    @property
    def stages(self) -> Mapping[str, Stage]:
        """All stages of the family."""
        return self.parts.load("recipe").STAGES

    @property
    def recipe(self) -> Stage:
        """What the run's stage trains, and by which loss."""
        return self.stages[self.stage]

    @property
    def description(self) -> Description:
        """What a checkpoint of the run says of its model."""
        return Description(self.model, self.objective, self.sampling)

    @property
    def branch_shares(self) -> tuple[float, ...]:
        """Share of the clips at each branch of guidance, from the least to the most conditioned."""
        dropout = self.guidance_dropout if isinstance(self.guidance_dropout, tuple) else (self.guidance_dropout,)
        count = len(self.model.guidance)
        first = dropout if len(dropout) != 1 else (*dropout, *[0.0] * count)[:count]
        return (*first, 1 - sum(first))

    @property
    def encoded(self) -> bool:
        """Whether the batches are encoded samples."""
        return bool(self.source.samples)

    @property
    def batch_spec(self) -> Spec:
        """The fields of the run's batches."""
        return training_fields(self.model.batch_spec(self.encoded))

    def batch_shapes(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of every field of the run's batches, on all devices together."""
        sizes = {"B": self.batch_size, **self.data.sizes}
        return {name: (spec.shape(sizes), STORED_TYPES[spec.kind]) for name, spec in self.batch_spec.items()}


# Fields that must stay the same when a run resumes.
FIXED = ("family", "stage", "model", "objective", "optimizer", "seed", "batch_size", "data_workers")


def defaults() -> dict[str, Any]:
    """The defaults of a run's own fields as plain values, without `model`, `data`, `objective` and `sampling`."""
    made = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(RunConfig)}
    nested = ("family", "stage", "model", "data", "objective", "sampling", "source", "disturbance",
              "distillation")
    return {**{name: value for name, value in made.items() if name not in nested}, "source": asdict(Source()),
            "disturbance": asdict(HistoryDisturbance()), "distillation": asdict(Distillation())}
