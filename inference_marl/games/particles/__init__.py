"""The particle worlds of Lowe et al. (2017), one file each, with the common base `world.ParticleWorld`."""

from inference_marl.games.particles.adversary import Adversary
from inference_marl.games.particles.crypto import Crypto
from inference_marl.games.particles.push import Push
from inference_marl.games.particles.reference import Reference
from inference_marl.games.particles.speaker_listener import SpeakerListener
from inference_marl.games.particles.spread import Spread
from inference_marl.games.particles.tag import Tag
from inference_marl.games.particles.world import ParticleWorld

__all__ = ["Adversary", "Crypto", "ParticleWorld", "Push", "Reference", "SpeakerListener", "Spread", "Tag"]
