"""What must not happen: results over inputs, figures of one run for another, a run disturbed by a second click."""

import numpy as np
import pytest
import qt
import slicer
from clicks import finish, idle, play, register, scene_as_ids, temporary_files
from fakerun import GRIDS, add_volume, write_run
from neuralreg.job import RESULT, RegistrationError
from NeuralRegistrationLib import look, moved, results
from NeuralRegistrationLib.results import runs
from NeuralRegistrationLib.scene import load_run
from NeuralRegistrationLib.widget_batch import BatchSection
from NeuralRegistrationLib.widget_trust import TrustSection
from realrun import linear, point_list


def refused(panel):
    """Why Register cannot be clicked."""
    assert not panel.ui.applyButton.enabled
    return panel.ui.hintLabel.text


def test_an_input_is_no_output(panel):
    ui = panel.ui
    for volume in (panel.parameters.fixedVolume, panel.parameters.movingVolume):
        ui.outputWarpedSelector.setCurrentNode(volume)
        assert f'"{volume.GetName()}" is an input' in refused(panel)
    ui.wantWarpedCheckBox.click()
    assert ui.applyButton.enabled, "what is not wanted is not written"
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "start")
    ui.initialTransformSelector.setCurrentNode(start)
    ui.outputTransformSelector.setCurrentNode(start)
    assert '"start" is an input' in refused(panel)


def test_a_label_map_is_no_place_for_grey_values(panel):
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    box = panel.ui.outputWarpedSelector
    assert "labels" not in {box.nodeFromIndex(index).GetName() for index in range(box.nodeCount())}


def test_an_existing_transform_is_taken_out_from_under_its_parent(panel, wait):
    """What is loaded maps world to world; a parent would bend it once more."""
    mine, parent = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name) for name in ("mine", "parent"))
    mine.SetAndObserveTransformNodeID(parent.GetID())
    panel.ui.outputTransformSelector.setCurrentNode(mine)
    register(panel, wait)
    assert runs()[0].transform is mine and mine.GetParentTransformNode() is None


def test_a_run_whose_volume_was_replaced_does_not_show_the_other_as_its_own(panel, wait):
    register(panel, wait)
    warped = runs()[0].warped
    panel.ui.outputWarpedSelector.setCurrentNode(warped)
    register(panel, wait)
    second, first = runs()
    assert second.warped is warped and first.warped is None and first.transform is not None
    panel.ui.runComboBox.setCurrentIndex(1)
    assert not panel.ui.checkerButton.enabled
    assert look.slice_views()[0].GetForegroundVolumeID() == first.moving.GetID()
    assert panel.ui.blendLabel.text == "Fixed – moving:"


def test_two_outputs_are_two_nodes(panel):
    both = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "both")
    panel.ui.outputTransformSelector.setCurrentNode(both)
    panel.ui.outputInverseSelector.setCurrentNode(both)
    assert "Two outputs go to the same node" in refused(panel)


def test_of_two_volumes_of_one_name_the_chosen_one_is_taken(panel):
    """Slicer on Qt 6 tells of another node only where its name is another; the series of two visits have one name."""
    selector = panel.ui.fixedSelector
    first, second = (add_volume("T1", GRIDS["axial"]) for _ in range(2))
    for chosen in (first, second, first):
        selector.setCurrentNode(chosen)
        selector.nodeActivated.emit(chosen)  # these two are what a click in the list does
        assert panel.parameters.fixedVolume is chosen


def test_nothing_takes_the_place_of_a_deleted_choice(panel):
    """A selector of Slicer goes to the neighbour: another mask would count, another transform be overwritten."""
    chosen = {
        "fixedMaskSelector": "vtkMRMLLabelMapVolumeNode",
        "initialTransformSelector": "vtkMRMLLinearTransformNode",
        "outputTransformSelector": "vtkMRMLTransformNode",
        "fixedStructuresSelector": "vtkMRMLSegmentationNode",
        "sequenceSelector": "vtkMRMLSequenceNode",
    }
    for name, kind in chosen.items():
        selector = getattr(panel.ui, name)
        doomed, _neighbour = (slicer.mrmlScene.AddNewNodeByClass(kind, name + end) for end in ("", " other"))
        selector.setCurrentNode(doomed)
        assert selector.currentNode() is doomed
        slicer.mrmlScene.RemoveNode(doomed)
        assert selector.currentNode() is None, name
    node = panel.parameters
    assert node.fixedMask is None and node.initialTransform is None and node.outputTransform is None


def test_a_second_run_does_not_replace_the_transform_under_which_the_volume_lies(panel, wait):
    """It was registered as it lies there: with the new transform in its place it would lie elsewhere."""
    register(panel, wait)
    moving, transform = panel.parameters.movingVolume, runs()[0].transform
    moving.SetAndObserveTransformNodeID(transform.GetID())
    panel.ui.outputTransformSelector.setCurrentNode(transform)
    assert f'"moving" lies under the output "{transform.GetName()}"' in refused(panel)
    panel.ui.outputTransformSelector.setCurrentNode(None)
    assert panel.ui.applyButton.enabled


def test_a_second_start_leaves_the_first_run_alone(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    assert not panel.ui.batchButton.enabled and not panel.ui.evaluateButton.enabled
    section = panel.runSection()
    wait(lambda: section.preview.node is not None)
    preview, curve = section.preview, section.progress.curve.stages
    with pytest.raises(RegistrationError, match="is running"):
        section.start(panel.request(), print)
    assert section.preview is preview and section.progress.curve.stages is curve and panel.logic.running
    panel.ui.cancelButton.click()
    assert not slicer.util.getNodes("Registration preview*")


def test_evidence_is_measured_on_the_files_of_the_chosen_run(panel, wait, tmp_path):
    """Another run may come later into the scene, from a file; the files at hand are not its."""
    register(panel, wait)
    assert panel.ui.reportButton.enabled
    write_run(tmp_path, panel.parameters.fixedVolume, panel.parameters.movingVolume)
    load_run(tmp_path, panel.parameters.fixedVolume, panel.parameters.movingVolume, "another")
    panel.refresh()
    ui = panel.ui
    ui.runComboBox.setCurrentIndex(0)
    assert ui.runComboBox.currentText == "another" and not ui.reportButton.enabled and not ui.evaluateButton.enabled
    ui.runComboBox.setCurrentIndex(1)
    assert ui.reportButton.enabled and ui.evaluateButton.enabled
    slicer.mrmlScene.RemoveNode(runs()[1].table)
    panel.refresh()
    assert ui.runComboBox.currentText == "another" and not ui.reportButton.enabled


def test_earlier_results_can_be_measured_as_long_as_there_is_room(panel, wait):
    """Two settings are compared by their figures, also after a third run that was cancelled."""
    ui, logic = panel.ui, panel.logic
    for _ in range(2):
        register(panel, wait)
    second, first = runs()
    assert logic.folders.of(first) != logic.folders.of(second)
    play(panel, "endless")
    ui.applyButton.click()
    ui.cancelButton.click()
    for index in range(2):
        ui.runComboBox.setCurrentIndex(index)
        assert ui.evaluateButton.enabled and ui.reportButton.enabled
        assert (logic.folders.of(runs()[index]) / RESULT).exists()
    logic.folders.keepBytes = 1.5 * sum(file.stat().st_size for file in logic.folders.of(second).parent.rglob("*.*"))
    register(panel, wait)
    assert len(temporary_files()) == 2 and logic.folders.of(first) is None and logic.folders.of(second) is not None
    ui.runComboBox.setCurrentIndex(2)
    assert ui.evaluateButton.enabled and ui.reportButton.enabled, "its files can be made again from the nodes"
    slicer.mrmlScene.RemoveNode(second.table)
    register(panel, wait)
    assert len(temporary_files()) == 2, "the files of the deleted one are gone"
    slicer.mrmlScene.Clear(0)
    assert not temporary_files()


def test_measuring_gives_way_to_a_new_registration_with_a_sentence(panel, wait):
    register(panel, wait)
    section, panel.logic.folders.keepBytes = panel.section(TrustSection), 0
    panel.ui.fixedLandmarksSelector.setCurrentNode(point_list("f", [(1, 2, 3)]))
    panel.ui.movingLandmarksSelector.setCurrentNode(point_list("m", [(1, 2, 4)]))
    panel.ui.evaluateButton.click()
    assert section.task.running
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: not section.task.running)
    assert "new registration has taken the place" in panel.ui.statusLabel.text
    assert slicer.app.temporaryPath not in panel.ui.statusLabel.text
    panel.ui.cancelButton.click()


def test_measuring_ends_with_the_scene_and_a_sentence(panel, wait, tmp_path):
    register(panel, wait)
    section = panel.section(TrustSection)
    section.chooseFile = lambda *_texts: str(tmp_path / "report.html")
    panel.ui.reportButton.click()
    slicer.mrmlScene.Clear(0)
    wait(lambda: not section.task.running)
    assert panel.ui.statusLabel.text == "The registration is no longer in the scene."
    assert not (tmp_path / "report.html").exists()


def test_a_volume_that_was_moved_meanwhile_is_named(panel, wait):
    """The result belongs to where the volume lay when Register was clicked, and so do the parents that it keeps."""
    moving = panel.parameters.movingVolume
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.logic.running and panel.ui.progressBar.value > 200)
    moving.SetAndObserveTransformNodeID(linear("away", np.diag([1.0, 1.0, 1.2, 1.0])).GetID())
    panel.ui.stopButton.click()
    finish(panel, wait)
    assert '"moving" was moved while it was registered' in panel.ui.statusLabel.text
    assert '"moving" was moved while it was registered' in panel.ui.runNotesLabel.text
    assert moved.parents_at_start(runs()[0], moved.MOVING) == []


def shown_sequence():
    """A sequence of three volumes, its browser, and the volume node that shows one of them."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "breath")
    for index in range(3):
        volume = add_volume("breath", GRIDS["axial"], shift=(index, 0, 0))
        sequence.SetDataNodeAtValue(volume, str(index))
        slicer.mrmlScene.RemoveNode(volume)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.AddSynchronizedSequenceNode(sequence)
    show(browser, 0)
    return sequence, browser, browser.GetProxyNode(sequence)


def show(browser, index):
    browser.SetSelectedItemNumber(index)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_another_time_point_that_is_shown_after_the_run_is_named(panel, wait, side):
    _sequence, browser, shown = shown_sequence()
    getattr(panel.ui, f"{side}Selector").setCurrentNode(shown)
    register(panel, wait)
    assert "time point" not in panel.ui.statusLabel.text
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.logic.running and panel.ui.progressBar.value > 200)
    show(browser, 2)
    panel.ui.stopButton.click()
    finish(panel, wait)
    assert '"breath" shows another time point now' in panel.ui.runNotesLabel.text


def test_a_batch_does_not_go_on_with_another_time_point_of_the_fixed_volume(panel, wait):
    """Somebody looks through the sequence meanwhile: the volumes would be brought to different breaths."""
    sequence, browser, shown = shown_sequence()
    panel.ui.fixedSelector.setCurrentNode(shown)
    panel.ui.sequenceSelector.setCurrentNode(sequence)
    panel.ui.batchButton.click()
    show(browser, 2)
    batch = panel.section(BatchSection).batch
    wait(lambda: not batch.running)
    assert [item.outcome.status for item in batch.items] == ["done", "failed", "failed"]
    assert "another time point than for the first volume" in batch.items[1].outcome.message


def test_before_is_not_shown_with_volumes_that_were_moved_since(panel, wait):
    """As when the transform is undone under which a volume was registered; and evidence comes with a doubt."""
    moving, ui = panel.parameters.movingVolume, panel.ui
    turn = linear("turn", np.array([[1, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    moving.SetAndObserveTransformNodeID(turn.GetID())
    register(panel, wait)
    ui.beforeButton.click()
    ui.beforeButton.click()
    moving.SetAndObserveTransformNodeID(None)
    view = look.slice_views()[0]
    ui.beforeButton.click()
    assert '"moving" was moved since it was registered; move it back' in ui.statusLabel.text
    assert not ui.beforeButton.enabled and not ui.beforeButton.checked
    assert view.GetForegroundVolumeID() == runs()[0].warped.GetID()
    ui.fixedLandmarksSelector.setCurrentNode(point_list("f", [(1, 2, 3)]))
    ui.movingLandmarksSelector.setCurrentNode(point_list("m", [(1, 2, 4)]))
    ui.evaluateButton.click()
    wait(lambda: not panel.section(TrustSection).task.running)
    assert "hold for what still lies where it lay then" in ui.statusLabel.text
    moving.SetAndObserveTransformNodeID(turn.GetID())
    moving.HardenTransform()
    panel.refresh()
    assert ui.beforeButton.enabled, "it lies there again"


@pytest.mark.parametrize(
    ("button", "role"), [("before", "moving"), ("jacobian", "jacobian"), ("displacement", None), ("grid", "transform")]
)
def test_what_is_deleted_while_it_is_shown_gives_way_to_the_warped_volume(panel, wait, button, role):
    """Its button could not be clicked any more, and the views would stay empty."""
    register(panel, wait)
    run, pressed = runs()[0], getattr(panel.ui, f"{button}Button")
    pressed.click()
    slicer.mrmlScene.RemoveNode(getattr(run, role) if role else look.derived(run, "displacement"))
    wait(lambda: not pressed.checked)
    view = look.slice_views()[0]
    assert (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()) == (run.fixed.GetID(), run.warped.GetID())
    assert panel.ui.blendLabel.text == "Fixed – warped:" and panel.ui.blendSlider.enabled


def test_after_a_deleted_result_the_views_show_the_one_that_is_chosen_then(panel, wait):
    register(panel, wait)
    register(panel, wait)
    second, first = runs()
    panel.ui.checkerButton.click()
    for node in (*second.outputs(), look.derived(second, "checkerboard")):
        slicer.mrmlScene.RemoveNode(node)
    wait(lambda: panel.run() is not None and panel.run().table is first.table)
    views = {(view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()) for view in look.slice_views()}
    wait(lambda: panel.ui.runComboBox.count == 1)
    assert views == {(first.fixed.GetID(), first.warped.GetID())} and panel.ui.blendSlider.enabled


def test_names_are_text(panel, wait, tmp_path):
    """Series are called "<MPR> T1 & T2 / a": nothing of that is markup, a shortcut or a folder."""
    name = 'A & B/C: <b>T1</b> Größe 脳 "q"'
    panel.parameters.fixedVolume.SetName(name)
    panel.parameters.movingVolume.SetName("../<MPR Tra>")
    register(panel, wait)
    ui, run = panel.ui, runs()[0]
    assert run.name == f"../<MPR Tra> to {name} (DNVF)" and ui.runComboBox.currentText == run.name
    assert f'"{run.name}"' in ui.applyHintLabel.text
    labels = (ui.statusLabel, ui.hintLabel, ui.overlapLabel, ui.applyHintLabel, ui.runNotesLabel)
    assert all(label.textFormat == qt.Qt.PlainText for label in labels)
    section = panel.section(TrustSection)
    section.chooseFile = lambda *_texts: str(tmp_path / "report.html")
    ui.reportButton.click()
    wait(lambda: not section.task.running)
    assert "A &amp; B/C: &lt;b&gt;T1&lt;/b&gt; Größe 脳" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_chosen_result_stays_chosen_while_others_come_and_go(panel, wait, tmp_path):
    """A batch goes on, or a script adds results, while somebody reads the table of an earlier one."""
    register(panel, wait)
    ui, first = panel.ui, runs()[0]
    ui.jacobianButton.click()
    write_run(tmp_path, first.fixed, first.moving)
    second = load_run(tmp_path, first.fixed, first.moving, "another")
    assert panel.run().table is first.table, "also before the panel has heard of it"
    panel.refresh()
    assert panel.run().table is first.table and ui.runComboBox.currentText == first.name
    assert ui.jacobianButton.checked and look.slice_views()[0].GetForegroundVolumeID() == first.jacobian.GetID()
    slicer.mrmlScene.RemoveNode(first.table)
    assert panel.run() is None
    wait(lambda: panel.run() is not None)
    assert panel.run().table is second.table and not ui.jacobianButton.checked


def test_a_file_gets_the_result_that_was_shown_when_it_was_asked_for(panel, wait, tmp_path):
    """The dialog lets the event loop run: another registration may end before a name is typed."""
    register(panel, wait)
    first, trust = runs()[0], panel.section(TrustSection)

    def slowly(*_texts):
        write_run(tmp_path, first.fixed, first.moving)
        load_run(tmp_path, first.fixed, first.moving, "another")
        slicer.mrmlScene.RemoveNode(first.table)
        panel.refresh()
        return str(tmp_path / "table.csv")

    trust.chooseFile = slowly
    panel.ui.csvButton.click()
    assert "Saved" in panel.ui.statusLabel.text
    assert f"mutual_information_after,{first.measurements['mutual_information_after']}" in (
        (tmp_path / "table.csv").read_text(encoding="utf-8-sig")
    )


def test_a_result_that_came_while_another_module_was_shown_is_seen_on_return(panel, wait):
    view = look.slice_views()[0]
    panel.ui.applyButton.click()
    panel.exit()
    finish(panel, wait)
    run, meanwhile = runs()[0], view.GetForegroundVolumeID()
    assert meanwhile is None, "the views are those of the other module"
    panel.enter()
    assert panel.run().table is run.table and view.GetForegroundVolumeID() == run.warped.GetID()
    panel.exit()
    view.SetForegroundVolumeID(None)
    panel.enter()
    assert view.GetForegroundVolumeID() is None, "but only once"


def test_the_end_of_a_run_is_told_while_another_module_is_shown(panel, wait, monkeypatch):
    said = []
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda message, *_: said.append(message))
    register(panel, wait)
    assert not said, "the panel says it"
    panel.ui.applyButton.click()
    panel.exit()
    finish(panel, wait)
    assert len(said) == 1 and said[0].startswith("Neural Registration: Done in")


def test_the_end_of_a_batch_is_told_while_another_module_is_shown(panel, wait, monkeypatch):
    """The last volume's "Done" would say that all went well, the first one's that the batch has ended."""
    said = []
    for volume in (panel.parameters.movingVolume, add_volume("gone", GRIDS["axial"])):
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    panel.ui.batchButton.click()
    panel.exit()
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda message, *_: said.append(message))
    slicer.mrmlScene.RemoveNode(slicer.util.getNode("gone"))
    wait(lambda: not panel.section(BatchSection).batch.running)
    assert said[-1] == "Neural Registration: 1 of 2 registered; failed: gone."


def test_flickering_ends_when_another_module_is_chosen(panel, wait):
    """Its button is out of sight then, and the other module's views would go on changing."""
    register(panel, wait)
    panel.ui.flickerButton.click()
    panel.exit()
    look.blend(0.3)
    idle(0.6)  # longer than the flicker's interval
    assert {view.GetForegroundOpacity() for view in look.slice_views()} == {0.3}
    panel.enter()
    assert not panel.ui.flickerButton.checked


def test_flickering_ends_with_the_scene(panel, wait):
    register(panel, wait)
    panel.ui.flickerButton.click()
    slicer.mrmlScene.Clear(0)
    assert not panel.ui.flickerButton.checked and not panel.ui.flickerButton.enabled
    look.blend(0.25)
    idle(0.6)  # longer than the flicker's interval
    assert {round(view.GetForegroundOpacity(), 2) for view in look.slice_views()} == {0.25}


def test_cancelling_a_batch_ends_it_with_one_summary(panel, wait):
    volumes = [panel.parameters.movingVolume, add_volume("second", GRIDS["axial"]), add_volume("third", GRIDS["axial"])]
    for volume in volumes:
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    play(panel, "quick")
    panel.ui.batchButton.click()
    batch = panel.section(BatchSection).batch
    wait(lambda: batch.items[0].outcome is not None and panel.logic.running)
    panel.ui.cancelButton.click()
    idle(0.2)
    assert not batch.running and not panel.logic.running
    assert panel.ui.statusLabel.text == "1 of 3 registered; cancelled."
    shown = [panel.ui.batchTable.item(row, 1).text() for row in range(3)]
    assert shown == ["done", "cancelled", "not started"]
    tables = [n for n in slicer.util.getNodesByClass("vtkMRMLTableNode") if n.GetName().startswith("Registrations")]
    assert len(tables) == 1


def test_what_is_deleted_before_its_turn_is_not_registered(panel, wait):
    volumes = [panel.parameters.movingVolume, add_volume("second", GRIDS["axial"]), add_volume("third", GRIDS["axial"])]
    for volume in volumes:
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    panel.ui.batchButton.click()
    slicer.mrmlScene.RemoveNode(volumes[1])
    batch = panel.section(BatchSection).batch
    wait(lambda: not batch.running)
    assert panel.ui.statusLabel.text == "2 of 3 registered; failed: second."
    assert batch.items[1].outcome.message == '"second" was deleted before its turn.'


def test_a_batch_writes_to_new_nodes_only(panel, wait):
    """Each result in the same existing node would leave the last one only, under the names of all."""
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "mine")
    panel.ui.outputTransformSelector.setCurrentNode(mine)
    panel.ui.wantJacobianCheckBox.click()
    for volume in (panel.parameters.movingVolume, add_volume("second", GRIDS["axial"])):
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    play(panel, "quick")
    panel.ui.batchButton.click()
    batch = panel.section(BatchSection).batch
    wait(lambda: not batch.running)
    transforms = {run.transform.GetID() for run in runs()}
    assert len(transforms) == 2 and mine.GetID() not in transforms
    assert all(run.jacobian is None and run.warped is not None for run in runs())


def test_the_loss_curve_follows_the_width_of_the_panel(panel, wait):
    panel.parent.show()
    register(panel, wait)
    label = panel.ui.lossLabel
    for width in (620, 340):
        label.resize(width, label.height)  # as the layout does when the panel gets wider
        assert label.pixmap.width() == label.width == width
        assert drawn(label) > 0.9 * width, "from end to end"
    before = label.pixmap.cacheKey()
    panel.cleanup()
    label.resize(500, label.height)
    assert label.pixmap.cacheKey() == before, "a closed panel does nothing any more"


def drawn(label):
    """The width of what is painted in a picture, in pixels."""
    image = label.pixmap.toImage()
    columns = [x for x in range(image.width()) if any(image.pixelColor(x, y).alpha() for y in range(image.height()))]
    return np.ptp(columns)


def test_what_lies_in_the_wanted_space_already_is_not_moved_away(panel, wait):
    register(panel, wait)
    ui, run = panel.ui, runs()[0]
    for direction, node in enumerate((run.warped, run.moving)):
        ui.directionComboBox.setCurrentIndex(direction)
        ui.applySelector.setCheckState(node, qt.Qt.Checked)
        ui.moveButton.click()
        assert f'"{node.GetName()}" lies there already' in ui.statusLabel.text
        assert node.GetParentTransformNode() is None
        ui.applySelector.setCheckState(node, qt.Qt.Unchecked)


def test_the_chosen_folder_stays_chosen_while_others_come_and_go(panel, wait):
    """The folder of a new result must not make the panel forget which one is to be moved."""
    tree, ui, folders = results.hierarchy(), panel.ui, {}
    for name in ("first", "mine"):
        folders[name] = tree.CreateFolderItem(tree.GetSceneItemID(), name)
        tree.CreateItem(folders[name], slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name))
    wait(lambda: ui.folderComboBox.count == 3)
    ui.folderComboBox.setCurrentText("mine")
    register(panel, wait)
    assert ui.folderComboBox.count == 4 and ui.folderComboBox.currentText == "mine"
    tree.RemoveItem(folders["first"])
    wait(lambda: ui.folderComboBox.count == 3)
    ui.moveButton.click()
    assert slicer.util.getNode("mine").GetParentTransformNode() is runs()[0].transform
    tree.RemoveItem(folders["mine"])
    wait(lambda: ui.folderComboBox.count == 2)
    assert ui.folderComboBox.currentText == "No folder"


def test_a_hardened_node_leaves_no_transform_behind(panel, wait):
    """What stood for its own parents is of no use any more."""
    register(panel, wait)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    points.AddControlPoint(1.0, 2.0, 3.0)
    points.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "own").GetID())
    before = scene_as_ids()
    panel.ui.applySelector.setCheckState(points, qt.Qt.Checked)
    panel.ui.hardenCheckBox.checked = True
    panel.ui.moveButton.click()
    assert scene_as_ids() == before and points.GetParentTransformNode() is None
