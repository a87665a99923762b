"""Point files: what they say of their space is believed, and what they hold besides is kept."""

import json

import numpy as np
import pytest
from neuralreg.job import RegistrationError
from neuralreg.points import Points, read_points, write_points
from refusals import fails

LPS = np.array([[1.5, -2.0, 3.25], [40.0, 50.0, -60.125]])


def check(path, text):
    path.write_text(text, encoding="utf-8")
    points = read_points(path)
    np.testing.assert_array_equal(points.lps, LPS)
    return points


@pytest.mark.parametrize(
    "text",
    [
        "x,y,z\n1.5,-2,3.25\n40,50,-60.125\n",
        "1.5,-2,3.25\n40,50,-60.125\n",
        "name;Z;Y;X;colour\na;3.25;-2;1.5;red\nb;-60.125;50;40;blue\n",
        "\ufeffr,a,s\n-1.5,2,3.25\n-40,-50,-60.125\n",
        "# CoordinateSystem = RAS\nx,y,z\n-1.5,2,3.25\n-40,-50,-60.125\n",
        "label\tx\ty\tz\na\t1.5\t-2\t3.25\n\nb\t40\t50\t-60.125\n",
        "p,q,r\n1.5,-2,3.25\n40,50,-60.125\n",
        "# came as RAS\nl,p,s\n1.5,-2,3.25\n40,50,-60.125\n",
        "# came as RAS\nx_lps,y_lps,z_lps\n1.5,-2,3.25\n40,50,-60.125\n",
    ],
    ids=[
        "header", "bare", "columns in any order", "ras columns", "ras comment", "tabs", "three columns", "lps columns",
        "columns in lps",
    ],
)  # fmt: skip
def test_csv(tmp_path, text):
    check(tmp_path / "p.csv", text)


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_a_label_may_hold_characters_that_python_takes_for_ends_of_lines(tmp_path, odd):
    (tmp_path / "p.csv").write_text(f"label,x,y,z\na{odd}b,1,2,3\nc,4,5,6\n", encoding="utf-8")
    points = read_points(tmp_path / "p.csv")
    write_points(points, tmp_path / "q.csv")
    assert points.labels == read_points(tmp_path / "q.csv").labels == (f"a{odd}b", "c")


def test_notes_that_name_two_systems(tmp_path):
    (tmp_path / "p.csv").write_text("# LPS, not RAS\nx,y,z\n1,2,3\n")
    fails(tmp_path / "p.csv", "both RAS and LPS", read=read_points)


@pytest.mark.parametrize(
    ("head", "sign"),
    [
        ("# Markups fiducial file version = 5.12\n# CoordinateSystem = LPS\n", 1),
        ("# Markups fiducial file version = 4.11\n# CoordinateSystem = RAS\n", -1),
        ("# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n", -1),
        ("", -1),
    ],
)
def test_fcsv(tmp_path, head, sign):
    rows = "".join(f"vtk_{i},{sign * x},{sign * y},{z},0,0,0,1,1,1,0,F-{i},,\n" for i, (x, y, z) in enumerate(LPS))
    columns = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    points = check(tmp_path / "p.fcsv", head + columns + rows)
    assert points.labels == ("F-0", "F-1")


@pytest.mark.parametrize(("system", "sign"), [("l,p,s", 1), ("r,a,s", -1)])
def test_points_without_a_place_in_a_table_that_slicer_exported_are_none(tmp_path, system, sign):
    rows = ['"A, left",1,2,3,1,1,1,0,""', '"B",0,0,0,0,1,1,0,"later"', '"C",7,8,9,1,1,1,0,""']
    heading = f"label,{system},defined,selected,visible,locked,description"
    (tmp_path / "p.csv").write_text("\n".join([heading, *rows]) + "\n")
    points = read_points(tmp_path / "p.csv")
    assert points.labels == ("A, left", "C") and points.has_gaps
    assert points.lps.tolist() == [[sign * 1, sign * 2, 3], [sign * 7, sign * 8, 9]]
    write_points(points.moved(points.lps + 0.5), tmp_path / "q.csv")
    again, lines = read_points(tmp_path / "q.csv"), (tmp_path / "q.csv").read_text().splitlines()
    assert (again.lps == points.lps + 0.5).all() and lines[2] == "B,0,0,0,0,1,1,0,later"


def test_fcsv_points_that_slicer_calls_undefined_or_missing_are_none(tmp_path):
    """As Slicer 5.12 writes them: the state behind the named columns, and coordinates all the same."""
    states = zip((LPS[0], LPS[0], LPS[1], LPS[1]), (2, 0, 2, 3), strict=True)
    rows = [f"{x},{x},{y},{z},0,0,0,1,1,1,0,F,,,{state},0" for (x, y, z), state in states]
    head = "# Markups fiducial file version = 5.12\n# CoordinateSystem = LPS\n"
    columns = "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    points = check(tmp_path / "p.fcsv", head + columns + "\n".join(rows) + "\n")
    write_points(points.moved(points.lps + 1), tmp_path / "q.fcsv")
    written = (tmp_path / "q.fcsv").read_text().splitlines()[3:]
    assert written[1::2] == rows[1::2] and written[0].startswith("1.5,2.500000,-1.000000,4.250000")


@pytest.mark.parametrize(("system", "sign"), [("LPS", 1), ("RAS", -1), ("1", 1), ("0", -1)])
def test_markups_json(tmp_path, system, sign):
    """What else the file holds is kept, but for the lengths and angles that Slicer has measured at the old places."""
    positions = [[sign * x, sign * y, z] for x, y, z in LPS]
    control = [{"id": str(i), "label": f"F-{i}", "position": p} for i, p in enumerate(positions)]
    control.insert(1, {"id": "9", "label": "not placed", "position": [0, 0, 0], "positionStatus": "undefined"})
    markup = {"type": "Line", "coordinateSystem": system, "controlPoints": control, "display": {"opacity": 0.5}}
    document = {"markups": [{**markup, "measurements": [{"name": "length", "value": 91.1}]}]}
    points = check(tmp_path / "p.mrk.json", json.dumps(document))
    write_points(points.moved(points.lps + 1), tmp_path / "q.mrk.json")
    written = json.loads((tmp_path / "q.mrk.json").read_text())["markups"][0]
    assert written["display"] == {"opacity": 0.5} and written["coordinateSystem"] == system
    assert "measurements" not in written
    assert [p["label"] for p in written["controlPoints"]] == ["F-0", "not placed", "F-1"]
    np.testing.assert_allclose(read_points(tmp_path / "q.mrk.json").lps, LPS + 1)


def test_other_columns_and_their_order_are_kept(tmp_path):
    points = check(tmp_path / "p.csv", '# by hand\nname;z;y;x;note\na;3.25;-2;1.5;"one; two"\nb;-60.125;50;40;\n')
    write_points(points.moved(-points.lps), tmp_path / "q.csv")
    lines = (tmp_path / "q.csv").read_text().splitlines()
    assert lines[:2] == ["# by hand", "name;z;y;x;note"]
    assert lines[2] == 'a;-3.250000;2.000000;-1.500000;"one; two"'


@pytest.mark.parametrize("first", [".csv", ".fcsv", ".mrk.json"])
@pytest.mark.parametrize("second", [".csv", ".fcsv", ".mrk.json"])
def test_any_file_type_to_any_other(tmp_path, first, second):
    write_points(Points(LPS, ("tip", "base")), tmp_path / f"a{first}")
    write_points(read_points(tmp_path / f"a{first}"), tmp_path / f"b{second}")
    back = read_points(tmp_path / f"b{second}")
    np.testing.assert_allclose(back.lps, LPS, atol=1e-6)
    assert back.labels == ("tip", "base")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", ""),
        ("p.csv", "x,y,z\n"),
        ("p.csv", "x,y,z\n1,2\n"),
        ("p.csv", "x,y,z\n1,2,nan\n"),
        ("p.csv", "a,b,c,d\n1,2,3,4\n"),
        ("p.csv", "1,10.5,20.5,30.5\n2,11.5,21.5,31.5\n"),
        ("p.fcsv", "# CoordinateSystem = Mars\n1,2,3,4\n"),
        ("p.fcsv", "# Markups fiducial file version = 4.11\n1,2,3,4\n"),
        ("p.mrk.json", "{}"),
        ("p.mrk.json", "[1, 2]"),
        ("p.mrk.json", '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}'),
        ("p.mrk.json", "not JSON"),
        ("p.mrk.json", "[" * 50_000),
        ("p.mrk.json", '{"markups": [{"coordinateSystem": "IJK", "controlPoints": [{"position": [1, 2, 3]}]}]}'),
        ("p.mrk.json", '{"markups": [{"coordinateUnits": "voxel", "controlPoints": [{"position": [1, 2, 3]}]}]}'),
        ("p.mrk.json", '{"markups": [{"controlPoints": null}]}'),
        ("p.mrk.json", '{"markups": [{"type": "ROI", "controlPoints": [{"position": [1, 2, 3]}]}]}'),
        ("p.csv", "i,j,k\n1,2,3\n"),
        ("p.txt", "1,2,3\n"),
    ],
)
def test_bad_point_files_are_sentences(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RegistrationError) as raised:
        read_points(tmp_path / name)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")
