"""The part of qSlicerCoreIOManager that slicer.util's load and save functions call, over the real storage nodes."""

from __future__ import annotations

from pathlib import Path

import slicer

EXTENSIONS = {
    "SegmentationFile": (".seg.nrrd", ".seg.nhdr"),
    "MarkupsFile": (".mrk.json", ".fcsv"),
    "SceneFile": (".mrb", ".mrml"),
    "TransformFile": (".h5", ".tfm", ".mat"),
    "VolumeFile": (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".hdr", ".tif", ".png"),
    "ModelFile": (".vtk", ".vtp", ".stl", ".obj", ".ply"),
    "TableFile": (".csv", ".tsv"),
    "TextFile": (".txt",),
}
NODE_CLASSES = {
    "vtkMRMLSegmentationNode": "SegmentationFile",
    "vtkMRMLMarkupsNode": "MarkupsFile",
    "vtkMRMLTransformNode": "TransformFile",
    "vtkMRMLVolumeNode": "VolumeFile",
    "vtkMRMLModelNode": "ModelFile",
    "vtkMRMLTableNode": "TableFile",
    "vtkMRMLTextNode": "TextFile",
}


class CoreIOManager:
    def fileType(self, path):
        return next((kind for kind, ends in EXTENSIONS.items() if str(path).lower().endswith(ends)), "NoFile")

    def fileWriterFileType(self, node, *_format):
        return next((kind for cls, kind in NODE_CLASSES.items() if node.IsA(cls)), "NoFile")

    def loadNodes(self, kind, properties, loaded, _messages=None):
        """Load `properties["fileName"]` into the scene and append the node to the collection `loaded`."""
        path = properties["fileName"]
        if not Path(path).exists():
            return False
        if kind == "SceneFile":
            return self._load_scene(path, properties.get("clear", False))
        name = properties.get("name") or Path(path).name.split(".")[0]
        node = getattr(self, f"_load_{kind}")(path, name, properties)
        if node is None:
            return False
        loaded.AddItem(node)
        return True

    @staticmethod
    def _load_scene(path, clear):
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    @staticmethod
    def _load_VolumeFile(path, name, properties):
        flags = {"labelmap": 1, "center": 2, "singleFile": 8}
        options = sum(bit for key, bit in flags.items() if properties.get(key))
        return slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)

    @staticmethod
    def _load_TransformFile(path, _name, _properties):
        return slicer.modules.transforms.logic().AddTransform(path, slicer.mrmlScene)

    @staticmethod
    def _load_ModelFile(path, _name, _properties):
        return slicer.modules.models.logic().AddModel(path)

    @staticmethod
    def _load_TableFile(path, name, _properties):
        return slicer.modules.tables.logic().AddTable(path, name)

    @staticmethod
    def _load_MarkupsFile(path, name, _properties):
        node_id = slicer.modules.markups.logic().LoadMarkups(path, name, slicer.mrmlScene)
        return slicer.mrmlScene.GetNodeByID(node_id) if node_id else None

    @staticmethod
    def _load_SegmentationFile(path, name, _properties):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.AddDefaultStorageNode(path)
        if not node.GetStorageNode().ReadData(node):
            slicer.mrmlScene.RemoveNode(node)
            return None
        node.CreateDefaultDisplayNodes()
        return node

    def saveNodes(self, kind, properties, _messages=None):
        path, scene = str(properties["fileName"]), slicer.mrmlScene
        if kind == "SceneFile":
            scene.SetURL(path)
            scene.SetRootDirectory(str(Path(path).parent))
            return bool(scene.WriteToMRB(path) if path.endswith(".mrb") else scene.Commit(path))
        node = scene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        return bool(storage.WriteData(node))
