"""Is bfloat16 good enough, is the GPU's gradient the CPU's: gradient error by dtype and device."""

from gradlab.measuring.doctor import DoctorReport, doctor
from gradlab.measuring.precision import precision
from gradlab.measuring.report import Measurement, PrecisionReport

__all__ = ["DoctorReport", "Measurement", "PrecisionReport", "doctor", "precision"]
