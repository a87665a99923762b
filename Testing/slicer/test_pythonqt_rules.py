"""The harness enforces PythonQt's rules; what Slicer would refuse must fail here too."""

import ast
import enum
from pathlib import Path

import NeuralRegistrationLib
import pytest
import slicer

pytestmark = pytest.mark.harness_only

UI = """<?xml version="1.0" encoding="UTF-8"?><ui version="4.0"><class>Panel</class>
<widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="box">
 <item><widget class="ctkCollapsibleButton" name="section"><property name="text"><string>Inputs</string></property>
  <layout class="QFormLayout" name="form">
   <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="selector">
    <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
    <property name="noneEnabled"><bool>true</bool></property>
    <property name="SlicerParameterName" stdset="0"><string>volume</string></property></widget></item>
   <item row="1" column="1"><widget class="ctkSliderWidget" name="slider">
    <property name="maximum"><double>10</double></property></widget></item>
  </layout></widget></item>
</layout></widget>
<connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
 <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


@pytest.fixture
def panel(tmp_path, scene):
    path = tmp_path / "Panel.ui"
    path.write_text(UI)
    widget = slicer.util.loadUI(str(path))
    widget.setMRMLScene(slicer.mrmlScene)
    yield widget
    widget.setMRMLScene(None)


def test_property_is_read_without_call():
    import qt

    spin = qt.QSpinBox()
    spin.setValue(7)
    assert spin.value == 7
    with pytest.raises(TypeError, match="not callable"):
        spin.value()


def test_property_is_written_by_assignment():
    import qt

    spin = qt.QSpinBox()
    spin.value = 9
    assert spin.value == 9
    with pytest.raises(TypeError, match="refused"):
        spin.value = "nine"


@pytest.mark.parametrize("name", ["vlaue", "_vlaue"])
def test_new_attribute_on_a_cxx_object_raises(name):
    import qt

    with pytest.raises(AttributeError, match="not allowed"):
        setattr(qt.QSpinBox(), name, 3)
    with pytest.raises(AttributeError):
        getattr(qt.QSpinBox(), name)


def test_keyword_arguments_are_refused():
    import qt

    with pytest.raises(TypeError, match="keyword"):
        qt.QPushButton(text="Apply")
    with pytest.raises(TypeError, match="keyword"):
        qt.QSpinBox(maximum=3)


def test_python_subclass_takes_attributes():
    import qt

    class Panel(qt.QWidget):
        pass

    panel = Panel()
    panel.rows = 3
    assert panel.rows == 3


def test_connect_by_signature_and_by_attribute():
    import qt

    button, seen = qt.QPushButton("Apply"), []
    button.connect("clicked(bool)", lambda *_: seen.append("text"))
    button.clicked.connect(lambda *_: seen.append("attribute"))
    button.click()
    assert seen == ["text", "attribute"]
    with pytest.raises(ValueError, match="no signal"):
        button.connect("clicked(int)", print)


def test_names_are_slicers_names():
    import qt

    label = qt.QLabel("x")
    label.name = "status"
    assert label.objectName == "status" and label.name == "status"
    assert label.className() == "QLabel"
    assert not hasattr(qt, "QTest")  # Slicer has none either


def test_ui_file_makes_stand_ins_and_connections(panel):
    ui = slicer.util.childWidgetVariables(panel)
    assert ui.section.text == "Inputs" and not ui.section.collapsed
    assert ui.slider.maximum == 10
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a")
    ui.selector.setCurrentNode(node)
    assert ui.selector.currentNode() is node and ui.selector.currentNodeID == node.GetID()
    slicer.mrmlScene.RemoveNode(node)
    assert ui.selector.currentNode() is None
    assert ui.selector.SlicerParameterName == "volume"


def test_a_selector_goes_to_the_neighbour_of_a_deleted_node(panel):
    """As the rows of Qt's combo boxes do: it is for the panel to keep a choice empty."""
    selector = slicer.util.childWidgetVariables(panel).selector
    first, second, third = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", n) for n in "abc")
    for chosen, left in ((first, second), (third, second), (second, None)):
        selector.setCurrentNode(chosen)
        slicer.mrmlScene.RemoveNode(chosen)
        assert selector.currentNode() is left


def test_ui_file_with_unknown_widget_is_refused(tmp_path):
    path = tmp_path / "Panel.ui"
    path.write_text(UI.replace("ctkSliderWidget", "ctkMisspelt"))
    with pytest.raises(RuntimeError, match="ctkMisspelt"):
        slicer.util.loadUI(str(path))


def test_class_without_stand_in_may_be_named_but_not_made():
    import ctk

    assert not isinstance(3, ctk.ctkRangeWidget)
    with pytest.raises(RuntimeError, match="no stand-in"):
        ctk.ctkRangeWidget()


def test_checkable_selector(scene):
    import qt

    selector = slicer.qMRMLCheckableNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    first, second = (scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", n) for n in "ab")
    selector.setCheckState(second, qt.Qt.Checked)
    assert selector.checkedNodes() == (second,) and selector.uncheckedNodes() == (first,), "lists of Qt are tuples"
    assert selector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    selector.setMRMLScene(None)


def test_a_selector_may_die_while_it_hears_of_the_scene(panel, monkeypatch):
    """As when Python collects an old panel just then; other errors still reach the test."""
    import shiboken6

    selector = slicer.util.childWidgetVariables(panel).selector

    def dying(self):
        shiboken6.delete(self)
        return self.noneEnabled  # raises RuntimeError

    monkeypatch.setattr(type(selector), "_nodes", dying)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "volume")
    assert not shiboken6.isValid(selector)


def code_of_the_panel():
    folder = Path(NeuralRegistrationLib.__file__).parent
    for path in (folder.with_name("NeuralRegistration.py"), *sorted(folder.glob("*.py"))):
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))


def test_values_of_qt_are_named_without_their_enum():
    """`qt.Qt.AlignRight`: PythonQt's enums hold no values, PySide's do."""
    import qt

    for name, tree in code_of_the_panel():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).startswith("qt."):
                holder = qt
                for part in ast.unparse(node.value).split(".")[1:]:
                    holder = getattr(holder, part, None)
                assert not isinstance(holder, enum.EnumMeta), f"{name}: {ast.unparse(node)}"


def test_what_is_needed_to_load_the_module_is_there_when_it_is_loaded():
    """Slicer loads its modules by their names: the classes of those behind ours come later, those of MRML before."""
    for name, tree in code_of_the_panel():
        for kind in _named_at_import(tree):
            assert getattr(slicer, kind).__module__.endswith("MRMLCore"), f"{name} needs {kind} too early"


def _named_at_import(tree) -> set[str]:
    """The members of `slicer` that begin with vtk or qMRML and are named outside of functions."""
    found, todo = set(), list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            todo += [*node.decorator_list, *node.args.defaults] if isinstance(node, ast.FunctionDef) else []
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "slicer":
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "slicer":
            found.add(node.attr)
        todo += list(ast.iter_child_nodes(node))
    return {name for name in found if name.startswith(("vtk", "qMRML"))}
