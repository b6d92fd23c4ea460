"""Official checkpoints of Momentum-GS, which are those of Scaffold-GS."""

from zoo.splatting.scaffold_gs.convert import convert_official as convert_official
from zoo.splatting.scaffold_gs.convert import read_folder as read_folder
