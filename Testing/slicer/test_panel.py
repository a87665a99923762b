"""The panel, clicked through with a child that plays the command line: every click path."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import slicer
import vtk
from clicks import finish, play, register, temporary_files
from fakerun import GRIDS, add_volume
from NeuralRegistrationLib import estimate, look, theme, trust
from NeuralRegistrationLib.results import runs
from NeuralRegistrationLib.widget_method import MethodSection
from test_worker import gone


def test_apply_says_what_is_missing(fake_worker, module):
    ui = module.ui
    assert not ui.applyButton.enabled and "the fixed and the moving" in ui.applyButton.toolTip
    volume = add_volume("a", GRIDS["axial"])
    ui.fixedSelector.setCurrentNode(volume)
    assert ui.hintLabel.text == "Choose the moving volume."
    ui.movingSelector.setCurrentNode(volume)
    assert not ui.applyButton.enabled and "same volume" in ui.applyButton.toolTip
    ui.movingSelector.setCurrentNode(add_volume("b", GRIDS["axial"]))
    assert ui.applyButton.enabled


ACTIVE = ("QPushButton", "QCheckBox", "QComboBox", "QSpinBox", "QLineEdit", "QTableWidget", "ctkSliderWidget",
          "ctkPathLineEdit", "qMRMLNodeComboBox", "qMRMLCheckableNodeComboBox")  # fmt: skip


def test_everything_that_can_be_used_says_what_it_does(panel, wait):
    """A tool tip on each widget, before and after a run, the options of every method included."""

    def silent():
        widgets = [w for name, w in vars(panel.ui).items() if not name.startswith(("qt_", "_"))]
        section = next(s for s in panel.sections if hasattr(s, "editors"))
        return [w.name for w in (*widgets, *section.editors.values()) if type(w).__name__ in ACTIVE and not w.toolTip]

    for index in range(panel.ui.methodComboBox.count):
        panel.ui.methodComboBox.setCurrentIndex(index)
        assert silent() == []
    panel.ui.methodComboBox.setCurrentIndex(0)
    register(panel, wait)
    assert silent() == []


def test_a_volume_without_image_is_said_before_apply_whatever_brings_the_volumes_together(panel):
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    panel.ui.movingSelector.setCurrentNode(empty)
    for bring_together in (lambda: None, lambda: setattr(panel.parameters, "centre", True), lambda: _start(panel)):
        bring_together()
        assert 'The volume "empty" holds no image' in panel.ui.hintLabel.text and not panel.ui.applyButton.enabled


def _start(panel):
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "start")
    panel.ui.initialTransformSelector.setCurrentNode(start)


def test_no_overlap_is_said_before_apply_and_centring_helps(panel):
    far = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "far")
    far.SetMatrixTransformToParent(
        slicer.util.vtkMatrixFromArray(np.array([[1.0, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    )
    panel.parameters.movingVolume.SetAndObserveTransformNodeID(far.GetID())
    panel.refresh()
    assert not panel.ui.overlapLabel.isHidden() and not panel.ui.applyButton.enabled
    panel.ui.centreCheckBox.checked = True
    assert panel.ui.applyButton.enabled


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_a_label_map_that_is_taken_for_an_image_is_doubted(panel, side):
    """It stands in the list below the image, and every check of what comes out is green."""
    ui, image = panel.ui, getattr(panel.parameters, f"{side}Volume")
    assert ui.overlapLabel.isHidden()
    getattr(ui, f"{side}Selector").setCurrentNode(add_volume("CT-label", GRIDS["axial"], label=True))
    assert '"CT-label" is a label map' in ui.overlapLabel.text and not ui.overlapLabel.isHidden()
    assert ui.applyButton.enabled and ui.centreCheckBox.isHidden(), "somebody may want it"
    getattr(ui, f"{side}Selector").setCurrentNode(image)
    assert ui.overlapLabel.isHidden()


def test_what_a_closed_section_holds_is_said_in_its_title(panel):
    """The mask of one patient counts for the next one, until somebody sees that it is chosen."""
    ui, title = panel.ui, panel.ui.startSection.text
    ui.fixedMaskSelector.setCurrentNode(add_volume("lung", GRIDS["axial"], label=True))
    ui.movingSelector.setCurrentNode(add_volume("another patient", GRIDS["axial"]))
    assert ui.startSection.text == f"{title}: 1 chosen" and ui.startSection.collapsed
    ui.fixedMaskSelector.setCurrentNode(None)
    assert ui.startSection.text == title


def test_panel_and_parameter_node_agree(panel):
    ui, node = panel.ui, panel.parameters
    ui.seedSpinBox.value = 17
    assert node.seed == 17
    node.preset = type(node.preset).BEST
    assert ui.presetComboBox.currentText == "Best"
    ui.wantInverseCheckBox.checked = False
    assert not node.wantInverse


def test_worker_is_warm_and_names_its_device(panel, wait):
    wait(lambda: panel.logic.worker.ready)
    assert "because this is a test" in panel.ui.deviceLabel.text
    assert panel.ui.installButton.isHidden()


def test_register_fills_the_scene(panel, wait):
    register(panel, wait)
    good = theme.colour(panel.ui.statusLabel, "good")
    assert "Done" in panel.ui.statusLabel.text and good not in panel.ui.statusLabel.styleSheet, "it may yet be bad"
    run = runs()[0]
    assert run.name == "moving to fixed (DNVF)" and len(run.outputs()) == 5
    assert run.fixed is panel.parameters.fixedVolume
    view = look.slice_views()[0]
    assert view.GetBackgroundVolumeID() == run.fixed.GetID() and view.GetForegroundVolumeID() == run.warped.GetID()
    assert panel.ui.trustTable.rowCount >= 3 and "passed" in panel.ui.verdictLabel.text
    assert good in panel.ui.verdictLabel.styleSheet
    assert panel.ui.applyButton.enabled and not panel.ui.applyButton.isHidden()


def test_outputs_that_are_not_wanted_are_not_made(panel, wait):
    panel.ui.wantInverseCheckBox.checked = False
    panel.ui.wantJacobianCheckBox.checked = False
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    panel.ui.outputWarpedSelector.setCurrentNode(target)
    assert panel.ui.outputWarpedSelector.enabled and not panel.ui.outputInverseSelector.enabled
    register(panel, wait)
    run = runs()[0]
    assert run.inverse is None and run.jacobian is None and run.warped is target


def test_the_views_go_where_the_result_is(panel, wait):
    """They show one volume, and the other one is far away: preview and result would be black."""
    fixed, moving = panel.parameters.fixedVolume, panel.parameters.movingVolume
    away = slicer.util.arrayFromVTKMatrix(geometry_of(moving))
    away[:3, 3] += 900
    moving.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(away))
    look.overlay(moving, None)
    assert all(sees(node, moving) for node in slice_nodes())
    panel.refresh()
    panel.ui.centreCheckBox.checked = True
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.runSection().preview.node is not None)
    assert all(sees(node, fixed) for node in slice_nodes())
    panel.ui.cancelButton.click()
    assert all(sees(node, moving) for node in slice_nodes())
    register(panel, wait)
    assert all(sees(node, fixed) for node in slice_nodes())


def test_the_views_stay_where_they_show_the_result(panel, wait):
    """Somebody has chosen the slice and the enlargement."""
    look.overlay(panel.parameters.fixedVolume, None)
    for node in slice_nodes():
        node.JumpSlice(6.0, -8.0, 3.0)
        node.SetFieldOfView(10, 10, 1)
    before = [slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).tolist() for node in slice_nodes()]
    register(panel, wait)
    assert before == [slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).tolist() for node in slice_nodes()]
    assert all(node.GetFieldOfView()[0] == 10 for node in slice_nodes())


def test_views_that_were_dragged_away_from_the_result_come_back(panel, wait):
    look.overlay(panel.parameters.fixedVolume, None)
    for node in slice_nodes():
        node.SetSliceOrigin(500, 0, 0)
    register(panel, wait)
    assert all(node.GetXYZOrigin() == (0, 0, 0) for node in slice_nodes())


def slice_nodes():
    return slicer.util.getNodesByClass("vtkMRMLSliceNode")


def sees(node, volume):
    """Whether the middle of a slice lies in a volume."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    middle = [node.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
    return all(low <= x <= high for low, x, high in zip(bounds[::2], middle, bounds[1::2], strict=True))


def geometry_of(volume):
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_progress_preview_and_cancel(panel, wait):
    background = add_volume("before", GRIDS["axial"])
    look.overlay(background, None)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 300)
    assert panel.runSection().preview.node is not None and panel.runSection().progress.curve.stages
    assert panel.ui.applyButton.isHidden() and not panel.ui.cancelButton.isHidden()
    child = panel.logic.worker.process_id
    panel.ui.cancelButton.click()
    assert gone(child)
    assert "scene is unchanged" in panel.ui.statusLabel.text and panel.ui.applyButton.enabled
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and not temporary_files()
    assert look.slice_views()[0].GetBackgroundVolumeID() == background.GetID()


def test_what_the_user_looks_at_meanwhile_stays_when_the_run_ends(panel, wait):
    """Slicer stays usable during a run: views that show something else by then are the user's."""
    other, (view, second) = add_volume("other patient", GRIDS["axial"]), look.slice_views()[:2]
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.runSection().preview.node is not None)
    view.SetBackgroundVolumeID(other.GetID())
    view.SetForegroundVolumeID(panel.parameters.movingVolume.GetID())
    view.SetForegroundOpacity(0.25)
    panel.ui.cancelButton.click()
    assert view.GetBackgroundVolumeID() == other.GetID()
    assert view.GetForegroundVolumeID() == panel.parameters.movingVolume.GetID()
    assert view.GetForegroundOpacity() == 0.25
    assert not second.GetBackgroundVolumeID() and not second.GetForegroundVolumeID(), "as it was"


def test_a_preview_that_is_gone_already_is_no_error(panel, tmp_path, capfd):
    """A short run removes it before the panel has heard of it; errors of VTK show as a red sign in Slicer."""
    preview = look.Preview(panel.parameters.fixedVolume, panel.parameters.movingVolume)
    preview.show(tmp_path / "gone.nii.gz")
    assert preview.node is None and "gone.nii.gz" not in "".join(capfd.readouterr())


def test_preview_can_be_taken_away_and_brought_back_during_the_run(panel, wait):
    view, section = look.slice_views()[0], panel.runSection()
    view.SetBackgroundVolumeID(panel.parameters.movingVolume.GetID())
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: section.preview.node is not None)
    assert view.GetBackgroundVolumeID() == panel.parameters.fixedVolume.GetID()
    panel.ui.previewCheckBox.click()
    assert section.preview.node is None and view.GetBackgroundVolumeID() == panel.parameters.movingVolume.GetID()
    panel.ui.previewCheckBox.click()
    wait(lambda: section.preview.node is not None)
    panel.ui.cancelButton.click()
    assert view.GetBackgroundVolumeID() == panel.parameters.movingVolume.GetID()


def test_a_second_run_has_a_name_of_its_own_and_a_failed_one_shows_no_result_as_its_own(panel, wait):
    register(panel, wait)
    register(panel, wait)
    assert [run.name for run in runs()] == ["moving to fixed (DNVF) 2", "moving to fixed (DNVF)"]
    assert runs()[0].transform.GetName() == "moving to fixed (DNVF) 2"
    register(panel, wait, "sentence")
    assert panel.ui.statusLabel.text.endswith("choose others. What is shown below is an earlier result.")


def test_the_slider_names_what_it_fades_to(panel, wait):
    register(panel, wait)
    for button, name in (
        ("beforeButton", "moving"),
        ("jacobianButton", "Jacobian"),
        ("displacementButton", "distance"),
    ):
        getattr(panel.ui, button).click()
        assert panel.ui.blendLabel.text == f"Fixed – {name}:"
    panel.ui.resetButton.click()
    assert panel.ui.blendLabel.text == "Fixed – warped:"


def test_stop_and_keep(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.timeLabel.text.endswith(" left"))
    panel.ui.stopButton.click()
    assert not panel.ui.timeLabel.text, "that was the time of all iterations"
    finish(panel, wait)
    assert "stopped early" in panel.ui.statusLabel.text and runs()[0].transform is not None


def test_two_results_of_one_pair_can_be_told_apart(panel, wait):
    """By what was asked for, not by a number behind their name."""
    ui = panel.ui
    register(panel, wait)
    ui.presetComboBox.setCurrentText("Fast")
    ui.fixedMaskSelector.setCurrentNode(add_volume("lung", GRIDS["axial"], label=True))
    register(panel, wait)
    shown = []
    for index in (1, 0):
        ui.runComboBox.setCurrentIndex(index)
        rows = [row for row in range(ui.trustTable.rowCount) if ui.trustTable.item(row, 0).text() == "Settings"]
        shown.append(ui.trustTable.item(rows[0], 1).text().split("\n"))
    assert shown == [["DNVF", "preset balanced", "hidden 1"], ["DNVF", "preset fast", "hidden 1", "fixed mask"]]


def test_what_a_run_said_is_kept_with_its_result(panel, wait, tmp_path):
    """A day later, beside the green light, and not beside another result; in the file of figures, too."""
    ui = panel.ui
    ui.fixedMaskSelector.setCurrentNode(add_volume("lung", GRIDS["axial"], label=True))
    play(panel, "endless")
    ui.applyButton.click()
    wait(lambda: ui.progressBar.value > 500)
    ui.stopButton.click()
    finish(panel, wait)
    ui.fixedMaskSelector.setCurrentNode(None)
    register(panel, wait)
    assert ui.runNotesLabel.isHidden()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"), {})
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {})
    wait(lambda: ui.runComboBox.count == 2)
    ui.runComboBox.setCurrentIndex(1)
    said = [
        'The mask "lung" is small.',
        "The optimisation was stopped by the user; the result is the best one until then.",
    ]
    assert ui.runNotesLabel.text.split("\n") == said and not ui.runNotesLabel.isHidden()
    trust.write_csv(panel.run(), tmp_path / "figures.csv")
    with (tmp_path / "figures.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row[0] for row in csv.reader(file) if row][-3:-1] == said


def test_settings_survive_saving_and_loading(panel, wait, tmp_path):
    register(panel, wait)
    panel.ui.seedSpinBox.value = 23
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path, {})
    slicer.mrmlScene.Clear(0)
    assert not runs()
    slicer.util.loadScene(path, {})
    panel.enter()
    assert panel.parameters.seed == 23 and panel.parameters.movingVolume.GetName() == "moving"
    run = runs()[0]
    assert run.transform is not None and run.fixed is panel.parameters.fixedVolume
    assert panel.ui.trustTable.rowCount >= 3


@pytest.mark.parametrize("name", ["preset", "contrast", "linear", "device"])
def test_a_choice_that_only_another_version_knows_becomes_the_default(panel, name, tmp_path):
    """In a scene that is loaded in place of the present one, added to it, or there before the panel is shown."""
    path, node = str(tmp_path / "scene.mrb"), panel.parameters.parameterNode
    default = getattr(panel.parameters, name)
    panel.exit()
    node.DisableModifiedEventOn()
    node.SetParameter(name, "OF_ANOTHER_VERSION")
    assert slicer.util.saveScene(path, {})
    panel.enter()
    assert getattr(panel.parameters, name) is default and panel.ui.applyButton.enabled
    node.DisableModifiedEventOff()
    for clear in (True, False):
        slicer.util.loadScene(path, {"clear": clear})
        slicer.app.processEvents()
        assert getattr(panel.parameters, name) is default and panel.ui.applyButton.enabled


def test_options_are_checked_and_can_be_reset(panel):
    section = next(s for s in panel.sections if hasattr(s, "editors"))
    editor = section.editors["smoothness"]
    before = editor.text
    editor.text = "2.5"
    editor.editingFinished.emit()
    assert json.loads(panel.parameters.options)["DNVF"]["smoothness"] == 2.5
    editor.text = "much"
    editor.editingFinished.emit()
    assert '"much" is no value' in panel.ui.hintLabel.text and not panel.ui.applyButton.enabled
    editor.text = "3"
    editor.editingFinished.emit()
    assert not editor.styleSheet and panel.ui.applyButton.enabled
    editor.text = "much"
    editor.editingFinished.emit()
    panel.ui.defaultsButton.click()
    assert panel.ui.applyButton.enabled and panel.ui.hintLabel.isHidden()
    assert json.loads(panel.parameters.options) == {} and section.editors["smoothness"].text == before


def test_what_is_being_typed_counts_when_another_module_is_chosen(panel, wait):
    """A button of the toolbar takes no focus: the typing ends only when the panel is hidden."""
    section, holder = panel.section(MethodSection), panel.parent
    editor = section.editors["smoothness"]
    panel.ui.advancedSection.collapsed = False
    holder.show()
    editor.setFocus()
    wait(lambda: editor.focus)
    editor.text = "0.7"
    panel.exit()
    holder.hide()
    holder.show()
    panel.enter()
    assert json.loads(panel.parameters.options)["DNVF"]["smoothness"] == 0.7 and editor.text == "0.7"


def test_fields_that_were_only_passed_through_set_no_option(panel):
    """Options that the user has set overrule what suits small volumes and CTs."""
    section = next(s for s in panel.sections if hasattr(s, "editors"))
    for editor in section.editors.values():
        if hasattr(editor, "editingFinished"):
            editor.editingFinished.emit()
    assert not json.loads(panel.parameters.options).get("DNVF")


def test_an_option_that_a_script_has_written_in_capitals_stays_when_another_one_is_typed(panel):
    panel.parameters.options = json.dumps({"DNVF": {"Smoothness": 1.5}})
    editor = next(s for s in panel.sections if hasattr(s, "editors")).editors["rate"]
    editor.text = "0.05"
    editor.editingFinished.emit()
    assert json.loads(panel.parameters.options)["DNVF"] == {"Smoothness": 1.5, "rate": 0.05}


def test_lists_of_another_length_count_once_all_of_them_have_it(panel):
    section = next(s for s in panel.sections if hasattr(s, "editors"))
    lists = {
        "image_factors": "4, 2",
        "velocity_factors": "6, 2",
        "iterations": "9, 9",
        "windows": "5, 5",
        "strides": "1",
    }
    for name, text in lists.items():
        section.editors[name].text = text
        section.editors[name].editingFinished.emit()
    assert set(section.refused) == set(lists) and panel.parameters.options == "{}"
    assert "lists of one length" in panel.ui.hintLabel.text
    section.editors["strides"].text = "1, 1"
    section.editors["strides"].editingFinished.emit()
    assert not section.refused
    kept = json.loads(panel.parameters.options)["DNVF"]
    assert kept["velocity_factors"] == [6, 2] and kept["strides"] == [1, 1]


def test_options_of_a_closed_scene_are_not_shown_for_those_of_the_next(panel, tmp_path):
    """A run takes what the scene holds: the form must not show anything else."""
    section = panel.section(MethodSection)
    before = section.editors["smoothness"].text
    section.editors["smoothness"].text = "2.5"
    section.editors["smoothness"].editingFinished.emit()
    assert section.editors["smoothness"].text == "2.5"
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"), {})
    slicer.mrmlScene.Clear(0)
    assert panel.parameters.options == "{}" and section.editors["smoothness"].text == before
    slicer.util.loadScene(str(tmp_path / "scene.mrb"), {})
    slicer.app.processEvents()
    assert section.editors["smoothness"].text == "2.5"


def test_options_that_do_not_suit_the_preset_are_said_before_apply(panel):
    """Three stages of "balanced" make no sense with the two of "fast"."""
    section = next(s for s in panel.sections if hasattr(s, "editors"))
    section.editors["iterations"].text = "80, 40, 15"
    section.editors["iterations"].editingFinished.emit()
    assert panel.ui.applyButton.enabled
    panel.ui.presetComboBox.setCurrentText("Fast")
    assert not panel.ui.applyButton.enabled and "lists of one length" in panel.ui.hintLabel.text
    panel.ui.defaultsButton.click()
    assert panel.ui.applyButton.enabled


BRAIN = estimate.Task("DNVF", "balanced", (180, 180, 179))  # 5.8 megavoxels


def test_time_is_learnt_from_runs(panel, wait):
    import qt

    qt.QSettings().remove("NeuralRegistration/seconds")
    panel.refresh()
    assert "an estimate until the first run" in panel.ui.estimateLabel.text
    node = panel.parameters
    task = estimate.Task.of(node.fixedVolume, node.movingVolume, "DNVF", "balanced", {})
    estimate.remember(task, "cpu", 3.0)
    panel.refresh()
    assert "on this computer" in panel.ui.estimateLabel.text and "About 3 s" in panel.ui.estimateLabel.text


def test_first_estimate_follows_the_speed_of_this_computer(panel, wait):
    """Before any run: twice as slow for a standard piece of work, twice the time; more cores, less."""
    import qt

    qt.QSettings().remove("NeuralRegistration/seconds")
    for preset, measured in zip(("fast", "balanced"), estimate.SECONDS["cpu"], strict=True):
        assert estimate.estimate(replace(BRAIN, preset=preset), "cpu", 1)[0] == pytest.approx(measured, rel=0.01)
    reference = estimate.estimate(BRAIN, "cpu", 1)[0]
    wait(lambda: panel.logic.worker.ready)  # the child of the test says that it is half as fast
    slow = estimate.estimate(BRAIN, "cpu", 1, panel.logic.worker.calibration)
    assert slow == (pytest.approx(2 * reference), False)
    shorter = estimate.estimate(BRAIN, "cpu", 2)[0] / reference
    assert shorter == pytest.approx(36 / 62, rel=0.01)  # as measured


def test_what_a_ct_teaches_suits_brains():
    """A computer three times as slow as reckoned: one run of CT or of a small crop says so for every other pair."""
    import qt

    ct = replace(BRAIN, size=(115, 157, 129), spacing=(1.4, 1.4, 2.5), both_ct=True)
    crop = replace(BRAIN, size=(35, 50, 36))
    assert ct.seconds("cpu") < 0.8 * replace(ct, both_ct=False).seconds("cpu")
    assert crop.seconds("cpu") > replace(crop, preset="fast").seconds("cpu")
    for learnt in (ct, crop):
        qt.QSettings().remove("NeuralRegistration/seconds")
        estimate.remember(learnt, "cpu", 3 * learnt.seconds("cpu"))
        for task in (BRAIN, replace(BRAIN, preset="fast"), ct, crop):
            assert estimate.estimate(task, "cpu", 4) == (pytest.approx(3 * task.seconds("cpu"), rel=1e-3), True)
    longer = replace(BRAIN, options={"iterations": [80, 50, 40]})
    assert 1.8 < (longer.seconds("cpu") - 4) / (BRAIN.seconds("cpu") - 4) < 2
    qt.QSettings().remove("NeuralRegistration/seconds")


def test_many_pairs_one_failure_does_not_end_the_batch(panel, wait):
    import qt

    play(panel, "quick")
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    volumes = [panel.parameters.movingVolume, empty, add_volume("third", GRIDS["flipped"])]
    for volume in volumes:
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    panel.ui.batchButton.click()
    section = next(s for s in panel.sections if hasattr(s, "batch"))
    wait(lambda: not section.batch.running)
    assert "2 of 3 registered; failed: empty" in panel.ui.statusLabel.text
    assert len(runs()) == 2
    table = next(t for t in slicer.util.getNodesByClass("vtkMRMLTableNode") if t.GetName().startswith("Registrations"))
    assert look.slice_views()[0].GetForegroundVolumeID() == runs()[1].warped.GetID(), "the first is there to look at"
    assert panel.run().table is runs()[1].table
    assert table.GetNumberOfRows() == 3 and "holds no image" in table.GetTable().GetValue(1, 2).ToString()


def test_sequence_of_volumes(panel, wait):
    play(panel, "quick")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "4D")
    for index in range(2):
        sequence.SetDataNodeAtValue(panel.parameters.movingVolume, str(index))
    panel.ui.sequenceSelector.setCurrentNode(sequence)
    panel.ui.batchButton.click()
    section = next(s for s in panel.sections if hasattr(s, "batch"))
    wait(lambda: not section.batch.running)
    assert {run.name for run in runs()} == {"4D [0] to fixed (DNVF)", "4D [1] to fixed (DNVF)"}
    for run in runs():  # an item has the ID that another node has in the scene
        assert run.moving is None and run.transform.GetNodeReference(run.transform.GetMovingNodeReferenceRole()) is None
    assert not panel.ui.beforeButton.enabled


def test_half_a_pair_of_evidence_is_said(panel, wait):
    """With the other pair complete it would be left out without a word."""
    register(panel, wait)
    ui = panel.ui
    for box in (ui.fixedStructuresSelector, ui.movingStructuresSelector):
        box.setCurrentNode(add_volume("labels", GRIDS["axial"], label=True))
    ui.fixedStructuresSelector.setCurrentNode(ui.movingStructuresSelector.currentNode())
    ui.evaluateButton.click()
    assert "structures are the same" in ui.statusLabel.text
    ui.fixedLandmarksSelector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode"))
    ui.evaluateButton.click()
    assert "compared in pairs" in ui.statusLabel.text and ui.evaluateButton.enabled


def test_csv(panel, wait, tmp_path):
    register(panel, wait)
    section = next(s for s in panel.sections if hasattr(s, "chooseFile"))
    section.chooseFile = lambda *_: str(tmp_path / "table.csv")
    panel.ui.csvButton.click()
    text = (tmp_path / "table.csv").read_text(encoding="utf-8-sig")
    assert "Folding (Jacobian ≤ 0)" in text and "displacement_max_mm,8.7" in text and "TG-132" in text
