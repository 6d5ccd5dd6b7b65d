"""The frozen, typed config of a training run, built once from the ConfigDict that the user writes.

Its defaults are the defaults of every preset (`configs.base`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from durian_jax.checkpoints.description import Description
from durian_jax.data.samples.config import SampleConfig
from durian_jax.diffusion import Objective, Sampling
from durian_jax.errors import InputError
from durian_jax.families import DEFAULT, Family, get_family
from durian_jax.models.attention import IMPLEMENTATIONS
from durian_jax.models.batch import STORED_TYPES, Spec, training_fields
from durian_jax.models.family import ModelConfig, from_fields
from durian_jax.models.layers import REMAT_POLICIES
from durian_jax.training.optimizer import OPTIMIZERS
from durian_jax.training.stage import Stage


@dataclass(frozen=True)
class Source:
    """Where a run's samples come from."""

    samples: str = ""  # folder of encoded samples (`durian encode`), which replace clips; "": none
    clips: str = "synthetic"  # folders of records separated by commas, and "synthetic" for procedural clips
    weights: tuple[float, ...] = ()  # share of each source in the samples, on any scale; (): by number of clips
    synthetic_clips: int = 20_000  # number of procedural people
    synthetic_frames: int = 12  # frames per procedural clip
    synthetic_fps: float = 6.0  # frames per second of procedural clips


@dataclass(frozen=True)
class HistoryDisturbance:
    """How training disturbs the frames that a segment continues, in stages that have such frames."""

    noise: float = 0.2  # largest diffusion time of noise on them; the model is told the time
    colour: float = 0.05  # largest relative change of brightness and of each colour
    own_share: float = 0.3  # share of the clips whose history the model makes itself

    def __post_init__(self):
        if not 0 <= self.noise < 1 or self.colour < 0 or not 0 <= self.own_share <= 1:
            raise InputError("disturbance: expected noise in 0..1, colour of at least 0 and own_share in 0..1, found "
                             f"{self}")


@dataclass(frozen=True)
class Distillation:
    """How a model learns from an earlier state of itself, in stages with a teacher."""

    scales: tuple[float, ...] = ()  # guidance of the teacher, that the model learns to do without
    teacher_steps: int = 40  # of the teacher's sampler
    student_steps: int = 4  # of the model's; divides the teacher's

    def __post_init__(self):
        if self.student_steps < 1 or self.teacher_steps % self.student_steps or self.teacher_steps < self.student_steps:
            raise InputError(f"distillation: expected teacher_steps that are a multiple of student_steps, found "
                             f"{self.teacher_steps} and {self.student_steps}")


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

    seed: int = 0
    init_from: str = ""  # workdir of a run, or a checkpoint; "": fresh parameters
    init_only: str = ""  # pattern of the only parameters to take from init_from, also from another model; "": all
    init_fresh: str = ""  # pattern of parameters that init_from may lack and that start fresh
    # Length and logging, in steps.
    total_steps: int = 60_000  # of each stage, as in arXiv 2509.04434, section 4.1
    log_every: int = 50
    checkpoint_every: int = 500
    keep_last: int = 2  # number of newest checkpoints to keep
    keep_every: int = 0  # also keep checkpoints of the multiples of this many steps; 0: none
    sample_every: int = 500  # 0: no sample sheets
    # Optimiser.
    optimizer: str = "adamw"  # or "muon"
    learning_rate: float = 1e-5
    final_fraction: float = 1.0  # of the learning rate, at the end of the decay
    warmup_steps: int = 500
    decay_steps: int = 0  # length of the cosine decay at the end of the run
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    average_decay: float = 0.9999  # of the moving average of the weights
    # Number of devices along each axis of the mesh; -1: the remaining ones. Clips are sharded over data and fsdp,
    # parameters and optimiser state over fsdp, a clip's frames over frames, attention heads over tensor.
    mesh: Mapping[str, int] = field(default_factory=lambda: {"data": -1, "fsdp": 1, "frames": 1, "tensor": 1})
    silence_seconds: float = 60.0  # a process that is silent for longer counts as lost, and the others stop
    # Batch.
    batch_size: int = 32  # clips, on all devices together
    data_workers: int = 0  # processes that make batches; 0: threads
    # Step.
    frozen_dtype: str = "float32"  # of parameters that the stage does not train: "float32" or "bfloat16"
    frozen_whole: bool = False  # replicate these on every chip, also with fsdp: more memory, less traffic
    remat: str = "none"  # what the backward pass recomputes to save memory: "none", "dots" or "full"
    attention: str = "auto"  # or "xla", "chunked" (bounded memory), "splash" (TPU), "cudnn" (GPU, 16 bits)
    # Probability that a clip sees no conditions; or of each branch of guidance but the last (`ModelConfig.guidance`).
    guidance_dropout: float | tuple[float, ...] = 0.1
    codec_noise: float = 0.1  # stages of the codec: standard deviation of noise on the latents
    identity_model: str = ""  # ONNX file of an ArcFace network, if model.identity_dim is set to its width

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Build the config of a run.

        Args:
            values: a ConfigDict (`configs`), or the plain values of a run's config.json. Version 0.1 wrote no family,
                no sampling and fewer fields; the missing ones take their defaults.

        Raises:
            InputError: an unknown field, or a contradiction.
        """
        values = dict(values.to_dict() if hasattr(values, "to_dict") else values)
        missing = [name for name in ("model", "stage") if name not in values]
        if missing:
            raise InputError(f"config: expected the fields model and stage, found no {' and no '.join(missing)}; start "
                             "from `durian_jax.configs.base.base`, as the presets do")
        family = values.pop("family", DEFAULT)
        parts = get_family(family)
        model = parts.load("config").from_dict(values.pop("model"))
        samples = parts.load("samples")
        data = {name: tuple(x) if isinstance(x, list) else x for name, x in values.pop("data", {}).items()}
        known = {f.name for f in fields(samples)} - set(samples.from_model)
        if not known >= set(data):
            raise InputError(f"data: unknown fields {sorted(set(data) - known)}; expected some of {sorted(known)}")
        return from_fields(cls, {
            **values, "family": family, "model": model, "data": samples.for_model(model, data),
            "objective": from_fields(Objective, values.pop("objective", {})),
            "sampling": from_fields(Sampling, values.pop("sampling", {})),
            "source": from_fields(Source, values.pop("source", {})),
            "disturbance": from_fields(HistoryDisturbance, values.pop("disturbance", {})),
            "distillation": from_fields(Distillation, values.pop("distillation", {}))})

    def __post_init__(self):
        for name in ("total_steps", "batch_size", "checkpoint_every", "keep_last", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.keep_every < 0 or self.silence_seconds <= 0:
            raise InputError(f"expected keep_every of at least 0 and silence_seconds above 0, found {self.keep_every} "
                             f"and {self.silence_seconds}")
        _refuse_nonfinite(self)
        for part in ("objective", "data", "sampling", "source", "disturbance", "distillation"):
            _refuse_nonfinite(getattr(self, part), f"{part}.")
        for name in ("learning_rate", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name}: expected a number above 0, found {getattr(self, name)}")
        for name, highest in (("warmup_steps", math.inf), ("decay_steps", math.inf), ("weight_decay", math.inf),
                              ("average_decay", 1), ("final_fraction", 1)):
            if not 0 <= getattr(self, name) <= highest:
                raise InputError(f"{name}: expected a number in 0..{highest}, found {getattr(self, name)}")
        dropout = self.branch_shares[:-1]
        if len(dropout) != len(self.model.guidance) or min(dropout, default=0) < 0 or sum(dropout) > 1:
            raise InputError(f"guidance_dropout: expected a probability in 0..1, or one for each of the "
                             f"{len(self.model.guidance)} branches before the last, found {self.guidance_dropout}")
        for name, known in (("stage", self.stages), ("remat", REMAT_POLICIES), ("optimizer", OPTIMIZERS),
                            ("attention", ("auto", *IMPLEMENTATIONS)), ("frozen_dtype", ("float32", "bfloat16"))):
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} {getattr(self, name)!r}; expected one of {', '.join(known)}")
        for name in ("init_only", "init_fresh"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InputError(f"{name}: {getattr(self, name)!r} is no regular expression ({error})") from error
        if self.identity_model and self.model.identity_dim is None:
            raise InputError(f"identity_model={self.identity_model}: this model attends to no identity embedding; set "
                             "model.identity_dim to its width (ArcFace: 512), or leave identity_model out")
        self.sampling.scales(self.model.guidance)
        recipe = self.recipe
        for name, unused in (("disturbance", HistoryDisturbance()), ("distillation", Distillation())):
            if name not in recipe.uses and getattr(self, name) != unused:
                raise InputError(f"{name}: stage {self.stage} of {self.family} does not use it; leave it out")
        if self.source.samples:
            self.check_encodable("leave source.samples out and name source.clips")
        if recipe.temporal and self.data.frames > self.model.max_frames:
            raise InputError(f"data.frames={self.data.frames} exceeds model.max_frames={self.model.max_frames}")
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
        if not all(isinstance(share, int | float) for share in dropout):
            raise InputError(f"guidance_dropout: expected numbers, found {self.guidance_dropout}")
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


def _refuse_nonfinite(config: Any, prefix: str = "") -> None:
    """Refuse NaN and infinity in the numbers of a dataclass.

    Raises:
        InputError: names the field, after the prefix.
    """
    for one in fields(config):
        value = getattr(config, one.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{prefix}{one.name}: expected a finite number, found {value}")


# Fields that must stay the same when a run resumes.
FIXED = ("family", "stage", "model", "objective", "optimizer", "seed", "batch_size", "data_workers")


def defaults() -> dict[str, Any]:
    """The defaults of a run's own fields as plain values, without `model`, `data`, `objective` and `sampling`."""
    made = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(RunConfig)}
    nested = ("family", "stage", "model", "data", "objective", "sampling", "source", "disturbance",
              "distillation")
    return {**{name: value for name, value in made.items() if name not in nested}, "source": asdict(Source()),
            "disturbance": asdict(HistoryDisturbance()), "distillation": asdict(Distillation())}
