"""The colours of a Jacobian map: blue shrinks, white keeps, red grows, and folding has a colour of its own."""

from __future__ import annotations

import numpy as np
import slicer

NAME = "Jacobian determinant (yellow = folding)"
MARK = "NeuralRegistration.JacobianColours"
COLOURS = 256
FOLDING = (1.0, 0.88, 0.0)
SHRINKING, KEEPING, GROWING = (0.02, 0.19, 0.58), (1.0, 1.0, 1.0), (0.60, 0.0, 0.05)

# The display maps [LOWEST, HIGHEST] to 256 bins by rounding down. With this width, bin 0 holds exactly J ≤ 0 and
# the middle of the colours lies on J = 1.
HIGHEST = 2.0
BIN_WIDTH = HIGHEST / (COLOURS - 2)
LOWEST = -BIN_WIDTH + 1e-6


def jacobian_colours():
    """The colour node of Jacobian maps, one per scene."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetAttribute(MARK):
            return node
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", NAME)
    node.SetAttribute(MARK, "1")
    node.SetTypeToUser()
    node.SetNumberOfColors(COLOURS)
    node.SetColor(0, "folding (J ≤ 0)", *FOLDING, 1.0)
    for index in range(1, COLOURS):
        part = (index - 1) / (COLOURS - 2)  # 0 at J = 0, ½ at J = 1, 1 at J = 2
        ends = (SHRINKING, KEEPING) if part < 0.5 else (KEEPING, GROWING)
        weight = part * 2 if part < 0.5 else part * 2 - 1
        rgb = (1 - weight) * np.array(ends[0]) + weight * np.array(ends[1])
        node.SetColor(index, f"J = {part * HIGHEST:.2f}", *rgb, 1.0)
    return node


def show_jacobian(volume) -> None:
    """Give a Jacobian volume its colours and the window that puts white on 1."""
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(jacobian_colours().GetID())
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(LOWEST, HIGHEST)
    display.ApplyThresholdOff()
