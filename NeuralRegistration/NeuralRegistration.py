"""Neural Registration: deformable registration of medical images with neural networks, for 3D Slicer.

The four classes that Slicer looks for. What they do is in NeuralRegistrationLib (Slicer side) and neuralreg (core).
"""

import sys
import unittest

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

if sys.version_info >= (3, 11):  # noqa: UP036  (Slicer loads this file whatever its Python is)
    from NeuralRegistrationLib.logic import NeuralRegistrationLogic
    from NeuralRegistrationLib.samples import registerSampleData
    from NeuralRegistrationLib.widget import NeuralRegistrationWidget
else:  # Slicer 5.8 has 3.9: a panel that says so, instead of a module that fails to load
    from NeuralRegistrationLib.outdated import NeuralRegistrationLogic, NeuralRegistrationWidget, registerSampleData

__all__ = ["NeuralRegistration", "NeuralRegistrationLogic", "NeuralRegistrationTest", "NeuralRegistrationWidget"]


class NeuralRegistration(ScriptedLoadableModule):
    """Title, help and acknowledgement."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Neural Registration")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = ["Markups", "Segmentations", "Sequences", "SubjectHierarchy", "Transforms", "Volumes"]
        parent.contributors = ["SlicerNeuralRegistration contributors"]
        parent.helpText = _(
            "<p>Deformable registration by neural networks: choose the fixed and the moving volume and click "
            "<b>Register</b>. The result is a transform that brings the moving volume, and everything that belongs to "
            "it, to the fixed one, together with its inverse, the warped volume, a map of local change of volume "
            "and a table to judge it by.</p>"
            "<p>The work is done by a process of its own; Slicer stays usable, and the scene stays as it is when you "
            "cancel.</p>"
            "<p>If you use it in research, please cite: Han et al., <i>Diffeomorphic Image Registration with Neural "
            "Velocity Field</i>, WACV 2023 (DNVF); Balakrishnan et al., <i>VoxelMorph</i>, IEEE TMI 2019; Drozdov and "
            "Sorokin, <i>FNOReg</i>.</p><p>For research; not a medical device.</p>"
        )
        parent.acknowledgementText = _(
            "Built on 3D Slicer, PyTorch and ITK. The quality table is adapted from AAPM Task Group 132."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class NeuralRegistrationTest(ScriptedLoadableModuleTest):
    """Reload and Test: a small pair, registered with the real worker."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        try:
            self.test_registersASmallPair()
        except unittest.SkipTest as reason:
            self.delayDisplay(str(reason))

    def test_registersASmallPair(self):
        from NeuralRegistrationLib.dependencies import torch_problem
        from NeuralRegistrationLib.samples import addSmallPair

        if torch_problem():  # as on the machines that build Slicer's extensions
            self.skipTest(torch_problem())
        fixed, moving = addSmallPair()
        logic = NeuralRegistrationLogic()
        try:
            run = logic.register(fixed, moving, preset="fast")
        finally:
            logic.close()
        self.assertIsNotNone(run.transform)
        measured = run.measurements
        self.assertGreater(measured["mutual_information_after"], measured["mutual_information_before"])
        self.assertEqual(measured["folds_percent"], 0)
