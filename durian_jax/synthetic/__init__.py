"""The procedural portrait world: identity x attributes x motion -> frames, masks, keypoints.

    person = sample_person("train", 0, require=("hat",))
    donor = sample_person("train", 1, require=("hair",))
    clip = render(person.wear(hair=donor), sample_motion("train", 0, 16))
"""

from durian_jax.synthetic.attributes import Beard, Glasses, Hair, Hat, held_out
from durian_jax.synthetic.motion import Motion, sample_motion, still
from durian_jax.synthetic.person import SPLITS, Identity, Person, sample_driver, sample_person
from durian_jax.synthetic.render import add_driver, render

__all__ = ["SPLITS", "Beard", "Glasses", "Hair", "Hat", "Identity", "Motion", "Person", "add_driver", "held_out",
           "render", "sample_driver", "sample_motion", "sample_person", "still"]
