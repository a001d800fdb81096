"""stub"""

from ribcage.phantom.chest import Chest
from ribcage.phantom.frontal import thickness


class SideChest(Chest):
    pass
