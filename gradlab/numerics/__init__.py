"""Is bfloat16 good enough, is the GPU's gradient the CPU's: gradient error by dtype and device."""

from gradlab.numerics.doctor import DoctorReport, doctor
from gradlab.numerics.precision import precision
from gradlab.numerics.report import Measurement, PrecisionReport

__all__ = ["DoctorReport", "Measurement", "PrecisionReport", "doctor", "precision"]
