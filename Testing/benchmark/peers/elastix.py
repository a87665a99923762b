"""elastix: affine, then a B-spline with the parameter files that its model zoo documents for the task.

Lung: Par0011 (affine, B-spline of 10 mm, B-spline of 5 mm; correlation with a bending energy of weight 0.05, as Staring
et al. used it for EMPIRE10), with lung masks where there are any. Brain: the affine stage of Par0010 and the B-spline
of 5 mm of Par0035 (Hammers atlas, mutual information, 5000 samples).
"""

from __future__ import annotations

import SimpleITK as sitk

from . import Task

Settings = dict[str, object]

COMMON: Settings = {
    "FixedInternalImagePixelType": "float", "MovingInternalImagePixelType": "float",
    "Interpolator": "BSplineInterpolator", "ResampleInterpolator": "FinalBSplineInterpolator",
    "Resampler": "DefaultResampler", "HowToCombineTransforms": "Compose", "UseDirectionCosines": "true",
    "BSplineInterpolationOrder": 1, "FinalBSplineInterpolationOrder": 3, "WriteResultImage": "false",
    "Optimizer": "AdaptiveStochasticGradientDescent", "AutomaticParameterEstimation": "true",
    "UseAdaptiveStepSizes": "true", "NewSamplesEveryIteration": "true", "ErodeMask": "false", "RandomSeed": 1,
    "MaximumNumberOfSamplingAttempts": 50,
}  # fmt: skip
INFORMATION: Settings = COMMON | {
    "Registration": "MultiResolutionRegistration", "Metric": "AdvancedMattesMutualInformation",
    "FixedImagePyramid": "FixedSmoothingImagePyramid", "MovingImagePyramid": "MovingSmoothingImagePyramid",
    "NumberOfHistogramBins": 32,
}  # fmt: skip
AFFINE: Settings = {
    "Transform": "AffineTransform", "AutomaticTransformInitialization": "true", "AutomaticScalesEstimation": "true",
    "AutomaticTransformInitializationMethod": "CenterOfGravity", "ImageSampler": "RandomCoordinate",
    "MaximumNumberOfIterations": 1000, "NumberOfSpatialSamples": 2000,
}  # fmt: skip
BRAIN = (
    INFORMATION | AFFINE | {"NumberOfResolutions": 4, "MaximumStepLength": 4.0},
    INFORMATION | {
        "Transform": "BSplineTransform", "NumberOfResolutions": 3, "FinalGridSpacingInPhysicalUnits": (5.0,) * 3,
        "ImagePyramidSchedule": (4, 4, 4, 2, 2, 2, 1, 1, 1), "GridSpacingSchedule": (4.0, 2.0, 1.0),
        "FixedKernelBSplineOrder": 1, "MovingKernelBSplineOrder": 3, "MaximumNumberOfIterations": 500,
        "MaximumStepLength": 0.5, "SP_A": 10.0, "ImageSampler": "RandomCoordinate", "NumberOfSpatialSamples": 5000,
    },
)  # fmt: skip
CORRELATION: Settings = COMMON | {
    "FixedImagePyramid": "FixedRecursiveImagePyramid", "MovingImagePyramid": "MovingRecursiveImagePyramid",
    "NumberOfResolutions": 5, "NumberOfSpatialSamples": 2000, "ImageSampler": "RandomCoordinate",
}  # fmt: skip
BENDING: Settings = CORRELATION | {
    "Registration": "MultiMetricMultiResolutionRegistration", "Transform": "BSplineTransform",
    "Metric": ("AdvancedNormalizedCorrelation", "TransformBendingEnergyPenalty"), "UseRelativeWeights": "true",
    "Metric0RelativeWeight": 1.0, "Metric1RelativeWeight": 0.05,
}  # fmt: skip
LUNG = (
    CORRELATION | AFFINE | {
        "Registration": "MultiResolutionRegistration", "Metric": "AdvancedNormalizedCorrelation",
        "ImagePyramidSchedule": (16,) * 3 + (8,) * 3 + (4,) * 3 + (2,) * 3 + (1,) * 3,
    },
    BENDING | {
        "ImagePyramidSchedule": (16,) * 3 + (8,) * 3 + (4,) * 3 + (2,) * 3 + (1,) * 3,
        "FinalGridSpacingInPhysicalUnits": (10.0,) * 3, "GridSpacingSchedule": (8.0, 8.0, 4.0, 2.0, 1.0),
        "MaximumNumberOfIterations": 1000,
    },
    BENDING | {
        "ImagePyramidSchedule": (4,) * 3 + (3,) * 3 + (2,) * 3 + (1,) * 6,
        "FinalGridSpacingInPhysicalUnits": (5.0,) * 3, "GridSpacingSchedule": (16.0, 8.0, 4.0, 2.0, 1.0),
        "MaximumNumberOfIterations": 2000,
    },
)  # fmt: skip


def register(task: Task) -> tuple[sitk.Transform, None]:
    import itk

    fixed, moving = (itk.imread(str(path), itk.F) for path in (task.fixed, task.moving))
    parameters = itk.ParameterObject.New()
    for settings in LUNG if task.lung else BRAIN:
        parameters.AddParameterMap({name: _texts(value) for name, value in settings.items()})
    masks = {}
    if task.fixed_mask and task.moving_mask:
        masks = {
            "fixed_mask": itk.imread(str(task.fixed_mask), itk.UC),
            "moving_mask": itk.imread(str(task.moving_mask), itk.UC),
        }
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=parameters, number_of_threads=task.threads, log_to_console=False, **masks
    )
    displacement = itk.transformix_deformation_field(moving, found)
    vectors = sitk.GetImageFromArray(itk.array_from_image(displacement).astype("float64"), isVector=True)
    vectors.CopyInformation(sitk.ReadImage(str(task.fixed)))
    return sitk.DisplacementFieldTransform(vectors), None


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
