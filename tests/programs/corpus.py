"""Stencils, control, graphs and layers as people write them, by name: a function and its shape."""

from programs import control, graphs, layers, stencils

CORPUS = {
    f"{room.__name__.rpartition('.')[2]}: {name}": case
    for room in (stencils, control, graphs, layers)
    for name, case in room.FUNCTIONS.items()
}
